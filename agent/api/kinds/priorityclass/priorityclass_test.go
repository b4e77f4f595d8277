package priorityclass_test

import (
	"testing"

	. "github.com/podvine/podvine/agent/api/kinds/kindtest"
	"github.com/podvine/podvine/agent/api/kinds/priorityclass"
)

func TestFields(t *testing.T) {
	Run(t, Table{
		Resource: priorityclass.Resource(),
		Base:     `{metadata: {name: c}, value: 5}`,
		Rows: []Row{
			{Field: "metadata.name", Class: Invalid, Patch: `{metadata: {name: system-mine}}`, Error: "Forbidden metadata.name"},
			{Field: "metadata.name", Class: Valid, Patch: `{metadata: {name: system-node-critical}, value: 2000001000}`},
			{Field: "metadata.name", Class: Invalid, Patch: `{metadata: {name: system-node-critical}, value: 7}`, Error: "Forbidden metadata.name"},
			{Field: "metadata.name", Class: Invalid, Patch: `{metadata: {name: system-node-critical}, value: 2000001000, globalDefault: true}`, Error: "Forbidden metadata.name"},
			{Field: "value", Class: Valid, Patch: `{value: -2147483648}`},
			{Field: "value", Class: Invalid, Patch: `{value: 1000000001}`, Error: "Forbidden value"},
			{Field: "value", Class: Immutable, Patch: `{value: 6}`, Error: "Forbidden value"},
			{Field: "globalDefault", Class: Mutable, Patch: `{globalDefault: true}`},
			{Field: "description", Class: Mutable, Patch: `{description: text}`},
			{Field: "preemptionPolicy", Class: Defaulted, Want: `{preemptionPolicy: PreemptLowerPriority}`},
			{Field: "preemptionPolicy", Class: Valid, Patch: `{preemptionPolicy: Never}`},
			{Field: "preemptionPolicy", Class: Invalid, Patch: `{preemptionPolicy: Sometimes}`, Error: "NotSupported preemptionPolicy"},
			{Field: "preemptionPolicy", Class: Immutable, Patch: `{preemptionPolicy: Never}`, Error: "Invalid preemptionPolicy"},
		},
	})
}

func TestSystemClassesAreValid(t *testing.T) {
	for _, class := range priorityclass.System() {
		if class.Value <= 1_000_000_000 {
			t.Errorf("%s has the value %d of a user's class", class.Name, class.Value)
		}
	}
}
