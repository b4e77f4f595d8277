// Package limitrange is the kind LimitRange. What it limits, admission enforces. It holds no state.
package limitrange

import (
	"context"
	"maps"
	"slices"
	"strings"

	"github.com/google/uuid"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/podvine/podvine/agent/api/kinds"
	"github.com/podvine/podvine/agent/api/kinds/podspec"
)

// Resource returns the kind LimitRange.
func Resource() kinds.Resource {
	return &kinds.Kind[*corev1.LimitRange]{
		GroupVersion: corev1.SchemeGroupVersion,
		Kind:         "LimitRange", Resource: "limitranges", Singular: "limitrange", ShortNames: []string{"limits"}, Namespaced: true,
		New:     func() *corev1.LimitRange { return &corev1.LimitRange{} },
		NewList: func() runtime.Object { return &corev1.LimitRangeList{} },
		Default: func(l *corev1.LimitRange) {
			for i := range l.Spec.Limits {
				setDefaults(&l.Spec.Limits[i])
			}
		},
		PrepareForCreate: func(_ context.Context, l *corev1.LimitRange) {
			if l.Name == "" {
				l.Name = uuid.NewString()
			}
		},
		Validate: func(_ context.Context, l *corev1.LimitRange) field.ErrorList { return validate(l) },
		ValidateUpdate: func(_ context.Context, l, old *corev1.LimitRange) field.ErrorList {
			return append(kinds.ValidateObjectMetaUpdate(&l.ObjectMeta, &old.ObjectMeta, field.NewPath("metadata")), validate(l)...)
		},
		AllowCreateOnUpdate: true,
	}
}

// setDefaults lets what is not said follow from what is: a limit from the maximum, a request from the limit or the minimum.
func setDefaults(l *corev1.LimitRangeItem) {
	for _, list := range []corev1.ResourceList{l.Min, l.Max, l.Default, l.DefaultRequest, l.MaxLimitRequestRatio} {
		podspec.RoundUp(list)
	}
	if l.Type != corev1.LimitTypeContainer {
		return
	}
	if l.Default == nil {
		l.Default = corev1.ResourceList{}
	}
	if l.DefaultRequest == nil {
		l.DefaultRequest = corev1.ResourceList{}
	}
	fill(l.Default, l.Max)
	fill(l.DefaultRequest, l.Default)
	fill(l.DefaultRequest, l.Min)
}

func fill(list, from corev1.ResourceList) {
	for name, amount := range from {
		if _, ok := list[name]; !ok {
			list[name] = amount.DeepCopy()
		}
	}
}

func validate(l *corev1.LimitRange) field.ErrorList {
	errs := kinds.ValidateObjectMeta(&l.ObjectMeta, true, apivalidation.NameIsDNSSubdomain, field.NewPath("metadata"))
	seen := map[corev1.LimitType]bool{}
	for i := range l.Spec.Limits {
		path := field.NewPath("spec", "limits").Index(i)
		item := &l.Spec.Limits[i]
		errs = append(errs, validateType(item.Type, path.Child("type"))...)
		if seen[item.Type] {
			errs = append(errs, field.Duplicate(path.Child("type"), item.Type))
		}
		seen[item.Type] = true
		errs = append(errs, validateItem(item, path)...)
	}
	return errs
}

func validateType(t corev1.LimitType, path *field.Path) (errs field.ErrorList) {
	for _, text := range validation.IsQualifiedName(string(t)) {
		errs = append(errs, field.Invalid(path, t, text))
	}
	known := []corev1.LimitType{corev1.LimitTypePod, corev1.LimitTypeContainer, corev1.LimitTypePersistentVolumeClaim}
	if len(errs) == 0 && !strings.Contains(string(t), "/") && !slices.Contains(known, t) {
		errs = append(errs, field.Invalid(path, t, "must be a standard limit type or fully qualified"))
	}
	return errs
}

func validateItem(l *corev1.LimitRangeItem, path *field.Path) (errs field.ErrorList) {
	names := map[corev1.ResourceName]bool{}
	check := func(list corev1.ResourceList, field string) {
		for _, name := range slices.Sorted(maps.Keys(list)) {
			names[name] = true
			at := path.Child(field).Key(string(name))
			if l.Type == corev1.LimitTypePod || l.Type == corev1.LimitTypeContainer {
				errs = append(errs, podspec.ValidateContainerResourceName(name, at)...)
			} else {
				errs = append(errs, podspec.ValidateResourceName(name, at)...)
			}
		}
	}
	check(l.Max, "max")
	check(l.Min, "min")
	if l.Type == corev1.LimitTypePod {
		const text = "may not be specified when `type` is 'Pod'"
		if len(l.Default) > 0 {
			errs = append(errs, field.Forbidden(path.Child("default"), text))
		}
		if len(l.DefaultRequest) > 0 {
			errs = append(errs, field.Forbidden(path.Child("defaultRequest"), text))
		}
	} else {
		check(l.Default, "default")
		check(l.DefaultRequest, "defaultRequest")
	}
	if l.Type == corev1.LimitTypePersistentVolumeClaim {
		_, least := l.Min[corev1.ResourceStorage]
		if _, most := l.Max[corev1.ResourceStorage]; !least && !most {
			errs = append(errs, field.Required(path.Child("limits"), "either minimum or maximum storage value is required, but neither was provided"))
		}
	}
	check(l.MaxLimitRequestRatio, "maxLimitRequestRatio")
	for _, name := range slices.Sorted(maps.Keys(names)) {
		errs = append(errs, validateOrder(l, name, path)...)
	}
	return errs
}

// validateOrder checks that the values for one resource do not contradict each other.
func validateOrder(l *corev1.LimitRangeItem, name corev1.ResourceName, path *field.Path) (errs field.ErrorList) {
	least, hasLeast := l.Min[name]
	most, hasMost := l.Max[name]
	ratio, hasRatio := l.MaxLimitRequestRatio[name]
	var limit, request resource.Quantity
	var hasLimit, hasRequest bool
	if l.Type != corev1.LimitTypePod {
		limit, hasLimit = l.Default[name]
		request, hasRequest = l.DefaultRequest[name]
	}
	// exceeds reports that a is larger than b; shown is the value that clients see at the field.
	exceeds := func(both bool, a, b resource.Quantity, at string, shown resource.Quantity, what, than string) {
		if both && a.Cmp(b) > 0 {
			errs = append(errs, field.Invalid(path.Child(at).Key(string(name)), shown.String(),
				what+" "+a.String()+" is greater than "+than+" "+b.String()))
		}
	}
	exceeds(hasLeast && hasMost, least, most, "min", least, "min value", "max value")
	exceeds(hasRequest && hasLeast, least, request, "defaultRequest", request, "min value", "default request value")
	exceeds(hasRequest && hasMost, request, most, "defaultRequest", request, "default request value", "max value")
	exceeds(hasRequest && hasLimit, request, limit, "defaultRequest", request, "default request value", "default limit value")
	exceeds(hasLimit && hasLeast, least, limit, "default", least, "min value", "default value")
	exceeds(hasLimit && hasMost, limit, most, "default", most, "default value", "max value")
	if hasRatio {
		errs = append(errs, validateRatio(ratio, least, most, hasLeast && hasMost, path.Child("maxLimitRequestRatio").Key(string(name)))...)
	}
	if !podspec.Overcommits(name) && hasLimit && hasRequest && limit.Cmp(request) != 0 {
		errs = append(errs, field.Invalid(path.Child("defaultRequest").Key(string(name)), request.String(),
			"default value "+limit.String()+" must equal to defaultRequest value "+request.String()+" in type "+string(name)))
	}
	return errs
}
