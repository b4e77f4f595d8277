package rbac_test

import (
	"testing"

	"k8s.io/apiserver/pkg/authorization/authorizer"

	"github.com/podvine/podvine/agent/api/kinds"
	"github.com/podvine/podvine/agent/api/kinds/kindtest"
	"github.com/podvine/podvine/agent/api/kinds/rbac"
)

func kind(t *testing.T, name string) kinds.Resource {
	t.Helper()
	for _, r := range rbac.Resources(func() authorizer.RuleResolver { return nil }) {
		if r.GVK().Kind == name {
			return r
		}
	}
	t.Fatalf("no kind %s", name)
	return nil
}

const group = "rbac.authorization.k8s.io"

func ruleRows() []kindtest.Row {
	return []kindtest.Row{
		{Field: "metadata.name", Class: kindtest.Invalid, Patch: `{metadata: {name: a%b}}`, Error: "Invalid metadata.name"},
		{Field: "rules", Class: kindtest.Mutable, Patch: `{rules: []}`},
		{Field: "rules[].verbs", Class: kindtest.Valid, Patch: `{rules: [{verbs: ["*"], apiGroups: [apps], resources: [deployments/scale]}]}`},
		{Field: "rules[].verbs", Class: kindtest.Invalid, Patch: `{rules: [{apiGroups: [""], resources: [pods]}]}`, Error: "Required rules[0].verbs"},
		{Field: "rules[].apiGroups", Class: kindtest.Invalid, Patch: `{rules: [{verbs: [get], resources: [pods]}]}`, Error: "Required rules[0].apiGroups"},
		{Field: "rules[].resources", Class: kindtest.Invalid, Patch: `{rules: [{verbs: [get], apiGroups: [""]}]}`, Error: "Required rules[0].resources"},
		{Field: "rules[].resourceNames", Class: kindtest.Mutable, Patch: `{rules: [{verbs: [get], apiGroups: [""], resources: [pods], resourceNames: [a]}]}`},
	}
}

func TestRoleFields(t *testing.T) {
	kindtest.Run(t, kindtest.Table{
		Resource: kind(t, "Role"),
		Base:     `{metadata: {name: "system:r", namespace: ns}, rules: [{verbs: [get], apiGroups: [""], resources: [pods]}]}`,
		Rows: append(ruleRows(),
			kindtest.Row{Field: "rules[].nonResourceURLs", Class: kindtest.Invalid, Patch: `{rules: [{verbs: [get], nonResourceURLs: [/x]}]}`,
				Error: "Invalid rules[0].nonResourceURLs"}),
	})
}

func TestClusterRoleFields(t *testing.T) {
	kindtest.Run(t, kindtest.Table{
		Resource: kind(t, "ClusterRole"),
		Base:     `{metadata: {name: "system:r"}, rules: [{verbs: [get], apiGroups: [""], resources: [pods]}]}`,
		Rows: append(ruleRows(),
			kindtest.Row{Field: "rules[].nonResourceURLs", Class: kindtest.Valid, Patch: `{rules: [{verbs: [get], nonResourceURLs: [/x/*]}]}`},
			kindtest.Row{Field: "rules[].nonResourceURLs", Class: kindtest.Invalid,
				Patch: `{rules: [{verbs: [get], apiGroups: [""], resources: [pods], nonResourceURLs: [/x]}]}`, Error: "Invalid rules[0].nonResourceURLs"},
			kindtest.Row{Field: "aggregationRule", Class: kindtest.Invalid, Patch: `{aggregationRule: {}}`, Error: "Required aggregationRule.clusterRoleSelectors"},
			kindtest.Row{Field: "aggregationRule.clusterRoleSelectors", Class: kindtest.Mutable, Patch: `{aggregationRule: {clusterRoleSelectors: [{matchLabels: {a: b}}]}}`},
			kindtest.Row{Field: "aggregationRule.clusterRoleSelectors[].matchLabels", Class: kindtest.Invalid,
				Patch: `{aggregationRule: {clusterRoleSelectors: [{matchLabels: {"bad key!": b}}]}}`,
				Error: "Invalid aggregationRule.clusterRoleSelectors[0].matchLabels; Invalid aggregationRule.clusterRoleSelectors[0]"},
			kindtest.Row{Field: "aggregationRule.clusterRoleSelectors[].matchExpressions", Class: kindtest.Valid,
				Patch: `{aggregationRule: {clusterRoleSelectors: [{matchExpressions: [{key: a, operator: Exists}]}]}}`},
			kindtest.Row{Field: "aggregationRule.clusterRoleSelectors[].matchExpressions[].key", Class: kindtest.Invalid,
				Patch: `{aggregationRule: {clusterRoleSelectors: [{matchExpressions: [{key: "/a", operator: Exists}]}]}}`,
				Error: "Invalid aggregationRule.clusterRoleSelectors[0].matchExpressions[0].key; Invalid aggregationRule.clusterRoleSelectors[0]"},
			kindtest.Row{Field: "aggregationRule.clusterRoleSelectors[].matchExpressions[].operator", Class: kindtest.Invalid,
				Patch: `{aggregationRule: {clusterRoleSelectors: [{matchExpressions: [{key: a, operator: Bogus}]}]}}`,
				Error: "Invalid aggregationRule.clusterRoleSelectors[0].matchExpressions[0].operator; Invalid aggregationRule.clusterRoleSelectors[0]"},
			kindtest.Row{Field: "aggregationRule.clusterRoleSelectors[].matchExpressions[].values", Class: kindtest.Invalid,
				Patch: `{aggregationRule: {clusterRoleSelectors: [{matchExpressions: [{key: a, operator: In}]}]}}`,
				Error: "Required aggregationRule.clusterRoleSelectors[0].matchExpressions[0].values; Invalid aggregationRule.clusterRoleSelectors[0]"},
		),
	})
}

