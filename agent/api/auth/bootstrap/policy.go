package bootstrap

import (
	"slices"
	"strings"

	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// Verbs that come together.
const (
	read      = "get list watch"
	write     = "create delete deletecollection patch update"
	readWrite = read + " " + write
)

// Groups that come together; "core" stands for "".
const (
	core      = "core"
	workloads = "apps extensions"
)

// aggregate starts the label with which a role's rules go into another role.
const aggregate = "rbac.authorization.k8s.io/aggregate-to-"

// Objects are all default objects.
type Objects struct {
	ClusterRoles        []*rbacv1.ClusterRole
	ClusterRoleBindings []*rbacv1.ClusterRoleBinding
	Roles               []*rbacv1.Role
	RoleBindings        []*rbacv1.RoleBinding
}

// role is a row: a ClusterRole, or a Role where it stands in a table of roles by namespace.
type role struct {
	name  string
	rules []rbacv1.PolicyRule
	// into is the role that these rules are aggregated to, from the label by which this role collects; "" is none.
	into, from string
}

// binding is a row: the role of the same name (or ref) for subjects, see subject.
type binding struct {
	name, ref string
	subjects  []string
}

// Policy makes all objects, sorted by name, new ones at each call.
func Policy() Objects {
	var o Objects
	for _, r := range slices.Concat(clusterRoles(), ownRoles()) {
		o.ClusterRoles = append(o.ClusterRoles, r.cluster())
	}
	for _, r := range controllerRoles() {
		account := r.name
		r.name = "system:controller:" + r.name
		o.ClusterRoles = append(o.ClusterRoles, r.cluster())
		o.ClusterRoleBindings = append(o.ClusterRoleBindings, binding{name: r.name, subjects: []string{"account kube-system/" + account}}.cluster())
	}
	for _, b := range slices.Concat(clusterBindings(), ownBindings()) {
		o.ClusterRoleBindings = append(o.ClusterRoleBindings, b.cluster())
	}
	for _, namespace := range []string{metav1.NamespacePublic, metav1.NamespaceSystem} {
		for _, r := range namespaceRoles(namespace) {
			o.Roles = append(o.Roles, &rbacv1.Role{ObjectMeta: meta(r.name, namespace, ""), Rules: r.rules})
		}
		for _, b := range namespaceBindings(namespace) {
			o.RoleBindings = append(o.RoleBindings, b.in(namespace))
		}
	}
	slices.SortFunc(o.ClusterRoles, func(a, b *rbacv1.ClusterRole) int { return strings.Compare(a.Name, b.Name) })
	slices.SortFunc(o.ClusterRoleBindings, func(a, b *rbacv1.ClusterRoleBinding) int { return strings.Compare(a.Name, b.Name) })
	return o
}

func meta(name, namespace, into string) metav1.ObjectMeta {
	m := metav1.ObjectMeta{
		Name: name, Namespace: namespace,
		Labels:      map[string]string{"kubernetes.io/bootstrapping": "rbac-defaults"},
		Annotations: map[string]string{rbacv1.AutoUpdateAnnotationKey: "true"},
	}
	if into != "" {
		m.Labels[aggregate+into] = "true"
	}
	return m
}

func (r role) cluster() *rbacv1.ClusterRole {
	c := &rbacv1.ClusterRole{ObjectMeta: meta(r.name, "", r.into), Rules: r.rules}
	if r.from != "" {
		c.AggregationRule = &rbacv1.AggregationRule{ClusterRoleSelectors: []metav1.LabelSelector{
			{MatchLabels: map[string]string{aggregate + r.from: "true"}}}}
	}
	return c
}

func (b binding) refName() string {
	if b.ref != "" {
		return b.ref
	}
	return b.name
}

func (b binding) cluster() *rbacv1.ClusterRoleBinding {
	return &rbacv1.ClusterRoleBinding{
		ObjectMeta: meta(b.name, "", ""),
		RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: b.refName()},
		Subjects:   subjects(b.subjects),
	}
}

func (b binding) in(namespace string) *rbacv1.RoleBinding {
	return &rbacv1.RoleBinding{
		ObjectMeta: meta(b.name, namespace, ""),
		RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "Role", Name: b.refName()},
		Subjects:   subjects(b.subjects),
	}
}

// subjects reads "user NAME", "group NAME" and "account NAMESPACE/NAME".
func subjects(rows []string) []rbacv1.Subject {
	var out []rbacv1.Subject
	for _, row := range rows {
		kind, name, _ := strings.Cut(row, " ")
		switch kind {
		case "user":
			out = append(out, rbacv1.Subject{Kind: rbacv1.UserKind, APIGroup: rbacv1.GroupName, Name: name})
		case "group":
			out = append(out, rbacv1.Subject{Kind: rbacv1.GroupKind, APIGroup: rbacv1.GroupName, Name: name})
		case "account":
			namespace, account, _ := strings.Cut(name, "/")
			out = append(out, rbacv1.Subject{Kind: rbacv1.ServiceAccountKind, Namespace: namespace, Name: account})
		}
	}
	return out
}

// may is a rule: verbs on resources of groups, each a list separated by spaces; only for names, where given.
func may(verbs, groups, resources string, names ...string) rbacv1.PolicyRule {
	g := sorted(groups)
	for i := range g {
		if g[i] == core {
			g[i] = ""
		}
	}
	slices.Sort(g)
	r := rbacv1.PolicyRule{Verbs: sorted(verbs), APIGroups: g, Resources: sorted(resources)}
	if len(names) > 0 {
		r.ResourceNames = slices.Sorted(slices.Values(names))
	}
	return r
}

// mayGet is a rule about paths.
func mayGet(paths string) rbacv1.PolicyRule {
	return rbacv1.PolicyRule{Verbs: []string{"get"}, NonResourceURLs: sorted(paths)}
}

// events is the rule of everything that reports events.
func events() rbacv1.PolicyRule { return may("create patch update", "core events.k8s.io", "events") }

func sorted(list string) []string {
	fields := strings.Fields(list)
	slices.Sort(fields)
	return fields
}

// rules is a list of rules, to keep the tables narrow.
func rules(r ...rbacv1.PolicyRule) []rbacv1.PolicyRule { return r }
