package podspec

import (
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

const (
	maxRestartRules     = 20
	maxRestartExitCodes = 255
)

// restartRules checks the restart policy and its rules of one container.
func (c *checker) restartRules(ctr *corev1.Container, at *field.Path) field.ErrorList {
	var errs field.ErrorList
	if ctr.RestartPolicy != nil {
		errs = append(errs, OneOf(*ctr.RestartPolicy, at.Child("restartPolicy"),
			corev1.ContainerRestartPolicyAlways, corev1.ContainerRestartPolicyNever, corev1.ContainerRestartPolicyOnFailure)...)
	}
	if len(ctr.RestartPolicyRules) == 0 {
		return errs
	}
	if ctr.RestartPolicy == nil {
		errs = append(errs, field.Required(at.Child("restartPolicy"), "must specify restartPolicy when restart rules are used"))
	}
	path := at.Child("restartPolicyRules")
	if len(ctr.RestartPolicyRules) > maxRestartRules {
		errs = append(errs, field.TooMany(path, len(ctr.RestartPolicyRules), maxRestartRules))
	}
	for i := range ctr.RestartPolicyRules {
		errs = append(errs, restartRule(&ctr.RestartPolicyRules[i], path.Index(i))...)
	}
	return errs
}

func restartRule(rule *corev1.ContainerRestartRule, at *field.Path) field.ErrorList {
	errs := OneOf(rule.Action, at.Child("action"), corev1.ContainerRestartRuleActionRestart, corev1.ContainerRestartRuleActionRestartAllContainers)
	path := at.Child("exitCodes")
	if rule.ExitCodes == nil {
		return append(errs, field.Required(path, "must be specified"))
	}
	errs = append(errs, OneOf(rule.ExitCodes.Operator, path.Child("operator"),
		corev1.ContainerRestartRuleOnExitCodesOpIn, corev1.ContainerRestartRuleOnExitCodesOpNotIn)...)
	values := path.Child("values")
	switch n := len(rule.ExitCodes.Values); {
	case n == 0:
		errs = append(errs, field.Required(values, "must be specified"))
	case n > maxRestartExitCodes:
		errs = append(errs, field.TooMany(values, n, maxRestartExitCodes))
	}
	seen := sets.New[int32]()
	for i, code := range rule.ExitCodes.Values {
		if seen.Has(code) {
			errs = append(errs, field.Duplicate(values.Index(i), code))
		}
		seen.Insert(code)
	}
	return errs
}
