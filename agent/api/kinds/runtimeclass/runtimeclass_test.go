package runtimeclass_test

import (
	"testing"

	. "github.com/podvine/podvine/agent/api/kinds/kindtest"
	"github.com/podvine/podvine/agent/api/kinds/runtimeclass"
)

func TestFields(t *testing.T) {
	const tolerations = "scheduling.tolerations[0]."
	Run(t, Table{
		Resource: runtimeclass.Resource(),
		Base:     `{metadata: {name: sandboxed}, handler: runsc}`,
		Rows: []Row{
			{Field: "metadata.name", Class: Invalid, Patch: `{metadata: {name: a_b}}`, Error: "Invalid metadata.name"},
			{Field: "handler", Class: Invalid, Patch: `{handler: null}`, Error: "Required handler"},
			{Field: "handler", Class: Invalid, Patch: `{handler: Bad_Value}`, Error: "Invalid handler"},
			{Field: "handler", Class: Immutable, Patch: `{handler: kata}`, Error: "Invalid handler"},
			{Field: "overhead", Class: Mutable, Patch: `{overhead: {}}`},
			{Field: "overhead.podFixed", Class: Valid, Patch: `{overhead: {podFixed: {cpu: 10m, memory: 16Mi, example.com/foo: "2"}}}`},
			{Field: "metadata.finalizers", Class: Valid, Patch: `{metadata: {finalizers: [plain]}}`},
			{Field: "overhead.podFixed", Class: Invalid, Patch: `{overhead: {podFixed: {cpu: "-1"}}}`, Error: "Invalid overhead.limits[cpu]"},
			{Field: "overhead.podFixed", Class: Invalid, Patch: `{overhead: {podFixed: {bogus: "1"}}}`, Error: "Invalid overhead.limits[bogus]"},
			{Field: "scheduling", Class: Mutable, Patch: `{scheduling: {}}`},
			{Field: "scheduling.nodeSelector", Class: Valid, Patch: `{scheduling: {nodeSelector: {disk: fast}}}`},
			{Field: "scheduling.nodeSelector", Class: Invalid, Patch: `{scheduling: {nodeSelector: {a: "bad value!"}}}`, Error: "Invalid scheduling.nodeSelector"},
			{Field: "scheduling.tolerations", Class: Invalid, Patch: `{scheduling: {tolerations: [{key: a, operator: Exists}, {key: a, operator: Exists}]}}`,
				Error: "Duplicate scheduling.tolerations[1]"},
			{Field: "scheduling.tolerations[].key", Class: Invalid, Patch: `{scheduling: {tolerations: [{}]}}`, Error: "Invalid " + tolerations + "operator"},
			{Field: "scheduling.tolerations[].key", Class: Invalid, Patch: `{scheduling: {tolerations: [{key: a/b/c}]}}`, Error: "Invalid " + tolerations + "key"},
			{Field: "scheduling.tolerations[].operator", Class: Invalid, Patch: `{scheduling: {tolerations: [{key: a, operator: Is}]}}`, Error: "NotSupported " + tolerations + "operator"},
			{Field: "scheduling.tolerations[].value", Class: Valid, Patch: `{scheduling: {tolerations: [{key: a, value: b}]}}`},
			{Field: "scheduling.tolerations[].value", Class: Invalid, Patch: `{scheduling: {tolerations: [{key: a, operator: Exists, value: b}]}}`, Error: "Invalid " + tolerations + "operator"},
			{Field: "scheduling.tolerations[].effect", Class: Invalid, Patch: `{scheduling: {tolerations: [{key: a, effect: Never}]}}`, Error: "NotSupported " + tolerations + "effect"},
			{Field: "scheduling.tolerations[].tolerationSeconds", Class: Valid, Patch: `{scheduling: {tolerations: [{key: a, effect: NoExecute, tolerationSeconds: 3}]}}`},
			{Field: "scheduling.tolerations[].tolerationSeconds", Class: Invalid, Patch: `{scheduling: {tolerations: [{key: a, effect: NoSchedule, tolerationSeconds: 3}]}}`,
				Error: "Invalid " + tolerations + "effect"},
		},
	})
}
