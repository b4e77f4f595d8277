// Package daemonset serves apps/v1 DaemonSet: a pod on each node that the template fits.
//
// The loop that keeps them is agent/control/workloads/daemonset; here are the defaults, the rules and the columns.
// Everything is a pure function and safe for concurrent use. Test with `go test ./agent/api/kinds/daemonset`.
package daemonset

import (
	"context"
	"strconv"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/utils/ptr"

	"github.com/podvine/podvine/agent/api/kinds"
	"github.com/podvine/podvine/agent/api/kinds/podspec"
	"github.com/podvine/podvine/agent/api/kinds/workload"
)

const (
	defaultRevisionHistory = 10
	defaultMaxUnavailable  = 1
	// severalPods stands for the number of pods: more than one, on different machines.
	severalPods = 2
)

// Resource returns the kind.
func Resource() kinds.Resource {
	return &kinds.Kind[*appsv1.DaemonSet]{
		GroupVersion: appsv1.SchemeGroupVersion,
		Kind:         "DaemonSet",
		Resource:     "daemonsets",
		Singular:     "daemonset",
		ShortNames:   []string{"ds"},
		Categories:   []string{"all"},
		Namespaced:   true,
		New:          func() *appsv1.DaemonSet { return &appsv1.DaemonSet{} },
		NewList:      func() runtime.Object { return &appsv1.DaemonSetList{} },
		Default:      setDefaults,
		PrepareForCreate: func(_ context.Context, d *appsv1.DaemonSet) {
			d.Status = appsv1.DaemonSetStatus{}
			podspec.DropDisabled(&d.Spec.Template.Spec)
			setTemplateGeneration(d, max(1, templateGeneration(d)))
		},
		PrepareForUpdate: func(_ context.Context, d, old *appsv1.DaemonSet) {
			podspec.DropDisabled(&d.Spec.Template.Spec)
			generation := templateGeneration(old)
			if !equality.Semantic.DeepEqual(d.Spec.Template, old.Spec.Template) {
				generation++
			}
			setTemplateGeneration(d, generation)
		},
		HasGeneration:  true,
		Validate:       validate,
		ValidateUpdate: validateUpdate,
		WarningsOnCreate: func(_ context.Context, d *appsv1.DaemonSet) []string {
			return podspec.TemplateWarnings(&d.Spec.Template, nil, field.NewPath("spec", "template"))
		},
		WarningsOnUpdate: func(_ context.Context, d, old *appsv1.DaemonSet) []string {
			return workload.WarningsOnUpdate(d, old, &d.Spec.Template, &old.Spec.Template)
		},
		Columns: columns(),
		Status:  &kinds.Status[*appsv1.DaemonSet]{ValidateUpdate: validateStatusUpdate},
	}
}

// templateGeneration counts changes of the template. It is an annotation, which the server alone writes.
func templateGeneration(d *appsv1.DaemonSet) int64 {
	n, err := strconv.ParseInt(d.Annotations[appsv1.DeprecatedTemplateGeneration], 10, 64)
	if err != nil {
		return 0
	}
	return n
}

func setTemplateGeneration(d *appsv1.DaemonSet, n int64) {
	metav1.SetMetaDataAnnotation(&d.ObjectMeta, appsv1.DeprecatedTemplateGeneration, strconv.FormatInt(n, 10))
}

func setDefaults(d *appsv1.DaemonSet) {
	podspec.DefaultTemplate(&d.Spec.Template)
	strategy := &d.Spec.UpdateStrategy
	if strategy.Type == "" {
		strategy.Type = appsv1.RollingUpdateDaemonSetStrategyType
	}
	if strategy.Type == appsv1.RollingUpdateDaemonSetStrategyType {
		if strategy.RollingUpdate == nil {
			strategy.RollingUpdate = &appsv1.RollingUpdateDaemonSet{}
		}
		if strategy.RollingUpdate.MaxUnavailable == nil {
			strategy.RollingUpdate.MaxUnavailable = ptr.To(intstr.FromInt32(defaultMaxUnavailable))
		}
	}
	if r := strategy.RollingUpdate; r != nil { // also where another strategy leaves it unused
		if r.MaxSurge == nil {
			r.MaxSurge = ptr.To(intstr.FromInt32(0))
		}
		if r.MaxUnavailable == nil {
			r.MaxUnavailable = ptr.To(intstr.FromInt32(0))
		}
	}
	if d.Spec.RevisionHistoryLimit == nil {
		d.Spec.RevisionHistoryLimit = ptr.To[int32](defaultRevisionHistory)
	}
}

