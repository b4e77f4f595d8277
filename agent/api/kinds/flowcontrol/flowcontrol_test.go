package flowcontrol_test

import (
	"slices"
	"testing"

	flowcontrolv1 "k8s.io/api/flowcontrol/v1"
	"k8s.io/apiserver/pkg/apis/flowcontrol/bootstrap"

	"github.com/podvine/podvine/agent/api/kinds"
	"github.com/podvine/podvine/agent/api/kinds/flowcontrol"
	. "github.com/podvine/podvine/agent/api/kinds/kindtest"
)

func TestFieldsOfLevels(t *testing.T) {
	limited := func(text string) string { return `{spec: {limited: {` + text + `}}}` }
	queuing := func(text string) string { return limited(`limitResponse: {type: Queue, queuing: {` + text + `}}`) }
	const exempt = `{metadata: {name: exempt}, spec: {type: Exempt, exempt: {}}}`
	const condition = `{status: {conditions: [{type: T, status: "True", lastTransitionTime: "2030-01-02T03:04:05Z", reason: R, message: m}]}}`
	Run(t, Table{
		Resource: flowcontrol.Levels(),
		Base:     `{metadata: {name: l}, spec: {type: Limited, limited: {limitResponse: {type: Reject}}}}`,
		Rows: []Row{
			{Field: "spec.type", Class: Invalid, Patch: `{spec: {type: Exempt}}`, Error: "Forbidden spec.limited; Invalid spec.type"},
			{Field: "spec.type", Class: Invalid, Patch: `{spec: {type: Odd}}`, Error: "Forbidden spec.limited; NotSupported spec.type"},
			{Field: "spec.type", Class: Invalid, Patch: `{spec: null}`, Error: "Required spec.type"},
			{Field: "spec.limited", Class: Invalid, Patch: `{spec: {limited: null}}`, Error: "Required spec.limited"},
			{Field: "spec.limited.nominalConcurrencyShares", Class: Defaulted, Want: limited("nominalConcurrencyShares: 30")},
			{Field: "spec.limited.nominalConcurrencyShares", Class: Invalid, Patch: limited("nominalConcurrencyShares: -1"), Error: "Invalid spec.limited.nominalConcurrencyShares"},
			{Field: "spec.limited.lendablePercent", Class: Defaulted, Want: limited("lendablePercent: 0")},
			{Field: "spec.limited.lendablePercent", Class: Invalid, Patch: limited("lendablePercent: 101"), Error: "Invalid spec.limited.lendablePercent"},
			{Field: "spec.limited.borrowingLimitPercent", Class: Valid, Patch: limited("borrowingLimitPercent: 300")},
			{Field: "spec.limited.borrowingLimitPercent", Class: Invalid, Patch: limited("borrowingLimitPercent: -1"), Error: "Invalid spec.limited.borrowingLimitPercent"},
			{Field: "spec.limited.limitResponse.type", Class: Invalid, Patch: limited("limitResponse: {type: Odd}"), Error: "NotSupported spec.limited.limitResponse.type"},
			{Field: "spec.limited.limitResponse.queuing", Class: Invalid, Patch: limited("limitResponse: {queuing: {}}"), Error: "Forbidden spec.limited.limitResponse.queuing"},
			{Field: "spec.limited.limitResponse.queuing.queues", Class: Defaulted, Patch: queuing(""), Want: queuing("queues: 64")},
			{Field: "spec.limited.limitResponse.queuing.queues", Class: Invalid, Patch: queuing("queues: 20000000, handSize: 1"), Error: "Invalid spec.limited.limitResponse.queuing.queues"},
			{Field: "spec.limited.limitResponse.queuing.handSize", Class: Defaulted, Patch: queuing(""), Want: queuing("handSize: 8")},
			{Field: "spec.limited.limitResponse.queuing.handSize", Class: Invalid, Patch: queuing("handSize: 65"), Error: "Invalid spec.limited.limitResponse.queuing.handSize"},
			{Field: "spec.limited.limitResponse.queuing.queueLengthLimit", Class: Defaulted, Patch: queuing(""), Want: queuing("queueLengthLimit: 50")},
			{Field: "spec.limited.limitResponse.queuing.queueLengthLimit", Class: Invalid, Patch: queuing("queueLengthLimit: -1"), Error: "Invalid spec.limited.limitResponse.queuing.queueLengthLimit"},
			{Field: "spec.exempt.nominalConcurrencyShares", Class: Defaulted, Base: exempt, Want: `{spec: {exempt: {nominalConcurrencyShares: 0}}}`},
			{Field: "spec.exempt.lendablePercent", Class: Invalid, Base: exempt, Patch: `{spec: {exempt: {lendablePercent: -1}}}`, Error: "Invalid spec.exempt.lendablePercent"},
			{Field: "spec.exempt", Class: Invalid, Patch: `{spec: {exempt: {}}}`, Error: "Forbidden spec.exempt"},
			{Field: "status.conditions", Class: Dropped, Patch: condition},
			{Field: "status.conditions[].type", Class: Mutable, Status: true, Patch: condition},
			{Field: "status.conditions[].type", Class: Immutable, Status: true, Patch: `{status: {conditions: [{}]}}`, Error: "Required status.conditions[0].type"},
			{Field: "status.conditions[].status", Class: Mutable, Status: true, Patch: condition},
			{Field: "status.conditions[].lastTransitionTime", Class: Mutable, Status: true, Patch: condition},
			{Field: "status.conditions[].reason", Class: Mutable, Status: true, Patch: condition},
			{Field: "status.conditions[].message", Class: Mutable, Status: true, Patch: condition},
		},
	})
}

