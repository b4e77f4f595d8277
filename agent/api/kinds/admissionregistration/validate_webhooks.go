package admissionregistration

import (
	"fmt"
	"slices"
	"strings"

	admissionv1 "k8s.io/api/admissionregistration/v1"
	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	metav1validation "k8s.io/apimachinery/pkg/apis/meta/v1/validation"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/apiserver/pkg/util/webhook"
)

const longestWebhookTimeoutSeconds = 30

// validator checks the six kinds.
type validator struct {
	cel    *compilers
	access *access
}

func validateMeta(meta *metav1.ObjectMeta) field.ErrorList {
	return apivalidation.ValidateObjectMeta(meta, false, apivalidation.NameIsDNSSubdomain, field.NewPath("metadata"))
}

func validateMetaUpdate(meta, old *metav1.ObjectMeta) field.ErrorList {
	return append(validateMeta(meta), apivalidation.ValidateObjectMetaUpdate(meta, old, field.NewPath("metadata"))...)
}

// hooks checks all webhooks of a configuration; old are those before an update.
func (v *validator) hooks(hooks, old []hook) (errs field.ErrorList) {
	var stored []string
	for _, h := range old {
		stored = append(stored, conditionExpressions(h.conditions)...)
	}
	check := &expressions{compiler: v.cel.plain(), stored: stored}
	seen := map[string]bool{}
	for i, h := range hooks {
		path := field.NewPath("webhooks").Index(i)
		errs = append(errs, validateHook(h, check, path)...)
		errs = append(errs, validateReviewVersions(h.versions, path.Child("admissionReviewVersions"))...)
		if seen[h.name] {
			errs = append(errs, field.Duplicate(path.Child("name"), h.name))
		}
		seen[h.name] = true
	}
	return errs
}

func validateHook(h hook, check *expressions, path *field.Path) field.ErrorList {
	errs := validation.IsFullyQualifiedName(path.Child("name"), h.name)
	for i := range h.rules {
		errs = append(errs, validateRule(&h.rules[i], path.Child("rules").Index(i))...)
	}
	errs = append(errs, validateChoice(*h.failure, path.Child("failurePolicy"), admissionv1.Fail, admissionv1.Ignore)...)
	errs = append(errs, validateChoice(*h.match, path.Child("matchPolicy"), admissionv1.Equivalent, admissionv1.Exact)...)
	if h.sideEffects == nil {
		errs = append(errs, field.Required(path.Child("sideEffects"), "must specify one of None, NoneOnDryRun"))
	}
	errs = append(errs, validateChoice(h.sideEffects, path.Child("sideEffects"),
		admissionv1.SideEffectClassNone, admissionv1.SideEffectClassNoneOnDryRun)...)
	if t := *h.timeout; t != nil && (*t < 1 || *t > longestWebhookTimeoutSeconds) {
		errs = append(errs, field.Invalid(path.Child("timeoutSeconds"), *t,
			fmt.Sprintf("the timeout value must be between 1 and %d seconds", longestWebhookTimeoutSeconds)))
	}
	strict := metav1validation.LabelSelectorValidationOptions{}
	errs = append(errs, metav1validation.ValidateLabelSelector(*h.namespaces, strict, path.Child("namespaceSelector"))...)
	errs = append(errs, metav1validation.ValidateLabelSelector(*h.objects, strict, path.Child("objectSelector"))...)
	errs = append(errs, validateClient(h.client, path.Child("clientConfig"))...)
	errs = append(errs, check.conditions(h.conditions, path.Child("matchConditions"))...)
	if h.mayNameReinvoking {
		errs = append(errs, validateChoice(h.reinvocation, path.Child("reinvocationPolicy"),
			admissionv1.IfNeededReinvocationPolicy, admissionv1.NeverReinvocationPolicy)...)
	}
	return errs
}

// validateChoice reports a value that is none of the known ones; nil is none.
func validateChoice[T ~string](value *T, path *field.Path, known ...T) field.ErrorList {
	if value == nil || slices.Contains(known, *value) {
		return nil
	}
	return field.ErrorList{field.NotSupported(path, *value, known)}
}

func validateClient(c *admissionv1.WebhookClientConfig, path *field.Path) field.ErrorList {
	switch {
	case (c.URL == nil) == (c.Service == nil):
		return field.ErrorList{field.Required(path, "exactly one of url or service is required")}
	case c.URL != nil:
		return webhook.ValidateWebhookURL(path.Child("url"), *c.URL, true)
	}
	// Kubernetes calls the library with name and namespace in each other's place, and clients see it.
	s := c.Service
	return webhook.ValidateWebhookService(path.Child("service"), s.Name, s.Namespace, s.Path, *s.Port)
}

