package rbac

import (
	"context"
	"errors"
	"fmt"

	rbacv1 "k8s.io/api/rbac/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/apiserver/pkg/authorization/authorizer"
	genericapirequest "k8s.io/apiserver/pkg/endpoints/request"
	genericregistry "k8s.io/apiserver/pkg/registry/generic/registry"

	"github.com/podvine/podvine/agent/api/auth/rbac"
	"github.com/podvine/podvine/agent/api/kinds"
)

// guard refuses writes that grant what the writer does not hold. Its fields are set while the kinds are installed and
// only read afterwards.
type guard struct {
	held                func() authorizer.RuleResolver
	authorizer          authorizer.Authorizer
	roles, clusterRoles *genericregistry.Store
}

// userRules turns the resolver's answers back into rules.
type userRules struct {
	ctx      context.Context
	resolver authorizer.RuleResolver
}

// For implements rbac.UserRules.
func (r userRules) For(u user.Info, namespace string) ([]rbacv1.PolicyRule, error) {
	resources, paths, _, err := r.resolver.RulesFor(r.ctx, u, namespace)
	rules := make([]rbacv1.PolicyRule, 0, len(resources)+len(paths))
	for _, i := range resources {
		rules = append(rules, rbacv1.PolicyRule{
			Verbs: i.GetVerbs(), APIGroups: i.GetAPIGroups(), Resources: i.GetResources(), ResourceNames: i.GetResourceNames(),
		})
	}
	for _, i := range paths {
		rules = append(rules, rbacv1.PolicyRule{Verbs: i.GetVerbs(), NonResourceURLs: i.GetNonResourceURLs()})
	}
	return rules, err
}

// confirm refuses to grant rules that the user does not hold.
func (g *guard) confirm(ctx context.Context, rules []rbacv1.PolicyRule) error {
	resolver := g.held()
	if resolver == nil {
		return errors.New("nothing resolves the rules of users")
	}
	return rbac.ConfirmNoEscalation(ctx, userRules{ctx, resolver}, rules)
}

// done ends a hook that has nothing to do afterwards.
func done(context.Context, bool) {}

func (g *guard) createRole(ctx context.Context, obj runtime.Object, _ *metav1.CreateOptions) (genericregistry.FinishFunc, error) {
	r, ok := obj.(*rbacv1.Role)
	if !ok {
		return nil, fmt.Errorf("check %T: not a Role", obj)
	}
	return done, g.role(ctx, r)
}

func (g *guard) updateRole(ctx context.Context, obj, old runtime.Object, _ *metav1.UpdateOptions) (genericregistry.FinishFunc, error) {
	r, ok := obj.(*rbacv1.Role)
	before, oldOK := old.(*rbacv1.Role)
	if !ok || !oldOK {
		return nil, fmt.Errorf("check %T: not a Role", obj)
	}
	if equality.Semantic.DeepEqual(r.Rules, before.Rules) || kinds.OnlyCollected(obj, old) {
		return done, nil
	}
	return done, g.role(ctx, r)
}

func (g *guard) role(ctx context.Context, r *rbacv1.Role) error {
	namespace, _ := genericapirequest.NamespaceFrom(ctx)
	if rbac.MayEscalate(ctx, g.authorizer, "roles", namespace, r.Name) {
		return nil
	}
	if err := g.confirm(ctx, r.Rules); err != nil {
		return apierrors.NewForbidden(rbacv1.Resource("roles"), r.Name, err)
	}
	return nil
}

func (g *guard) createClusterRole(ctx context.Context, obj runtime.Object, _ *metav1.CreateOptions) (genericregistry.FinishFunc, error) {
	r, ok := obj.(*rbacv1.ClusterRole)
	if !ok {
		return nil, fmt.Errorf("check %T: not a ClusterRole", obj)
	}
	return done, g.clusterRole(ctx, r, r.AggregationRule != nil)
}

