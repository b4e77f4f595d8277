package flowcontrol

import (
	"slices"
	"strings"

	flowcontrolv1 "k8s.io/api/flowcontrol/v1"
	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// verbs are those that a rule may name.
func verbs() []string {
	return []string{"create", "delete", "deletecollection", "get", "list", "patch", "proxy", "update", "watch"}
}

func validateSubject(s *flowcontrolv1.Subject, path *field.Path) (errs field.ErrorList) {
	check := func(kind flowcontrolv1.SubjectKind, child string, set bool) bool {
		if s.Kind == kind && !set {
			errs = append(errs, field.Required(path.Child(child), child+" is required when subject kind is '"+string(kind)+"'"))
		}
		if s.Kind != kind && set {
			errs = append(errs, field.Forbidden(path.Child(child), child+" is forbidden when subject kind is not '"+string(kind)+"'"))
		}
		return s.Kind == kind && set
	}
	switch s.Kind {
	case flowcontrolv1.SubjectKindUser, flowcontrolv1.SubjectKindGroup, flowcontrolv1.SubjectKindServiceAccount:
	default:
		return field.ErrorList{field.NotSupported(path.Child("kind"), s.Kind, []flowcontrolv1.SubjectKind{
			flowcontrolv1.SubjectKindGroup, flowcontrolv1.SubjectKindServiceAccount, flowcontrolv1.SubjectKindUser})}
	}
	if check(flowcontrolv1.SubjectKindServiceAccount, "serviceAccount", s.ServiceAccount != nil) {
		errs = append(errs, validateAccount(s.ServiceAccount, path.Child("serviceAccount"))...)
	}
	if check(flowcontrolv1.SubjectKindUser, "user", s.User != nil) && s.User.Name == "" {
		errs = append(errs, field.Required(path.Child("user", "name"), ""))
	}
	if check(flowcontrolv1.SubjectKindGroup, "group", s.Group != nil) && s.Group.Name == "" {
		errs = append(errs, field.Required(path.Child("group", "name"), ""))
	}
	return errs
}

func validateAccount(a *flowcontrolv1.ServiceAccountSubject, path *field.Path) (errs field.ErrorList) {
	if a.Name == "" {
		errs = append(errs, field.Required(path.Child("name"), ""))
	} else if a.Name != flowcontrolv1.NameAll {
		for _, message := range apivalidation.ValidateServiceAccountName(a.Name, false) {
			errs = append(errs, field.Invalid(path.Child("name"), a.Name, message))
		}
	}
	if a.Namespace == "" {
		return append(errs, field.Required(path.Child("namespace"), "must specify namespace for service account"))
	}
	for _, message := range apivalidation.ValidateNamespaceName(a.Namespace, false) {
		errs = append(errs, field.Invalid(path.Child("namespace"), a.Namespace, message))
	}
	return errs
}

func validateVerbs(have []string, path *field.Path) field.ErrorList {
	if len(have) == 0 {
		return field.ErrorList{field.Required(path, "verbs must contain at least one value")}
	}
	if slices.Contains(have, flowcontrolv1.VerbAll) {
		if len(have) > 1 {
			return field.ErrorList{field.Invalid(path, have, "if '*' is present, must not specify other verbs")}
		}
		return nil
	}
	for _, verb := range have {
		if !slices.Contains(verbs(), verb) {
			return field.ErrorList{field.NotSupported(path, have, verbs())}
		}
	}
	return nil
}

func validateResourceRule(r *flowcontrolv1.ResourcePolicyRule, path *field.Path) field.ErrorList {
	errs := validateVerbs(r.Verbs, path.Child("verbs"))
	list := func(name string, values []string, required, other string) {
		if len(values) == 0 {
			errs = append(errs, field.Required(path.Child(name), required))
		} else if len(values) > 1 && slices.Contains(values, "*") {
			errs = append(errs, field.Invalid(path.Child(name), values, other))
		}
	}
	list("apiGroups", r.APIGroups, "resource rules must supply at least one api group", "if '*' is present, must not specify other api groups")
	list("resources", r.Resources, "resource rules must supply at least one resource", "if '*' is present, must not specify other resources")
	return append(errs, validateNamespaces(r, path.Child("namespaces"))...)
}

func validateNamespaces(r *flowcontrolv1.ResourcePolicyRule, path *field.Path) (errs field.ErrorList) {
	if len(r.Namespaces) == 0 {
		if !r.ClusterScope {
			errs = append(errs, field.Required(path, "resource rules that are not cluster scoped must supply at least one namespace"))
		}
		return errs
	}
	if slices.Contains(r.Namespaces, flowcontrolv1.NamespaceEvery) {
		if len(r.Namespaces) > 1 {
			errs = append(errs, field.Invalid(path, r.Namespaces, "if '*' is present, must not specify other namespaces"))
		}
		return errs
	}
	for i, namespace := range r.Namespaces {
		for _, message := range validation.IsDNS1123Label(namespace) {
			errs = append(errs, field.Invalid(path.Index(i), namespace, "each member of this list must be '*' or a DNS-1123 label; "+message))
		}
	}
	return errs
}

func validateNonResourceRule(r *flowcontrolv1.NonResourcePolicyRule, path *field.Path) field.ErrorList {
	errs := validateVerbs(r.Verbs, path.Child("verbs"))
	urls := path.Child("nonResourceURLs")
	if len(r.NonResourceURLs) == 0 {
		return append(errs, field.Required(urls, "nonResourceURLs must contain at least one value"))
	}
	if len(r.NonResourceURLs) > 1 && slices.Contains(r.NonResourceURLs, flowcontrolv1.NonResourceAll) {
		return append(errs, field.Invalid(urls, r.NonResourceURLs, "if '*' is present, must not specify other non-resource URLs"))
	}
	for i, url := range r.NonResourceURLs {
		if message := urlError(url); message != "" {
			errs = append(errs, field.Invalid(urls.Index(i), url, message))
		}
	}
	return errs
}

func urlError(url string) string {
	switch {
	case url == flowcontrolv1.NonResourceAll || url == "/":
		return ""
	case !strings.HasPrefix(url, "/"):
		return "must start with slash"
	case strings.Contains(url, " "):
		return "must not contain white-space"
	case strings.Contains(url, "//"):
		return "must not contain double slash"
	}
	if star := strings.Index(url, "*"); star >= 0 && (star != len(url)-1 || url[star-1] != '/') {
		return "wildcard can only do suffix matching"
	}
	return ""
}
