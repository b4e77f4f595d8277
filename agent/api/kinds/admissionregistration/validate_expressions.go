package admissionregistration

import (
	"fmt"
	"strings"

	admissionv1 "k8s.io/api/admissionregistration/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"
	plugincel "k8s.io/apiserver/pkg/admission/plugin/cel"
	"k8s.io/apiserver/pkg/admission/plugin/policy/mutating/patch"
	"k8s.io/apiserver/pkg/admission/plugin/policy/validating"
)

const (
	maxAuditAnnotations = 20
	// maxAnnotationExpressionBytes bounds the expression of an audit annotation.
	maxAnnotationExpressionBytes = 5 << 10
	notSpecified                 = "expression is not specified"
	nothingToDo                  = "validations or auditAnnotations must contain at least one item"
)

// policyChecks are how the expressions of a policy are compiled: match conditions know no variables, the others those of
// the policy.
type policyChecks struct {
	match, body *expressions
	variables   *plugincel.CompositedCompiler
}

func (v *validator) policyChecks(params bool, variables []admissionv1.Variable, stored []string) (policyChecks, error) {
	plain := &expressions{compiler: v.cel.plain(), stored: stored, params: params}
	if len(variables) == 0 {
		return policyChecks{match: plain, body: plain}, nil
	}
	compiler, err := v.cel.withVariables()
	return policyChecks{match: plain, body: &expressions{compiler: compiler, stored: stored, params: params}, variables: compiler}, err
}

// addVariables compiles variables, each with those before it, and makes them known to what is compiled after.
func (c policyChecks) addVariables(variables []admissionv1.Variable, at *field.Path) (errs field.ErrorList) {
	for i, variable := range variables {
		errs = append(errs, validateVariableName(variable.Name, at.Index(i).Child("name"))...)
		if strings.TrimSpace(variable.Expression) == "" {
			errs = append(errs, field.Required(at.Index(i).Child("expression"), notSpecified))
			continue
		}
		x := &validating.Variable{Name: variable.Name, Expression: variable.Expression}
		options := plugincel.OptionalVariableDeclarations{HasParams: c.body.params, HasAuthorizer: true}
		result := c.variables.CompileAndStoreVariable(x, options, c.body.mode(variable.Expression))
		errs = append(errs, compileError(result, at.Index(i).Child("expression"))...)
	}
	return errs
}

// validatingPolicy checks a policy; old is the one before an update or nil.
func (v *validator) validatingPolicy(p, old *admissionv1.ValidatingAdmissionPolicy) field.ErrorList {
	var errs field.ErrorList
	if old == nil {
		errs = validateMeta(&p.ObjectMeta)
	}
	s, at := &p.Spec, field.NewPath("spec")
	checks, err := v.policyChecks(s.ParamKind != nil, s.Variables, validatingExpressions(old))
	if err != nil {
		return append(errs, field.InternalError(at, err))
	}
	errs = append(errs, validateChoice(s.FailurePolicy, at.Child("failurePolicy"), admissionv1.Fail, admissionv1.Ignore)...)
	errs = append(errs, validateParamKind(s.ParamKind, at.Child("paramKind"))...)
	errs = append(errs, validateConstraints(s.MatchConstraints, at.Child("matchConstraints"))...)
	errs = append(errs, checks.match.conditions(s.MatchConditions, at.Child("matchConditions"))...)
	errs = append(errs, checks.addVariables(s.Variables, at.Child("variables"))...)
	if len(s.Validations) == 0 && len(s.AuditAnnotations) == 0 {
		return append(errs, field.Required(at.Child("validations"), nothingToDo), field.Required(at.Child("auditAnnotations"), nothingToDo))
	}
	for i := range s.Validations {
		errs = append(errs, checks.body.validation(&s.Validations[i], at.Child("validations").Index(i))...)
	}
	return append(errs, checks.body.auditAnnotations(&p.ObjectMeta, s.AuditAnnotations, at.Child("auditAnnotations"))...)
}

