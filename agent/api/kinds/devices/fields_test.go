package devices_test

import (
	"strings"
	"testing"

	"github.com/podvine/podvine/agent/api/kinds"
	"github.com/podvine/podvine/agent/api/kinds/devices"
	. "github.com/podvine/podvine/agent/api/kinds/kindtest"
)

func resource(t *testing.T, kind string) kinds.Resource {
	t.Helper()
	for _, r := range devices.Resources() {
		if r.GVK().Kind == kind {
			return r
		}
	}
	t.Fatalf("no kind %s", kind)
	return nil
}

func TestFieldsOfClasses(t *testing.T) {
	selector := func(expression string) string {
		return `{spec: {selectors: [{cel: {expression: "` + expression + `"}}]}}`
	}
	opaque := func(text string) string { return `{spec: {config: [{opaque: {` + text + `}}]}}` }
	const expression, at = "spec.selectors[0].cel.expression", "spec.config[0].opaque"
	Run(t, Table{
		Resource: resource(t, "DeviceClass"),
		Base:     `{metadata: {name: c}}`,
		Rows: []Row{
			{Field: "spec.selectors", Class: Invalid, Patch: `{spec: {selectors: [{}]}}`, Error: "Required spec.selectors[0].cel"},
			{Field: "spec.selectors", Class: Invalid, Patch: `{spec: {selectors: [` + strings.Repeat(`{},`, 33) + `]}}`, Error: "TooMany spec.selectors"},
			{Field: "spec.selectors[].cel.expression", Class: Mutable, Patch: selector("device.driver == 'd.example.com'")},
			{Field: "spec.selectors[].cel.expression", Class: Invalid, Patch: selector("device.driver =="), Error: "Invalid " + expression},
			{Field: "spec.selectors[].cel.expression", Class: Invalid, Patch: selector("'text'"), Error: "Invalid " + expression},
			{Field: "spec.selectors[].cel.expression", Class: Invalid, Patch: selector(strings.Repeat("a", 10241)), Error: "TooLong " + expression},
			{Field: "spec.config", Class: Invalid, Patch: `{spec: {config: [{}]}}`, Error: "Required " + at},
			{Field: "spec.config[].opaque.driver", Class: Mutable, Patch: opaque("driver: d.example.com, parameters: {a: b}")},
			{Field: "spec.config[].opaque.driver", Class: Invalid, Patch: opaque("driver: A_B, parameters: {}"), Error: "Invalid " + at + ".driver"},
			{Field: "spec.config[].opaque.driver", Class: Invalid, Patch: opaque("driver: " + strings.Repeat("d", 64) + ", parameters: {}"), Error: "TooLong " + at + ".driver"},
			{Field: "spec.config[].opaque.parameters", Class: Invalid, Patch: opaque("driver: d"), Error: "Required " + at + ".parameters"},
			{Field: "spec.config[].opaque.parameters", Class: Invalid, Patch: opaque("driver: d, parameters: text"), Error: "Invalid " + at + ".parameters"},
			{Field: "spec.config[].opaque.parameters", Class: Invalid, Patch: opaque("driver: d, parameters: {a: " + strings.Repeat("b", 10241) + "}"), Error: "TooLong " + at + ".parameters"},
			{Field: "spec.extendedResourceName", Class: Mutable, Patch: `{spec: {extendedResourceName: example.com/gpu}}`},
			{Field: "spec.extendedResourceName", Class: Invalid, Patch: `{spec: {extendedResourceName: plain}}`, Error: "Invalid spec.extendedResourceName"},
		},
	})
}

func TestFieldsOfTaintRules(t *testing.T) {
	selector := func(text string) string { return `{spec: {deviceSelector: {` + text + `}}}` }
	taint := func(text string) string { return `{spec: {taint: {` + text + `}}}` }
	const condition = `{type: EvictionInProgress, status: "True", reason: R, lastTransitionTime: "2030-01-02T03:04:05Z"}`
	Run(t, Table{
		Resource: resource(t, "DeviceTaintRule"),
		Base:     `{metadata: {name: r}, spec: {taint: {key: k, effect: NoSchedule, timeAdded: "2030-01-02T03:04:05Z"}}}`,
		Rows: []Row{
			{Field: "spec.deviceSelector.driver", Class: Mutable, Patch: selector("driver: d")},
			{Field: "spec.deviceSelector.driver", Class: Invalid, Patch: selector("driver: a_b"), Error: "Invalid spec.deviceSelector.driver"},
			{Field: "spec.deviceSelector.pool", Class: Mutable, Patch: selector("pool: a/b")},
			{Field: "spec.deviceSelector.pool", Class: Invalid, Patch: selector(`pool: ""`), Error: "Required spec.deviceSelector.pool"},
			{Field: "spec.deviceSelector.pool", Class: Invalid, Patch: selector("pool: a//b"), Error: "Invalid spec.deviceSelector.pool"},
			{Field: "spec.deviceSelector.device", Class: Invalid, Patch: selector("device: A"), Error: "Invalid spec.deviceSelector.device"},
			{Field: "spec.taint.key", Class: Invalid, Patch: taint("key: a/b/c"), Error: "Invalid spec.taint.key"},
			{Field: "spec.taint.value", Class: Invalid, Patch: taint(`value: "a b"`), Error: "Invalid spec.taint.value"},
			{Field: "spec.taint.effect", Class: Invalid, Patch: taint("effect: null"), Error: "Required spec.taint.effect"},
			{Field: "spec.taint.effect", Class: Invalid, Patch: taint("effect: Odd"), Error: "NotSupported spec.taint.effect"},
			{Field: "spec.taint.timeAdded", Class: Valid, Want: taint(`timeAdded: "2030-01-02T03:04:05Z"`)},
			{Field: "status.conditions", Class: Dropped, Patch: `{status: {conditions: [` + condition + `]}}`},
			{Field: "status.conditions", Class: Mutable, Status: true, Patch: `{status: {conditions: [` + condition + `]}}`},
			{Field: "status.conditions", Class: Immutable, Status: true, Patch: `{status: {conditions: [` + condition + `,` + condition + `]}}`, Error: "Duplicate status.conditions[1]"},
			{Field: "status.conditions", Class: Immutable, Status: true, Patch: `{status: {conditions: [` + strings.Repeat(condition+",", 9) + `]}}`, Error: "TooMany status.conditions"},
		},
		Elsewhere: map[string]string{"status.conditions": "conditions are the library's"},
	})
}
