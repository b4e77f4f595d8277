// Package resourcequota is the kind ResourceQuota. Admission charges it, in the transaction that writes the object, and a
// loop gives back what is gone. It holds no state.
package resourcequota

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/podvine/podvine/agent/api/kinds"
	"github.com/podvine/podvine/agent/api/kinds/podspec"
)

// Resource returns the kind ResourceQuota.
func Resource() kinds.Resource {
	return &kinds.Kind[*corev1.ResourceQuota]{
		GroupVersion: corev1.SchemeGroupVersion,
		Kind:         "ResourceQuota", Resource: "resourcequotas", Singular: "resourcequota", ShortNames: []string{"quota"}, Namespaced: true,
		New:     func() *corev1.ResourceQuota { return &corev1.ResourceQuota{} },
		NewList: func() runtime.Object { return &corev1.ResourceQuotaList{} },
		Default: func(q *corev1.ResourceQuota) {
			for _, list := range []corev1.ResourceList{q.Spec.Hard, q.Status.Hard, q.Status.Used} {
				podspec.RoundUp(list)
			}
		},
		PrepareForCreate: func(_ context.Context, q *corev1.ResourceQuota) { q.Status = corev1.ResourceQuotaStatus{} },
		Validate: func(_ context.Context, q *corev1.ResourceQuota) field.ErrorList {
			return append(kinds.ValidateObjectMeta(&q.ObjectMeta, true, apivalidation.NameIsDNSSubdomain, field.NewPath("metadata")), validateSpec(&q.Spec)...)
		},
		ValidateUpdate: func(_ context.Context, q, old *corev1.ResourceQuota) field.ErrorList {
			errs := kinds.ValidateObjectMetaUpdate(&q.ObjectMeta, &old.ObjectMeta, field.NewPath("metadata"))
			errs = append(errs, validateSpec(&q.Spec)...)
			if !sets.New(q.Spec.Scopes...).Equal(sets.New(old.Spec.Scopes...)) {
				errs = append(errs, field.Invalid(field.NewPath("spec", "scopes"), q.Spec.Scopes, apivalidation.FieldImmutableErrorMsg))
			}
			return errs
		},
		ReturnDeletedObject: true,
		Columns: []kinds.Column[*corev1.ResourceQuota]{
			kinds.NameColumn[*corev1.ResourceQuota](),
			{Name: "Request", Description: "Request represents a minimum amount of cpu/memory that a container may consume.",
				Cell: func(q *corev1.ResourceQuota) any { return used(q, false) }},
			{Name: "Limit", Description: "Limits control the maximum amount of cpu/memory that a container may use independent of contention on the node.",
				Cell: func(q *corev1.ResourceQuota) any { return used(q, true) }},
			kinds.AgeColumn[*corev1.ResourceQuota](),
		},
		Status: &kinds.Status[*corev1.ResourceQuota]{
			ValidateUpdate: func(_ context.Context, q, old *corev1.ResourceQuota) field.ErrorList {
				errs := kinds.ValidateObjectMetaUpdate(&q.ObjectMeta, &old.ObjectMeta, field.NewPath("metadata"))
				errs = append(errs, validateAmounts(q.Status.Hard, field.NewPath("status", "hard"))...)
				return append(errs, validateAmounts(q.Status.Used, field.NewPath("status", "used"))...)
			},
		},
	}
}

// used shows what is used of each resource; limits are those of limits, or of everything else.
func used(q *corev1.ResourceQuota, limits bool) string {
	var parts []string
	for _, name := range slices.Sorted(maps.Keys(q.Status.Hard)) {
		if strings.HasPrefix(string(name), "limits.") != limits {
			continue
		}
		now, hard := q.Status.Used[name], q.Status.Hard[name]
		parts = append(parts, fmt.Sprintf("%s: %s/%s", name, now.String(), hard.String()))
	}
	return strings.Join(parts, ", ")
}

func validateAmounts(list corev1.ResourceList, path *field.Path) (errs field.ErrorList) {
	for _, name := range slices.Sorted(maps.Keys(list)) {
		at := path.Key(string(name))
		errs = append(errs, podspec.ValidateResourceName(name, at)...)
		if !strings.Contains(string(name), "/") && !isStandard(name) {
			errs = append(errs, field.Invalid(at, string(name), "must be a standard resource for quota"))
		}
		errs = append(errs, podspec.ValidateQuantity(name, list[name], at)...)
	}
	return errs
}

func validateSpec(s *corev1.ResourceQuotaSpec) field.ErrorList {
	path := field.NewPath("spec")
	errs := append(validateAmounts(s.Hard, path.Child("hard")), validateScopes(s, path.Child("scopes"))...)
	return append(errs, validateSelector(s, path.Child("scopeSelector"))...)
}
