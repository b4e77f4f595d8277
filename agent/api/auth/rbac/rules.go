package rbac

import (
	"cmp"
	"fmt"
	"slices"

	rbacv1 "k8s.io/api/rbac/v1"
	utilerrors "k8s.io/apimachinery/pkg/util/errors"
	"k8s.io/apiserver/pkg/authentication/serviceaccount"
	"k8s.io/apiserver/pkg/authentication/user"
	rbacinformers "k8s.io/client-go/informers/rbac/v1"
	rbaclisters "k8s.io/client-go/listers/rbac/v1"
	"k8s.io/client-go/tools/cache"
)

// subjectIndex names the index from a subject to its bindings.
const subjectIndex = "podvine-rbac-subject"

// Rules finds the rules of users.
type Rules struct {
	clusterBindings, bindings cache.Indexer
	clusterRoles              rbaclisters.ClusterRoleLister
	roles                     rbaclisters.RoleLister
	synced                    []cache.InformerSynced
}

// NewRules indexes the informers of the four RBAC kinds; they must not have been started.
func NewRules(informers rbacinformers.Interface) (*Rules, error) {
	clusterBindings, bindings := informers.ClusterRoleBindings().Informer(), informers.RoleBindings().Informer()
	if err := clusterBindings.AddIndexers(cache.Indexers{subjectIndex: indexClusterBinding}); err != nil {
		return nil, fmt.Errorf("index cluster role bindings: %w", err)
	}
	if err := bindings.AddIndexers(cache.Indexers{subjectIndex: indexBinding}); err != nil {
		return nil, fmt.Errorf("index role bindings: %w", err)
	}
	return &Rules{
		clusterBindings: clusterBindings.GetIndexer(), bindings: bindings.GetIndexer(),
		clusterRoles: informers.ClusterRoles().Lister(), roles: informers.Roles().Lister(),
		synced: []cache.InformerSynced{clusterBindings.HasSynced, bindings.HasSynced,
			informers.ClusterRoles().Informer().HasSynced, informers.Roles().Informer().HasSynced},
	}, nil
}

// HasSynced says whether all four kinds have been read once.
func (r *Rules) HasSynced() bool {
	for _, synced := range r.synced {
		if !synced() {
			return false
		}
	}
	return true
}

func indexClusterBinding(obj any) ([]string, error) {
	b, ok := obj.(*rbacv1.ClusterRoleBinding)
	if !ok {
		return nil, fmt.Errorf("index %T: not a ClusterRoleBinding", obj)
	}
	return subjectKeys(b.Subjects, "", ""), nil
}

func indexBinding(obj any) ([]string, error) {
	b, ok := obj.(*rbacv1.RoleBinding)
	if !ok {
		return nil, fmt.Errorf("index %T: not a RoleBinding", obj)
	}
	return subjectKeys(b.Subjects, b.Namespace, b.Namespace+"\x00"), nil
}

// subjectKeys are the index keys of subjects; a service account without a namespace is one of defaultNamespace.
func subjectKeys(subjects []rbacv1.Subject, defaultNamespace, prefix string) []string {
	keys := make([]string, 0, len(subjects))
	for _, s := range subjects {
		switch s.Kind {
		case rbacv1.UserKind:
			keys = append(keys, prefix+userKey(s.Name))
		case rbacv1.GroupKind:
			keys = append(keys, prefix+groupKey(s.Name))
		case rbacv1.ServiceAccountKind:
			if namespace := cmp.Or(s.Namespace, defaultNamespace); namespace != "" {
				keys = append(keys, prefix+userKey(serviceaccount.MakeUsername(namespace, s.Name)))
			}
		}
	}
	return keys
}

func userKey(name string) string  { return "u\x00" + name }
func groupKey(name string) string { return "g\x00" + name }

// bound is a binding of either kind.
type bound struct {
	kind, name, namespace string
	ref                   *rbacv1.RoleRef
	subjects              []rbacv1.Subject
}

// source says, for the reason of a decision, through which binding a rule came; made only when a decision needs it.
type source struct {
	*bound
	u user.Info
}

