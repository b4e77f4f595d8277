package replicationcontroller

import (
	"testing"

	"github.com/podvine/podvine/agent/api/kinds/kindtest"
)

const base = `{metadata: {name: r, namespace: ns}, spec: {replicas: 2,
  template: {metadata: {labels: {app: r}}, spec: {containers: [{name: c, image: example.com/app}]}}},
  status: {replicas: 3, fullyLabeledReplicas: 3, readyReplicas: 2, availableReplicas: 1}}`

func TestFields(t *testing.T) {
	status := func(field string, class kindtest.Class, patch, err string) kindtest.Row {
		return kindtest.Row{Field: "status." + field, Class: class, Patch: `{"status":` + patch + `}`, Error: err, Status: true}
	}
	kindtest.Run(t, kindtest.Table{
		Resource:  Resource(),
		Base:      base,
		Elsewhere: map[string]string{"spec.template": "package pod"},
		Rows: []kindtest.Row{
			{Field: "metadata.labels", Class: kindtest.Defaulted, Want: `{"metadata":{"labels":{"app":"r"}}}`},
			{Field: "spec.replicas", Class: kindtest.Invalid, Patch: `{"spec":{"replicas":-1}}`, Error: "Invalid spec.replicas"},
			{Field: "spec.replicas", Class: kindtest.Defaulted, Patch: `{"spec":{"replicas":null}}`, Want: `{"spec":{"replicas":1}}`},
			{Field: "spec.minReadySeconds", Class: kindtest.Invalid, Patch: `{"spec":{"minReadySeconds":-1}}`, Error: "Invalid spec.minReadySeconds"},
			{Field: "spec.selector", Class: kindtest.Defaulted, Want: `{"spec":{"selector":{"app":"r"}}}`},
			{Field: "spec.selector", Class: kindtest.Invalid, Patch: `{"spec":{"selector":{"b":"c"}}}`, Error: "Invalid spec.template.metadata.labels"},
			{Field: "spec.selector", Class: kindtest.Mutable, Patch: `{"spec":{"selector":{"b":"c"},"template":{"metadata":{"labels":{"b":"c"}}}}}`},
			{Field: "spec.template", Class: kindtest.Invalid, Patch: `{"spec":{"template":null}}`, Error: "Required spec.selector; Required spec.template"},
			status("replicas", kindtest.Immutable, `{"replicas":2}`, "Invalid status.fullyLabeledReplicas"),
			status("fullyLabeledReplicas", kindtest.Immutable, `{"fullyLabeledReplicas":-1}`, "Invalid status.fullyLabeledReplicas"),
			status("readyReplicas", kindtest.Immutable, `{"readyReplicas":4}`, "Invalid status.readyReplicas"),
			status("availableReplicas", kindtest.Immutable, `{"availableReplicas":3}`, "Invalid status.availableReplicas"),
			status("observedGeneration", kindtest.Immutable, `{"observedGeneration":-1}`, "Invalid status.observedGeneration"),
			status("conditions[].type", kindtest.Mutable, `{"conditions":[{"type":"A","status":"True"}]}`, ""),
			status("conditions[].status", kindtest.Mutable, `{"conditions":[{"type":"A","status":"True"}]}`, ""),
			status("conditions[].lastTransitionTime", kindtest.Mutable, `{"conditions":[{"type":"A","status":"True","lastTransitionTime":"2026-01-01T00:00:00Z"}]}`, ""),
			status("conditions[].reason", kindtest.Mutable, `{"conditions":[{"type":"A","status":"True","reason":"R"}]}`, ""),
			status("conditions[].message", kindtest.Mutable, `{"conditions":[{"type":"A","status":"True","message":"m"}]}`, ""),
		},
	})
}
