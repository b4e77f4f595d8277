// Package poddisruptionbudget serves policy/v1 PodDisruptionBudget: how many of an application's pods must stay while nodes are
// drained.
//
// The loop that counts is agent/control/disruption; evictions are answered by agent/api/kinds/pod, which asks [Guard]. All but the
// guard is pure and safe for concurrent use. Test with `go test ./agent/api/kinds/poddisruptionbudget`.
package poddisruptionbudget

import (
	"context"

	policyv1 "k8s.io/api/policy/v1"
	metav1validation "k8s.io/apimachinery/pkg/apis/meta/v1/validation"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/apimachinery/pkg/util/validation/field"
	genericregistry "k8s.io/apiserver/pkg/registry/generic/registry"
	"k8s.io/apiserver/pkg/registry/rest"

	"github.com/podvine/podvine/agent/api/kinds"
	"github.com/podvine/podvine/agent/api/kinds/podspec"
	"github.com/podvine/podvine/agent/api/kinds/workload"
)

// Resource returns the kind, and has guard decide by the budgets that it stores; nil is nobody's.
func Resource(guard *Guard) kinds.Resource {
	return &kinds.Kind[*policyv1.PodDisruptionBudget]{
		GroupVersion: policyv1.SchemeGroupVersion,
		Kind:         "PodDisruptionBudget",
		Resource:     "poddisruptionbudgets",
		Singular:     "poddisruptionbudget",
		ShortNames:   []string{"pdb"},
		Namespaced:   true,
		New:          func() *policyv1.PodDisruptionBudget { return &policyv1.PodDisruptionBudget{} },
		NewList:      func() runtime.Object { return &policyv1.PodDisruptionBudgetList{} },
		PrepareForCreate: func(_ context.Context, b *policyv1.PodDisruptionBudget) {
			b.Status = policyv1.PodDisruptionBudgetStatus{}
		},
		HasGeneration:             true,
		ForbidUnconditionalUpdate: true,
		Validate: func(_ context.Context, b *policyv1.PodDisruptionBudget) field.ErrorList {
			return validateSpec(&b.Spec, false, field.NewPath("spec")) // of metadata only what holds for every object
		},
		ValidateUpdate: func(_ context.Context, b, old *policyv1.PodDisruptionBudget) field.ErrorList {
			errs := kinds.ValidateObjectMetaUpdate(&b.ObjectMeta, &old.ObjectMeta, field.NewPath("metadata"))
			odd := old.Spec.Selector != nil && metav1validation.LabelSelectorHasInvalidLabelValue(old.Spec.Selector)
			return append(errs, validateSpec(&b.Spec, odd, field.NewPath("spec"))...)
		},
		Columns: columns(),
		Status: &kinds.Status[*policyv1.PodDisruptionBudget]{
			PrepareForUpdate: func(_ context.Context, b, old *policyv1.PodDisruptionBudget) { b.Spec = old.Spec },
			ValidateUpdate:   validateStatusUpdate,
		},
		Extend: func(_ kinds.Env, store, status *genericregistry.Store, _ map[string]rest.Storage) error {
			if guard != nil {
				guard.store, guard.status = store, status
			}
			return nil
		},
	}
}

func validateSpec(spec *policyv1.PodDisruptionBudgetSpec, oddValues bool, at *field.Path) (errs field.ErrorList) {
	if spec.MinAvailable != nil && spec.MaxUnavailable != nil {
		errs = append(errs, field.Invalid(at, podspec.InternalView(*spec), "minAvailable and maxUnavailable cannot be both set"))
	}
	for _, amount := range []struct {
		name  string
		value *intstr.IntOrString
	}{{"minAvailable", spec.MinAvailable}, {"maxUnavailable", spec.MaxUnavailable}} {
		if amount.value != nil {
			errs = append(errs, workload.CountOrPercent(*amount.value, at.Child(amount.name))...)
			errs = append(errs, workload.AtMostAll(*amount.value, at.Child(amount.name))...)
		}
	}
	errs = append(errs, metav1validation.ValidateLabelSelector(spec.Selector,
		metav1validation.LabelSelectorValidationOptions{AllowInvalidLabelValueInSelector: oddValues}, at.Child("selector"))...)
	if policy := spec.UnhealthyPodEvictionPolicy; policy != nil && *policy != policyv1.IfHealthyBudget && *policy != policyv1.AlwaysAllow {
		errs = append(errs, field.NotSupported(at.Child("unhealthyPodEvictionPolicy"), *policy,
			[]policyv1.UnhealthyPodEvictionPolicyType{policyv1.AlwaysAllow, policyv1.IfHealthyBudget}))
	}
	return errs
}

func validateStatusUpdate(_ context.Context, b, old *policyv1.PodDisruptionBudget) field.ErrorList {
	at := field.NewPath("status")
	errs := kinds.ValidateObjectMetaUpdate(&b.ObjectMeta, &old.ObjectMeta, field.NewPath("metadata"))
	errs = append(errs, metav1validation.ValidateConditions(b.Status.Conditions, at.Child("conditions"))...)
	return append(errs, workload.NotNegative(at,
		workload.Count{Name: "disruptionsAllowed", Value: int64(b.Status.DisruptionsAllowed)},
		workload.Count{Name: "currentHealthy", Value: int64(b.Status.CurrentHealthy)},
		workload.Count{Name: "desiredHealthy", Value: int64(b.Status.DesiredHealthy)},
		workload.Count{Name: "expectedPods", Value: int64(b.Status.ExpectedPods)})...)
}

func columns() []kinds.Column[*policyv1.PodDisruptionBudget] {
	amount := func(v *intstr.IntOrString) any {
		if v == nil {
			return "N/A"
		}
		return v.String()
	}
	spec := policyv1.PodDisruptionBudgetSpec{}.SwaggerDoc()
	return []kinds.Column[*policyv1.PodDisruptionBudget]{
		kinds.NameColumn[*policyv1.PodDisruptionBudget](),
		{Name: "Min Available", Description: spec["minAvailable"], Cell: func(b *policyv1.PodDisruptionBudget) any { return amount(b.Spec.MinAvailable) }},
		{Name: "Max Unavailable", Description: spec["maxUnavailable"], Cell: func(b *policyv1.PodDisruptionBudget) any { return amount(b.Spec.MaxUnavailable) }},
		{Name: "Allowed Disruptions", Type: "integer", Description: "Calculated number of pods that may be disrupted at this time.",
			Cell: func(b *policyv1.PodDisruptionBudget) any { return int64(b.Status.DisruptionsAllowed) }},
		kinds.AgeColumn[*policyv1.PodDisruptionBudget](),
	}
}
