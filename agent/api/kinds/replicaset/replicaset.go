// Package replicaset serves apps/v1 ReplicaSet: a number of equal pods that is kept up.
//
// The loop that keeps it is agent/control/workloads; here are the defaults, the rules and the columns. Everything is a
// pure function and safe for concurrent use. Test with `go test ./agent/api/kinds/replicaset`.
package replicaset

import (
	"context"

	appsv1 "k8s.io/api/apps/v1"
	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	metav1validation "k8s.io/apimachinery/pkg/apis/meta/v1/validation"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/utils/ptr"

	"github.com/podvine/podvine/agent/api/kinds"
	"github.com/podvine/podvine/agent/api/kinds/podspec"
)

const defaultReplicas = 1

// Resource returns the kind.
func Resource() kinds.Resource {
	return &kinds.Kind[*appsv1.ReplicaSet]{
		GroupVersion: appsv1.SchemeGroupVersion,
		Kind:         "ReplicaSet",
		Resource:     "replicasets",
		Singular:     "replicaset",
		ShortNames:   []string{"rs"},
		Categories:   []string{"all"},
		Namespaced:   true,
		New:          func() *appsv1.ReplicaSet { return &appsv1.ReplicaSet{} },
		NewList:      func() runtime.Object { return &appsv1.ReplicaSetList{} },
		Default:      setDefaults,
		PrepareForCreate: func(_ context.Context, r *appsv1.ReplicaSet) {
			r.Status = appsv1.ReplicaSetStatus{}
			podspec.DropDisabled(&r.Spec.Template.Spec)
		},
		PrepareForUpdate: func(_ context.Context, r, _ *appsv1.ReplicaSet) { podspec.DropDisabled(&r.Spec.Template.Spec) },
		HasGeneration:    true,
		Validate:         validate,
		ValidateUpdate:   validateUpdate,
		WarningsOnCreate: func(_ context.Context, r *appsv1.ReplicaSet) []string {
			return append(podspec.NameWarnings(r.Name), podspec.TemplateWarnings(&r.Spec.Template, nil, field.NewPath("spec", "template"))...)
		},
		WarningsOnUpdate: func(_ context.Context, r, old *appsv1.ReplicaSet) []string {
			if r.Generation == old.Generation {
				return nil
			}
			return podspec.TemplateWarnings(&r.Spec.Template, &old.Spec.Template, field.NewPath("spec", "template"))
		},
		Columns: columns(),
		Status:  &kinds.Status[*appsv1.ReplicaSet]{ValidateUpdate: validateStatusUpdate},
		Scale: &kinds.Scale[*appsv1.ReplicaSet]{
			Get: func(r *appsv1.ReplicaSet) (int32, int32, string, error) {
				selector, err := metav1.LabelSelectorAsSelector(r.Spec.Selector)
				if err != nil {
					return 0, 0, "", err
				}
				return ptr.Deref(r.Spec.Replicas, defaultReplicas), r.Status.Replicas, selector.String(), nil
			},
			Set: func(r *appsv1.ReplicaSet, replicas int32) { r.Spec.Replicas = &replicas },
		},
	}
}

func setDefaults(r *appsv1.ReplicaSet) {
	podspec.DefaultTemplate(&r.Spec.Template)
	if r.Spec.Replicas == nil {
		r.Spec.Replicas = ptr.To[int32](defaultReplicas)
	}
}

func validate(_ context.Context, r *appsv1.ReplicaSet) field.ErrorList {
	errs := kinds.ValidateObjectMeta(&r.ObjectMeta, true, apivalidation.NameIsDNSSubdomain, field.NewPath("metadata"))
	return append(errs, validateSpec(&r.Spec, podspec.Options{}, field.NewPath("spec"))...)
}

func validateUpdate(_ context.Context, r, old *appsv1.ReplicaSet) field.ErrorList {
	spec := field.NewPath("spec")
	errs := kinds.ValidateObjectMetaUpdate(&r.ObjectMeta, &old.ObjectMeta, field.NewPath("metadata"))
	errs = append(errs, validateSpec(&r.Spec, podspec.OptionsFor(&old.Spec.Template.Spec, &old.Spec.Template.ObjectMeta), spec)...)
	return append(errs, apivalidation.ValidateImmutableField(r.Spec.Selector, old.Spec.Selector, spec.Child("selector"))...)
}