func bindingRows(role string) []kindtest.Row {
	ref := func(fields string) string { return `{roleRef: {` + fields + `}}` }
	return []kindtest.Row{
		{Field: "roleRef", Class: kindtest.Immutable, Patch: ref(`name: other`), Error: "Invalid roleRef"},
		{Field: "roleRef.apiGroup", Class: kindtest.Defaulted, Patch: ref(`apiGroup: ""`), Want: `{roleRef: {apiGroup: ` + group + `}}`},
		{Field: "roleRef.apiGroup", Class: kindtest.Invalid, Patch: ref(`apiGroup: x`), Error: "NotSupported roleRef.apiGroup"},
		{Field: "roleRef.kind", Class: kindtest.Valid, Patch: ref(`kind: ` + role)},
		{Field: "roleRef.kind", Class: kindtest.Invalid, Patch: ref(`kind: x`), Error: "NotSupported roleRef.kind"},
		{Field: "roleRef.name", Class: kindtest.Invalid, Patch: ref(`name: ""`), Error: "Required roleRef.name"},
		{Field: "roleRef.name", Class: kindtest.Invalid, Patch: ref(`name: a/b`), Error: "Invalid roleRef.name"},
		{Field: "subjects", Class: kindtest.Mutable, Patch: `{subjects: [{kind: User, name: u}]}`},
		{Field: "subjects[].kind", Class: kindtest.Invalid, Patch: `{subjects: [{kind: x, name: u}]}`, Error: "NotSupported subjects[0].kind"},
		{Field: "subjects[].apiGroup", Class: kindtest.Defaulted, Patch: `{subjects: [{kind: Group, name: g}]}`, Want: `{subjects: [{apiGroup: ` + group + `}]}`},
		{Field: "subjects[].apiGroup", Class: kindtest.Invalid, Patch: `{subjects: [{kind: ServiceAccount, namespace: ns, name: a, apiGroup: x}]}`, Error: "NotSupported subjects[0].apiGroup"},
		{Field: "subjects[].apiGroup", Class: kindtest.Invalid, Patch: `{subjects: [{kind: User, name: a, apiGroup: x}]}`, Error: "NotSupported subjects[0].apiGroup"},
		{Field: "subjects[].name", Class: kindtest.Invalid, Patch: `{subjects: [{kind: User}]}`, Error: "Required subjects[0].name"},
		{Field: "subjects[].name", Class: kindtest.Invalid, Patch: `{subjects: [{kind: ServiceAccount, namespace: ns, name: A_}]}`, Error: "Invalid subjects[0].name"},
	}
}

func TestRoleBindingFields(t *testing.T) {
	kindtest.Run(t, kindtest.Table{
		Resource: kind(t, "RoleBinding"),
		Base:     `{metadata: {name: "a:b", namespace: ns}, roleRef: {apiGroup: ` + group + `, kind: Role, name: r}}`,
		Rows: append(bindingRows("ClusterRole"),
			kindtest.Row{Field: "subjects[].namespace", Class: kindtest.Valid, Patch: `{subjects: [{kind: ServiceAccount, name: a}]}`}),
	})
}

func TestClusterRoleBindingFields(t *testing.T) {
	rows := append(bindingRows("ClusterRole"),
		kindtest.Row{Field: "roleRef.kind", Class: kindtest.Invalid, Patch: `{roleRef: {kind: Role}}`, Error: "NotSupported roleRef.kind"},
		kindtest.Row{Field: "subjects[].namespace", Class: kindtest.Invalid, Patch: `{subjects: [{kind: ServiceAccount, name: a}]}`, Error: "Required subjects[0].namespace"})
	kindtest.Run(t, kindtest.Table{
		Resource: kind(t, "ClusterRoleBinding"),
		Base:     `{metadata: {name: "a:b"}, roleRef: {apiGroup: ` + group + `, kind: ClusterRole, name: r}}`,
		Rows:     rows,
	})
}