func validate(_ context.Context, d *appsv1.DaemonSet) field.ErrorList {
	errs := kinds.ValidateObjectMeta(&d.ObjectMeta, true, apivalidation.NameIsDNSSubdomain, field.NewPath("metadata"))
	return append(errs, validateSpec(&d.Spec, podspec.Options{}, field.NewPath("spec"))...)
}

func validateUpdate(_ context.Context, d, old *appsv1.DaemonSet) field.ErrorList {
	at := field.NewPath("spec")
	errs := kinds.ValidateObjectMetaUpdate(&d.ObjectMeta, &old.ObjectMeta, field.NewPath("metadata"))
	errs = append(errs, apivalidation.ValidateImmutableField(d.Spec.Selector, old.Spec.Selector, at.Child("selector"))...)
	return append(errs, validateSpec(&d.Spec, podspec.OptionsFor(&old.Spec.Template.Spec, &old.Spec.Template.ObjectMeta), at)...)
}

func validateSpec(spec *appsv1.DaemonSetSpec, opts podspec.Options, at *field.Path) field.ErrorList {
	const empty = "empty selector is invalid for daemonset"
	var errs field.ErrorList
	selector, err := metav1.LabelSelectorAsSelector(spec.Selector)
	if spec.Selector != nil {
		_, errs = workload.ValidateSelector(spec.Selector, opts, empty, "", at.Child("selector"))
	}
	if err != nil {
		selector = labels.Everything() // what is wrong with it has been said
		errs = errs[:len(errs)-1]
	}
	errs = append(errs, podspec.ValidateReplicaTemplate(&spec.Template, selector, severalPods, "DaemonSet", at.Child("template"), opts)...)
	errs = append(errs, workload.NotNegative(at, workload.Count{Name: "minReadySeconds", Value: int64(spec.MinReadySeconds)})...)
	errs = append(errs, validateStrategy(&spec.UpdateStrategy, at.Child("updateStrategy"))...)
	return append(errs, workload.NotNegative(at, workload.Count{Name: "revisionHistoryLimit", Value: int64(ptr.Deref(spec.RevisionHistoryLimit, 0))})...)
}

func validateStrategy(s *appsv1.DaemonSetUpdateStrategy, at *field.Path) field.ErrorList {
	rolling := at.Child("rollingUpdate")
	switch s.Type {
	case appsv1.OnDeleteDaemonSetStrategyType:
		return nil
	case appsv1.RollingUpdateDaemonSetStrategyType:
		if s.RollingUpdate == nil {
			return field.ErrorList{field.Required(rolling, "")}
		}
		return validateRolling(s.RollingUpdate, rolling)
	}
	return field.ErrorList{field.NotSupported(at, podspec.InternalView(s),
		[]appsv1.DaemonSetUpdateStrategyType{appsv1.RollingUpdateDaemonSetStrategyType, appsv1.OnDeleteDaemonSetStrategyType})}
}

