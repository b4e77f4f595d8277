package reviews

import (
	"context"
	"strings"

	authorizationv1 "k8s.io/api/authorization/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/apiserver/pkg/authorization/authorizer"
	genericapirequest "k8s.io/apiserver/pkg/endpoints/request"
)

func accessAnswer(a authorizer.Authorizer) answer[*authorizationv1.SubjectAccessReview] {
	return func(ctx context.Context, r *authorizationv1.SubjectAccessReview, admit func() error) error {
		if errs := validateAccess(r); len(errs) > 0 {
			return invalid(authorizationv1.GroupName, errs)
		}
		if err := admit(); err != nil {
			return err
		}
		r.Status = decide(ctx, a, attributes(subject(&r.Spec), r.Spec.ResourceAttributes, r.Spec.NonResourceAttributes))
		return nil
	}
}

func localAnswer(a authorizer.Authorizer) answer[*authorizationv1.LocalSubjectAccessReview] {
	return func(ctx context.Context, r *authorizationv1.LocalSubjectAccessReview, admit func() error) error {
		if errs := validateLocal(r); len(errs) > 0 {
			return invalid(authorizationv1.GroupName, errs)
		}
		namespace := genericapirequest.NamespaceValue(ctx)
		if namespace == "" {
			return apierrors.NewBadRequest("namespace is required on this type: " + namespace)
		}
		if namespace != r.Namespace {
			return apierrors.NewBadRequest("spec.resourceAttributes.namespace must match namespace: " + namespace)
		}
		if err := admit(); err != nil {
			return err
		}
		r.Status = decide(ctx, a, attributes(subject(&r.Spec), r.Spec.ResourceAttributes, r.Spec.NonResourceAttributes))
		return nil
	}
}

func selfAccessAnswer(a authorizer.Authorizer) answer[*authorizationv1.SelfSubjectAccessReview] {
	return func(ctx context.Context, r *authorizationv1.SelfSubjectAccessReview, admit func() error) error {
		if errs := validateSelf(r); len(errs) > 0 {
			return invalid(authorizationv1.GroupName, errs)
		}
		u, ok := genericapirequest.UserFrom(ctx)
		if !ok {
			return apierrors.NewBadRequest("no user present on request")
		}
		if err := admit(); err != nil {
			return err
		}
		r.Status = decide(ctx, a, attributes(u, r.Spec.ResourceAttributes, r.Spec.NonResourceAttributes))
		return nil
	}
}

func rulesAnswer(access func() Access) answer[*authorizationv1.SelfSubjectRulesReview] {
	return func(ctx context.Context, r *authorizationv1.SelfSubjectRulesReview, admit func() error) error {
		u, ok := genericapirequest.UserFrom(ctx)
		if !ok {
			return apierrors.NewBadRequest("no user present on request")
		}
		if r.Spec.Namespace == "" {
			return apierrors.NewBadRequest("no namespace on request")
		}
		if err := admit(); err != nil {
			return err
		}
		namespace := r.Spec.Namespace
		*r = authorizationv1.SelfSubjectRulesReview{} // nothing of the question comes back
		resolver := access().RuleResolver
		if resolver == nil {
			r.Status = authorizationv1.SubjectRulesReviewStatus{
				ResourceRules: []authorizationv1.ResourceRule{}, NonResourceRules: []authorizationv1.NonResourceRule{}, Incomplete: true,
			}
			return nil
		}
		resources, paths, incomplete, err := resolver.RulesFor(ctx, u, namespace)
		r.Status = authorizationv1.SubjectRulesReviewStatus{
			ResourceRules: resourceRules(resources), NonResourceRules: pathRules(paths), Incomplete: incomplete,
		}
		if err != nil {
			r.Status.EvaluationError = err.Error()
		}
		return nil
	}
}

func resourceRules(list []authorizer.ResourceRuleInfo) []authorizationv1.ResourceRule {
	rules := make([]authorizationv1.ResourceRule, 0, len(list))
	for _, r := range list {
		rules = append(rules, authorizationv1.ResourceRule{
			Verbs: r.GetVerbs(), APIGroups: r.GetAPIGroups(), Resources: r.GetResources(), ResourceNames: r.GetResourceNames(),
		})
	}
	return rules
}

func pathRules(list []authorizer.NonResourceRuleInfo) []authorizationv1.NonResourceRule {
	rules := make([]authorizationv1.NonResourceRule, 0, len(list))
	for _, r := range list {
		rules = append(rules, authorizationv1.NonResourceRule{Verbs: r.GetVerbs(), NonResourceURLs: r.GetNonResourceURLs()})
	}
	return rules
}

// subject is the user that a question is about.
func subject(spec *authorizationv1.SubjectAccessReviewSpec) user.Info {
	u := &user.DefaultInfo{Name: spec.User, UID: spec.UID, Groups: spec.Groups, Extra: map[string][]string{}}
	for k, v := range spec.Extra {
		u.Extra[k] = v
	}
	return u
}

func decide(ctx context.Context, a authorizer.Authorizer, attrs authorizer.AttributesRecord) authorizationv1.SubjectAccessReviewStatus {
	decision, reason, err := a.Authorize(ctx, attrs)
	return authorizationv1.SubjectAccessReviewStatus{
		Allowed: decision == authorizer.DecisionAllow, Denied: decision == authorizer.DecisionDeny, Reason: reason,
		EvaluationError: evaluationError(err, attrs),
	}
}

// evaluationError tells what kept the decision from looking at everything that was asked.
func evaluationError(err error, attrs authorizer.AttributesRecord) string {
	var texts []string
	if err != nil {
		texts = append(texts, err.Error())
	}
	ignored := func(selector string, kept int, err error) {
		switch {
		case err == nil:
		case kept > 0:
			texts = append(texts, "spec.resourceAttributes."+selector+" partially ignored due to parse error")
		default:
			texts = append(texts, "spec.resourceAttributes."+selector+" ignored due to parse error")
		}
	}
	ignored("fieldSelector", len(attrs.FieldSelectorRequirements), attrs.FieldSelectorParsingErr)
	ignored("labelSelector", len(attrs.LabelSelectorRequirements), attrs.LabelSelectorParsingErr)
	return strings.Join(texts, "; ")
}
