// Package replicationcontroller serves v1 ReplicationController, the elder of ReplicaSet: a number of equal pods that is
// kept up, selected by plain labels.
//
// The loop that keeps it is agent/control/workloads/replicationcontroller; here are the defaults, the rules and the
// columns. Everything is a pure function and safe for concurrent use. Test with
// `go test ./agent/api/kinds/replicationcontroller`.
package replicationcontroller

import (
	"context"
	"maps"
	"strconv"

	corev1 "k8s.io/api/core/v1"
	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/labels"
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
	return &kinds.Kind[*corev1.ReplicationController]{
		GroupVersion: corev1.SchemeGroupVersion,
		Kind:         "ReplicationController",
		Resource:     "replicationcontrollers",
		Singular:     "replicationcontroller",
		ShortNames:   []string{"rc"},
		Categories:   []string{"all"},
		Namespaced:   true,
		New:          func() *corev1.ReplicationController { return &corev1.ReplicationController{} },
		NewList:      func() runtime.Object { return &corev1.ReplicationControllerList{} },
		Default:      setDefaults,
		PrepareForCreate: func(_ context.Context, r *corev1.ReplicationController) {
			r.Status = corev1.ReplicationControllerStatus{}
			dropDisabled(r)
		},
		PrepareForUpdate: func(_ context.Context, r, _ *corev1.ReplicationController) { dropDisabled(r) },
		HasGeneration:    true,
		Validate: func(_ context.Context, r *corev1.ReplicationController) field.ErrorList {
			errs := kinds.ValidateObjectMeta(&r.ObjectMeta, true, apivalidation.NameIsDNSSubdomain, field.NewPath("metadata"))
			return append(errs, validateSpec(&r.Spec, podspec.Options{}, field.NewPath("spec"))...)
		},
		ValidateUpdate: validateUpdate,
		WarningsOnCreate: func(_ context.Context, r *corev1.ReplicationController) []string {
			if r.Spec.Template == nil {
				return podspec.NameWarnings(r.Name)
			}
			return workload.Warnings(r.Name, r.Spec.Template)
		},
		WarningsOnUpdate: func(_ context.Context, r, old *corev1.ReplicationController) []string {
			if r.Spec.Template == nil || old.Spec.Template == nil {
				return nil
			}
			return workload.WarningsOnUpdate(r, old, r.Spec.Template, old.Spec.Template)
		},
		FieldLabels: []string{"status.replicas"},
		Fields: func(r *corev1.ReplicationController) fields.Set {
			return fields.Set{"status.replicas": strconv.Itoa(int(r.Status.Replicas))}
		},
		Columns: columns(),
		Status:  &kinds.Status[*corev1.ReplicationController]{ValidateUpdate: validateStatusUpdate},
		Scale: &kinds.Scale[*corev1.ReplicationController]{
			Get: func(r *corev1.ReplicationController) (int32, int32, string, error) {
				return ptr.Deref(r.Spec.Replicas, defaultReplicas), r.Status.Replicas, labels.Set(r.Spec.Selector).String(), nil
			},
			Set: func(r *corev1.ReplicationController, replicas int32) { r.Spec.Replicas = &replicas },
		},
	}
}

func dropDisabled(r *corev1.ReplicationController) {
	if r.Spec.Template != nil {
		podspec.DropDisabled(&r.Spec.Template.Spec)
	}
}

// setDefaults takes the template's labels for what is not said.
func setDefaults(r *corev1.ReplicationController) {
	if r.Spec.Replicas == nil {
		r.Spec.Replicas = ptr.To[int32](defaultReplicas)
	}
	if r.Spec.Template == nil {
		return
	}
	podspec.DefaultTemplate(r.Spec.Template)
	if own := r.Spec.Template.Labels; len(own) > 0 {
		if len(r.Spec.Selector) == 0 {
			r.Spec.Selector = maps.Clone(own)
		}
		if len(r.Labels) == 0 {
			r.Labels = maps.Clone(own)
		}
	}
}

func validateSpec(spec *corev1.ReplicationControllerSpec, opts podspec.Options, at *field.Path) field.ErrorList {
	replicas := ptr.Deref(spec.Replicas, defaultReplicas)
	errs := workload.NotNegative(at, workload.Count{Name: "minReadySeconds", Value: int64(spec.MinReadySeconds)})
	if len(spec.Selector) == 0 {
		errs = append(errs, field.Required(at.Child("selector"), ""))
	}
	errs = append(errs, workload.NotNegative(at, workload.Count{Name: "replicas", Value: int64(replicas)})...)
	if spec.Template == nil {
		return append(errs, field.Required(at.Child("template"), ""))
	}
	return append(errs, podspec.ValidateReplicaTemplate(spec.Template, labels.Set(spec.Selector).AsSelectorPreValidated(), replicas,
		"ReplicationController", at.Child("template"), opts)...)
}

func validateUpdate(_ context.Context, r, old *corev1.ReplicationController) field.ErrorList {
	var opts podspec.Options
	if old.Spec.Template != nil {
		opts = podspec.OptionsFor(&old.Spec.Template.Spec, &old.Spec.Template.ObjectMeta)
	}
	errs := kinds.ValidateObjectMetaUpdate(&r.ObjectMeta, &old.ObjectMeta, field.NewPath("metadata"))
	return append(errs, validateSpec(&r.Spec, opts, field.NewPath("spec"))...)
}

func validateStatusUpdate(_ context.Context, r, old *corev1.ReplicationController) field.ErrorList {
	at, s := field.NewPath("status"), &r.Status
	errs := kinds.ValidateObjectMetaUpdate(&r.ObjectMeta, &old.ObjectMeta, field.NewPath("metadata"))
	return append(errs, workload.ReplicaStatus(s.Replicas, s.FullyLabeledReplicas, s.ReadyReplicas, s.AvailableReplicas, s.ObservedGeneration, at)...)
}

func columns() []kinds.Column[*corev1.ReplicationController] {
	spec, status := corev1.ReplicationControllerSpec{}.SwaggerDoc(), corev1.ReplicationControllerStatus{}.SwaggerDoc()
	columns := []kinds.Column[*corev1.ReplicationController]{
		kinds.NameColumn[*corev1.ReplicationController](),
		{Name: "Desired", Type: "integer", Description: spec["replicas"], Cell: func(r *corev1.ReplicationController) any {
			return int64(ptr.Deref(r.Spec.Replicas, defaultReplicas))
		}},
		{Name: "Current", Type: "integer", Description: status["replicas"], Cell: func(r *corev1.ReplicationController) any { return int64(r.Status.Replicas) }},
		{Name: "Ready", Type: "integer", Description: status["readyReplicas"], Cell: func(r *corev1.ReplicationController) any { return int64(r.Status.ReadyReplicas) }},
		kinds.AgeColumn[*corev1.ReplicationController](),
	}
	columns = append(columns, workload.TemplateColumns(func(r *corev1.ReplicationController) *corev1.PodTemplateSpec {
		return ptr.To(ptr.Deref(r.Spec.Template, corev1.PodTemplateSpec{}))
	})...)
	return append(columns, kinds.Column[*corev1.ReplicationController]{Name: "Selector", Priority: 1, Description: spec["selector"],
		Cell: func(r *corev1.ReplicationController) any { return labels.FormatLabels(r.Spec.Selector) }})
}
