package storageversionmigration_test

import (
	"testing"

	. "github.com/podvine/podvine/agent/api/kinds/kindtest"
	"github.com/podvine/podvine/agent/api/kinds/storageversionmigration"
)

func TestFields(t *testing.T) {
	condition := func(kind string) string {
		return `{type: ` + kind + `, status: "True", reason: R, message: m, lastTransitionTime: "2030-01-02T03:04:05Z"}`
	}
	status := func(text string) string { return `{status: {` + text + `}}` }
	Run(t, Table{
		Resource: storageversionmigration.Resource(),
		Base:     `{metadata: {name: m}, spec: {resource: {group: apps, resource: deployments}}}`,
		Rows: []Row{
			{Field: "spec.resource.group", Class: Invalid, Patch: `{spec: {resource: {group: A_B}}}`, Error: "Invalid spec.resource.group"},
			{Field: "spec.resource.group", Class: Immutable, Patch: `{spec: {resource: {group: ""}}}`, Error: "Invalid spec"},
			{Field: "spec.resource.resource", Class: Invalid, Patch: `{spec: {resource: {resource: null}}}`, Error: "Required spec.resource.resource"},
			{Field: "spec.resource.resource", Class: Invalid, Patch: `{spec: {resource: {resource: 1a}}}`, Error: "Invalid spec.resource.resource"},
			{Field: "status.conditions", Class: Dropped, Patch: status("conditions: [" + condition("Running") + "]")},
			{Field: "status.conditions", Class: Mutable, Status: true, Patch: status("conditions: [" + condition("Running") + "]")},
			{Field: "status.conditions", Class: Immutable, Status: true, Patch: status("conditions: [{}]"),
				Error: "Required status.conditions[0].type; Required status.conditions[0].status; Required status.conditions[0].reason; Required status.conditions[0].lastTransitionTime"},
			{Field: "status.conditions", Class: Immutable, Status: true, Patch: status("conditions: [" + condition("Succeeded") + "," + condition("Failed") + "]"), Error: "Invalid status.conditions"},
			{Field: "status.resourceVersion", Class: Mutable, Status: true, Patch: status(`resourceVersion: "5"`)},
			{Field: "status.resourceVersion", Class: Immutable, Status: true, Patch: status(`resourceVersion: "05"`), Error: "Invalid status.resourceVersion"},
		},
		Elsewhere: map[string]string{"status.conditions": "conditions are the library's"},
	})
}
