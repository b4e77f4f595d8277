// Package autoscaler is the kind HorizontalPodAutoscaler in its two versions, autoscaling/v2 and v1. Both are stored as the
// v2 type under the same keys; conversion between them is written out in this package. Nothing scales yet. All is pure
// functions and safe for concurrent use. Test with `go test ./agent/api/kinds/autoscaler`.
package autoscaler

import (
	"context"
	"fmt"
	"strings"

	autoscalingv1 "k8s.io/api/autoscaling/v1"
	autoscalingv2 "k8s.io/api/autoscaling/v2"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/utils/ptr"

	"github.com/podvine/podvine/agent/api/kinds"
)

// Defaults of autoscalers, Kubernetes' own.
const (
	defaultUtilization = 80
	defaultUpPods      = 4
	defaultPercent     = 100
	defaultPeriod      = 15
)

// Resources returns the kind in both versions.
func Resources() []kinds.Resource {
	second := newKind(autoscalingv1.SchemeGroupVersion)
	second.ExtraTypes = addTypes
	return []kinds.Resource{newKind(autoscalingv2.SchemeGroupVersion), second}
}

func newKind(version schema.GroupVersion) *kinds.Kind[*autoscalingv2.HorizontalPodAutoscaler] {
	type T = *autoscalingv2.HorizontalPodAutoscaler
	return &kinds.Kind[T]{
		GroupVersion: version,
		Kind:         "HorizontalPodAutoscaler", Resource: "horizontalpodautoscalers", Singular: "horizontalpodautoscaler",
		ShortNames: []string{"hpa"}, Categories: []string{"all"}, Namespaced: true,
		New:     func() T { return &autoscalingv2.HorizontalPodAutoscaler{} },
		NewList: func() runtime.Object { return &autoscalingv2.HorizontalPodAutoscalerList{} },

		Default:          setDefaults,
		HasGeneration:    true,
		PrepareForCreate: func(_ context.Context, a T) { a.Status = autoscalingv2.HorizontalPodAutoscalerStatus{} },
		Validate: func(_ context.Context, a T) field.ErrorList {
			errs := kinds.ValidateObjectMeta(&a.ObjectMeta, true, apivalidation.NameIsDNSSubdomain, field.NewPath("metadata"))
			return append(errs, validateSpec(&a.Spec, nil, field.NewPath("spec"))...)
		},
		ValidateUpdate: func(_ context.Context, a, old T) field.ErrorList {
			errs := kinds.ValidateObjectMetaUpdate(&a.ObjectMeta, &old.ObjectMeta, field.NewPath("metadata"))
			return append(errs, validateSpec(&a.Spec, &old.Spec, field.NewPath("spec"))...)
		},
		Columns: columns(),
		Status: &kinds.Status[T]{ValidateUpdate: func(_ context.Context, a, old T) field.ErrorList {
			errs := kinds.ValidateObjectMetaUpdate(&a.ObjectMeta, &old.ObjectMeta, field.NewPath("metadata"))
			errs = append(errs, apivalidation.ValidateNonnegativeField(int64(a.Status.CurrentReplicas), field.NewPath("status", "currentReplicas"))...)
			return append(errs, apivalidation.ValidateNonnegativeField(int64(a.Status.DesiredReplicas), field.NewPath("status", "desiredReplicas"))...)
		}},
	}
}

func setDefaults(a *autoscalingv2.HorizontalPodAutoscaler) {
	if a.Spec.MinReplicas == nil {
		a.Spec.MinReplicas = ptr.To[int32](1)
	}
	defaultMetrics(&a.Spec)
	defaultBehavior(a.Spec.Behavior)
}

func defaultMetrics(spec *autoscalingv2.HorizontalPodAutoscalerSpec) {
	if len(spec.Metrics) == 0 {
		spec.Metrics = []autoscalingv2.MetricSpec{{Type: autoscalingv2.ResourceMetricSourceType, Resource: &autoscalingv2.ResourceMetricSource{
			Name:   corev1.ResourceCPU,
			Target: autoscalingv2.MetricTarget{Type: autoscalingv2.UtilizationMetricType, AverageUtilization: ptr.To[int32](defaultUtilization)},
		}}}
	}
}

func defaultBehavior(b *autoscalingv2.HorizontalPodAutoscalerBehavior) {
	if b == nil {
		return
	}
	policy := func(t autoscalingv2.HPAScalingPolicyType, value int32) autoscalingv2.HPAScalingPolicy {
		return autoscalingv2.HPAScalingPolicy{Type: t, Value: value, PeriodSeconds: defaultPeriod}
	}
	if b.ScaleUp == nil {
		b.ScaleUp = &autoscalingv2.HPAScalingRules{}
	}
	if b.ScaleUp.StabilizationWindowSeconds == nil {
		b.ScaleUp.StabilizationWindowSeconds = ptr.To[int32](0)
	}
	defaultRules(b.ScaleUp, policy(autoscalingv2.PodsScalingPolicy, defaultUpPods), policy(autoscalingv2.PercentScalingPolicy, defaultPercent))
	if b.ScaleDown == nil {
		b.ScaleDown = &autoscalingv2.HPAScalingRules{}
	}
	defaultRules(b.ScaleDown, policy(autoscalingv2.PercentScalingPolicy, defaultPercent))
}

