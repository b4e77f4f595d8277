package deployment

import (
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/utils/ptr"

	"github.com/podvine/podvine/agent/api/kinds/kindtest"
)

const base = `{metadata: {name: d, namespace: ns}, spec: {replicas: 2, selector: {matchLabels: {app: d}},
  template: {metadata: {labels: {app: d}}, spec: {containers: [{name: c, image: example.com/app}]}}},
  status: {replicas: 3, updatedReplicas: 2, readyReplicas: 2, availableReplicas: 1}}`

func TestFields(t *testing.T) {
	rolling := func(field, value string) string {
		return `{"spec":{"strategy":{"type":"RollingUpdate","rollingUpdate":{"` + field + `":` + value + `}}}}`
	}
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
			{Field: "spec.selector", Class: kindtest.Invalid, Patch: `{"spec":{"selector":null}}`, Error: "Required spec.selector; Invalid spec.template.metadata.labels"},
			{Field: "spec.selector", Class: kindtest.Invalid, Patch: `{"spec":{"selector":{"matchLabels":null}}}`, Error: "Invalid spec.selector"},
			{Field: "spec.selector.matchLabels", Class: kindtest.Immutable, Patch: `{"spec":{"selector":{"matchLabels":{"b":"c"}},"template":{"metadata":{"labels":{"b":"c"}}}}}`, Error: "Invalid spec.selector"},
			{Field: "spec.selector.matchLabels", Class: kindtest.Invalid, Patch: `{"spec":{"selector":{"matchLabels":{"app":"e"}}}}`, Error: "Invalid spec.template.metadata.labels"},
			{Field: "spec.selector.matchExpressions[].key", Class: kindtest.Invalid, Patch: `{"spec":{"selector":{"matchExpressions":[{"key":"a b","operator":"Exists"}]}}}`,
				Error: "Invalid spec.selector; Invalid spec.selector.matchExpressions[0].key"},
			{Field: "spec.selector.matchExpressions[].operator", Class: kindtest.Invalid, Patch: `{"spec":{"selector":{"matchExpressions":[{"key":"app","operator":"Like"}]}}}`,
				Error: "Invalid spec.selector; Invalid spec.selector.matchExpressions[0].operator"},
			{Field: "spec.selector.matchExpressions[].values", Class: kindtest.Invalid, Patch: `{"spec":{"selector":{"matchExpressions":[{"key":"app","operator":"In"}]}}}`,
				Error: "Invalid spec.selector; Required spec.selector.matchExpressions[0].values"},
			{Field: "spec.template", Class: kindtest.Invalid, Patch: `{"spec":{"template":{"spec":{"restartPolicy":"Never","activeDeadlineSeconds":1}}}}`,
				Error: "NotSupported spec.template.spec.restartPolicy; Forbidden spec.template.spec.activeDeadlineSeconds"},
			{Field: "spec.strategy.type", Class: kindtest.Defaulted, Want: `{"spec":{"strategy":{"type":"RollingUpdate","rollingUpdate":{"maxSurge":"25%","maxUnavailable":"25%"}}}}`},
			{Field: "spec.strategy.type", Class: kindtest.Invalid, Patch: `{"spec":{"strategy":{"type":"Never"}}}`, Error: "NotSupported spec.strategy"},
			{Field: "spec.strategy.rollingUpdate", Class: kindtest.Invalid, Patch: `{"spec":{"strategy":{"type":"Recreate","rollingUpdate":{}}}}`, Error: "Forbidden spec.strategy.rollingUpdate"},
			{Field: "spec.strategy.rollingUpdate.maxSurge", Class: kindtest.Invalid, Patch: rolling("maxSurge", "-1"), Error: "Invalid spec.strategy.rollingUpdate.maxSurge"},
			{Field: "spec.strategy.rollingUpdate.maxSurge", Class: kindtest.Valid, Patch: rolling("maxSurge", `"150%"`)},
			{Field: "spec.strategy.rollingUpdate.maxUnavailable", Class: kindtest.Invalid, Patch: rolling("maxUnavailable", `"101%"`), Error: "Invalid spec.strategy.rollingUpdate.maxUnavailable"},
			{Field: "spec.minReadySeconds", Class: kindtest.Invalid, Patch: `{"spec":{"minReadySeconds":-1}}`, Error: "Invalid spec.minReadySeconds"},
			{Field: "spec.revisionHistoryLimit", Class: kindtest.Defaulted, Want: `{"spec":{"revisionHistoryLimit":10}}`},
			{Field: "spec.revisionHistoryLimit", Class: kindtest.Invalid, Patch: `{"spec":{"revisionHistoryLimit":-1}}`, Error: "Invalid spec.revisionHistoryLimit"},
			{Field: "spec.paused", Class: kindtest.Mutable, Patch: `{"spec":{"paused":true}}`},
			{Field: "spec.progressDeadlineSeconds", Class: kindtest.Defaulted, Want: `{"spec":{"progressDeadlineSeconds":600}}`},
			{Field: "spec.progressDeadlineSeconds", Class: kindtest.Invalid, Patch: `{"spec":{"progressDeadlineSeconds":5,"minReadySeconds":5}}`, Error: "Invalid spec.progressDeadlineSeconds"},
			status("observedGeneration", kindtest.Immutable, `{"observedGeneration":-1}`, "Invalid status.observedGeneration"),
			status("replicas", kindtest.Immutable, `{"replicas":-1,"updatedReplicas":-1,"readyReplicas":-1,"availableReplicas":-1}`,
				"Invalid status.replicas; Invalid status.updatedReplicas; Invalid status.readyReplicas; Invalid status.availableReplicas"),
			status("updatedReplicas", kindtest.Immutable, `{"updatedReplicas":4}`, "Invalid status.updatedReplicas"),
			status("readyReplicas", kindtest.Immutable, `{"readyReplicas":4}`, "Invalid status.readyReplicas"),
			status("availableReplicas", kindtest.Immutable, `{"availableReplicas":3}`, "Invalid status.availableReplicas"),
			status("unavailableReplicas", kindtest.Immutable, `{"unavailableReplicas":-1}`, "Invalid status.unavailableReplicas"),
			status("terminatingReplicas", kindtest.Immutable, `{"terminatingReplicas":-1}`, "Invalid status.terminatingReplicas"),
			status("collisionCount", kindtest.Immutable, `{"collisionCount":-1}`, "Invalid status.collisionCount"),
			status("conditions[].type", kindtest.Mutable, `{"conditions":[{"type":"Available","status":"True"}]}`, ""),
			status("conditions[].status", kindtest.Mutable, `{"conditions":[{"type":"Available","status":"True"}]}`, ""),
			status("conditions[].lastUpdateTime", kindtest.Mutable, `{"conditions":[{"type":"A","status":"True","lastUpdateTime":"2026-01-01T00:00:00Z"}]}`, ""),
			status("conditions[].lastTransitionTime", kindtest.Mutable, `{"conditions":[{"type":"A","status":"True","lastTransitionTime":"2026-01-01T00:00:00Z"}]}`, ""),
			status("conditions[].reason", kindtest.Mutable, `{"conditions":[{"type":"A","status":"True","reason":"R"}]}`, ""),
			status("conditions[].message", kindtest.Mutable, `{"conditions":[{"type":"A","status":"True","message":"m"}]}`, ""),
		},
	})
}

func TestNothingAvailableToRoll(t *testing.T) {
	zero := ptr.To(intstr.FromString("0%"))
	if errs := validateRolling(&appsv1.RollingUpdateDeployment{MaxSurge: zero, MaxUnavailable: zero}, nil); len(errs) != 1 || errs[0].Detail != "may not be 0 when `maxSurge` is 0" {
		t.Error(errs)
	}
}

func TestAnnotationsCountAsGeneration(t *testing.T) {
	old := &appsv1.Deployment{}
	old.Generation = 4
	d := old.DeepCopy()
	d.Annotations = map[string]string{"a": "b"}
	prepareForUpdate(t.Context(), d, old)
	if d.Generation != 5 {
		t.Errorf("generation %d", d.Generation)
	}
}
