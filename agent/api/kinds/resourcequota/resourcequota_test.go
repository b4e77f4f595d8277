package resourcequota_test

import (
	"testing"

	. "github.com/podvine/podvine/agent/api/kinds/kindtest"
	"github.com/podvine/podvine/agent/api/kinds/resourcequota"
)

func selector(requirement string) string {
	return `{spec: {scopeSelector: {matchExpressions: [` + requirement + `]}}}`
}

func TestFields(t *testing.T) {
	Run(t, Table{
		Resource: resourcequota.Resource(),
		Base:     `{metadata: {name: q, namespace: ns}, spec: {hard: {pods: "10"}}}`,
		Rows: []Row{
			{Field: "metadata.name", Class: Invalid, Patch: `{metadata: {name: Upper}}`, Error: "Invalid metadata.name"},
			{Field: "spec.hard", Class: Mutable, Patch: `{spec: {hard: {pods: "1", requests.cpu: 500m, count/deployments.apps: "3", requests.example.com/a: "1"}}}`},
			{Field: "spec.hard", Class: Invalid, Patch: `{spec: {hard: {bogus: "1"}}}`, Error: "Invalid spec.hard[bogus]"},
			{Field: "spec.hard", Class: Invalid, Patch: `{spec: {hard: {storage: "1"}}}`, Error: "Invalid spec.hard[storage]"},
			{Field: "spec.hard", Class: Invalid, Patch: `{spec: {hard: {cpu: "-1"}}}`, Error: "Invalid spec.hard[cpu]"},
			{Field: "spec.hard", Class: Invalid, Patch: `{spec: {hard: {pods: 1500m}}}`, Error: "Invalid spec.hard[pods]"},
			{Field: "spec.scopes", Class: Valid, Patch: `{spec: {scopes: [BestEffort, Terminating]}}`},
			{Field: "spec.scopes", Class: Invalid, Patch: `{spec: {scopes: [Mine]}}`, Error: "Invalid spec.scopes"},
			{Field: "spec.scopes", Class: Invalid, Patch: `{spec: {scopes: [BestEffort, NotBestEffort]}}`, Error: "Invalid spec.scopes"},
			{Field: "spec.scopes", Class: Invalid, Patch: `{spec: {hard: {cpu: "1"}, scopes: [BestEffort]}}`, Error: "Invalid spec.scopes"},
			{Field: "spec.scopes", Class: Immutable, Patch: `{spec: {scopes: [BestEffort]}}`, Error: "Invalid spec.scopes"},
			{Field: "spec.scopeSelector.matchExpressions[].scopeName", Class: Valid, Patch: selector(`{scopeName: PriorityClass, operator: In, values: [high]}`)},
			{Field: "spec.scopeSelector.matchExpressions[].scopeName", Class: Invalid, Patch: selector(`{scopeName: Mine, operator: Exists}`), Error: "Invalid spec.scopeSelector.matchExpressions.scopeName"},
			{Field: "spec.scopeSelector.matchExpressions[].scopeName", Class: Invalid, Patch: selector(`{scopeName: Terminating, operator: Exists}, {scopeName: NotTerminating, operator: Exists}`), Error: "Invalid spec.scopeSelector.matchExpressions"},
			{Field: "spec.scopeSelector.matchExpressions[].operator", Class: Invalid, Patch: selector(`{scopeName: PriorityClass, operator: Is}`), Error: "Invalid spec.scopeSelector.matchExpressions.operator"},
			{Field: "spec.scopeSelector.matchExpressions[].operator", Class: Invalid, Patch: selector(`{scopeName: BestEffort, operator: In, values: [a]}`), Error: "Invalid spec.scopeSelector.matchExpressions.operator"},
			{Field: "spec.scopeSelector.matchExpressions[].values", Class: Invalid, Patch: selector(`{scopeName: PriorityClass, operator: In}`), Error: "Required spec.scopeSelector.matchExpressions.values"},
			{Field: "spec.scopeSelector.matchExpressions[].values", Class: Invalid, Patch: selector(`{scopeName: PriorityClass, operator: Exists, values: [a]}`), Error: "Invalid spec.scopeSelector.matchExpressions.values"},
			{Field: "status.hard", Class: Dropped, Patch: `{status: {hard: {pods: "1"}}}`},
			{Field: "status.hard", Class: Mutable, Status: true, Patch: `{status: {hard: {pods: "1"}}}`},
			{Field: "status.hard", Class: Immutable, Status: true, Patch: `{status: {hard: {bogus: "1"}}}`, Error: "Invalid status.hard[bogus]"},
			{Field: "status.used", Class: Mutable, Status: true, Patch: `{status: {used: {pods: "1"}}}`},
			{Field: "status.used", Class: Immutable, Status: true, Patch: `{status: {used: {pods: "-1"}}}`, Error: "Invalid status.used[pods]"},
		},
	})
}