func (g *guard) updateClusterRole(ctx context.Context, obj, old runtime.Object, _ *metav1.UpdateOptions) (genericregistry.FinishFunc, error) {
	r, ok := obj.(*rbacv1.ClusterRole)
	before, oldOK := old.(*rbacv1.ClusterRole)
	if !ok || !oldOK {
		return nil, fmt.Errorf("check %T: not a ClusterRole", obj)
	}
	same := equality.Semantic.DeepEqual(r.Rules, before.Rules) && equality.Semantic.DeepEqual(r.AggregationRule, before.AggregationRule)
	if same || kinds.OnlyCollected(obj, old) {
		return done, nil
	}
	return done, g.clusterRole(ctx, r, r.AggregationRule != nil || before.AggregationRule != nil)
}

func (g *guard) clusterRole(ctx context.Context, r *rbacv1.ClusterRole, aggregates bool) error {
	if rbac.MayEscalate(ctx, g.authorizer, "clusterroles", "", r.Name) {
		return nil
	}
	if err := g.confirm(ctx, r.Rules); err != nil {
		return apierrors.NewForbidden(rbacv1.Resource("clusterroles"), r.Name, err)
	}
	if !aggregates { // such a role can collect any rule later
		return nil
	}
	everything := []rbacv1.PolicyRule{
		{Verbs: []string{"*"}, APIGroups: []string{"*"}, Resources: []string{"*"}},
		{Verbs: []string{"*"}, NonResourceURLs: []string{"*"}},
	}
	if err := g.confirm(ctx, everything); err != nil {
		return apierrors.NewForbidden(rbacv1.Resource("clusterroles"), r.Name, errors.New("must have cluster-admin privileges to use the aggregationRule"))
	}
	return nil
}

func (g *guard) createBinding(ctx context.Context, obj runtime.Object, _ *metav1.CreateOptions) (genericregistry.FinishFunc, error) {
	return done, g.binding(ctx, obj)
}

func (g *guard) updateBinding(ctx context.Context, obj, old runtime.Object, _ *metav1.UpdateOptions) (genericregistry.FinishFunc, error) {
	if kinds.OnlyCollected(obj, old) {
		return done, nil
	}
	return done, g.binding(ctx, obj)
}

// binding checks that the user may bind the role of a binding of either kind.
func (g *guard) binding(ctx context.Context, obj runtime.Object) error {
	var ref rbacv1.RoleRef
	var name, namespace, resource string
	switch b := obj.(type) {
	case *rbacv1.RoleBinding:
		ref, name, resource = b.RoleRef, b.Name, "rolebindings"
		namespace, _ = genericapirequest.NamespaceFrom(ctx)
	case *rbacv1.ClusterRoleBinding:
		ref, name, resource = b.RoleRef, b.Name, "clusterrolebindings"
	default:
		return fmt.Errorf("check %T: not a binding", obj)
	}
	if rbac.MayBind(ctx, g.authorizer, ref, namespace) {
		return nil
	}
	rules, err := g.rulesOf(ctx, ref)
	if err != nil {
		return err
	}
	if err := g.confirm(ctx, rules); err != nil {
		return apierrors.NewForbidden(rbacv1.Resource(resource), name, err)
	}
	return nil
}

// rulesOf reads a role from the storage itself, so that one made a moment ago is found.
func (g *guard) rulesOf(ctx context.Context, ref rbacv1.RoleRef) ([]rbacv1.PolicyRule, error) {
	switch ref.Kind {
	case "Role":
		obj, err := g.roles.Get(ctx, ref.Name, &metav1.GetOptions{})
		if err != nil {
			return nil, err
		}
		if r, ok := obj.(*rbacv1.Role); ok {
			return r.Rules, nil
		}
	case "ClusterRole":
		obj, err := g.clusterRoles.Get(genericapirequest.WithNamespace(ctx, ""), ref.Name, &metav1.GetOptions{})
		if err != nil {
			return nil, err
		}
		if r, ok := obj.(*rbacv1.ClusterRole); ok {
			return r.Rules, nil
		}
	}
	return nil, fmt.Errorf("unsupported role reference kind: %q", ref.Kind)
}
