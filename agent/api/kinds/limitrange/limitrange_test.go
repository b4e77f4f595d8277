package limitrange_test

import (
	"testing"

	. "github.com/podvine/podvine/agent/api/kinds/kindtest"
	"github.com/podvine/podvine/agent/api/kinds/limitrange"
)

func limits(item string) string { return `{spec: {limits: [` + item + `]}}` }

func TestFields(t *testing.T) {
	Run(t, Table{
		Resource: limitrange.Resource(),
		Base:     `{metadata: {name: l, namespace: ns}}`,
		Rows: []Row{
			{Field: "metadata.name", Class: Invalid, Patch: `{metadata: {name: Upper}}`, Error: "Invalid metadata.name"},
			{Field: "spec.limits", Class: Mutable, Patch: limits(`{type: Pod, max: {cpu: "1"}}`)},
			{Field: "spec.limits[].type", Class: Valid, Patch: limits(`{type: example.com/Mine, max: {example.com/a: "1"}}`)},
			{Field: "spec.limits[].type", Class: Invalid, Patch: limits(`{type: Mine}`), Error: "Invalid spec.limits[0].type"},
			{Field: "spec.limits[].type", Class: Invalid, Patch: limits(`{}`), Error: "Invalid spec.limits[0].type"},
			{Field: "spec.limits[].type", Class: Invalid, Patch: limits(`{type: Pod}, {type: Pod}`), Error: "Duplicate spec.limits[1].type"},
			{Field: "spec.limits[].type", Class: Invalid, Patch: limits(`{type: PersistentVolumeClaim}`), Error: "Required spec.limits[0].limits"},
			{Field: "spec.limits[].max", Class: Valid, Patch: limits(`{type: PersistentVolumeClaim, max: {storage: 1Gi}}`)},
			{Field: "spec.limits[].max", Class: Invalid, Patch: limits(`{type: Pod, max: {storage: 1Gi}}`), Error: "Invalid spec.limits[0].max[storage]"},
			{Field: "spec.limits[].min", Class: Invalid, Patch: limits(`{type: Pod, max: {cpu: "1"}, min: {cpu: "2"}}`), Error: "Invalid spec.limits[0].min[cpu]"},
			{Field: "spec.limits[].min", Class: Defaulted, Patch: limits(`{type: Container, min: {cpu: "1"}}`), Want: limits(`{defaultRequest: {cpu: "1"}}`)},
			{Field: "spec.limits[].default", Class: Defaulted, Patch: limits(`{type: Container, max: {cpu: "1"}}`), Want: limits(`{default: {cpu: "1"}, defaultRequest: {cpu: "1"}}`)},
			{Field: "spec.limits[].default", Class: Invalid, Patch: limits(`{type: Pod, default: {cpu: "1"}, defaultRequest: {cpu: "1"}}`), Error: "Forbidden spec.limits[0].default; Forbidden spec.limits[0].defaultRequest"},
			{Field: "spec.limits[].default", Class: Invalid, Patch: limits(`{type: Container, min: {cpu: "1"}, max: {cpu: "2"}, default: {cpu: "3"}, defaultRequest: {cpu: "1"}}`), Error: "Invalid spec.limits[0].default[cpu]"},
			{Field: "spec.limits[].default", Class: Invalid, Patch: limits(`{type: Container, min: {cpu: "2"}, default: {cpu: "1"}, defaultRequest: {cpu: "2"}}`), Error: "Invalid spec.limits[0].default[cpu]; Invalid spec.limits[0].defaultRequest[cpu]"},
			{Field: "spec.limits[].defaultRequest", Class: Invalid, Patch: limits(`{type: Container, defaultRequest: {cpu: "3"}, max: {cpu: "2"}}`), Error: "Invalid spec.limits[0].defaultRequest[cpu]"},
			{Field: "spec.limits[].defaultRequest", Class: Invalid, Patch: limits(`{type: Container, defaultRequest: {example.com/a: "1"}, default: {example.com/a: "2"}}`), Error: "Invalid spec.limits[0].defaultRequest[example.com/a]"},
			{Field: "spec.limits[].maxLimitRequestRatio", Class: Valid, Patch: limits(`{type: Pod, maxLimitRequestRatio: {cpu: "2"}, min: {cpu: "1"}, max: {cpu: "2"}}`)},
			{Field: "spec.limits[].maxLimitRequestRatio", Class: Invalid, Patch: limits(`{type: Pod, maxLimitRequestRatio: {cpu: "3"}, min: {cpu: "1"}, max: {cpu: "2"}}`), Error: "Invalid spec.limits[0].maxLimitRequestRatio[cpu]"},
			{Field: "spec.limits[].maxLimitRequestRatio", Class: Invalid, Patch: limits(`{type: Pod, maxLimitRequestRatio: {cpu: "0"}}`), Error: "Invalid spec.limits[0].maxLimitRequestRatio[cpu]"},
		},
	})
}
