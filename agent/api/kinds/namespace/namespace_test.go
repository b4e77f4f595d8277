package namespace_test

import (
	"testing"

	. "github.com/podvine/podvine/agent/api/kinds/kindtest"
	"github.com/podvine/podvine/agent/api/kinds/namespace"
)

func TestFields(t *testing.T) {
	condition := func(text string) string { return `{status: {conditions: [{` + text + `}]}}` }
	const full = `type: NamespaceDeletionContentFailure, status: "True", lastTransitionTime: "2030-01-02T03:04:05Z", reason: R, message: m`
	Run(t, Table{
		Resource: namespace.Resource(),
		Base:     `{metadata: {name: ns}}`,
		Rows: []Row{
			{Field: "metadata.name", Class: Invalid, Patch: `{metadata: {name: a.b}}`, Error: "Invalid metadata.name"},
			{Field: "metadata.labels", Class: Defaulted, Want: `{metadata: {labels: {kubernetes.io/metadata.name: ns}}}`},
			{Field: "metadata.labels", Class: Kept, Patch: `{metadata: {labels: {kubernetes.io/metadata.name: other}}}`, Want: `{metadata: {labels: {kubernetes.io/metadata.name: ns}}}`},
			{Field: "spec.finalizers", Class: Defaulted, Want: `{spec: {finalizers: [kubernetes]}}`},
			{Field: "spec.finalizers", Class: Invalid, Patch: `{spec: {finalizers: [f]}}`, Error: "Invalid spec.finalizers"},
			{Field: "spec.finalizers", Class: Kept, Patch: `{spec: {finalizers: []}}`, Want: `{spec: {finalizers: [kubernetes]}}`},
			{Field: "spec.finalizers", Class: Kept, Status: true, Patch: `{spec: {finalizers: []}}`, Want: `{spec: {finalizers: [kubernetes]}}`},
			{Field: "status.phase", Class: Defaulted, Patch: `{status: {phase: Terminating}}`, Want: `{status: {phase: Active}}`},
			{Field: "status.phase", Class: Kept, Patch: `{status: {phase: Terminating}}`, Want: `{status: {phase: Active}}`},
			{Field: "status.phase", Class: Immutable, Status: true, Patch: `{status: {phase: Terminating}}`, Error: "Invalid status.Phase"},
			{Field: "status.conditions", Class: Dropped, Patch: condition(full)},
			{Field: "status.conditions[].type", Class: Mutable, Status: true, Patch: condition(full)},
			{Field: "status.conditions[].status", Class: Mutable, Status: true, Patch: condition(full)},
			{Field: "status.conditions[].lastTransitionTime", Class: Mutable, Status: true, Patch: condition(full)},
			{Field: "status.conditions[].reason", Class: Mutable, Status: true, Patch: condition(full)},
			{Field: "status.conditions[].message", Class: Mutable, Status: true, Patch: condition(full)},
		},
	})
}
