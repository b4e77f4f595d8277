package replicaset

import (
	"testing"

	"github.com/podvine/podvine/agent/api/kinds/kindtest"
)

const base = `{metadata: {name: r, namespace: ns}, spec: {replicas: 2, selector: {matchLabels: {app: r}},
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
			{Field: "spec.replicas", Class: kindtest.Invalid, Patch: `{"spec":{"replicas":-1}}`, Error: "Invalid spec.replicas"},
			{Field: "spec.replicas", Class: kindtest.Defaulted, Patch: `{"spec":{"replicas":null}}`, Want: `{"spec":{"replicas":1}}`},
			{Field: "spec.minReadySeconds", Class: kindtest.Invalid, Patch: `{"spec":{"minReadySeconds":-1}}`, Error: "Invalid spec.minReadySeconds"},
			{Field: "spec.selector", Class: kindtest.Invalid, Patch: `{"spec":{"selector":null}}`, Error: "Required spec.selector; Invalid spec.template.metadata.labels"},
			{Field: "spec.selector.matchLabels", Class: kindtest.Immutable, Patch: `{"spec":{"selector":{"matchLabels":{"b":"c"}},"template":{"metadata":{"labels":{"b":"c"}}}}}`, Error: "Invalid spec.selector"},
			{Field: "spec.selector.matchExpressions[].key", Class: kindtest.Invalid, Patch: `{"spec":{"selector":{"matchExpressions":[{"key":"a b","operator":"Exists"}]}}}`,
				Error: "Invalid spec.selector; Invalid spec.selector.matchExpressions[0].key"},
			{Field: "spec.selector.matchExpressions[].operator", Class: kindtest.Invalid, Patch: `{"spec":{"selector":{"matchExpressions":[{"key":"app","operator":"Like"}]}}}`,
				Error: "Invalid spec.selector; Invalid spec.selector.matchExpressions[0].operator"},
			{Field: "spec.selector.matchExpressions[].values", Class: kindtest.Invalid, Patch: `{"spec":{"selector":{"matchExpressions":[{"key":"app","operator":"Exists","values":["x"]}]}}}`,
				Error: "Invalid spec.selector; Forbidden spec.selector.matchExpressions[0].values"},
			{Field: "spec.template", Class: kindtest.Mutable, Patch: `{"spec":{"template":{"spec":{"hostname":"h"}}}}`},
			status("replicas", kindtest.Immutable, `{"replicas":2}`, "Invalid status.fullyLabeledReplicas"),
			status("fullyLabeledReplicas", kindtest.Immutable, `{"fullyLabeledReplicas":-1}`, "Invalid status.fullyLabeledReplicas"),
			status("readyReplicas", kindtest.Immutable, `{"readyReplicas":4}`, "Invalid status.readyReplicas"),
			status("availableReplicas", kindtest.Immutable, `{"availableReplicas":3}`, "Invalid status.availableReplicas"),
			status("terminatingReplicas", kindtest.Immutable, `{"terminatingReplicas":-1}`, "Invalid status.terminatingReplicas"),
			status("observedGeneration", kindtest.Immutable, `{"observedGeneration":-1}`, "Invalid status.observedGeneration"),
			status("conditions[].type", kindtest.Mutable, `{"conditions":[{"type":"A","status":"True"}]}`, ""),
			status("conditions[].status", kindtest.Mutable, `{"conditions":[{"type":"A","status":"True"}]}`, ""),
			status("conditions[].lastTransitionTime", kindtest.Mutable, `{"conditions":[{"type":"A","status":"True","lastTransitionTime":"2026-01-01T00:00:00Z"}]}`, ""),
			status("conditions[].reason", kindtest.Mutable, `{"conditions":[{"type":"A","status":"True","reason":"R"}]}`, ""),
			status("conditions[].message", kindtest.Mutable, `{"conditions":[{"type":"A","status":"True","message":"m"}]}`, ""),
		},
	})
}
