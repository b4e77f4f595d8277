package rbac

import (
	"slices"

	rbacv1 "k8s.io/api/rbac/v1"
	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	metav1validation "k8s.io/apimachinery/pkg/apis/meta/v1/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/podvine/podvine/agent/api/kinds"
)

func validateRole(r *rbacv1.Role) field.ErrorList {
	errs := kinds.ValidateObjectMeta(&r.ObjectMeta, true, validName, field.NewPath("metadata"))
	return append(errs, validateRules(r.Rules, true)...)
}

func validateClusterRole(r *rbacv1.ClusterRole) field.ErrorList {
	errs := kinds.ValidateObjectMeta(&r.ObjectMeta, false, validName, field.NewPath("metadata"))
	if r.AggregationRule == nil {
		return append(errs, validateRules(r.Rules, false)...)
	}
	selectors := field.NewPath("aggregationRule", "clusterRoleSelectors")
	if len(r.AggregationRule.ClusterRoleSelectors) == 0 {
		errs = append(errs, field.Required(selectors, "at least one clusterRoleSelector required if aggregationRule is non-nil"))
	}
	for i := range r.AggregationRule.ClusterRoleSelectors {
		selector := &r.AggregationRule.ClusterRoleSelectors[i]
		errs = append(errs, metav1validation.ValidateLabelSelector(selector, metav1validation.LabelSelectorValidationOptions{}, selectors.Index(i))...)
		if _, err := metav1.LabelSelectorAsSelector(selector); err != nil {
			errs = append(errs, field.Invalid(selectors.Index(i), nil, "invalid label selector."))
		}
	}
	return append(errs, validateRules(r.Rules, false)...)
}

// validateRules reports what is wrong with rules; missing verbs come last, as Kubernetes tells them.
func validateRules(rules []rbacv1.PolicyRule, inNamespace bool) (errs field.ErrorList) {
	for i := range rules {
		errs = append(errs, validateRule(&rules[i], inNamespace, field.NewPath("rules").Index(i))...)
	}
	for i := range rules {
		if len(rules[i].Verbs) == 0 {
			errs = append(errs, field.Required(field.NewPath("rules").Index(i).Child("verbs"), ""))
		}
	}
	return errs
}

func validateRule(r *rbacv1.PolicyRule, inNamespace bool, path *field.Path) (errs field.ErrorList) {
	if len(r.NonResourceURLs) > 0 {
		if inNamespace {
			errs = append(errs, field.Invalid(path.Child("nonResourceURLs"), r.NonResourceURLs, "namespaced rules cannot apply to non-resource URLs"))
		}
		if len(r.APIGroups) > 0 || len(r.Resources) > 0 || len(r.ResourceNames) > 0 {
			errs = append(errs, field.Invalid(path.Child("nonResourceURLs"), r.NonResourceURLs, "rules cannot apply to both regular resources and non-resource URLs"))
		}
		return errs
	}
	if len(r.APIGroups) == 0 {
		errs = append(errs, field.Required(path.Child("apiGroups"), "resource rules must supply at least one api group"))
	}
	if len(r.Resources) == 0 {
		errs = append(errs, field.Required(path.Child("resources"), "resource rules must supply at least one resource"))
	}
	return errs
}

// binding is a binding of either kind.
type binding struct {
	meta      *metav1.ObjectMeta
	inside    bool // it lives in a namespace
	ref       *rbacv1.RoleRef
	subjects  []rbacv1.Subject
	roleKinds []string
}

func namespaced(b *rbacv1.RoleBinding) binding {
	return binding{&b.ObjectMeta, true, &b.RoleRef, b.Subjects, []string{"Role", "ClusterRole"}}
}

func clusterWide(b *rbacv1.ClusterRoleBinding) binding {
	return binding{&b.ObjectMeta, false, &b.RoleRef, b.Subjects, []string{"ClusterRole"}}
}

// validateBinding reports what is wrong with a binding; missing names come last, as Kubernetes tells them.
func validateBinding(b binding) field.ErrorList {
	errs := kinds.ValidateObjectMeta(b.meta, b.inside, validName, field.NewPath("metadata"))
	errs = append(errs, validateRef(b)...)
	for i := range b.subjects {
		errs = append(errs, validateSubject(&b.subjects[i], b.inside, field.NewPath("subjects").Index(i))...)
	}
	for i := range b.subjects {
		if b.subjects[i].Name == "" {
			errs = append(errs, field.Required(field.NewPath("subjects").Index(i).Child("name"), ""))
		}
	}
	if b.ref.Name == "" {
		errs = append(errs, field.Required(field.NewPath("roleRef", "name"), ""))
	}
	return errs
}

func validateRef(b binding) (errs field.ErrorList) {
	path := field.NewPath("roleRef")
	if b.ref.APIGroup != rbacv1.GroupName {
		errs = append(errs, field.NotSupported(path.Child("apiGroup"), b.ref.APIGroup, []string{rbacv1.GroupName}))
	}
	if !slices.Contains(b.roleKinds, b.ref.Kind) {
		errs = append(errs, field.NotSupported(path.Child("kind"), b.ref.Kind, b.roleKinds))
	}
	if b.ref.Name != "" {
		for _, message := range validName(b.ref.Name, false) {
			errs = append(errs, field.Invalid(path.Child("name"), b.ref.Name, message))
		}
	}
	return errs
}

// validateSubject reports what is wrong with a subject; in a namespace, that is where an account is by default.
func validateSubject(s *rbacv1.Subject, inside bool, path *field.Path) (errs field.ErrorList) {
	switch s.Kind {
	case rbacv1.ServiceAccountKind:
		if s.Name != "" {
			for _, message := range apivalidation.ValidateServiceAccountName(s.Name, false) {
				errs = append(errs, field.Invalid(path.Child("name"), s.Name, message))
			}
		}
		if s.APIGroup != "" {
			errs = append(errs, field.NotSupported(path.Child("apiGroup"), s.APIGroup, []string{""}))
		}
		if s.Namespace == "" && !inside {
			errs = append(errs, field.Required(path.Child("namespace"), ""))
		}
	case rbacv1.UserKind, rbacv1.GroupKind:
		if s.APIGroup != rbacv1.GroupName {
			errs = append(errs, field.NotSupported(path.Child("apiGroup"), s.APIGroup, []string{rbacv1.GroupName}))
		}
	default:
		errs = append(errs, field.NotSupported(path.Child("kind"), s.Kind, []string{rbacv1.ServiceAccountKind, rbacv1.UserKind, rbacv1.GroupKind}))
	}
	return errs
}

// shownRef is how Kubernetes shows a role reference in an error: with the names of its internal type.
type shownRef struct{ APIGroup, Kind, Name string }

func validateBindingUpdate(b, old binding) field.ErrorList {
	errs := append(validateBinding(b), kinds.ValidateObjectMetaUpdate(b.meta, old.meta, field.NewPath("metadata"))...)
	if *b.ref != *old.ref {
		errs = append(errs, field.Invalid(field.NewPath("roleRef"), shownRef{b.ref.APIGroup, b.ref.Kind, b.ref.Name}, "field is immutable"))
	}
	return errs
}
