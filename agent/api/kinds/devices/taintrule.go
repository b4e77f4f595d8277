package devices

import (
	"context"
	"slices"
	"strings"
	"time"

	resourcev1 "k8s.io/api/resource/v1"
	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	metav1validation "k8s.io/apimachinery/pkg/apis/meta/v1/validation"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/podvine/podvine/agent/api/kinds"
	"github.com/podvine/podvine/agent/api/kinds/podspec"
)

func taintRules() kinds.Resource {
	type T = *resourcev1.DeviceTaintRule
	check := func(r T) field.ErrorList {
		errs := kinds.ValidateObjectMeta(&r.ObjectMeta, false, apivalidation.NameIsDNSSubdomain, field.NewPath("metadata"))
		return append(errs, validateRule(&r.Spec, field.NewPath("spec"))...)
	}
	doc := resourcev1.DeviceTaint{}.SwaggerDoc()
	return &kinds.Kind[T]{
		GroupVersion: resourcev1.SchemeGroupVersion,
		Kind:         "DeviceTaintRule", Resource: "devicetaintrules", Singular: "devicetaintrule",
		New:     func() T { return &resourcev1.DeviceTaintRule{} },
		NewList: func() runtime.Object { return &resourcev1.DeviceTaintRuleList{} },

		Default: func(r T) {
			if r.Spec.Taint.TimeAdded == nil {
				r.Spec.Taint.TimeAdded = &metav1.Time{Time: time.Now().Truncate(time.Second)}
			}
		},
		HasGeneration:    true,
		PrepareForCreate: func(_ context.Context, r T) { r.Status = resourcev1.DeviceTaintRuleStatus{} },
		Validate:         func(_ context.Context, r T) field.ErrorList { return check(r) },
		ValidateUpdate: func(_ context.Context, r, old T) field.ErrorList {
			return append(kinds.ValidateObjectMetaUpdate(&r.ObjectMeta, &old.ObjectMeta, field.NewPath("metadata")), check(r)...)
		},
		Columns: []kinds.Column[T]{
			kinds.NameColumn[T](),
			{Name: "Key", Description: doc["key"], Cell: func(r T) any { return r.Spec.Taint.Key }},
			{Name: "Value", Description: doc["value"], Cell: func(r T) any { return r.Spec.Taint.Value }},
			{Name: "Effect", Description: doc["effect"], Cell: func(r T) any { return string(r.Spec.Taint.Effect) }},
			{Name: "TimeAdded", Description: doc["timeAdded"], Cell: func(r T) any {
				if r.Spec.Taint.TimeAdded == nil {
					return ""
				}
				return kinds.Age(*r.Spec.Taint.TimeAdded)
			}},
			kinds.AgeColumn[T](),
		},
		Status: &kinds.Status[T]{
			PrepareForUpdate: func(_ context.Context, r, old T) {
				metav1.ResetObjectMetaForStatus(r, old)
				r.Spec = old.Spec
			},
			ValidateUpdate: func(_ context.Context, r, old T) field.ErrorList {
				errs := kinds.ValidateObjectMetaUpdate(&r.ObjectMeta, &old.ObjectMeta, field.NewPath("metadata"))
				return append(errs, validateConditions(r.Status.Conditions, field.NewPath("status", "conditions"))...)
			},
			ResetFields: []string{"spec", "metadata"},
		},
	}
}

func validateRule(spec *resourcev1.DeviceTaintRuleSpec, at *field.Path) field.ErrorList {
	var errs field.ErrorList
	if s, own := spec.DeviceSelector, at.Child("deviceSelector"); s != nil {
		if s.Driver != nil {
			errs = append(errs, podspec.ValidateCSIDriverName(*s.Driver, own.Child("driver"))...)
		}
		if s.Pool != nil {
			errs = append(errs, validatePool(*s.Pool, own.Child("pool"))...)
		}
		if s.Device != nil {
			errs = append(errs, invalid(own.Child("device"), *s.Device, validation.IsDNS1123Label(*s.Device))...)
		}
	}
	return append(errs, validateTaint(&spec.Taint, at.Child("taint"))...)
}

func validateTaint(t *resourcev1.DeviceTaint, at *field.Path) field.ErrorList {
	errs := metav1validation.ValidateLabelName(t.Key, at.Child("key"))
	errs = append(errs, invalid(at.Child("value"), t.Value, validation.IsValidLabelValue(t.Value))...)
	if t.Effect == "" {
		errs = append(errs, field.Required(at.Child("effect"), ""))
	} else if !slices.Contains(taintEffects(), t.Effect) {
		errs = append(errs, field.NotSupported(at.Child("effect"), t.Effect, taintEffects()))
	}
	return errs
}

// validateConditions tells of repeated conditions as Kubernetes does here: of the item, not of its type.
func validateConditions(conditions []metav1.Condition, at *field.Path) field.ErrorList {
	if len(conditions) > resourcev1.DeviceTaintRuleStatusMaxConditions {
		return field.ErrorList{field.TooMany(at, len(conditions), resourcev1.DeviceTaintRuleStatusMaxConditions)}
	}
	errs := metav1validation.ValidateConditions(conditions, at)
	for _, e := range errs {
		if e.Type == field.ErrorTypeDuplicate {
			e.Field = strings.TrimSuffix(e.Field, ".type")
		}
	}
	return errs
}
