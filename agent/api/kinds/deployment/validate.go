package deployment

import (
	"context"

	appsv1 "k8s.io/api/apps/v1"
	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/utils/ptr"

	"github.com/podvine/podvine/agent/api/kinds"
	"github.com/podvine/podvine/agent/api/kinds/podspec"
	"github.com/podvine/podvine/agent/api/kinds/workload"
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
	selector, selectorErrs := workload.ValidateSelector(spec.Selector, opts, "empty selector is invalid for deployment", "invalid label selector", at.Child("selector"))
	errs = append(errs, selectorErrs...)
	if selector != nil {
		errs = append(errs, podspec.ValidateReplicaTemplate(&spec.Template, selector, replicas, "ReplicaSet", at.Child("template"), opts)...)
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
	errs := workload.CountOrPercent(unavailable, at.Child("maxUnavailable"))
	errs = append(errs, workload.CountOrPercent(surge, at.Child("maxSurge"))...)
	if workload.Amount(unavailable) == 0 && workload.Amount(surge) == 0 {
		errs = append(errs, field.Invalid(at.Child("maxUnavailable"), unavailable, "may not be 0 when `maxSurge` is 0"))
	}
	return append(errs, workload.AtMostAll(unavailable, at.Child("maxUnavailable"))...)
}

func validateStatusUpdate(_ context.Context, d, old *appsv1.Deployment) field.ErrorList {
	at, s := field.NewPath("status"), &d.Status
	errs := kinds.ValidateObjectMetaUpdate(&d.ObjectMeta, &old.ObjectMeta, field.NewPath("metadata"))
	errs = append(errs, workload.NotNegative(at, workload.Count{Name: "observedGeneration", Value: s.ObservedGeneration},
		workload.Count{Name: "replicas", Value: int64(s.Replicas)},
		workload.Count{Name: "updatedReplicas", Value: int64(s.UpdatedReplicas)},
		workload.Count{Name: "readyReplicas", Value: int64(s.ReadyReplicas)},
		workload.Count{Name: "availableReplicas", Value: int64(s.AvailableReplicas)},
		workload.Count{Name: "unavailableReplicas", Value: int64(s.UnavailableReplicas)},
		workload.Count{Name: "terminatingReplicas", Value: int64(ptr.Deref(s.TerminatingReplicas, 0))})...)
	errs = append(errs, workload.AtMost(s.UpdatedReplicas, s.Replicas, at.Child("updatedReplicas"), "status.replicas")...)
	errs = append(errs, workload.AtMost(s.ReadyReplicas, s.Replicas, at.Child("readyReplicas"), "status.replicas")...)
	errs = append(errs, workload.AtMost(s.AvailableReplicas, s.Replicas, at.Child("availableReplicas"), "status.replicas")...)
	errs = append(errs, workload.AtMost(s.AvailableReplicas, s.ReadyReplicas, at.Child("availableReplicas"), "readyReplicas")...)
	return append(errs, workload.ValidateCollisions(s.CollisionCount, old.Status.CollisionCount, at.Child("collisionCount"))...)
}
