package configmap_test

import (
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime"

	"github.com/podvine/podvine/agent/api/kinds/configmap"
	. "github.com/podvine/podvine/agent/api/kinds/kindtest"
)

const locked = `{metadata: {name: c, namespace: ns}, immutable: true, data: {k: v}, binaryData: {b: AAA=}}`

func TestFields(t *testing.T) {
	rows := []Row{
		{Field: "data", Class: Mutable, Patch: `{data: {k: w, other.key_1: ""}}`},
		{Field: "data", Class: Invalid, Patch: `{data: {"bad key!": v}}`, Error: "Invalid data[bad key!]"},
		{Field: "data", Class: Invalid, Patch: `{data: {"..": v}}`, Error: "Invalid data[..]"},
		{Field: "data", Class: Invalid, Patch: `{binaryData: {k: AAA=}}`, Error: "Invalid data[k]"},
		{Field: "data", Class: Invalid, Error: "TooLong []", Mutate: func(o runtime.Object) {
			o.(*corev1.ConfigMap).Data["big"] = strings.Repeat("x", corev1.MaxSecretSize)
		}},
		{Field: "data", Class: Immutable, Base: locked, Patch: `{data: {k: w}}`, Error: "Forbidden data"},
		{Field: "binaryData", Class: Mutable, Patch: `{binaryData: {b: AAA=}}`},
		{Field: "binaryData", Class: Invalid, Patch: `{binaryData: {"a/b": AAA=}}`, Error: "Invalid binaryData[a/b]"},
		{Field: "binaryData", Class: Immutable, Base: locked, Patch: `{binaryData: {b: AAE=}}`, Error: "Forbidden binaryData"},
		{Field: "immutable", Class: Mutable, Patch: `{immutable: true}`},
		{Field: "immutable", Class: Immutable, Base: locked, Patch: `{immutable: false}`, Error: "Forbidden immutable"},
		{Field: "immutable", Class: Immutable, Base: locked, Patch: `{immutable: null}`, Error: "Forbidden immutable"},
	}
	Run(t, Table{
		Resource: configmap.Resource(), Metadata: true,
		Base: `{metadata: {name: c, namespace: ns}, data: {k: v}}`,
		Rows: append(rows, metadataRows()...),
	})
}

