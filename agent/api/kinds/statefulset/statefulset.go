// Package statefulset serves apps/v1 StatefulSet: pods with stable names and volumes, started and replaced in order.
//
// The loop that keeps them is agent/control/workloads/statefulset; here are the defaults, the rules and the columns.
// Everything is a pure function and safe for concurrent use. Test with `go test ./agent/api/kinds/statefulset`.
package statefulset

import (
	"context"
	"fmt"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/utils/ptr"

	"github.com/podvine/podvine/agent/api/kinds"
	"github.com/podvine/podvine/agent/api/kinds/podspec"
	"github.com/podvine/podvine/agent/api/kinds/workload"
)

const (
	defaultReplicas        = 1
	defaultRevisionHistory = 10
	defaultMaxUnavailable  = 1
)

// Resource returns the kind.
func Resource() kinds.Resource {
	return &kinds.Kind[*appsv1.StatefulSet]{
		GroupVersion: appsv1.SchemeGroupVersion,
		Kind:         "StatefulSet",
		Resource:     "statefulsets",
		Singular:     "statefulset",
		ShortNames:   []string{"sts"},
		Categories:   []string{"all"},
		Namespaced:   true,
		New:          func() *appsv1.StatefulSet { return &appsv1.StatefulSet{} },
		NewList:      func() runtime.Object { return &appsv1.StatefulSetList{} },
		Default:      setDefaults,
		PrepareForCreate: func(_ context.Context, s *appsv1.StatefulSet) {
			s.Status = appsv1.StatefulSetStatus{}
			podspec.DropDisabled(&s.Spec.Template.Spec)
		},
		PrepareForUpdate: func(_ context.Context, s, _ *appsv1.StatefulSet) { podspec.DropDisabled(&s.Spec.Template.Spec) },
		HasGeneration:    true,
		Validate:         validate,
		ValidateUpdate:   validateUpdate,
		WarningsOnCreate: func(_ context.Context, s *appsv1.StatefulSet) []string {
			return append(warnings(s), podspec.TemplateWarnings(&s.Spec.Template, nil, field.NewPath("spec", "template"))...)
		},
		WarningsOnUpdate: func(_ context.Context, s, old *appsv1.StatefulSet) []string {
			if s.Generation == old.Generation {
				return nil
			}
			return append(warnings(s), podspec.TemplateWarnings(&s.Spec.Template, &old.Spec.Template, field.NewPath("spec", "template"))...)
		},
		Columns: columns(),
		Status:  &kinds.Status[*appsv1.StatefulSet]{ValidateUpdate: validateStatusUpdate},
		Scale: workload.Scale(func(s *appsv1.StatefulSet) **int32 { return &s.Spec.Replicas },
			func(s *appsv1.StatefulSet) int32 { return s.Status.Replicas },
			func(s *appsv1.StatefulSet) *metav1.LabelSelector { return s.Spec.Selector }),
	}
}

func setDefaults(s *appsv1.StatefulSet) {
	spec := &s.Spec
	podspec.DefaultTemplate(&spec.Template)
	if spec.PodManagementPolicy == "" {
		spec.PodManagementPolicy = appsv1.OrderedReadyPodManagement
	}
	if spec.UpdateStrategy.Type == "" {
		spec.UpdateStrategy.Type = appsv1.RollingUpdateStatefulSetStrategyType
		if spec.UpdateStrategy.RollingUpdate == nil {
			spec.UpdateStrategy.RollingUpdate = &appsv1.RollingUpdateStatefulSetStrategy{}
		}
	}
	if r := spec.UpdateStrategy.RollingUpdate; spec.UpdateStrategy.Type == appsv1.RollingUpdateStatefulSetStrategyType && r != nil {
		if r.Partition == nil {
			r.Partition = ptr.To[int32](0)
		}
		if r.MaxUnavailable == nil {
			r.MaxUnavailable = ptr.To(intstr.FromInt32(defaultMaxUnavailable))
		}
	}
	if spec.PersistentVolumeClaimRetentionPolicy == nil {
		spec.PersistentVolumeClaimRetentionPolicy = &appsv1.StatefulSetPersistentVolumeClaimRetentionPolicy{}
	}
	for _, policy := range []*appsv1.PersistentVolumeClaimRetentionPolicyType{
		&spec.PersistentVolumeClaimRetentionPolicy.WhenDeleted, &spec.PersistentVolumeClaimRetentionPolicy.WhenScaled} {
		if *policy == "" {
			*policy = appsv1.RetainPersistentVolumeClaimRetentionPolicyType
		}
	}
	if spec.Replicas == nil {
		spec.Replicas = ptr.To[int32](defaultReplicas)
	}
	if spec.RevisionHistoryLimit == nil {
		spec.RevisionHistoryLimit = ptr.To[int32](defaultRevisionHistory)
	}
	for i := range spec.VolumeClaimTemplates {
		defaultClaim(&spec.VolumeClaimTemplates[i])
	}
}

// defaultClaim makes a claim template whole: it is shown as the object that is made from it.
func defaultClaim(c *corev1.PersistentVolumeClaim) {
	c.APIVersion, c.Kind = "v1", "PersistentVolumeClaim"
	podspec.DefaultClaimSpec(&c.Spec)
	if c.Status.Phase == "" {
		c.Status.Phase = corev1.ClaimPending
	}
}

// warnings are those about a set but for its template.
func warnings(s *appsv1.StatefulSet) []string {
	var out []string
	claims := field.NewPath("spec", "volumeClaimTemplates")
	for i := range s.Spec.VolumeClaimTemplates {
		out = append(out, podspec.ClaimWarnings(&s.Spec.VolumeClaimTemplates[i].Spec, claims.Index(i))...)
	}
	if limit := s.Spec.RevisionHistoryLimit; limit != nil && *limit < 0 {
		out = append(out, "spec.revisionHistoryLimit: a negative value retains all historical revisions; a value >= 0 is recommended")
	}
	return out
}

func columns() []kinds.Column[*appsv1.StatefulSet] {
	return append([]kinds.Column[*appsv1.StatefulSet]{
		kinds.NameColumn[*appsv1.StatefulSet](),
		{Name: "Ready", Description: "Number of the pod with ready state", Cell: func(s *appsv1.StatefulSet) any {
			return fmt.Sprintf("%d/%d", s.Status.ReadyReplicas, ptr.Deref(s.Spec.Replicas, defaultReplicas))
		}},
		kinds.AgeColumn[*appsv1.StatefulSet](),
	}, workload.TemplateColumns(func(s *appsv1.StatefulSet) *corev1.PodTemplateSpec { return &s.Spec.Template })...)
}
