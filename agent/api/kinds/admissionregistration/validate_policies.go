package admissionregistration

import (
	"slices"
	"strings"

	admissionv1 "k8s.io/api/admissionregistration/v1"
	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	"k8s.io/apimachinery/pkg/api/validation/path"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	metav1validation "k8s.io/apimachinery/pkg/apis/meta/v1/validation"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

func validateMatch(m *admissionv1.MatchResources, at *field.Path) (errs field.ErrorList) {
	if m == nil {
		return nil
	}
	errs = append(errs, validateChoice(m.MatchPolicy, at.Child("matchPolicy"), admissionv1.Equivalent, admissionv1.Exact)...)
	strict := metav1validation.LabelSelectorValidationOptions{}
	errs = append(errs, metav1validation.ValidateLabelSelector(m.NamespaceSelector, strict, at.Child("namespaceSelector"))...)
	errs = append(errs, metav1validation.ValidateLabelSelector(m.ObjectSelector, strict, at.Child("objectSelector"))...)
	for i := range m.ResourceRules {
		errs = append(errs, validateNamedRule(&m.ResourceRules[i], at.Child("resourceRules").Index(i))...)
	}
	for i := range m.ExcludeResourceRules {
		errs = append(errs, validateNamedRule(&m.ExcludeResourceRules[i], at.Child("excludeResourceRules").Index(i))...)
	}
	return errs
}

func validateNamedRule(r *admissionv1.NamedRuleWithOperations, at *field.Path) (errs field.ErrorList) {
	for i, name := range r.ResourceNames {
		for _, text := range path.ValidatePathSegmentName(name, false) {
			errs = append(errs, field.Invalid(at.Child("resourceNames").Index(i), name, text))
		}
		if slices.Contains(r.ResourceNames[:i], name) {
			errs = append(errs, field.Duplicate(at.Child("resourceNames").Index(i), name))
		}
	}
	return append(errs, validateRule(&r.RuleWithOperations, at)...)
}

// validateConstraints checks what a policy is for: it must say so.
func validateConstraints(m *admissionv1.MatchResources, at *field.Path) field.ErrorList {
	if m == nil {
		return field.ErrorList{field.Required(at, "")}
	}
	errs := validateMatch(m, at)
	if len(m.ResourceRules) == 0 {
		errs = append(errs, field.Required(at.Child("resourceRules"), ""))
	}
	return errs
}

func validateParamKind(k *admissionv1.ParamKind, at *field.Path) (errs field.ErrorList) {
	if k == nil {
		return nil
	}
	version, err := schema.ParseGroupVersion(k.APIVersion)
	switch {
	case k.APIVersion == "":
		errs = append(errs, field.Required(at.Child("apiVersion"), ""))
	case err != nil:
		errs = append(errs, field.Invalid(at.Child("apiVersion"), k.APIVersion, err.Error()))
	default:
		if version.Group != "" {
			if texts := validation.IsDNS1123Subdomain(version.Group); len(texts) > 0 {
				errs = append(errs, field.Invalid(at.Child("apiVersion"), version.Group, strings.Join(texts, ",")))
			}
		}
		if texts := validation.IsDNS1035Label(version.Version); version.Version == "" {
			errs = append(errs, field.Invalid(at.Child("apiVersion"), k.APIVersion, "version must be specified"))
		} else if len(texts) > 0 {
			errs = append(errs, field.Invalid(at.Child("apiVersion"), version.Version, strings.Join(texts, ",")))
		}
	}
	if k.Kind == "" {
		return append(errs, field.Required(at.Child("kind"), ""))
	}
	if texts := validation.IsDNS1035Label(strings.ToLower(k.Kind)); len(texts) > 0 {
		errs = append(errs, field.Invalid(at.Child("kind"), k.Kind,
			"may have mixed case, but should otherwise match: "+strings.Join(texts, ",")))
	}
	return errs
}

// validateVariableName wants an identifier of CEL.
func validateVariableName(name string, at *field.Path) field.ErrorList {
	if strings.TrimSpace(name) == "" {
		return field.ErrorList{field.Required(at, "name is not specified")}
	}
	if !isIdentifier(name) {
		return field.ErrorList{field.Invalid(at, name, "must be a valid CEL identifier")}
	}
	return nil
}

func isIdentifier(name string) bool {
	for i, r := range name {
		letter := r == '_' || r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z'
		if !letter && (i == 0 || r < '0' || r > '9') {
			return false
		}
	}
	reserved := []string{"true", "false", "null", "in", "as", "break", "const", "continue", "else", "for", "function", "if", "import",
		"let", "loop", "package", "namespace", "return", "var", "void", "while"}
	return !slices.Contains(reserved, name)
}

func validateValidatingBinding(b *admissionv1.ValidatingAdmissionPolicyBinding) field.ErrorList {
	at := field.NewPath("spec")
	errs := append(validateMeta(&b.ObjectMeta), validatePolicyName(b.Spec.PolicyName, at.Child("policyName"))...)
	errs = append(errs, validateParamRef(b.Spec.ParamRef, at.Child("paramRef"))...)
	errs = append(errs, validateMatch(b.Spec.MatchResources, at.Child("matchResources"))...)
	return append(errs, validateActions(b.Spec.ValidationActions, at.Child("validationActions"))...)
}

func validateMutatingBinding(b *admissionv1.MutatingAdmissionPolicyBinding) field.ErrorList {
	at := field.NewPath("spec")
	errs := append(validateMeta(&b.ObjectMeta), validatePolicyName(b.Spec.PolicyName, at.Child("policyName"))...)
	errs = append(errs, validateParamRef(b.Spec.ParamRef, at.Child("paramRef"))...)
	return append(errs, validateMatch(b.Spec.MatchResources, at.Child("matchResources"))...)
}

func validatePolicyName(name string, at *field.Path) (errs field.ErrorList) {
	if name == "" {
		return field.ErrorList{field.Required(at, "")}
	}
	for _, text := range apivalidation.NameIsDNSSubdomain(name, false) {
		errs = append(errs, field.Invalid(at, name, text))
	}
	return errs
}

func validateParamRef(ref *admissionv1.ParamRef, at *field.Path) (errs field.ErrorList) {
	if ref == nil {
		return nil
	}
	if ref.Name != "" {
		for _, text := range path.ValidatePathSegmentName(ref.Name, false) {
			errs = append(errs, field.Invalid(at.Child("name"), ref.Name, text))
		}
	}
	if ref.Name != "" && ref.Selector != nil {
		errs = append(errs, field.Forbidden(at.Child("name"), "name and selector are mutually exclusive"),
			field.Forbidden(at.Child("selector"), "name and selector are mutually exclusive"))
	}
	errs = append(errs, metav1validation.ValidateLabelSelector(ref.Selector, metav1validation.LabelSelectorValidationOptions{}, at.Child("selector"))...)
	if ref.Name == "" && ref.Selector == nil {
		errs = append(errs, field.Required(at, "one of name or selector must be specified"))
	}
	if action := ref.ParameterNotFoundAction; action == nil || *action == "" {
		return append(errs, field.Required(at.Child("parameterNotFoundAction"), ""))
	}
	return append(errs, validateChoice(ref.ParameterNotFoundAction, at.Child("parameterNotFoundAction"), admissionv1.DenyAction, admissionv1.AllowAction)...)
}

func validateActions(actions []admissionv1.ValidationAction, at *field.Path) (errs field.ErrorList) {
	if len(actions) == 0 {
		return field.ErrorList{field.Required(at, "")}
	}
	for i := range actions {
		errs = append(errs, validateChoice(&actions[i], at.Index(i), admissionv1.Audit, admissionv1.Deny, admissionv1.Warn)...)
		if slices.Contains(actions[:i], actions[i]) {
			errs = append(errs, field.Duplicate(at.Index(i), actions[i]))
		}
	}
	if slices.Contains(actions, admissionv1.Deny) && slices.Contains(actions, admissionv1.Warn) {
		errs = append(errs, field.Invalid(at, actions, "must not contain both Deny and Warn (repeating the same validation failure "+
			"information in the API response and headers serves no purpose)"))
	}
	return errs
}

func validatePolicyStatus(s *admissionv1.ValidatingAdmissionPolicyStatus, at *field.Path) (errs field.ErrorList) {
	if s.TypeChecking != nil {
		for i, w := range s.TypeChecking.ExpressionWarnings {
			one := at.Child("typeChecking", "expressionWarnings").Index(i)
			if w.Warning == "" {
				errs = append(errs, field.Required(one.Child("warning"), ""))
			}
			errs = append(errs, validateFieldRef(w.FieldRef, one.Child("fieldRef"))...)
		}
	}
	return append(errs, metav1validation.ValidateConditions(s.Conditions, at.Child("conditions"))...)
}

// validateFieldRef wants a place in a policy ("spec.validations[0].expression").
func validateFieldRef(ref string, at *field.Path) field.ErrorList {
	if ref = strings.TrimSpace(ref); ref == "" {
		return field.ErrorList{field.Required(at, "")}
	}
	return nil
}

// validateReason wants one of the reasons with which a policy may refuse.
func validateReason(reason *metav1.StatusReason, at *field.Path) field.ErrorList {
	return validateChoice(reason, at, metav1.StatusReasonForbidden, metav1.StatusReasonInvalid, metav1.StatusReasonRequestEntityTooLarge)
}

// validateMessage reports a text of blanks only, and one of several lines.
func validateMessage(text string, at *field.Path) field.ErrorList {
	trimmed := strings.TrimSpace(text)
	switch {
	case text != "" && trimmed == "":
		return field.ErrorList{field.Invalid(at, text, "must be non-empty if specified")}
	case strings.ContainsAny(trimmed, "\r\n"):
		return field.ErrorList{field.Invalid(at, text, "must not contain line breaks")}
	}
	return nil
}
