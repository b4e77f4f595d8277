package poddisruptionbudget

import (
	"testing"

	"github.com/podvine/podvine/agent/api/kinds/kindtest"
)

const base = `{metadata: {name: b, namespace: ns}, spec: {minAvailable: 1, selector: {matchLabels: {app: a}}}}`

func TestFields(t *testing.T) {
	spec := func(patch string) string { return `{"spec":` + patch + `}` }
	status := func(field, patch, err string) kindtest.Row {
		class := kindtest.Immutable
		if err == "" {
			class = kindtest.Mutable
		}
		return kindtest.Row{Field: "status." + field, Class: class, Patch: `{"status":` + patch + `}`, Error: err, Status: true}
	}
	condition := func(field, values, err string) kindtest.Row {
		return status("conditions[]."+field, `{"conditions":[{`+values+`}]}`, err)
	}
	const whole = `"type":"A","status":"True","reason":"R","message":"m","observedGeneration":1,"lastTransitionTime":"2026-01-01T00:00:00Z"`
	kindtest.Run(t, kindtest.Table{Resource: Resource(nil), Base: base, Rows: []kindtest.Row{
		{Field: "spec", Class: kindtest.Invalid, Patch: spec(`{"maxUnavailable":1}`), Error: "Invalid spec"},
		{Field: "spec.minAvailable", Class: kindtest.Invalid, Patch: spec(`{"minAvailable":-1}`), Error: "Invalid spec.minAvailable"},
		{Field: "spec.minAvailable", Class: kindtest.Invalid, Patch: spec(`{"minAvailable":"101%"}`), Error: "Invalid spec.minAvailable"},
		{Field: "spec.minAvailable", Class: kindtest.Mutable, Patch: spec(`{"minAvailable":"50%"}`)},
		{Field: "spec.maxUnavailable", Class: kindtest.Invalid, Patch: spec(`{"minAvailable":null,"maxUnavailable":"one"}`), Error: "Invalid spec.maxUnavailable"},
		{Field: "spec.maxUnavailable", Class: kindtest.Valid, Patch: spec(`{"minAvailable":null,"maxUnavailable":0}`)},
		{Field: "spec.selector", Class: kindtest.Valid, Patch: spec(`{"selector":{}}`)},
		{Field: "spec.selector.matchLabels", Class: kindtest.Invalid, Patch: spec(`{"selector":{"matchLabels":{"a b":"c"}}}`), Error: "Invalid spec.selector.matchLabels"},
		{Field: "spec.selector.matchExpressions[].key", Class: kindtest.Invalid, Patch: spec(`{"selector":{"matchExpressions":[{"key":"a b","operator":"Exists"}]}}`),
			Error: "Invalid spec.selector.matchExpressions[0].key"},
		{Field: "spec.selector.matchExpressions[].operator", Class: kindtest.Invalid, Patch: spec(`{"selector":{"matchExpressions":[{"key":"a","operator":"Like"}]}}`),
			Error: "Invalid spec.selector.matchExpressions[0].operator"},
		{Field: "spec.selector.matchExpressions[].values", Class: kindtest.Invalid, Patch: spec(`{"selector":{"matchExpressions":[{"key":"a","operator":"In"}]}}`),
			Error: "Required spec.selector.matchExpressions[0].values"},
		{Field: "spec.unhealthyPodEvictionPolicy", Class: kindtest.Invalid, Patch: spec(`{"unhealthyPodEvictionPolicy":"Never"}`), Error: "NotSupported spec.unhealthyPodEvictionPolicy"},
		{Field: "spec.unhealthyPodEvictionPolicy", Class: kindtest.Mutable, Patch: spec(`{"unhealthyPodEvictionPolicy":"AlwaysAllow"}`)},
		status("observedGeneration", `{"observedGeneration":3}`, ""),
		status("disruptedPods", `{"disruptedPods":{"p":"2026-01-01T00:00:00Z"}}`, ""),
		status("disruptionsAllowed", `{"disruptionsAllowed":-1}`, "Invalid status.disruptionsAllowed"),
		status("currentHealthy", `{"currentHealthy":-1}`, "Invalid status.currentHealthy"),
		status("desiredHealthy", `{"desiredHealthy":-1}`, "Invalid status.desiredHealthy"),
		status("expectedPods", `{"expectedPods":-1}`, "Invalid status.expectedPods"),
		condition("type", `"status":"True","reason":"R","lastTransitionTime":"2026-01-01T00:00:00Z"`, "Required status.conditions[0].type"),
		condition("status", `"type":"A","reason":"R","lastTransitionTime":"2026-01-01T00:00:00Z"`, "Required status.conditions[0].status"),
		condition("reason", `"type":"A","status":"True","lastTransitionTime":"2026-01-01T00:00:00Z"`, "Required status.conditions[0].reason"),
		condition("lastTransitionTime", `"type":"A","status":"True","reason":"R"`, "Required status.conditions[0].lastTransitionTime"),
		condition("message", whole, ""),
		condition("observedGeneration", whole, ""),
	}})
}
