package storage_test

import (
	"testing"

	"github.com/podvine/podvine/agent/api/kinds"
	. "github.com/podvine/podvine/agent/api/kinds/kindtest"
	"github.com/podvine/podvine/agent/api/kinds/storage"
)

func resource(t *testing.T, kind string) kinds.Resource {
	t.Helper()
	for _, r := range storage.Resources() {
		if r.GVK().Kind == kind {
			return r
		}
	}
	t.Fatalf("no kind %s", kind)
	return nil
}

func TestFieldsOfStorageClasses(t *testing.T) {
	term := func(text string) string {
		return `{allowedTopologies: [{matchLabelExpressions: [{` + text + `}]}]}`
	}
	const at = "allowedTopologies[0].matchLabelExpressions[0]."
	Run(t, Table{
		Resource: resource(t, "StorageClass"),
		Base:     `{metadata: {name: c}, provisioner: example.com/p}`,
		Rows: []Row{
			{Field: "provisioner", Class: Invalid, Patch: `{provisioner: null}`, Error: "Required provisioner"},
			{Field: "provisioner", Class: Invalid, Patch: `{provisioner: "a b"}`, Error: "Invalid provisioner"},
			{Field: "provisioner", Class: Immutable, Patch: `{provisioner: other}`, Error: "Invalid provisioner"},
			{Field: "parameters", Class: Valid, Patch: `{parameters: {a: b}}`},
			{Field: "parameters", Class: Invalid, Patch: `{parameters: {"": b}}`, Error: "Invalid parameters"},
			{Field: "parameters", Class: Immutable, Patch: `{parameters: {a: b}}`, Error: "Invalid parameters"},
			{Field: "reclaimPolicy", Class: Defaulted, Want: `{reclaimPolicy: Delete}`},
			{Field: "reclaimPolicy", Class: Invalid, Patch: `{reclaimPolicy: Recycle}`, Error: "NotSupported reclaimPolicy"},
			{Field: "reclaimPolicy", Class: Immutable, Patch: `{reclaimPolicy: Retain}`, Error: "Invalid reclaimPolicy"},
			{Field: "mountOptions", Class: Mutable, Patch: `{mountOptions: [ro]}`},
			{Field: "allowVolumeExpansion", Class: Mutable, Patch: `{allowVolumeExpansion: true}`},
			{Field: "volumeBindingMode", Class: Defaulted, Want: `{volumeBindingMode: Immediate}`},
			{Field: "volumeBindingMode", Class: Invalid, Patch: `{volumeBindingMode: Later}`, Error: "NotSupported volumeBindingMode"},
			{Field: "volumeBindingMode", Class: Immutable, Patch: `{volumeBindingMode: WaitForFirstConsumer}`, Error: "Invalid volumeBindingMode"},
			{Field: "allowedTopologies", Class: Invalid, Patch: `{allowedTopologies: [{}]}`, Error: "Duplicate allowedTopologies[0].matchLabelExpressions"},
			{Field: "allowedTopologies[].matchLabelExpressions[].key", Class: Mutable, Patch: term(`key: zone, values: [a]`)},
			{Field: "allowedTopologies[].matchLabelExpressions[].key", Class: Invalid, Patch: term(`key: a/b/c, values: [a]`), Error: "Invalid " + at + "key"},
			{Field: "allowedTopologies[].matchLabelExpressions[].key", Class: Invalid, Patch: term(`key: a, values: [a]}, {key: a, values: [b]`),
				Error: "Duplicate allowedTopologies[0].matchLabelExpressions[1].key"},
			{Field: "allowedTopologies[].matchLabelExpressions[].values", Class: Invalid, Patch: term(`key: a`), Error: "Required " + at + "values"},
			{Field: "allowedTopologies[].matchLabelExpressions[].values", Class: Invalid, Patch: term(`key: a, values: [b, b]`), Error: "Duplicate " + at + "values[1]"},
		},
	})
}