func validateSpec(spec *appsv1.ReplicaSetSpec, opts podspec.Options, at *field.Path) field.ErrorList {
	replicas := ptr.Deref(spec.Replicas, defaultReplicas)
	errs := apivalidation.ValidateNonnegativeField(int64(replicas), at.Child("replicas"))
	errs = append(errs, apivalidation.ValidateNonnegativeField(int64(spec.MinReadySeconds), at.Child("minReadySeconds"))...)
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
		return append(errs, field.Invalid(selectorPath, spec.Selector, "invalid label selector"))
	}
	return append(errs, podspec.ValidateReplicaTemplate(&spec.Template, selector, replicas, at.Child("template"), opts)...)
}

func validateStatusUpdate(_ context.Context, r, old *appsv1.ReplicaSet) field.ErrorList {
	at, s := field.NewPath("status"), &r.Status
	errs := kinds.ValidateObjectMetaUpdate(&r.ObjectMeta, &old.ObjectMeta, field.NewPath("metadata"))
	notNegative := func(count int64, name string) {
		errs = append(errs, apivalidation.ValidateNonnegativeField(count, at.Child(name))...)
	}
	atMost := func(count, bound int32, name, of string) {
		if count > bound {
			errs = append(errs, field.Invalid(at.Child(name), count, "cannot be greater than "+of))
		}
	}
	notNegative(int64(s.Replicas), "replicas")
	notNegative(int64(s.FullyLabeledReplicas), "fullyLabeledReplicas")
	notNegative(int64(s.ReadyReplicas), "readyReplicas")
	notNegative(int64(s.AvailableReplicas), "availableReplicas")
	notNegative(s.ObservedGeneration, "observedGeneration")
	if s.TerminatingReplicas != nil {
		notNegative(int64(*s.TerminatingReplicas), "terminatingReplicas")
	}
	atMost(s.FullyLabeledReplicas, s.Replicas, "fullyLabeledReplicas", "status.replicas")
	atMost(s.ReadyReplicas, s.Replicas, "readyReplicas", "status.replicas")
	atMost(s.AvailableReplicas, s.Replicas, "availableReplicas", "status.replicas")
	atMost(s.AvailableReplicas, s.ReadyReplicas, "availableReplicas", "readyReplicas")
	return errs
}

func columns() []kinds.Column[*appsv1.ReplicaSet] {
	spec, status := appsv1.ReplicaSetSpec{}.SwaggerDoc(), appsv1.ReplicaSetStatus{}.SwaggerDoc()
	return []kinds.Column[*appsv1.ReplicaSet]{
		kinds.NameColumn[*appsv1.ReplicaSet](),
		{Name: "Desired", Type: "integer", Description: spec["replicas"], Cell: func(r *appsv1.ReplicaSet) any { return int64(ptr.Deref(r.Spec.Replicas, defaultReplicas)) }},
		{Name: "Current", Type: "integer", Description: status["replicas"], Cell: func(r *appsv1.ReplicaSet) any { return int64(r.Status.Replicas) }},
		{Name: "Ready", Type: "integer", Description: status["readyReplicas"], Cell: func(r *appsv1.ReplicaSet) any { return int64(r.Status.ReadyReplicas) }},
		kinds.AgeColumn[*appsv1.ReplicaSet](),
		{Name: "Containers", Priority: 1, Description: "Names of each container in the template.", Cell: func(r *appsv1.ReplicaSet) any {
			names, _ := podspec.ContainerColumns(&r.Spec.Template.Spec)
			return names
		}},
		{Name: "Images", Priority: 1, Description: "Images referenced by each container in the template.", Cell: func(r *appsv1.ReplicaSet) any {
			_, images := podspec.ContainerColumns(&r.Spec.Template.Spec)
			return images
		}},
		{Name: "Selector", Priority: 1, Description: spec["selector"], Cell: func(r *appsv1.ReplicaSet) any { return metav1.FormatLabelSelector(r.Spec.Selector) }},
	}
}
