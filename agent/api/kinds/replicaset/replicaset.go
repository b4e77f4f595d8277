// Package replicaset serves apps/v1 ReplicaSet: a number of equal pods that is kept up.
//
// The loop that keeps it is agent/control/workloads; here are the defaults, the rules and the columns. Everything is a
// pure function and safe for concurrent use. Test with `go test ./agent/api/kinds/replicaset`.
package replicaset

import (
	"context"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/utils/ptr"

	"github.com/podvine/podvine/agent/api/kinds"
	"github.com/podvine/podvine/agent/api/kinds/podspec"
	"github.com/podvine/podvine/agent/api/kinds/workload"
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
			return workload.Warnings(r.Name, &r.Spec.Template)
		},
		WarningsOnUpdate: func(_ context.Context, r, old *appsv1.ReplicaSet) []string {
			return workload.WarningsOnUpdate(r, old, &r.Spec.Template, &old.Spec.Template)
		},
		Columns: columns(),
		Status:  &kinds.Status[*appsv1.ReplicaSet]{ValidateUpdate: validateStatusUpdate},
		Scale: workload.Scale(func(r *appsv1.ReplicaSet) **int32 { return &r.Spec.Replicas },
			func(r *appsv1.ReplicaSet) int32 { return r.Status.Replicas },
			func(r *appsv1.ReplicaSet) *metav1.LabelSelector { return r.Spec.Selector }),
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
	errs := workload.NotNegative(at, workload.Count{Name: "replicas", Value: int64(replicas)},
		workload.Count{Name: "minReadySeconds", Value: int64(spec.MinReadySeconds)})
	selector, selectorErrs := workload.ValidateSelector(spec.Selector, opts, "empty selector is invalid for deployment", "invalid label selector", at.Child("selector"))
	errs = append(errs, selectorErrs...)
	if selector == nil {
		return errs
	}
	return append(errs, podspec.ValidateReplicaTemplate(&spec.Template, selector, replicas, "ReplicaSet", at.Child("template"), opts)...)
}

func validateStatusUpdate(_ context.Context, r, old *appsv1.ReplicaSet) field.ErrorList {
	at, s := field.NewPath("status"), &r.Status
	errs := kinds.ValidateObjectMetaUpdate(&r.ObjectMeta, &old.ObjectMeta, field.NewPath("metadata"))
	errs = append(errs, workload.NotNegative(at, workload.Count{Name: "terminatingReplicas", Value: int64(ptr.Deref(s.TerminatingReplicas, 0))})...)
	return append(errs, workload.ReplicaStatus(s.Replicas, s.FullyLabeledReplicas, s.ReadyReplicas, s.AvailableReplicas, s.ObservedGeneration, at)...)
}

func columns() []kinds.Column[*appsv1.ReplicaSet] {
	spec, status := appsv1.ReplicaSetSpec{}.SwaggerDoc(), appsv1.ReplicaSetStatus{}.SwaggerDoc()
	columns := []kinds.Column[*appsv1.ReplicaSet]{
		kinds.NameColumn[*appsv1.ReplicaSet](),
		{Name: "Desired", Type: "integer", Description: spec["replicas"], Cell: func(r *appsv1.ReplicaSet) any { return int64(ptr.Deref(r.Spec.Replicas, defaultReplicas)) }},
		{Name: "Current", Type: "integer", Description: status["replicas"], Cell: func(r *appsv1.ReplicaSet) any { return int64(r.Status.Replicas) }},
		{Name: "Ready", Type: "integer", Description: status["readyReplicas"], Cell: func(r *appsv1.ReplicaSet) any { return int64(r.Status.ReadyReplicas) }},
		kinds.AgeColumn[*appsv1.ReplicaSet](),
	}
	columns = append(columns, workload.TemplateColumns(func(r *appsv1.ReplicaSet) *corev1.PodTemplateSpec { return &r.Spec.Template })...)
	return append(columns, workload.SelectorColumn(spec["selector"], func(r *appsv1.ReplicaSet) *metav1.LabelSelector { return r.Spec.Selector }))
}