// metadataRows show what holds for the metadata of every kind.
func metadataRows() []Row {
	owner := func(extra string) string {
		return `{metadata: {ownerReferences: [{apiVersion: v1, kind: Pod, name: o, uid: u` + extra + `}]}}`
	}
	const managed = `{metadata: {managedFields: [{manager: m, operation: Update, apiVersion: v1, time: "2030-01-02T03:04:05Z",
		fieldsType: FieldsV1, fieldsV1: {"f:data": {}}, subresource: status}]}}`
	return []Row{
		{Field: "metadata.name", Class: Invalid, Patch: `{metadata: {name: Upper}}`, Error: "Invalid metadata.name"},
		{Field: "metadata.name", Class: Invalid, Patch: `{metadata: {name: null}}`, Error: "Required metadata.name"},
		{Field: "metadata.name", Class: Immutable, Patch: `{metadata: {name: other}}`, Error: "Invalid metadata.name"},
		{Field: "metadata.generateName", Class: Invalid, Patch: `{metadata: {generateName: Gen_}}`, Error: "Invalid metadata.generateName"},
		{Field: "metadata.namespace", Class: Invalid, Patch: `{metadata: {namespace: null}}`, Error: "Required metadata.namespace"},
		{Field: "metadata.selfLink", Class: Valid, Patch: `{metadata: {selfLink: /x}}`},
		{Field: "metadata.uid", Class: Immutable, Patch: `{metadata: {uid: other}}`, Error: "Invalid metadata.uid"},
		{Field: "metadata.resourceVersion", Class: Valid, Patch: `{metadata: {resourceVersion: "7"}}`},
		{Field: "metadata.generation", Class: Invalid, Patch: `{metadata: {generation: -1}}`, Error: "Invalid metadata.generation"},
		{Field: "metadata.creationTimestamp", Class: Kept, Patch: `{metadata: {creationTimestamp: "2020-01-01T00:00:00Z"}}`},
		{Field: "metadata.deletionTimestamp", Class: Immutable, Patch: `{metadata: {deletionTimestamp: "2020-01-01T00:00:00Z"}}`, Error: "Invalid metadata.deletionTimestamp"},
		{Field: "metadata.deletionGracePeriodSeconds", Class: Immutable, Patch: `{metadata: {deletionGracePeriodSeconds: 1}}`, Error: "Invalid metadata.deletionGracePeriodSeconds"},
		{Field: "metadata.labels", Class: Mutable, Patch: `{metadata: {labels: {example.com/a: b}}}`},
		{Field: "metadata.labels", Class: Invalid, Patch: `{metadata: {labels: {"bad key!": b}}}`, Error: "Invalid metadata.labels"},
		{Field: "metadata.annotations", Class: Mutable, Patch: `{metadata: {annotations: {a: "anything at all"}}}`},
		{Field: "metadata.annotations", Class: Invalid, Patch: `{metadata: {annotations: {"bad key!": b}}}`, Error: "Invalid metadata.annotations"},
		{Field: "metadata.ownerReferences[].apiVersion", Class: Valid, Patch: owner("")},
		{Field: "metadata.ownerReferences[].apiVersion", Class: Invalid, Patch: owner(", apiVersion: a/b/c"), Error: "Invalid metadata.ownerReferences[0].apiVersion"},
		{Field: "metadata.ownerReferences[].kind", Class: Invalid, Patch: owner(`, kind: ""`), Error: "Required metadata.ownerReferences[0].kind"},
		{Field: "metadata.ownerReferences[].kind", Class: Invalid, Patch: owner(", kind: Event"), Error: "Invalid metadata.ownerReferences[0]"},
		{Field: "metadata.ownerReferences[].name", Class: Invalid, Patch: owner(`, name: ""`), Error: "Required metadata.ownerReferences[0].name"},
		{Field: "metadata.ownerReferences[].uid", Class: Invalid, Patch: owner(`, uid: ""`), Error: "Required metadata.ownerReferences[0].uid"},
		{Field: "metadata.ownerReferences[].controller", Class: Mutable, Patch: owner(", controller: true")},
		{Field: "metadata.ownerReferences[].blockOwnerDeletion", Class: Mutable, Patch: owner(", blockOwnerDeletion: true")},
		{Field: "metadata.finalizers", Class: Mutable, Patch: `{metadata: {finalizers: [example.com/f]}}`},
		{Field: "metadata.finalizers", Class: Invalid, Patch: `{metadata: {finalizers: [f]}}`, Error: "Invalid metadata.finalizers[0]"},
		{Field: "metadata.finalizers", Class: Invalid, Patch: `{metadata: {finalizers: [orphan, foregroundDeletion]}}`, Error: "Invalid metadata.finalizers"},
		{Field: "metadata.managedFields[].manager", Class: Valid, Patch: managed},
		{Field: "metadata.managedFields[].operation", Class: Invalid, Error: "NotSupported metadata.managedFields[0].operation",
			Patch: `{metadata: {managedFields: [{manager: m, operation: Odd, fieldsType: FieldsV1}]}}`},
		{Field: "metadata.managedFields[].apiVersion", Class: Valid, Patch: managed},
		{Field: "metadata.managedFields[].time", Class: Valid, Patch: managed},
		{Field: "metadata.managedFields[].fieldsType", Class: Invalid, Error: "Invalid metadata.managedFields[0].fieldsType",
			Patch: `{metadata: {managedFields: [{manager: m, operation: Update, fieldsType: Odd}]}}`},
		{Field: "metadata.managedFields[].fieldsV1", Class: Valid, Patch: managed},
		{Field: "metadata.managedFields[].subresource", Class: Valid, Patch: managed},
	}
}
