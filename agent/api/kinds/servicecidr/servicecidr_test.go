package servicecidr_test

import (
	"testing"

	"github.com/podvine/podvine/agent/api/kinds/kindtest"
	"github.com/podvine/podvine/agent/api/kinds/servicecidr"
)

func TestFields(t *testing.T) {
	rows := []kindtest.Row{
		{Field: "metadata.name", Class: kindtest.Invalid, Patch: `{metadata: {name: Upper}}`, Error: "Invalid metadata.name"},
		{Field: "spec.cidrs", Class: kindtest.Valid, Patch: `{spec: {cidrs: ["fd00:10::/112", 10.112.0.0/24]}}`},
		{Field: "spec.cidrs", Class: kindtest.Invalid, Patch: `{spec: {cidrs: []}}`, Error: "Required spec.cidrs"},
		{Field: "spec.cidrs", Class: kindtest.Invalid, Patch: `{spec: {cidrs: [10.112.0.1/24]}}`, Error: "Invalid spec.cidrs[0]"},
		{Field: "spec.cidrs", Class: kindtest.Invalid, Patch: `{spec: {cidrs: [10.112.0.0/24, 10.113.0.0/24]}}`, Error: "Invalid spec.cidrs"},
		{Field: "spec.cidrs", Class: kindtest.Invalid, Patch: `{spec: {cidrs: [10.112.0.0/24, "fd00::/112", "fd01::/112"]}}`, Error: "Invalid spec.cidrs"},
		{Field: "spec.cidrs", Class: kindtest.Mutable, Patch: `{spec: {cidrs: [10.112.0.0/24, "fd00::/112"]}}`},
		{Field: "spec.cidrs", Class: kindtest.Immutable, Patch: `{spec: {cidrs: [10.112.0.0/23]}}`, Error: "Invalid spec.cidrs[0]"},
		{Field: "spec.cidrs", Class: kindtest.Immutable, Patch: `{spec: {cidrs: [10.112.0.0/23, "fd00::/112"]}}`, Error: "Invalid spec.cidrs[0]"},
		{Field: "spec.cidrs", Class: kindtest.Immutable, Patch: `{spec: {cidrs: null}}`, Error: "Invalid spec.cidrs"},
		{Field: "spec.cidrs", Class: kindtest.Kept, Status: true, Patch: `{spec: {cidrs: [10.0.0.0/8]}}`, Want: `{spec: {cidrs: [10.112.0.0/24]}}`},
		{Field: "metadata.annotations", Class: kindtest.Kept, Status: true, Patch: `{metadata: {annotations: {a: b}}}`, Want: `{metadata: {name: range}}`},
	}
	condition := map[string]string{
		"type": "Ready", "status": `"True"`, "observedGeneration": "3", "lastTransitionTime": `"2030-01-02T03:04:05Z"`, "reason": "R", "message": "m",
	}
	for name, value := range condition {
		field, patch := "status.conditions[]."+name, `{status: {conditions: [{`+name+`: `+value+`}]}}`
		rows = append(rows,
			kindtest.Row{Field: field, Class: kindtest.Dropped, Patch: patch},
			kindtest.Row{Field: field, Class: kindtest.Kept, Patch: patch, Want: `{metadata: {name: range}}`},
			kindtest.Row{Field: field, Class: kindtest.Mutable, Status: true, Patch: patch})
	}
	kindtest.Run(t, kindtest.Table{
		Resource: servicecidr.Resource(),
		Base:     `{metadata: {name: range}, spec: {cidrs: [10.112.0.0/24]}}`,
		Rows:     rows,
	})
}