func validateReviewVersions(versions []string, path *field.Path) (errs field.ErrorList) {
	accepted := []string{"v1", "v1beta1"}
	if len(versions) == 0 {
		return field.ErrorList{field.Required(path, "must specify one of "+strings.Join(accepted, ", "))}
	}
	for i, version := range versions {
		if slices.Contains(versions[:i], version) {
			errs = append(errs, field.Invalid(path.Index(i), version, "duplicate version"))
			continue
		}
		for _, text := range validation.IsDNS1035Label(version) {
			errs = append(errs, field.Invalid(path.Index(i), version, text))
		}
	}
	if !slices.ContainsFunc(versions, func(v string) bool { return slices.Contains(accepted, v) }) {
		errs = append(errs, field.Invalid(path, versions, "must include at least one of "+strings.Join(accepted, ", ")))
	}
	return errs
}

func validateRule(r *admissionv1.RuleWithOperations, path *field.Path) (errs field.ErrorList) {
	operations := path.Child("operations")
	if len(r.Operations) == 0 {
		errs = append(errs, field.Required(operations, ""))
	}
	if len(r.Operations) > 1 && slices.Contains(r.Operations, admissionv1.OperationAll) {
		errs = append(errs, field.Invalid(operations, r.Operations, "if '*' is present, must not specify other operations"))
	}
	for i := range r.Operations {
		errs = append(errs, validateChoice(&r.Operations[i], operations.Index(i), admissionv1.OperationAll, admissionv1.Connect,
			admissionv1.Create, admissionv1.Delete, admissionv1.Update)...)
	}
	errs = append(errs, validateWildcards(r.APIGroups, path.Child("apiGroups"), "API groups")...)
	errs = append(errs, validateWildcards(r.APIVersions, path.Child("apiVersions"), "API versions")...)
	for i, version := range r.APIVersions {
		if version == "" {
			errs = append(errs, field.Required(path.Child("apiVersions").Index(i), ""))
		}
	}
	errs = append(errs, validateResources(r.Resources, path.Child("resources"))...)
	return append(errs, validateChoice(r.Scope, path.Child("scope"), admissionv1.AllScopes, admissionv1.ClusterScope, admissionv1.NamespacedScope)...)
}

// validateWildcards wants a list that is not empty, and has "*" alone.
func validateWildcards(list []string, path *field.Path, what string) field.ErrorList {
	if len(list) == 0 {
		return field.ErrorList{field.Required(path, "")}
	}
	if len(list) > 1 && slices.Contains(list, "*") {
		return field.ErrorList{field.Invalid(path, list, "if '*' is present, must not specify other "+what)}
	}
	return nil
}

// validateResources checks "resource", "resource/sub-resource" and what "*" stands for in both.
func validateResources(resources []string, path *field.Path) (errs field.ErrorList) {
	if len(resources) == 0 {
		return field.ErrorList{field.Required(path, "")}
	}
	allOf, everywhere := map[string]bool{}, map[string]bool{} // x/*, */x
	plain := false
	for i, r := range resources {
		resource, sub, ok := strings.Cut(r, "/")
		switch {
		case r == "":
			errs = append(errs, field.Required(path.Index(i), ""))
			continue
		case !ok:
			plain = r != "*"
			continue
		}
		if allOf[resource] {
			errs = append(errs, field.Invalid(path.Index(i), r, fmt.Sprintf("if '%s/*' is present, must not specify %s", resource, r)))
		}
		if everywhere[sub] {
			errs = append(errs, field.Invalid(path.Index(i), r, fmt.Sprintf("if '*/%s' is present, must not specify %s", sub, r)))
		}
		if sub == "*" {
			allOf[resource] = true
		}
		if resource == "*" {
			everywhere[sub] = true
		}
	}
	if len(resources) > 1 && slices.Contains(resources, "*/*") {
		errs = append(errs, field.Invalid(path, resources, "if '*/*' is present, must not specify other resources"))
	}
	if plain && slices.Contains(resources, "*") {
		errs = append(errs, field.Invalid(path, resources, "if '*' is present, must not specify other resources without subresources"))
	}
	return errs
}