func TestFieldsOfSchemas(t *testing.T) {
	rule := func(subject, resource, other string) string {
		return `{spec: {rules: [{subjects: [` + subject + `], resourceRules: [` + resource + `], nonResourceRules: [` + other + `]}]}}`
	}
	const (
		user      = `{kind: User, user: {name: u}}`
		group     = `{kind: Group, group: {name: g}}`
		account   = `{kind: ServiceAccount, serviceAccount: {namespace: ns, name: "*"}}`
		pods      = `{verbs: ["*"], apiGroups: [""], resources: [pods], namespaces: ["*"]}`
		nodes     = `{verbs: [get, list], apiGroups: ["*"], resources: ["*"], clusterScope: true}`
		health    = `{verbs: [get], nonResourceURLs: [/healthz, "/debug/*"]}`
		condition = `{status: {conditions: [{type: Dangling, status: "True", lastTransitionTime: "2030-01-02T03:04:05Z", reason: R, message: m}]}}`
		at        = "spec.rules[0]."
	)
	good := rule(user+","+group+","+account, pods+","+nodes, health)
	Run(t, Table{
		Resource: flowcontrol.Schemas(),
		Base:     `{metadata: {name: s}, spec: {priorityLevelConfiguration: {name: p}}}`,
		Rows: []Row{
			{Field: "spec.priorityLevelConfiguration.name", Class: Invalid, Patch: `{spec: {priorityLevelConfiguration: {name: A_B}}}`, Error: "Invalid spec.priorityLevelConfiguration.name"},
			{Field: "spec.priorityLevelConfiguration.name", Class: Invalid, Patch: `{spec: {priorityLevelConfiguration: null}}`, Error: "Required spec.priorityLevelConfiguration.name"},
			{Field: "spec.matchingPrecedence", Class: Defaulted, Want: `{spec: {matchingPrecedence: 1000}}`},
			{Field: "spec.matchingPrecedence", Class: Invalid, Patch: `{spec: {matchingPrecedence: 10001}}`, Error: "Invalid spec.matchingPrecedence"},
			{Field: "spec.matchingPrecedence", Class: Invalid, Patch: `{spec: {matchingPrecedence: 1}}`, Error: "Invalid spec.matchingPrecedence"},
			{Field: "spec.distinguisherMethod.type", Class: Mutable, Patch: `{spec: {distinguisherMethod: {type: ByUser}}}`},
			{Field: "spec.distinguisherMethod.type", Class: Invalid, Patch: `{spec: {distinguisherMethod: {type: Odd}}}`, Error: "NotSupported spec.distinguisherMethod.type"},
			{Field: "spec.rules", Class: Mutable, Patch: good},
			{Field: "spec.rules[].subjects", Class: Invalid, Patch: rule("", pods, ""), Error: "Required " + at + "subjects"},
			{Field: "spec.rules[].subjects[].kind", Class: Invalid, Patch: rule(`{kind: Odd}`, pods, ""), Error: "NotSupported " + at + "subjects[0].kind"},
			{Field: "spec.rules[].subjects[].user", Class: Invalid, Patch: rule(`{kind: User}`, pods, ""), Error: "Required " + at + "subjects[0].user"},
			{Field: "spec.rules[].subjects[].user.name", Class: Invalid, Patch: rule(`{kind: User, user: {name: ""}}`, pods, ""), Error: "Required " + at + "subjects[0].user.name"},
			{Field: "spec.rules[].subjects[].group", Class: Invalid, Patch: rule(`{kind: User, user: {name: u}, group: {name: g}}`, pods, ""), Error: "Forbidden " + at + "subjects[0].group"},
			{Field: "spec.rules[].subjects[].group.name", Class: Invalid, Patch: rule(`{kind: Group, group: {name: ""}}`, pods, ""), Error: "Required " + at + "subjects[0].group.name"},
			{Field: "spec.rules[].subjects[].serviceAccount.namespace", Class: Invalid, Patch: rule(`{kind: ServiceAccount, serviceAccount: {namespace: "", name: a}}`, pods, ""),
				Error: "Required " + at + "subjects[0].serviceAccount.namespace"},
			{Field: "spec.rules[].subjects[].serviceAccount.name", Class: Invalid, Patch: rule(`{kind: ServiceAccount, serviceAccount: {namespace: ns, name: A}}`, pods, ""),
				Error: "Invalid " + at + "subjects[0].serviceAccount.name"},
			{Field: "spec.rules[].resourceRules", Class: Invalid, Patch: rule(user, "", ""), Error: "Required spec.rules[0]"},
			{Field: "spec.rules[].resourceRules[].verbs", Class: Invalid, Patch: rule(user, `{verbs: [fly], apiGroups: ["*"], resources: ["*"], namespaces: ["*"]}`, ""),
				Error: "NotSupported " + at + "resourceRules[0].verbs"},
			{Field: "spec.rules[].resourceRules[].apiGroups", Class: Invalid, Patch: rule(user, `{verbs: ["*"], apiGroups: ["*", a], resources: ["*"], namespaces: ["*"]}`, ""),
				Error: "Invalid " + at + "resourceRules[0].apiGroups"},
			{Field: "spec.rules[].resourceRules[].resources", Class: Invalid, Patch: rule(user, `{verbs: ["*"], apiGroups: ["*"], resources: [], namespaces: ["*"]}`, ""),
				Error: "Required " + at + "resourceRules[0].resources"},
			{Field: "spec.rules[].resourceRules[].clusterScope", Class: Invalid, Patch: rule(user, `{verbs: ["*"], apiGroups: ["*"], resources: ["*"], clusterScope: false}`, ""),
				Error: "Required " + at + "resourceRules[0].namespaces"},
			{Field: "spec.rules[].resourceRules[].namespaces", Class: Invalid, Patch: rule(user, `{verbs: ["*"], apiGroups: ["*"], resources: ["*"], namespaces: [A_B]}`, ""),
				Error: "Invalid " + at + "resourceRules[0].namespaces[0]"},
			{Field: "spec.rules[].nonResourceRules[].verbs", Class: Invalid, Patch: rule(user, "", `{verbs: ["*", get], nonResourceURLs: [/]}`), Error: "Invalid " + at + "nonResourceRules[0].verbs"},
			{Field: "spec.rules[].nonResourceRules[].nonResourceURLs", Class: Invalid, Patch: rule(user, "", `{verbs: [get], nonResourceURLs: [x, /a b, /a//b, /a*]}`),
				Error: "Invalid " + at + "nonResourceRules[0].nonResourceURLs[0]; Invalid " + at + "nonResourceRules[0].nonResourceURLs[1]; Invalid " + at +
					"nonResourceRules[0].nonResourceURLs[2]; Invalid " + at + "nonResourceRules[0].nonResourceURLs[3]"},
			{Field: "status.conditions", Class: Dropped, Patch: condition},
			{Field: "status.conditions[].type", Class: Immutable, Status: true, Patch: `{status: {conditions: [{type: A}, {type: A}]}}`, Error: "Duplicate status.conditions[1].type"},
			{Field: "status.conditions[].status", Class: Mutable, Status: true, Patch: condition},
			{Field: "status.conditions[].lastTransitionTime", Class: Mutable, Status: true, Patch: condition},
			{Field: "status.conditions[].reason", Class: Mutable, Status: true, Patch: condition},
			{Field: "status.conditions[].message", Class: Mutable, Status: true, Patch: condition},
		},
	})
}

// What every cluster gets at its start must pass the kinds' own validation.
func TestBootstrapObjectsAreValid(t *testing.T) {
	levels := flowcontrol.Levels().(*kinds.Kind[*flowcontrolv1.PriorityLevelConfiguration])
	for _, l := range slices.Concat(bootstrap.MandatoryPriorityLevelConfigurations, bootstrap.SuggestedPriorityLevelConfigurations) {
		if errs := levels.Validate(t.Context(), l); len(errs) > 0 {
			t.Errorf("%s: %v", l.Name, errs.ToAggregate())
		}
	}
	schemas := flowcontrol.Schemas().(*kinds.Kind[*flowcontrolv1.FlowSchema])
	for _, s := range slices.Concat(bootstrap.MandatoryFlowSchemas, bootstrap.SuggestedFlowSchemas) {
		if errs := schemas.Validate(t.Context(), s); len(errs) > 0 {
			t.Errorf("%s: %v", s.Name, errs.ToAggregate())
		}
	}
}
