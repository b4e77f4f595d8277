package rbac

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"

	rbacv1 "k8s.io/api/rbac/v1"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/apiserver/pkg/authorization/authorizer"
	genericapirequest "k8s.io/apiserver/pkg/endpoints/request"
	"k8s.io/component-helpers/auth/rbac/validation"
)

// UserRules resolves the rules that a user holds. [*Rules] does.
type UserRules interface {
	For(u user.Info, namespace string) ([]rbacv1.PolicyRule, error)
}

// ConfirmNoEscalation fails, with Kubernetes' text, where the user of ctx does not hold all of rules in ctx's namespace.
func ConfirmNoEscalation(ctx context.Context, held UserRules, rules []rbacv1.PolicyRule) error {
	u, ok := genericapirequest.UserFrom(ctx)
	if !ok {
		return errors.New("no user on context")
	}
	namespace, _ := genericapirequest.NamespaceFrom(ctx)
	own, resolveErr := held.For(u, namespace)
	covered, missing := validation.Covers(own, rules)
	if covered {
		return nil
	}
	var lines []string
	for _, r := range compact(missing) {
		lines = append(lines, describe(r))
	}
	slices.Sort(lines)
	text := fmt.Sprintf("user %q (groups=%q) is attempting to grant RBAC permissions not currently held:\n%s",
		u.GetName(), u.GetGroups(), strings.Join(slices.Compact(lines), "\n"))
	if resolveErr != nil {
		text += fmt.Sprintf("; resolution errors: %v", []error{resolveErr})
	}
	return errors.New(text)
}

// MayEscalate says that the user of ctx is above these checks: a system:masters, or allowed the verb "escalate" on the
// role (resource "roles" or "clusterroles"; name may be empty at creation).
func MayEscalate(ctx context.Context, a authorizer.UnconditionalAuthorizer, resource, namespace, name string) bool {
	return Privileged(ctx) || allowed(ctx, a, "escalate", resource, namespace, name)
}

// MayBind says that the user of ctx may bind a role whatever it allows: a system:masters, or allowed the verb "bind" on
// the role. namespace is that of the binding, "" for a ClusterRoleBinding.
func MayBind(ctx context.Context, a authorizer.UnconditionalAuthorizer, ref rbacv1.RoleRef, namespace string) bool {
	if Privileged(ctx) {
		return true
	}
	resource := map[string]string{"Role": "roles", "ClusterRole": "clusterroles"}[ref.Kind]
	return resource != "" && ref.Name != "" && allowed(ctx, a, "bind", resource, namespace, ref.Name)
}

// Privileged says that the user of ctx is a system:masters.
func Privileged(ctx context.Context) bool {
	u, ok := genericapirequest.UserFrom(ctx)
	return ok && slices.Contains(u.GetGroups(), user.SystemPrivilegedGroup)
}

func allowed(ctx context.Context, a authorizer.UnconditionalAuthorizer, verb, resource, namespace, name string) bool {
	u, ok := genericapirequest.UserFrom(ctx)
	if !ok || a == nil {
		return false
	}
	decision, _, err := a.Authorize(ctx, authorizer.AttributesRecord{
		User: u, Verb: verb, Namespace: namespace, APIGroup: rbacv1.GroupName, APIVersion: "*", Resource: resource, Name: name, ResourceRequest: true,
	})
	return err == nil && decision == authorizer.DecisionAllow
}

// compact joins rules that differ in their verbs only.
func compact(rules []rbacv1.PolicyRule) []rbacv1.PolicyRule {
	var out []rbacv1.PolicyRule
	for _, r := range rules {
		same := func(o rbacv1.PolicyRule) bool {
			o.Verbs = r.Verbs
			return simple(r) && reflect.DeepEqual(o, r)
		}
		if i := slices.IndexFunc(out, same); i >= 0 {
			out[i].Verbs = append(out[i].Verbs, r.Verbs...)
			continue
		}
		out = append(out, *r.DeepCopy())
	}
	return out
}

func simple(r rbacv1.PolicyRule) bool {
	return len(r.ResourceNames) <= 1 && len(r.NonResourceURLs) == 0 && len(r.APIGroups) == 1 && len(r.Resources) == 1
}

// describe is the form of a rule in error texts.
func describe(r rbacv1.PolicyRule) string {
	var parts []string
	add := func(name string, list []string) {
		if len(list) > 0 {
			parts = append(parts, fmt.Sprintf("%s:%q", name, list))
		}
	}
	add("APIGroups", r.APIGroups)
	add("Resources", r.Resources)
	add("NonResourceURLs", r.NonResourceURLs)
	add("ResourceNames", r.ResourceNames)
	add("Verbs", r.Verbs)
	return "{" + strings.Join(parts, ", ") + "}"
}
