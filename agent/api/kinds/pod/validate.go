package pod

import (
	"context"

	corev1 "k8s.io/api/core/v1"
	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/podvine/podvine/agent/api/kinds"
	"github.com/podvine/podvine/agent/api/kinds/podspec"
)

// validate reports the errors of a new pod.
func validate(_ context.Context, p *corev1.Pod) field.ErrorList {
	errs := validateWhole(p, podspec.Options{Pod: true})
	spec := field.NewPath("spec")
	if len(p.Spec.EphemeralContainers) > 0 {
		errs = append(errs, field.Forbidden(spec.Child("ephemeralContainers"), "cannot be set on create"))
	}
	if p.Spec.NodeName != "" && len(p.Spec.SchedulingGates) > 0 {
		errs = append(errs, field.Forbidden(spec.Child("nodeName"), "cannot be set until all schedulingGates have been cleared"))
	}
	return append(errs, podspec.ValidateProfileAnnotations(&p.ObjectMeta, &p.Spec, spec)...)
}

// validateWhole reports the errors that a pod has by itself, new or changed.
func validateWhole(p *corev1.Pod, opts podspec.Options) field.ErrorList {
	meta, spec := field.NewPath("metadata"), field.NewPath("spec")
	errs := kinds.ValidateObjectMeta(&p.ObjectMeta, true, apivalidation.NameIsDNSSubdomain, meta)
	errs = append(errs, podspec.ValidateAnnotations(p.Annotations, &p.Spec, meta.Child("annotations"), opts)...)
	errs = append(errs, podspec.Validate(&p.Spec, &p.ObjectMeta, spec, opts)...)
	return append(errs, podspec.ValidateSinglePageSize(&p.Spec, spec)...)
}

// warnings are what Kubernetes tells the user about a pod; metadata alone gets none.
func warnings(p, old *corev1.Pod) []string {
	if old != nil && old.Generation == p.Generation {
		return nil
	}
	return podspec.Warnings(&p.Spec, &p.ObjectMeta, oldSpec(old), nil)
}

func oldSpec(old *corev1.Pod) *corev1.PodSpec {
	if old == nil {
		return nil
	}
	return &old.Spec
}
