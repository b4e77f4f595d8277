package deployment

import (
	"context"
	"strconv"
	"strings"

	appsv1 "k8s.io/api/apps/v1"
	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	metav1validation "k8s.io/apimachinery/pkg/apis/meta/v1/validation"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/utils/ptr"

	"github.com/podvine/podvine/agent/api/kinds"
	"github.com/podvine/podvine/agent/api/kinds/podspec"
)

func validate(_ context.Context, d *appsv1.Deployment) field.ErrorList {
	errs := kinds.ValidateObjectMeta(&d.ObjectMeta, true, apivalidation.NameIsDNSSubdomain, field.NewPath("metadata"))
	return append(errs, validateSpec(&d.Spec, podspec.Options{}, field.NewPath("spec"))...)
}

func validateUpdate(_ context.Context, d, old *appsv1.Deployment) field.ErrorList {
	spec := field.NewPath("spec")
	errs := kinds.ValidateObjectMetaUpdate(&d.ObjectMeta, &old.ObjectMeta, field.NewPath("metadata"))
	errs = append(errs, validateSpec(&d.Spec, podspec.OptionsFor(&old.Spec.Template.Spec, &old.Spec.Template.ObjectMeta), spec)...)
	return append(errs, apivalidation.ValidateImmutableField(d.Spec.Selector, old.Spec.Selector, spec.Child("selector"))...)
}

func validateSpec(spec *appsv1.DeploymentSpec, opts podspec.Options, at *field.Path) field.ErrorList {
	replicas := ptr.Deref(spec.Replicas, defaultReplicas)
	errs := notNegative(int64(replicas), at.Child("replicas"))
	selectorPath := at.Child("selector")
	if spec.Selector == nil {
		errs = append(errs, field.Required(selectorPath, ""))
	} else {
		errs = append(errs, metav1validation.ValidateLabelSelector(spec.Selector, metav1validation.LabelSelectorValidationOptions{
			AllowInvalidLabelValueInSelector: opts.AllowInvalidLabelValueInSelector}, selectorPath)...)
		if len(spec.Selector.MatchLabels)+len(spec.Selector.MatchExpressions) == 0 {
			errs = append(errs, field.Invalid(selectorPath, spec.Selector, "empty selector is invalid for deployment"))
		}
	}
	selector, err := metav1.LabelSelectorAsSelector(spec.Selector)
	if err != nil {
		errs = append(errs, field.Invalid(selectorPath, spec.Selector, "invalid label selector"))
	} else {
		errs = append(errs, podspec.ValidateReplicaTemplate(&spec.Template, selector, replicas, at.Child("template"), opts)...)
	}
	errs = append(errs, validateStrategy(&spec.Strategy, at.Child("strategy"))...)
	errs = append(errs, notNegative(int64(spec.MinReadySeconds), at.Child("minReadySeconds"))...)
	if spec.RevisionHistoryLimit != nil {
		errs = append(errs, notNegative(int64(*spec.RevisionHistoryLimit), at.Child("revisionHistoryLimit"))...)
	}
	if s := spec.ProgressDeadlineSeconds; s != nil {
		errs = append(errs, notNegative(int64(*s), at.Child("progressDeadlineSeconds"))...)
		if *s <= spec.MinReadySeconds {
			errs = append(errs, field.Invalid(at.Child("progressDeadlineSeconds"), *s, "must be greater than minReadySeconds"))
		}
	}
	return errs
}

func notNegative(value int64, at *field.Path) field.ErrorList {
	return apivalidation.ValidateNonnegativeField(value, at)
}

func validateStrategy(s *appsv1.DeploymentStrategy, at *field.Path) field.ErrorList {
	rolling := at.Child("rollingUpdate")
	switch s.Type {
	case appsv1.RecreateDeploymentStrategyType:
		if s.RollingUpdate != nil {
			return field.ErrorList{field.Forbidden(rolling, "may not be specified when strategy `type` is 'Recreate'")}
		}
		return nil
	case appsv1.RollingUpdateDeploymentStrategyType:
		if s.RollingUpdate == nil {
			return field.ErrorList{field.Required(rolling, "this should be defaulted and never be nil")}
		}
		return validateRolling(s.RollingUpdate, rolling)
	}
	return field.ErrorList{field.NotSupported(at, podspec.InternalView(s),
		[]appsv1.DeploymentStrategyType{appsv1.RecreateDeploymentStrategyType, appsv1.RollingUpdateDeploymentStrategyType})}
}

