// Package deployment serves apps/v1 Deployment: pods that are replaced step by step when their template changes.
//
// The loop that does the replacing is agent/control/workloads; here are the defaults, the rules and the columns.
// Everything is a pure function and safe for concurrent use. Test with `go test ./agent/api/kinds/deployment`.
package deployment

import (
	"context"
	"fmt"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/utils/ptr"

	"github.com/podvine/podvine/agent/api/kinds"
	"github.com/podvine/podvine/agent/api/kinds/podspec"
	"github.com/podvine/podvine/agent/api/kinds/workload"
)

const (
	defaultReplicas         = 1
	defaultRevisionHistory  = 10
	defaultProgressSeconds  = 600
	defaultRollingAllowance = "25%"
)

// Resource returns the kind.
func Resource() kinds.Resource {
	return &kinds.Kind[*appsv1.Deployment]{
		GroupVersion:     appsv1.SchemeGroupVersion,
		Kind:             "Deployment",
		Resource:         "deployments",
		Singular:         "deployment",
		ShortNames:       []string{"deploy"},
		Categories:       []string{"all"},
		Namespaced:       true,
		New:              func() *appsv1.Deployment { return &appsv1.Deployment{} },
		NewList:          func() runtime.Object { return &appsv1.DeploymentList{} },
		Default:          setDefaults,
		PrepareForCreate: prepareForCreate,
		PrepareForUpdate: prepareForUpdate,
		HasGeneration:    true,
		Validate:         validate,
		ValidateUpdate:   validateUpdate,
		WarningsOnCreate: warningsOnCreate,
		WarningsOnUpdate: warningsOnUpdate,
		Columns:          columns(),
		Status: &kinds.Status[*appsv1.Deployment]{
			PrepareForUpdate: prepareForStatusUpdate,
			ValidateUpdate:   validateStatusUpdate,
			ResetFields:      []string{"spec", "metadata.labels"},
		},
		Scale: workload.Scale(func(d *appsv1.Deployment) **int32 { return &d.Spec.Replicas },
			func(d *appsv1.Deployment) int32 { return d.Status.Replicas },
			func(d *appsv1.Deployment) *metav1.LabelSelector { return d.Spec.Selector }),
	}
}

func setDefaults(d *appsv1.Deployment) {
	podspec.DefaultTemplate(&d.Spec.Template)
	if d.Spec.Replicas == nil {
		d.Spec.Replicas = ptr.To[int32](defaultReplicas)
	}
	strategy := &d.Spec.Strategy
	if strategy.Type == "" {
		strategy.Type = appsv1.RollingUpdateDeploymentStrategyType
	}
	if strategy.Type == appsv1.RollingUpdateDeploymentStrategyType {
		if strategy.RollingUpdate == nil {
			strategy.RollingUpdate = &appsv1.RollingUpdateDeployment{}
		}
		if strategy.RollingUpdate.MaxUnavailable == nil {
			strategy.RollingUpdate.MaxUnavailable = ptr.To(intstr.FromString(defaultRollingAllowance))
		}
		if strategy.RollingUpdate.MaxSurge == nil {
			strategy.RollingUpdate.MaxSurge = ptr.To(intstr.FromString(defaultRollingAllowance))
		}
	}
	if d.Spec.RevisionHistoryLimit == nil {
		d.Spec.RevisionHistoryLimit = ptr.To[int32](defaultRevisionHistory)
	}
	if d.Spec.ProgressDeadlineSeconds == nil {
		d.Spec.ProgressDeadlineSeconds = ptr.To[int32](defaultProgressSeconds)
	}
}

func prepareForCreate(_ context.Context, d *appsv1.Deployment) {
	d.Status = appsv1.DeploymentStatus{}
	podspec.DropDisabled(&d.Spec.Template.Spec)
}

// prepareForUpdate also counts changes of annotations as a generation: the revision is one.
func prepareForUpdate(_ context.Context, d, old *appsv1.Deployment) {
	podspec.DropDisabled(&d.Spec.Template.Spec)
	if !equality.Semantic.DeepEqual(d.Annotations, old.Annotations) {
		d.Generation = old.Generation + 1
	}
}

func prepareForStatusUpdate(_ context.Context, d, old *appsv1.Deployment) {
	d.Spec = old.Spec
	d.Labels = old.Labels
}

func warningsOnCreate(_ context.Context, d *appsv1.Deployment) []string {
	return workload.Warnings(d.Name, &d.Spec.Template)
}

func warningsOnUpdate(_ context.Context, d, old *appsv1.Deployment) []string {
	return workload.WarningsOnUpdate(d, old, &d.Spec.Template, &old.Spec.Template)
}

func columns() []kinds.Column[*appsv1.Deployment] {
	spec, status := appsv1.DeploymentSpec{}.SwaggerDoc(), appsv1.DeploymentStatus{}.SwaggerDoc()
	columns := []kinds.Column[*appsv1.Deployment]{
		kinds.NameColumn[*appsv1.Deployment](),
		{Name: "Ready", Description: "Number of the pod with ready state", Cell: func(d *appsv1.Deployment) any {
			return fmt.Sprintf("%d/%d", d.Status.ReadyReplicas, ptr.Deref(d.Spec.Replicas, defaultReplicas))
		}},
		{Name: "Up-to-date", Description: status["updatedReplicas"], Cell: func(d *appsv1.Deployment) any { return int64(d.Status.UpdatedReplicas) }},
		{Name: "Available", Description: status["availableReplicas"], Cell: func(d *appsv1.Deployment) any { return int64(d.Status.AvailableReplicas) }},
		kinds.AgeColumn[*appsv1.Deployment](),
	}
	columns = append(columns, workload.TemplateColumns(func(d *appsv1.Deployment) *corev1.PodTemplateSpec { return &d.Spec.Template })...)
	return append(columns, workload.SelectorColumn(spec["selector"], func(d *appsv1.Deployment) *metav1.LabelSelector { return d.Spec.Selector }))
}