func TestFieldsOfVolumeAttributesClasses(t *testing.T) {
	Run(t, Table{
		Resource: resource(t, "VolumeAttributesClass"),
		Base:     `{metadata: {name: c}, driverName: csi.example.com, parameters: {iops: "1"}}`,
		Rows: []Row{
			{Field: "metadata.finalizers", Class: Defaulted, Want: `{metadata: {finalizers: [kubernetes.io/vac-protection]}}`},
			{Field: "driverName", Class: Invalid, Patch: `{driverName: ""}`, Error: "Required driverName"},
			{Field: "driverName", Class: Immutable, Patch: `{driverName: other}`, Error: "Forbidden driverName"},
			{Field: "parameters", Class: Invalid, Patch: `{parameters: null}`, Error: "Required parameters"},
			{Field: "parameters", Class: Immutable, Patch: `{parameters: {iops: "2"}}`, Error: "Forbidden parameters"},
		},
	})
}

func TestFieldsOfCSIDrivers(t *testing.T) {
	spec := func(text string) string { return `{spec: {` + text + `}}` }
	defaulted := func(name, value string) Row {
		return Row{Field: "spec." + name, Class: Defaulted, Want: spec(name + ": " + value)}
	}
	Run(t, Table{
		Resource: resource(t, "CSIDriver"),
		Base:     `{metadata: {name: csi.example.com}, spec: {}}`,
		Rows: []Row{
			defaulted("attachRequired", "true"), defaulted("podInfoOnMount", "false"), defaulted("storageCapacity", "false"),
			defaulted("fsGroupPolicy", "ReadWriteOnceWithFSType"), defaulted("requiresRepublish", "false"), defaulted("seLinuxMount", "false"),
			defaulted("preventPodSchedulingIfMissing", "false"), defaulted("volumeLifecycleModes", "[Persistent]"),
			{Field: "spec.attachRequired", Class: Immutable, Patch: spec("attachRequired: false"), Error: "Invalid spec.attachedRequired"},
			{Field: "spec.podInfoOnMount", Class: Mutable, Patch: spec("podInfoOnMount: true")},
			{Field: "spec.storageCapacity", Class: Mutable, Patch: spec("storageCapacity: true")},
			{Field: "spec.requiresRepublish", Class: Mutable, Patch: spec("requiresRepublish: true"), Want: `{metadata: {generation: 1}}`},
			{Field: "spec.fsGroupPolicy", Class: Invalid, Patch: spec("fsGroupPolicy: Odd"), Error: "NotSupported spec.fsGroupPolicy"},
			{Field: "spec.volumeLifecycleModes", Class: Invalid, Patch: spec("volumeLifecycleModes: [Odd]"), Error: "NotSupported spec.volumeLifecycleModes"},
			{Field: "spec.volumeLifecycleModes", Class: Immutable, Patch: spec("volumeLifecycleModes: [Ephemeral]"), Error: "Invalid spec.volumeLifecycleModes"},
			{Field: "spec.tokenRequests[].audience", Class: Invalid, Patch: spec("tokenRequests: [{audience: a}, {audience: a}]"), Error: "Duplicate spec.tokenRequests[1].audience"},
			{Field: "spec.tokenRequests[].expirationSeconds", Class: Mutable, Patch: spec("tokenRequests: [{audience: a, expirationSeconds: 700}]")},
			{Field: "spec.tokenRequests[].expirationSeconds", Class: Invalid, Patch: spec("tokenRequests: [{audience: a, expirationSeconds: 599}]"),
				Error: "Invalid spec.tokenRequests[0].expirationSeconds"},
			{Field: "spec.tokenRequests[].expirationSeconds", Class: Invalid, Patch: spec("tokenRequests: [{audience: a, expirationSeconds: 4294967297}]"),
				Error: "Invalid spec.tokenRequests[0].expirationSeconds"},
			{Field: "spec.nodeAllocatableUpdatePeriodSeconds", Class: Invalid, Patch: spec("nodeAllocatableUpdatePeriodSeconds: 9"), Error: "Invalid spec.nodeAllocatableUpdatePeriodSeconds"},
			{Field: "spec.serviceAccountTokenInSecrets", Class: Invalid, Patch: spec("serviceAccountTokenInSecrets: true"), Error: "Invalid spec.serviceAccountTokenInSecrets"},
			{Field: "spec.serviceAccountTokenInSecrets", Class: Valid, Patch: spec("serviceAccountTokenInSecrets: true, tokenRequests: [{audience: a}]")},
		},
	})
}

