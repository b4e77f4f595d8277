// Package lease is the kind Lease. It holds no state.
package lease

import (
	"context"

	coordinationv1 "k8s.io/api/coordination/v1"
	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/podvine/podvine/agent/api/kinds"
)

// Resource returns the kind Lease.
func Resource() kinds.Resource {
	return &kinds.Kind[*coordinationv1.Lease]{
		GroupVersion: coordinationv1.SchemeGroupVersion,
		Kind:         "Lease", Resource: "leases", Singular: "lease",
		Namespaced: true,
		New:        func() *coordinationv1.Lease { return &coordinationv1.Lease{} },
		NewList:    func() runtime.Object { return &coordinationv1.LeaseList{} },

		PrepareForCreate: func(_ context.Context, l *coordinationv1.Lease) { dropStrategy(l, nil) },
		PrepareForUpdate: func(_ context.Context, l, old *coordinationv1.Lease) { dropStrategy(l, old) },
		Validate:         func(_ context.Context, l *coordinationv1.Lease) field.ErrorList { return validate(l) },
		ValidateUpdate: func(_ context.Context, l, old *coordinationv1.Lease) field.ErrorList {
			errs := apivalidation.ValidateObjectMetaUpdate(&l.ObjectMeta, &old.ObjectMeta, field.NewPath("metadata"))
			return append(errs, validateSpec(&l.Spec, field.NewPath("spec"))...)
		},
		AllowCreateOnUpdate:       true,
		ForbidUnconditionalUpdate: true,

		Columns: []kinds.Column[*coordinationv1.Lease]{
			kinds.NameColumn[*coordinationv1.Lease](),
			{Name: "Holder", Description: coordinationv1.LeaseSpec{}.SwaggerDoc()["holderIdentity"], Cell: holder},
			kinds.AgeColumn[*coordinationv1.Lease](),
		},
	}
}

func holder(l *coordinationv1.Lease) any {
	if l.Spec.HolderIdentity == nil {
		return ""
	}
	return *l.Spec.HolderIdentity
}

// dropStrategy removes the fields of coordinated leader election, which Kubernetes serves only behind a feature gate
// that is off, unless they were stored before.
func dropStrategy(l, old *coordinationv1.Lease) {
	if old == nil || old.Spec.Strategy == nil {
		l.Spec.Strategy = nil
	}
	if old == nil || old.Spec.PreferredHolder == nil {
		l.Spec.PreferredHolder = nil
	}
}

func validate(l *coordinationv1.Lease) field.ErrorList {
	errs := apivalidation.ValidateObjectMeta(&l.ObjectMeta, true, apivalidation.NameIsDNSSubdomain, field.NewPath("metadata"))
	return append(errs, validateSpec(&l.Spec, field.NewPath("spec"))...)
}

func validateSpec(spec *coordinationv1.LeaseSpec, path *field.Path) (errs field.ErrorList) {
	if d := spec.LeaseDurationSeconds; d != nil && *d <= 0 {
		errs = append(errs, field.Invalid(path.Child("leaseDurationSeconds"), *d, "must be greater than 0"))
	}
	if t := spec.LeaseTransitions; t != nil && *t < 0 {
		errs = append(errs, field.Invalid(path.Child("leaseTransitions"), *t, "must be greater than or equal to 0"))
	}
	return errs
}