func defaultRules(r *autoscalingv2.HPAScalingRules, policies ...autoscalingv2.HPAScalingPolicy) {
	if r.SelectPolicy == nil {
		r.SelectPolicy = ptr.To(autoscalingv2.MaxChangePolicySelect)
	}
	if r.Policies == nil {
		r.Policies = policies
	}
}

func columns() []kinds.Column[*autoscalingv2.HorizontalPodAutoscaler] {
	type T = *autoscalingv2.HorizontalPodAutoscaler
	spec, status := autoscalingv2.HorizontalPodAutoscalerSpec{}.SwaggerDoc(), autoscalingv2.HorizontalPodAutoscalerStatus{}.SwaggerDoc()
	return []kinds.Column[T]{
		kinds.NameColumn[T](),
		{Name: "Reference", Description: spec["scaleTargetRef"], Cell: func(a T) any { return a.Spec.ScaleTargetRef.Kind + "/" + a.Spec.ScaleTargetRef.Name }},
		{Name: "Targets", Description: spec["metrics"], Cell: func(a T) any { return targets(a.Spec.Metrics, a.Status.CurrentMetrics) }},
		{Name: "MinPods", Description: spec["minReplicas"], Cell: func(a T) any {
			if a.Spec.MinReplicas == nil {
				return "<unset>"
			}
			return fmt.Sprint(*a.Spec.MinReplicas)
		}},
		{Name: "MaxPods", Description: spec["maxReplicas"], Cell: func(a T) any { return int64(a.Spec.MaxReplicas) }},
		{Name: "Replicas", Description: status["currentReplicas"], Cell: func(a T) any { return int64(a.Status.CurrentReplicas) }},
		kinds.AgeColumn[T](),
	}
}

const (
	unknown        = "<unknown>"
	maxListedCells = 2
)

// targets shows each metric as what it is now and what it should be.
func targets(metrics []autoscalingv2.MetricSpec, statuses []autoscalingv2.MetricStatus) string {
	if len(metrics) == 0 {
		return "<none>"
	}
	var cells []string
	for i := range metrics {
		var status autoscalingv2.MetricStatus
		if i < len(statuses) {
			status = statuses[i]
		}
		cells = append(cells, target(&metrics[i], &status))
	}
	if more := len(cells) - maxListedCells; more > 0 {
		return fmt.Sprintf("%s + %d more...", strings.Join(cells[:maxListedCells], ", "), more)
	}
	return strings.Join(cells, ", ")
}

func target(m *autoscalingv2.MetricSpec, s *autoscalingv2.MetricStatus) string {
	var now autoscalingv2.MetricValueStatus
	switch {
	case m.Type == autoscalingv2.ExternalMetricSourceType && m.External != nil:
		if s.External != nil {
			now = s.External.Current
		}
		return valueTarget(&m.External.Target, &now)
	case m.Type == autoscalingv2.ObjectMetricSourceType && m.Object != nil:
		if s.Object != nil {
			now = s.Object.Current
		}
		return valueTarget(&m.Object.Target, &now)
	case m.Type == autoscalingv2.PodsMetricSourceType && m.Pods != nil:
		if s.Pods != nil {
			now = s.Pods.Current
		}
		return quantityOr(now.AverageValue, unknown) + "/" + quantityOr(m.Pods.Target.AverageValue, "<auto>")
	case m.Type == autoscalingv2.ResourceMetricSourceType && m.Resource != nil:
		if s.Resource != nil {
			now = s.Resource.Current
		}
		return string(m.Resource.Name) + ": " + resourceTarget(&m.Resource.Target, &now)
	case m.Type == autoscalingv2.ContainerResourceMetricSourceType && m.ContainerResource != nil:
		if s.ContainerResource != nil {
			now = s.ContainerResource.Current
		}
		return string(m.ContainerResource.Name) + ": " + resourceTarget(&m.ContainerResource.Target, &now)
	}
	return "<unknown type>"
}

func valueTarget(t *autoscalingv2.MetricTarget, now *autoscalingv2.MetricValueStatus) string {
	if t.AverageValue != nil {
		return quantityOr(now.AverageValue, unknown) + "/" + t.AverageValue.String() + " (avg)"
	}
	return quantityOr(now.Value, unknown) + "/" + quantityOr(t.Value, "<auto>")
}

func resourceTarget(t *autoscalingv2.MetricTarget, now *autoscalingv2.MetricValueStatus) string {
	if t.AverageValue != nil {
		return quantityOr(now.AverageValue, unknown) + "/" + t.AverageValue.String()
	}
	return percentOr(now.AverageUtilization, unknown) + "/" + percentOr(t.AverageUtilization, "<auto>")
}

func quantityOr(q *resource.Quantity, fallback string) string {
	if q == nil {
		return fallback
	}
	return q.String()
}

func percentOr(p *int32, fallback string) string {
	if p == nil {
		return fallback
	}
	return fmt.Sprintf("%d%%", *p)
}