func (e *expressions) validation(v *admissionv1.Validation, at *field.Path) (errs field.ErrorList) {
	if strings.TrimSpace(v.Expression) == "" {
		errs = append(errs, field.Required(at.Child("expression"), notSpecified))
	} else {
		errs = append(errs, e.compile(&validating.ValidationCondition{Expression: v.Expression}, true, false, at.Child("expression"))...)
	}
	switch {
	case v.MessageExpression != "" && strings.TrimSpace(v.MessageExpression) == "":
		errs = append(errs, field.Invalid(at.Child("messageExpression"), v.MessageExpression, "must be non-empty if specified"))
	case v.MessageExpression != "":
		errs = append(errs, e.compile(&validating.MessageExpressionCondition{MessageExpression: v.MessageExpression}, false, false, at.Child("messageExpression"))...)
	}
	errs = append(errs, validateMessage(v.Message, at.Child("message"))...)
	return append(errs, validateReason(v.Reason, at.Child("reason"))...)
}

func (e *expressions) auditAnnotations(policy *metav1.ObjectMeta, annotations []admissionv1.AuditAnnotation, at *field.Path) (errs field.ErrorList) {
	if len(annotations) > maxAuditAnnotations {
		errs = append(errs, field.Invalid(at, annotations, fmt.Sprintf("must not have more than %d auditAnnotations", maxAuditAnnotations)))
	}
	seen := map[string]bool{}
	for i, a := range annotations {
		key := a.Key
		if policy.Name != "" {
			key = policy.Name + "/" + a.Key // under which it is logged
		}
		errs = append(errs, validateQualified(key, at.Index(i).Child("key"))...)
		value := at.Index(i).Child("valueExpression")
		switch trimmed := strings.TrimSpace(a.ValueExpression); {
		case trimmed == "":
			errs = append(errs, field.Required(value, "valueExpression is not specified"))
		case len(trimmed) > maxAnnotationExpressionBytes:
			errs = append(errs, field.Required(value, fmt.Sprintf("must not exceed %d bytes in length", maxAnnotationExpressionBytes)))
		default:
			errs = append(errs, e.compile(&validating.AuditAnnotationCondition{ValueExpression: trimmed}, true, false, value)...)
		}
		if seen[a.Key] {
			errs = append(errs, field.Duplicate(at.Index(i).Child("key"), a.Key))
		}
		seen[a.Key] = true
	}
	return errs
}

// mutatingPolicy checks a policy; old is the one before an update or nil.
func (v *validator) mutatingPolicy(p, old *admissionv1.MutatingAdmissionPolicy) field.ErrorList {
	var errs field.ErrorList
	if old == nil {
		errs = validateMeta(&p.ObjectMeta)
	}
	s, at := &p.Spec, field.NewPath("spec")
	checks, err := v.policyChecks(s.ParamKind != nil, s.Variables, mutatingExpressions(old))
	if err != nil {
		return append(errs, field.InternalError(at, err))
	}
	errs = append(errs, validateChoice(s.FailurePolicy, at.Child("failurePolicy"), admissionv1.Fail, admissionv1.Ignore)...)
	errs = append(errs, validateParamKind(s.ParamKind, at.Child("paramKind"))...)
	errs = append(errs, validateConstraints(s.MatchConstraints, at.Child("matchConstraints"))...)
	if s.MatchConstraints != nil { // a request to delete carries nothing to change
		for _, rule := range s.MatchConstraints.ResourceRules {
			for i := range rule.Operations {
				errs = append(errs, validateChoice(&rule.Operations[i], at.Child("matchConstraints", "resourceRules", "operations"),
					admissionv1.OperationAll, admissionv1.Connect, admissionv1.Create, admissionv1.Update)...)
			}
		}
	}
	errs = append(errs, checks.match.conditions(s.MatchConditions, at.Child("matchConditions"))...)
	errs = append(errs, checks.addVariables(s.Variables, at.Child("variables"))...)
	if len(s.Mutations) == 0 {
		errs = append(errs, field.Required(at.Child("mutations"), "mutations must contain at least one item"))
	}
	for i := range s.Mutations {
		errs = append(errs, checks.body.mutation(&s.Mutations[i], at.Child("mutations").Index(i))...)
	}
	if s.ReinvocationPolicy == "" {
		return append(errs, field.Required(at.Child("reinvocationPolicy"), ""))
	}
	return append(errs, validateChoice(&s.ReinvocationPolicy, at.Child("reinvocationPolicy"),
		admissionv1.IfNeededReinvocationPolicy, admissionv1.NeverReinvocationPolicy)...)
}