// String is as Kubernetes writes it.
func (s source) String() string {
	var subject rbacv1.Subject
	if i := slices.IndexFunc(s.subjects, func(o rbacv1.Subject) bool { return matches(s.u, o, s.namespace) }); i >= 0 {
		subject = s.subjects[i]
	}
	name, to := s.name, subject.Name
	if s.namespace != "" {
		name += "/" + s.namespace
	}
	if subject.Kind == rbacv1.ServiceAccountKind {
		to += "/" + cmp.Or(subject.Namespace, s.namespace)
	}
	return fmt.Sprintf("%s %q of %s %q to %s %q", s.kind, name, s.ref.Kind, s.ref.Name, subject.Kind, to)
}

func matches(u user.Info, s rbacv1.Subject, defaultNamespace string) bool {
	switch s.Kind {
	case rbacv1.UserKind:
		return u.GetName() == s.Name
	case rbacv1.GroupKind:
		return slices.Contains(u.GetGroups(), s.Name)
	case rbacv1.ServiceAccountKind:
		namespace := cmp.Or(s.Namespace, defaultNamespace)
		return namespace != "" && serviceaccount.MatchesUsername(namespace, s.Name, u.GetName())
	}
	return false
}

// visit calls f with each rule of a user, those of the whole cluster first, or with an error, until f returns false.
func (r *Rules) visit(u user.Info, namespace string, f func(fmt.Stringer, *rbacv1.PolicyRule, error) bool) {
	for _, b := range r.find(r.clusterBindings, u, "") {
		if !r.visitRole(u, b, "", f) {
			return
		}
	}
	if namespace == "" {
		return
	}
	for _, b := range r.find(r.bindings, u, namespace+"\x00") {
		if !r.visitRole(u, b, namespace, f) {
			return
		}
	}
}

func (r *Rules) visitRole(u user.Info, b *bound, namespace string, f func(fmt.Stringer, *rbacv1.PolicyRule, error) bool) bool {
	rules, err := r.ofRole(b.ref, namespace)
	if err != nil {
		return f(nil, nil, err)
	}
	for i := range rules {
		if !f(source{b, u}, &rules[i], nil) {
			return false
		}
	}
	return true
}

// find returns the bindings of a user in the order of their names, each once.
func (r *Rules) find(index cache.Indexer, u user.Info, prefix string) []*bound {
	var found []*bound
	add := func(key string) {
		objs, err := index.ByIndex(subjectIndex, prefix+key)
		if err != nil {
			return // only an unknown index errs, and NewRules has added it
		}
		for _, obj := range objs {
			switch b := obj.(type) {
			case *rbacv1.ClusterRoleBinding:
				found = append(found, &bound{kind: "ClusterRoleBinding", name: b.Name, ref: &b.RoleRef, subjects: b.Subjects})
			case *rbacv1.RoleBinding:
				found = append(found, &bound{kind: "RoleBinding", name: b.Name, namespace: b.Namespace, ref: &b.RoleRef, subjects: b.Subjects})
			}
		}
	}
	add(userKey(u.GetName()))
	for _, g := range u.GetGroups() {
		add(groupKey(g))
	}
	slices.SortFunc(found, func(a, b *bound) int { return cmp.Compare(a.name, b.name) })
	return slices.CompactFunc(found, func(a, b *bound) bool { return a.name == b.name })
}

// ofRole are the rules of a role; a Role is looked up in namespace.
func (r *Rules) ofRole(ref *rbacv1.RoleRef, namespace string) ([]rbacv1.PolicyRule, error) {
	switch ref.Kind {
	case "Role":
		role, err := r.roles.Roles(namespace).Get(ref.Name)
		if err != nil {
			return nil, err
		}
		return role.Rules, nil
	case "ClusterRole":
		role, err := r.clusterRoles.Get(ref.Name)
		if err != nil {
			return nil, err
		}
		return role.Rules, nil
	}
	return nil, fmt.Errorf("unsupported role reference kind: %q", ref.Kind)
}

// For returns the rules of a user in a namespace ("" for the cluster alone), also when some could not be resolved.
func (r *Rules) For(u user.Info, namespace string) ([]rbacv1.PolicyRule, error) {
	var rules []rbacv1.PolicyRule
	var errs []error
	r.visit(u, namespace, func(_ fmt.Stringer, rule *rbacv1.PolicyRule, err error) bool {
		if rule != nil {
			rules = append(rules, *rule)
		}
		if err != nil {
			errs = append(errs, err)
		}
		return true
	})
	return rules, utilerrors.NewAggregate(errs)
}
