// Package rbac decides by Kubernetes' role-based access control, resolves the rules of a user, and keeps users from
// granting what they do not hold.
//
// Bindings and roles come from shared informers; two indexes over their caches find the bindings of a subject, so
// that a decision costs the bindings of the user and not all of the cluster's. Objects from the informers are never
// changed. Everything here is safe for concurrent use, and decides "no opinion" before the informers have synced.
package rbac

import (
	"context"
	"fmt"
	"slices"
	"strings"

	rbacv1 "k8s.io/api/rbac/v1"
	utilerrors "k8s.io/apimachinery/pkg/util/errors"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/apiserver/pkg/authorization/authorizer"
)

// Authorizer decides by the roles that are bound to a user.
type Authorizer struct{ rules *Rules }

var (
	_ authorizer.Authorizer   = (*Authorizer)(nil)
	_ authorizer.RuleResolver = (*Authorizer)(nil)
)

// NewAuthorizer decides by rules.
func NewAuthorizer(rules *Rules) *Authorizer { return &Authorizer{rules: rules} }

// Authorize allows what a rule of the user allows, and has no opinion about the rest.
func (a *Authorizer) Authorize(_ context.Context, attrs authorizer.Attributes) (authorizer.Decision, string, error) {
	var reason string
	var errs []error
	a.rules.visit(attrs.GetUser(), attrs.GetNamespace(), func(source fmt.Stringer, rule *rbacv1.PolicyRule, err error) bool {
		if err != nil {
			errs = append(errs, err)
		}
		if rule == nil || !Allows(attrs, rule) {
			return true
		}
		reason = "RBAC: allowed by " + source.String()
		return false
	})
	if reason != "" {
		return authorizer.DecisionAllow, reason, nil
	}
	if len(errs) > 0 {
		reason = fmt.Sprintf("RBAC: %v", utilerrors.NewAggregate(errs))
	}
	return authorizer.DecisionNoOpinion, reason, nil
}

// ConditionsAwareAuthorize is Authorize: RBAC knows no conditions.
func (a *Authorizer) ConditionsAwareAuthorize(ctx context.Context, attrs authorizer.Attributes) authorizer.ConditionsAwareDecision {
	return authorizer.ConditionsAwareDecisionFromParts(a.Authorize(ctx, attrs))
}

// EvaluateConditions refuses: no decision of this authorizer has any.
func (a *Authorizer) EvaluateConditions(context.Context, authorizer.ConditionsAwareDecision, authorizer.ConditionsData) (authorizer.Decision, string, error) {
	return authorizer.DecisionDeny, "", authorizer.ErrorConditionEvaluationNotSupported
}

// RulesFor lists the rules of a user for SelfSubjectRulesReview.
func (a *Authorizer) RulesFor(_ context.Context, u user.Info, namespace string) ([]authorizer.ResourceRuleInfo, []authorizer.NonResourceRuleInfo, bool, error) {
	rules, err := a.rules.For(u, namespace)
	var resources []authorizer.ResourceRuleInfo
	var paths []authorizer.NonResourceRuleInfo
	for _, r := range rules {
		if len(r.Resources) > 0 {
			resources = append(resources, &authorizer.DefaultResourceRuleInfo{
				Verbs: r.Verbs, APIGroups: r.APIGroups, Resources: r.Resources, ResourceNames: r.ResourceNames,
			})
		}
		if len(r.NonResourceURLs) > 0 {
			paths = append(paths, &authorizer.DefaultNonResourceRuleInfo{Verbs: r.Verbs, NonResourceURLs: r.NonResourceURLs})
		}
	}
	return resources, paths, false, err
}

// AnyAllows says whether one of the rules allows a request.
func AnyAllows(attrs authorizer.Attributes, rules []rbacv1.PolicyRule) bool {
	return slices.ContainsFunc(rules, func(r rbacv1.PolicyRule) bool { return Allows(attrs, &r) })
}

// Allows says whether a rule allows a request.
func Allows(attrs authorizer.Attributes, rule *rbacv1.PolicyRule) bool {
	if !contains(rule.Verbs, rbacv1.VerbAll, attrs.GetVerb()) {
		return false
	}
	if !attrs.IsResourceRequest() {
		return allowsPath(rule.NonResourceURLs, attrs.GetPath())
	}
	return contains(rule.APIGroups, rbacv1.APIGroupAll, attrs.GetAPIGroup()) &&
		allowsResource(rule.Resources, attrs.GetResource(), attrs.GetSubresource()) &&
		(len(rule.ResourceNames) == 0 || slices.Contains(rule.ResourceNames, attrs.GetName()))
}

func contains(list []string, all, s string) bool {
	for _, x := range list {
		if x == all || x == s {
			return true
		}
	}
	return false
}

// allowsResource matches "*", "resource", "resource/sub" and "*/sub".
func allowsResource(list []string, resource, sub string) bool {
	for _, x := range list {
		if x == rbacv1.ResourceAll {
			return true
		}
		before, after, cut := strings.Cut(x, "/")
		switch {
		case !cut && sub == "" && x == resource:
			return true
		case cut && sub != "" && after == sub && (before == resource || before == "*"):
			return true
		}
	}
	return false
}

// allowsPath matches "*", the path itself, and a prefix that ends in "*".
func allowsPath(list []string, path string) bool {
	for _, x := range list {
		if x == rbacv1.NonResourceAll || x == path {
			return true
		}
		if prefix, ok := strings.CutSuffix(x, "*"); ok && strings.HasPrefix(path, strings.TrimRight(prefix, "*")) {
			return true
		}
	}
	return false
}