func TestFieldsOfCSINodes(t *testing.T) {
	driver := func(text string) string { return `{spec: {drivers: [{name: d, nodeID: m1, ` + text + `}]}}` }
	const at = "spec.drivers[0]"
	Run(t, Table{
		Resource: resource(t, "CSINode"),
		Base:     `{metadata: {name: m1}, spec: {drivers: [{name: d, nodeID: m1, topologyKeys: [zone]}]}}`,
		Rows: []Row{
			{Field: "spec.drivers[].name", Class: Invalid, Patch: driver("name: A_B"), Error: "Invalid " + at + ".name"},
			{Field: "spec.drivers[].name", Class: Invalid, Patch: driver("nodeID: m1}, {name: d, nodeID: m1"), Error: "Duplicate spec.drivers[1].name"},
			{Field: "spec.drivers[].nodeID", Class: Invalid, Patch: driver(`nodeID: ""`), Error: "Required " + at + ".nodeID"},
			{Field: "spec.drivers[].nodeID", Class: Immutable, Patch: driver(`nodeID: m2, topologyKeys: [zone]`), Error: "Invalid spec.drivers"},
			{Field: "spec.drivers[].topologyKeys", Class: Invalid, Patch: driver(`topologyKeys: [a, a]`), Error: "Duplicate " + at},
			{Field: "spec.drivers[].topologyKeys", Class: Invalid, Patch: driver(`topologyKeys: [""]`), Error: "Invalid " + at + "; Required " + at},
			{Field: "spec.drivers[].allocatable.count", Class: Mutable, Patch: driver(`topologyKeys: [zone], allocatable: {count: 3}`)},
			{Field: "spec.drivers[].allocatable.count", Class: Invalid, Patch: driver(`allocatable: {count: -1}`), Error: "Invalid " + at + ".allocatable.count"},
			{Field: "status.storageHealth", Class: Dropped, Patch: `{status: {storageHealth: [{name: d}]}}`},
		},
		Elsewhere: map[string]string{"status.storageHealth": "not on by default, and dropped as a whole"},
	})
}

func TestFieldsOfCSIStorageCapacities(t *testing.T) {
	Run(t, Table{
		Resource: resource(t, "CSIStorageCapacity"),
		Base:     `{metadata: {name: c, namespace: ns}, storageClassName: s}`,
		Rows: []Row{
			{Field: "nodeTopology", Class: Valid, Patch: `{nodeTopology: {matchLabels: {zone: a}}}`},
			{Field: "nodeTopology", Class: Invalid, Patch: `{nodeTopology: {matchLabels: {zone: "a b"}}}`, Error: "Invalid nodeTopology.matchLabels"},
			{Field: "nodeTopology", Class: Immutable, Patch: `{nodeTopology: {}}`, Error: "Invalid nodeTopology"},
			{Field: "storageClassName", Class: Invalid, Patch: `{storageClassName: ""}`, Error: "Invalid storageClassName"},
			{Field: "storageClassName", Class: Immutable, Patch: `{storageClassName: t}`, Error: "Invalid storageClassName"},
			{Field: "capacity", Class: Mutable, Patch: `{capacity: 1Gi}`},
			{Field: "capacity", Class: Invalid, Patch: `{capacity: "-1"}`, Error: "Invalid capacity"},
			{Field: "maximumVolumeSize", Class: Mutable, Patch: `{maximumVolumeSize: 1Gi}`},
		},
		Elsewhere: map[string]string{"nodeTopology": "selectors are the library's"},
	})
}

