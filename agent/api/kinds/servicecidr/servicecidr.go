// Package servicecidr serves networking.k8s.io/v1 ServiceCIDR: a range, or one of each family, that service
// addresses are taken from.
//
// Status and finalizer are written by agent/control/addresses, the object named "kubernetes" is made by it from the
// cluster's settings. Everything here is stateless and safe for concurrent use.
// Test with `go test ./agent/api/kinds/servicecidr`.
package servicecidr

import (
	"context"
	"slices"
	"strings"

	networkingv1 "k8s.io/api/networking/v1"
	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
	netutils "k8s.io/utils/net"

	"github.com/podvine/podvine/agent/api/kinds"
)

// maxCIDRs is how many ranges one object holds: one for each IP family.
const maxCIDRs = 2

// Resource returns the kind.
func Resource() kinds.Resource {
	return &kinds.Kind[*networkingv1.ServiceCIDR]{
		GroupVersion:     networkingv1.SchemeGroupVersion,
		Kind:             "ServiceCIDR",
		Resource:         "servicecidrs",
		Singular:         "servicecidr",
		New:              func() *networkingv1.ServiceCIDR { return &networkingv1.ServiceCIDR{} },
		NewList:          func() runtime.Object { return &networkingv1.ServiceCIDRList{} },
		PrepareForCreate: func(_ context.Context, c *networkingv1.ServiceCIDR) { c.Status = networkingv1.ServiceCIDRStatus{} },
		Validate:         validate,
		ValidateUpdate:   validateUpdate,
		Status: &kinds.Status[*networkingv1.ServiceCIDR]{
			PrepareForUpdate: func(_ context.Context, c, old *networkingv1.ServiceCIDR) {
				metav1.ResetObjectMetaForStatus(c, old)
				c.Spec = old.Spec
			},
			ValidateUpdate: func(_ context.Context, c, old *networkingv1.ServiceCIDR) field.ErrorList {
				return kinds.ValidateObjectMetaUpdate(&c.ObjectMeta, &old.ObjectMeta, field.NewPath("metadata"))
			},
		},
		Columns: []kinds.Column[*networkingv1.ServiceCIDR]{
			kinds.NameColumn[*networkingv1.ServiceCIDR](),
			{Name: "CIDRs", Description: "The ranges that service addresses are taken from.", Cell: func(c *networkingv1.ServiceCIDR) any { return strings.Join(c.Spec.CIDRs, ",") }},
			kinds.AgeColumn[*networkingv1.ServiceCIDR](),
		},
	}
}

func validate(_ context.Context, c *networkingv1.ServiceCIDR) field.ErrorList {
	errs := kinds.ValidateObjectMeta(&c.ObjectMeta, false, apivalidation.NameIsDNSSubdomain, field.NewPath("metadata"))
	return append(errs, validateCIDRs(c.Spec.CIDRs, field.NewPath("spec", "cidrs"))...)
}

func validateCIDRs(cidrs []string, at *field.Path) field.ErrorList {
	if len(cidrs) == 0 {
		return field.ErrorList{field.Required(at, "at least one CIDR required")}
	}
	var errs field.ErrorList
	if len(cidrs) > maxCIDRs {
		return append(errs, field.Invalid(at, cidrs, "may only hold up to 2 values"))
	}
	if dual, err := netutils.IsDualStackCIDRStrings(cidrs); err == nil && len(cidrs) == maxCIDRs && !dual {
		errs = append(errs, field.Invalid(at, cidrs, "may specify no more than one IP for each IP family, i.e 192.168.0.0/24 and 2001:db8::/64"))
	}
	for i, cidr := range cidrs {
		errs = append(errs, validation.IsValidCIDR(at.Index(i), cidr)...)
	}
	return errs
}

// validateUpdate lets a single-stack object gain a range of the other family, and nothing else.
func validateUpdate(_ context.Context, c, old *networkingv1.ServiceCIDR) field.ErrorList {
	at := field.NewPath("spec", "cidrs")
	errs := kinds.ValidateObjectMetaUpdate(&c.ObjectMeta, &old.ObjectMeta, field.NewPath("metadata"))
	now, was := c.Spec.CIDRs, old.Spec.CIDRs
	immutable := func(i int) {
		if now[i] != was[i] {
			errs = append(errs, field.Invalid(at.Index(i), now[i], apivalidation.FieldImmutableErrorMsg))
		}
	}
	switch {
	case len(now) == len(was):
		for i := range now {
			immutable(i)
		}
	case len(was) == 1 && len(now) == maxCIDRs:
		immutable(0)
		errs = append(errs, validateCIDRs(now, at)...)
	case !slices.Equal(now, was):
		errs = append(errs, field.Invalid(at, now, apivalidation.FieldImmutableErrorMsg))
	}
	return errs
}
