package daemonset

import (
	"testing"

	"github.com/podvine/podvine/agent/api/kinds/kindtest"
)

const base = `{metadata: {name: d, namespace: ns}, spec: {selector: {matchLabels: {app: d}},
  template: {metadata: {labels: {app: d}}, spec: {containers: [{name: c, image: example.com/app}]}}}}`

func TestFields(t *testing.T) {
	status := func(field, patch, err string) kindtest.Row {
		class := kindtest.Immutable
		if err == "" {
			class = kindtest.Mutable
		}
		return kindtest.Row{Field: "status." + field, Class: class, Patch: `{"status":` + patch + `}`, Error: err, Status: true}
	}
	rolling := func(patch string) string { return `{"spec":{"updateStrategy":{"rollingUpdate":` + patch + `}}}` }
	const at = "spec.updateStrategy.rollingUpdate."
	kindtest.Run(t, kindtest.Table{
		Resource:  Resource(),
		Base:      base,
		Elsewhere: map[string]string{"spec.template": "package pod"},
		Rows: []kindtest.Row{
			{Field: "metadata.annotations", Class: kindtest.Defaulted, Want: `{"metadata":{"annotations":{"deprecated.daemonset.template.generation":"1"}}}`},
			{Field: "spec.selector", Class: kindtest.Invalid, Patch: `{"spec":{"selector":null}}`, Error: "Invalid spec.template.metadata.labels"},
			{Field: "spec.selector", Class: kindtest.Invalid, Patch: `{"spec":{"selector":{"matchLabels":null}}}`, Error: "Invalid spec.selector"},
			{Field: "spec.selector.matchLabels", Class: kindtest.Immutable, Patch: `{"spec":{"selector":{"matchLabels":{"b":"c"}},"template":{"metadata":{"labels":{"b":"c"}}}}}`, Error: "Invalid spec.selector"},
			{Field: "spec.selector.matchExpressions[].key", Class: kindtest.Invalid, Patch: `{"spec":{"selector":{"matchExpressions":[{"key":"a b","operator":"Exists"}]}}}`,
				Error: "Invalid spec.selector.matchExpressions[0].key"},
			{Field: "spec.selector.matchExpressions[].operator", Class: kindtest.Invalid, Patch: `{"spec":{"selector":{"matchExpressions":[{"key":"app","operator":"Like"}]}}}`,
				Error: "Invalid spec.selector.matchExpressions[0].operator"},
			{Field: "spec.selector.matchExpressions[].values", Class: kindtest.Invalid, Patch: `{"spec":{"selector":{"matchExpressions":[{"key":"app","operator":"In"}]}}}`,
				Error: "Required spec.selector.matchExpressions[0].values"},
			{Field: "spec.template", Class: kindtest.Invalid, Patch: `{"spec":{"template":{"spec":{"restartPolicy":"Never","activeDeadlineSeconds":1}}}}`,
				Error: "NotSupported spec.template.spec.restartPolicy; Forbidden spec.template.spec.activeDeadlineSeconds"},
			{Field: "spec.updateStrategy.type", Class: kindtest.Defaulted, Want: `{"spec":{"updateStrategy":{"type":"RollingUpdate","rollingUpdate":{"maxUnavailable":1,"maxSurge":0}}}}`},
			{Field: "spec.updateStrategy.type", Class: kindtest.Invalid, Patch: `{"spec":{"updateStrategy":{"type":"Never"}}}`, Error: "NotSupported spec.updateStrategy"},
			{Field: at + "maxUnavailable", Class: kindtest.Invalid, Patch: rolling(`{"maxUnavailable":0}`), Error: "Required " + at + "maxUnavailable"},
			{Field: at + "maxUnavailable", Class: kindtest.Invalid, Patch: rolling(`{"maxUnavailable":"101%"}`), Error: "Invalid " + at + "maxUnavailable"},
			{Field: at + "maxSurge", Class: kindtest.Invalid, Patch: rolling(`{"maxSurge":1}`), Error: "Invalid " + at + "maxSurge"},
			{Field: at + "maxSurge", Class: kindtest.Valid, Patch: rolling(`{"maxSurge":"10%","maxUnavailable":0}`)},
			{Field: "spec.minReadySeconds", Class: kindtest.Invalid, Patch: `{"spec":{"minReadySeconds":-1}}`, Error: "Invalid spec.minReadySeconds"},
			{Field: "spec.revisionHistoryLimit", Class: kindtest.Defaulted, Want: `{"spec":{"revisionHistoryLimit":10}}`},
			{Field: "spec.revisionHistoryLimit", Class: kindtest.Invalid, Patch: `{"spec":{"revisionHistoryLimit":-1}}`, Error: "Invalid spec.revisionHistoryLimit"},
			status("currentNumberScheduled", `{"currentNumberScheduled":-1}`, "Invalid status.currentNumberScheduled"),
			status("numberMisscheduled", `{"numberMisscheduled":-1}`, "Invalid status.numberMisscheduled"),
			status("desiredNumberScheduled", `{"desiredNumberScheduled":-1}`, "Invalid status.desiredNumberScheduled"),
			status("numberReady", `{"numberReady":-1}`, "Invalid status.numberReady"),
			status("observedGeneration", `{"observedGeneration":-1}`, "Invalid status.observedGeneration"),
			status("updatedNumberScheduled", `{"updatedNumberScheduled":-1}`, "Invalid status.updatedNumberScheduled"),
			status("numberAvailable", `{"numberAvailable":-1}`, "Invalid status.numberAvailable"),
			status("numberUnavailable", `{"numberUnavailable":-1}`, "Invalid status.numberUnavailable"),
			status("collisionCount", `{"collisionCount":-1}`, "Invalid status.collisionCount"),
			status("conditions[].type", `{"conditions":[{"type":"A","status":"True"}]}`, ""),
			status("conditions[].status", `{"conditions":[{"type":"A","status":"True"}]}`, ""),
			status("conditions[].lastTransitionTime", `{"conditions":[{"type":"A","status":"True","lastTransitionTime":"2026-01-01T00:00:00Z"}]}`, ""),
			status("conditions[].reason", `{"conditions":[{"type":"A","status":"True","reason":"R"}]}`, ""),
			status("conditions[].message", `{"conditions":[{"type":"A","status":"True","message":"m"}]}`, ""),
		},
	})
}