func TestFieldsOfVolumeAttachments(t *testing.T) {
	inline := func(text string) string {
		return `{spec: {source: {persistentVolumeName: null, inlineVolumeSpec: {accessModes: [ReadWriteOnce], csi: {driver: d, volumeHandle: h}, ` + text + `}}}}`
	}
	const (
		at     = "spec.source.inlineVolumeSpec."
		status = `{status: {attached: true, attachmentMetadata: {a: b}, attachError: {time: "2030-01-02T03:04:05Z", message: m, errorCode: 1},
			detachError: {time: "2030-01-02T03:04:05Z", message: m, errorCode: 1}}}`
	)
	rows := []Row{
		{Field: "spec.attacher", Class: Invalid, Patch: `{spec: {attacher: null}}`, Error: "Required spec.attacher"},
		{Field: "spec.attacher", Class: Invalid, Patch: `{spec: {attacher: A_B}}`, Error: "Invalid spec.attacher"},
		{Field: "spec.attacher", Class: Immutable, Patch: `{spec: {attacher: e}}`, Error: "Invalid spec"},
		{Field: "spec.nodeName", Class: Invalid, Patch: `{spec: {nodeName: ""}}`, Error: "Invalid spec.nodeName"},
		{Field: "spec.source", Class: Invalid, Patch: `{spec: {source: {persistentVolumeName: null}}}`, Error: "Required spec.source"},
		{Field: "spec.source.persistentVolumeName", Class: Invalid, Patch: `{spec: {source: {persistentVolumeName: A}}}`, Error: "Invalid spec.source.persistentVolumeName"},
		{Field: "spec.source.inlineVolumeSpec", Class: Valid, Patch: inline("")},
		{Field: "spec.source.inlineVolumeSpec", Class: Invalid, Patch: inline("capacity: {storage: 1}, claimRef: {}, nodeAffinity: {}, storageClassName: s, volumeMode: Block"),
			Error: "Forbidden " + at + "capacity; Forbidden " + at + "claimRef; Forbidden " + at + "nodeAffinity; Forbidden " + at + "storageClassName; Forbidden " + at + "volumeMode"},
		{Field: "spec.source.inlineVolumeSpec", Class: Invalid, Patch: inline("persistentVolumeReclaimPolicy: Delete"), Error: "Forbidden " + at + "persistentVolumeReclaimPolicy"},
		{Field: "spec.source.inlineVolumeSpec", Class: Invalid, Patch: inline("csi: null"), Error: "Required spec.source.inlineVolumeSpec; Required " + at + "csi"},
		{Field: "status.attached", Class: Mutable, Status: true, Patch: status},
		{Field: "status.attachmentMetadata", Class: Dropped, Patch: status},
	}
	for _, name := range []string{"attachError", "detachError"} {
		rows = append(rows, Row{Field: "status." + name + ".errorCode", Class: Immutable, Status: true, Patch: `{status: {` + name + `: {errorCode: -1}}}`, Error: "Invalid status." + name + ".errorCode"})
		for _, part := range []string{".time", ".message"} {
			rows = append(rows, Row{Field: "status." + name + part, Class: Mutable, Status: true, Patch: status})
		}
	}
	Run(t, Table{
		Resource:  resource(t, "VolumeAttachment"),
		Base:      `{metadata: {name: a}, spec: {attacher: d, nodeName: m1, source: {persistentVolumeName: v}}}`,
		Rows:      rows,
		Elsewhere: map[string]string{"spec.source.inlineVolumeSpec": "the kind PersistentVolume"},
	})
}