// validateRolling: exactly one of the two numbers is above zero.
func validateRolling(r *appsv1.RollingUpdateDaemonSet, at *field.Path) field.ErrorList {
	unavailable, surge := ptr.Deref(r.MaxUnavailable, intstr.IntOrString{}), ptr.Deref(r.MaxSurge, intstr.IntOrString{})
	errs := workload.CountOrPercent(unavailable, at.Child("maxUnavailable"))
	errs = append(errs, workload.AtMostAll(unavailable, at.Child("maxUnavailable"))...)
	errs = append(errs, workload.CountOrPercent(surge, at.Child("maxSurge"))...)
	errs = append(errs, workload.AtMostAll(surge, at.Child("maxSurge"))...)
	switch hasUnavailable, hasSurge := workload.Amount(unavailable) != 0, workload.Amount(surge) != 0; {
	case hasUnavailable && hasSurge:
		errs = append(errs, field.Invalid(at.Child("maxSurge"), surge, "may not be set when maxUnavailable is non-zero"))
	case !hasUnavailable && !hasSurge:
		errs = append(errs, field.Required(at.Child("maxUnavailable"), "cannot be 0 when maxSurge is 0"))
	}
	return errs
}

func validateStatusUpdate(_ context.Context, d, old *appsv1.DaemonSet) field.ErrorList {
	s := &d.Status
	errs := kinds.ValidateObjectMetaUpdate(&d.ObjectMeta, &old.ObjectMeta, field.NewPath("metadata"))
	return append(errs, workload.NotNegative(field.NewPath("status"),
		workload.Count{Name: "currentNumberScheduled", Value: int64(s.CurrentNumberScheduled)},
		workload.Count{Name: "numberMisscheduled", Value: int64(s.NumberMisscheduled)},
		workload.Count{Name: "desiredNumberScheduled", Value: int64(s.DesiredNumberScheduled)},
		workload.Count{Name: "numberReady", Value: int64(s.NumberReady)},
		workload.Count{Name: "observedGeneration", Value: s.ObservedGeneration},
		workload.Count{Name: "updatedNumberScheduled", Value: int64(s.UpdatedNumberScheduled)},
		workload.Count{Name: "numberAvailable", Value: int64(s.NumberAvailable)},
		workload.Count{Name: "numberUnavailable", Value: int64(s.NumberUnavailable)},
		workload.Count{Name: "collisionCount", Value: int64(ptr.Deref(s.CollisionCount, 0))})...)
}

func columns() []kinds.Column[*appsv1.DaemonSet] {
	spec, status := appsv1.DaemonSetSpec{}.SwaggerDoc(), appsv1.DaemonSetStatus{}.SwaggerDoc()
	count := func(name, field string, of func(*appsv1.DaemonSetStatus) int32) kinds.Column[*appsv1.DaemonSet] {
		return kinds.Column[*appsv1.DaemonSet]{Name: name, Type: "integer", Description: status[field],
			Cell: func(d *appsv1.DaemonSet) any { return int64(of(&d.Status)) }}
	}
	columns := []kinds.Column[*appsv1.DaemonSet]{
		kinds.NameColumn[*appsv1.DaemonSet](),
		count("Desired", "desiredNumberScheduled", func(s *appsv1.DaemonSetStatus) int32 { return s.DesiredNumberScheduled }),
		count("Current", "currentNumberScheduled", func(s *appsv1.DaemonSetStatus) int32 { return s.CurrentNumberScheduled }),
		count("Ready", "numberReady", func(s *appsv1.DaemonSetStatus) int32 { return s.NumberReady }),
		count("Up-to-date", "updatedNumberScheduled", func(s *appsv1.DaemonSetStatus) int32 { return s.UpdatedNumberScheduled }),
		count("Available", "numberAvailable", func(s *appsv1.DaemonSetStatus) int32 { return s.NumberAvailable }),
		{Name: "Node Selector", Description: corev1.PodSpec{}.SwaggerDoc()["nodeSelector"], Cell: func(d *appsv1.DaemonSet) any {
			return labels.FormatLabels(d.Spec.Template.Spec.NodeSelector)
		}},
		kinds.AgeColumn[*appsv1.DaemonSet](),
	}
	columns = append(columns, workload.TemplateColumns(func(d *appsv1.DaemonSet) *corev1.PodTemplateSpec { return &d.Spec.Template })...)
	return append(columns, workload.SelectorColumn(spec["selector"], func(d *appsv1.DaemonSet) *metav1.LabelSelector { return d.Spec.Selector }))
}