func validateRolling(r *appsv1.RollingUpdateDeployment, at *field.Path) field.ErrorList {
	unavailable, surge := ptr.Deref(r.MaxUnavailable, intstr.IntOrString{}), ptr.Deref(r.MaxSurge, intstr.IntOrString{})
	errs := countOrPercent(unavailable, at.Child("maxUnavailable"))
	errs = append(errs, countOrPercent(surge, at.Child("maxSurge"))...)
	if amount(unavailable) == 0 && amount(surge) == 0 {
		errs = append(errs, field.Invalid(at.Child("maxUnavailable"), unavailable, "may not be 0 when `maxSurge` is 0"))
	}
	if percent, ok := percentOf(unavailable); ok && percent > 100 {
		errs = append(errs, field.Invalid(at.Child("maxUnavailable"), unavailable, "must not be greater than 100%"))
	}
	return errs
}

func countOrPercent(v intstr.IntOrString, at *field.Path) field.ErrorList {
	if v.Type == intstr.Int {
		return notNegative(int64(v.IntValue()), at)
	}
	var errs field.ErrorList
	for _, m := range validation.IsValidPercent(v.StrVal) {
		errs = append(errs, field.Invalid(at, v, m))
	}
	return errs
}

func percentOf(v intstr.IntOrString) (int, bool) {
	if v.Type != intstr.String || len(validation.IsValidPercent(v.StrVal)) > 0 {
		return 0, false
	}
	n, err := strconv.Atoi(strings.TrimSuffix(v.StrVal, "%"))
	return n, err == nil
}

// amount is the number in a count or percentage.
func amount(v intstr.IntOrString) int {
	if percent, ok := percentOf(v); ok {
		return percent
	}
	return v.IntValue()
}

func validateStatusUpdate(_ context.Context, d, old *appsv1.Deployment) field.ErrorList {
	at := field.NewPath("status")
	errs := kinds.ValidateObjectMetaUpdate(&d.ObjectMeta, &old.ObjectMeta, field.NewPath("metadata"))
	s := &d.Status
	errs = append(errs, notNegative(s.ObservedGeneration, at.Child("observedGeneration"))...)
	for _, c := range []struct {
		name  string
		count int32
	}{
		{"replicas", s.Replicas}, {"updatedReplicas", s.UpdatedReplicas}, {"readyReplicas", s.ReadyReplicas},
		{"availableReplicas", s.AvailableReplicas}, {"unavailableReplicas", s.UnavailableReplicas},
	} {
		errs = append(errs, notNegative(int64(c.count), at.Child(c.name))...)
	}
	if s.TerminatingReplicas != nil {
		errs = append(errs, notNegative(int64(*s.TerminatingReplicas), at.Child("terminatingReplicas"))...)
	}
	if s.CollisionCount != nil {
		errs = append(errs, notNegative(int64(*s.CollisionCount), at.Child("collisionCount"))...)
	}
	errs = append(errs, atMost(s.UpdatedReplicas, s.Replicas, at.Child("updatedReplicas"), "status.replicas")...)
	errs = append(errs, atMost(s.ReadyReplicas, s.Replicas, at.Child("readyReplicas"), "status.replicas")...)
	errs = append(errs, atMost(s.AvailableReplicas, s.Replicas, at.Child("availableReplicas"), "status.replicas")...)
	errs = append(errs, atMost(s.AvailableReplicas, s.ReadyReplicas, at.Child("availableReplicas"), "readyReplicas")...)
	if was := old.Status.CollisionCount; was != nil && (s.CollisionCount == nil || *s.CollisionCount < *was) {
		errs = append(errs, field.Invalid(at.Child("collisionCount"), ptr.Deref(s.CollisionCount, 0), "cannot be decremented"))
	}
	return errs
}

func atMost(count, bound int32, at *field.Path, name string) field.ErrorList {
	if count <= bound {
		return nil
	}
	return field.ErrorList{field.Invalid(at, count, "cannot be greater than "+name)}
}