func (e *expressions) mutation(m *admissionv1.Mutation, at *field.Path) (errs field.ErrorList) {
	apply, json := at.Child("applyConfiguration"), at.Child("jsonPatch")
	const only = "must be specified when patchType is "
	switch m.PatchType {
	case "":
		return field.ErrorList{field.Required(at.Child("patchType"), "")}
	case admissionv1.PatchTypeApplyConfiguration:
		if m.ApplyConfiguration == nil {
			errs = append(errs, field.Required(apply, only+string(m.PatchType)))
		} else {
			errs = append(errs, e.patch(&patch.ApplyConfigurationCondition{Expression: m.ApplyConfiguration.Expression}, apply.Child("expression"))...)
		}
		if m.JSONPatch != nil {
			errs = append(errs, field.Invalid(json, "{jsonPatch}", "must not be specified when patchType is "+string(m.PatchType)))
		}
	case admissionv1.PatchTypeJSONPatch:
		if m.JSONPatch == nil {
			errs = append(errs, field.Required(json, only+string(m.PatchType)))
		} else {
			errs = append(errs, e.patch(&patch.JSONPatchCondition{Expression: m.JSONPatch.Expression}, json.Child("expression"))...)
		}
		if m.ApplyConfiguration != nil {
			errs = append(errs, field.Invalid(apply, "{applyConfiguration}", "must not be specified when patchType is "+string(m.PatchType)))
		}
	default:
		return validateChoice(&m.PatchType, at.Child("patchType"), admissionv1.PatchTypeApplyConfiguration, admissionv1.PatchTypeJSONPatch)
	}
	return errs
}

func (e *expressions) patch(x plugincel.ExpressionAccessor, at *field.Path) field.ErrorList {
	if strings.TrimSpace(x.GetExpression()) == "" {
		return field.ErrorList{field.Required(at, "")}
	}
	return e.compile(x, true, true, at)
}

// validatingExpressions lists every expression of a policy.
func validatingExpressions(p *admissionv1.ValidatingAdmissionPolicy) []string {
	if p == nil {
		return nil
	}
	all := conditionExpressions(p.Spec.MatchConditions)
	for _, v := range p.Spec.Variables {
		all = append(all, v.Expression)
	}
	for _, v := range p.Spec.Validations {
		all = append(all, v.Expression, v.MessageExpression)
	}
	for _, a := range p.Spec.AuditAnnotations {
		all = append(all, strings.TrimSpace(a.ValueExpression))
	}
	return all
}

// mutatingExpressions lists every expression of a policy.
func mutatingExpressions(p *admissionv1.MutatingAdmissionPolicy) []string {
	if p == nil {
		return nil
	}
	all := conditionExpressions(p.Spec.MatchConditions)
	for _, v := range p.Spec.Variables {
		all = append(all, v.Expression)
	}
	for _, m := range p.Spec.Mutations {
		if m.ApplyConfiguration != nil {
			all = append(all, m.ApplyConfiguration.Expression)
		}
		if m.JSONPatch != nil {
			all = append(all, m.JSONPatch.Expression)
		}
	}
	return all
}
