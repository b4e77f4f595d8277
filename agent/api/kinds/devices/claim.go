package devices

import (
	"context"
	"slices"
	"strings"

	resourcev1 "k8s.io/api/resource/v1"
	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	metav1validation "k8s.io/apimachinery/pkg/apis/meta/v1/validation"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/podvine/podvine/agent/api/kinds"
	"github.com/podvine/podvine/agent/api/kinds/podspec"
)

func claims(access *adminAccess) kinds.Resource {
	type T = *resourcev1.ResourceClaim
	return &kinds.Kind[T]{
		GroupVersion: resourcev1.SchemeGroupVersion,
		Kind:         "ResourceClaim", Resource: "resourceclaims", Singular: "resourceclaim", Namespaced: true,
		New:     func() T { return &resourcev1.ResourceClaim{} },
		NewList: func() runtime.Object { return &resourcev1.ResourceClaimList{} },

		Default: func(c T) {
			defaultClaim(&c.Spec.Devices)
			if a := c.Status.Allocation; a != nil {
				for i := range a.Devices.Results {
					defaultTolerations(a.Devices.Results[i].Tolerations)
				}
			}
		},
		PrepareForCreate: func(_ context.Context, c T) {
			c.Status = resourcev1.ResourceClaimStatus{}
			dropDerived(&c.Spec.Devices)
		},
		PrepareForUpdate: func(_ context.Context, c, _ T) { dropDerived(&c.Spec.Devices) },
		Validate: func(ctx context.Context, c T) field.ErrorList {
			errs := access.toRequests(ctx, c.Namespace, c.Spec.Devices.Requests)
			errs = append(errs, kinds.ValidateObjectMeta(&c.ObjectMeta, true, apivalidation.NameIsDNSSubdomain, field.NewPath("metadata"))...)
			return append(errs, validateClaim(&c.Spec.Devices, false, field.NewPath("spec", "devices"))...)
		},
		ValidateUpdate: func(_ context.Context, c, old T) field.ErrorList {
			errs := kinds.ValidateObjectMetaUpdate(&c.ObjectMeta, &old.ObjectMeta, field.NewPath("metadata"))
			if changed := apivalidation.ValidateImmutableField(c.Spec, old.Spec, field.NewPath("spec")); len(changed) > 0 {
				changed[0].BadValue = nil // as Kubernetes tells of it
				return append(errs, changed...)
			}
			return append(errs, kinds.ValidateObjectMeta(&c.ObjectMeta, true, apivalidation.NameIsDNSSubdomain, field.NewPath("metadata"))...)
		},
		Columns: []kinds.Column[T]{
			kinds.NameColumn[T](),
			{Name: "State", Description: "A summary of the current state (allocated, pending, reserved, etc.).", Cell: func(c T) any { return claimState(c) }},
			kinds.AgeColumn[T](),
		},
		Status: &kinds.Status[T]{
			PrepareForUpdate: func(_ context.Context, c, old T) {
				c.Spec = old.Spec
				dropDerivedStatus(&c.Status)
			},
			ValidateUpdate: func(ctx context.Context, c, old T) field.ErrorList {
				errs := access.toResults(ctx, c.Namespace, c.Status.Allocation, old.Status.Allocation)
				errs = append(errs, kinds.ValidateObjectMetaUpdate(&c.ObjectMeta, &old.ObjectMeta, field.NewPath("metadata"))...)
				return append(errs, validateClaimStatus(c, old, field.NewPath("status"))...)
			},
		},
		Extend: access.extend,
	}
}

// claimState is what a table says of a claim.
func claimState(c *resourcev1.ResourceClaim) string {
	var states []string
	if c.DeletionTimestamp != nil {
		states = append(states, "deleted")
	}
	switch {
	case c.Status.Allocation != nil:
		states = append(states, "allocated")
	case c.DeletionTimestamp == nil:
		states = append(states, "pending")
	}
	if len(c.Status.ReservedFor) > 0 {
		states = append(states, "reserved")
	}
	return strings.Join(states, ",")
}

func claimTemplates(access *adminAccess) kinds.Resource {
	type T = *resourcev1.ResourceClaimTemplate
	check := func(t T, stored bool) field.ErrorList {
		errs := kinds.ValidateObjectMeta(&t.ObjectMeta, true, apivalidation.NameIsDNSSubdomain, field.NewPath("metadata"))
		meta := field.NewPath("spec", "metadata")
		errs = append(errs, apivalidation.ValidateAnnotations(t.Spec.Annotations, meta.Child("annotations"))...)
		errs = append(errs, metav1validation.ValidateLabels(t.Spec.Labels, meta.Child("labels"))...)
		errs = append(errs, podspec.OnlyLabels(&t.Spec.ObjectMeta, meta)...)
		return append(errs, validateClaim(&t.Spec.Spec.Devices, stored, field.NewPath("spec", "spec", "devices"))...)
	}
	return &kinds.Kind[T]{
		GroupVersion: resourcev1.SchemeGroupVersion,
		Kind:         "ResourceClaimTemplate", Resource: "resourceclaimtemplates", Singular: "resourceclaimtemplate", Namespaced: true,
		New:     func() T { return &resourcev1.ResourceClaimTemplate{} },
		NewList: func() runtime.Object { return &resourcev1.ResourceClaimTemplateList{} },

		Default:          func(t T) { defaultClaim(&t.Spec.Spec.Devices) },
		PrepareForCreate: func(_ context.Context, t T) { dropDerived(&t.Spec.Spec.Devices) },
		PrepareForUpdate: func(_ context.Context, t, _ T) { dropDerived(&t.Spec.Spec.Devices) },
		Validate: func(ctx context.Context, t T) field.ErrorList {
			return append(access.toRequests(ctx, t.Namespace, t.Spec.Spec.Devices.Requests), check(t, false)...)
		},
		ValidateUpdate: func(_ context.Context, t, old T) field.ErrorList {
			errs := kinds.ValidateObjectMetaUpdate(&t.ObjectMeta, &old.ObjectMeta, field.NewPath("metadata"))
			errs = append(errs, immutable(t.Spec, old.Spec, field.NewPath("spec"))...)
			return append(errs, check(t, true)...)
		},
		Columns: []kinds.Column[T]{kinds.NameColumn[T](), kinds.AgeColumn[T]()},
		Extend:  access.extend,
	}
}

func immutable[V any](value, old V, at *field.Path) field.ErrorList {
	errs := apivalidation.ValidateImmutableField(value, old, at)
	for _, e := range errs {
		e.BadValue = podspec.InternalView(value)
	}
	return errs
}

func defaultClaim(c *resourcev1.DeviceClaim) {
	set := func(mode *resourcev1.DeviceAllocationMode, count *int64, tolerations []resourcev1.DeviceToleration) {
		if *mode == "" {
			*mode = resourcev1.DeviceAllocationModeExactCount
		}
		if *mode == resourcev1.DeviceAllocationModeExactCount && *count == 0 {
			*count = 1
		}
		defaultTolerations(tolerations)
	}
	for i := range c.Requests {
		if e := c.Requests[i].Exactly; e != nil {
			set(&e.AllocationMode, &e.Count, e.Tolerations)
		}
		for j := range c.Requests[i].FirstAvailable {
			sub := &c.Requests[i].FirstAvailable[j]
			set(&sub.AllocationMode, &sub.Count, sub.Tolerations)
		}
	}
}

func defaultTolerations(tolerations []resourcev1.DeviceToleration) {
	for i := range tolerations {
		if tolerations[i].Operator == "" {
			tolerations[i].Operator = resourcev1.DeviceTolerationOpEqual
		}
	}
}

// dropDerived takes out what belongs to a feature that is off in Kubernetes too.
func dropDerived(c *resourcev1.DeviceClaim) {
	for i := range c.Requests {
		if e := c.Requests[i].Exactly; e != nil {
			e.DerivedAttributes = nil
		}
		for j := range c.Requests[i].FirstAvailable {
			c.Requests[i].FirstAvailable[j].DerivedAttributes = nil
		}
	}
}

func dropDerivedStatus(s *resourcev1.ResourceClaimStatus) {
	if s.Allocation == nil {
		return
	}
	for i := range s.Allocation.Devices.Results {
		s.Allocation.Devices.Results[i].SkipNodeOperations = nil
	}
}

// validateClaim reports the errors of what a claim asks for. Expressions that are stored may use what newer ones may not.
func validateClaim(c *resourcev1.DeviceClaim, stored bool, at *field.Path) field.ErrorList {
	errs := unique(c.Requests, resourcev1.DeviceRequestsMaxSize, at.Child("requests"), "name", func(r resourcev1.DeviceRequest) string { return r.Name })
	if len(c.Requests) <= resourcev1.DeviceRequestsMaxSize {
		for i := range c.Requests {
			errs = append(errs, validateRequest(&c.Requests[i], stored, at.Child("requests").Index(i))...)
		}
	}
	names := requestNames(c)
	errs = append(errs, atMost(c.Constraints, resourcev1.DeviceConstraintsMaxSize, at.Child("constraints"))...)
	for i, constraint := range bounded(c.Constraints, resourcev1.DeviceConstraintsMaxSize) {
		errs = append(errs, validateConstraint(constraint, names, at.Child("constraints").Index(i))...)
	}
	errs = append(errs, atMost(c.Config, resourcev1.DeviceConfigMaxSize, at.Child("config"))...)
	for i, config := range bounded(c.Config, resourcev1.DeviceConfigMaxSize) {
		own := at.Child("config").Index(i)
		errs = append(errs, validateReferences(config.Requests, names, own.Child("requests"))...)
		errs = append(errs, validateOpaque(config.Opaque, own.Child("opaque"))...)
	}
	return errs
}

// requestNames are those that a claim's other parts may name: NAME, or NAME/SUBREQUEST.
func requestNames(c *resourcev1.DeviceClaim) []string {
	var names []string
	for _, r := range c.Requests {
		names = append(names, r.Name)
		for _, sub := range r.FirstAvailable {
			names = append(names, r.Name+"/"+sub.Name)
		}
	}
	return names
}

func validateRequest(r *resourcev1.DeviceRequest, stored bool, at *field.Path) field.ErrorList {
	const one = "exactly one of `exactly` or `firstAvailable` is required"
	errs := validateLabel(r.Name, at.Child("name"))
	switch {
	case r.Exactly == nil && len(r.FirstAvailable) == 0:
		return append(errs, field.Required(at, one))
	case r.Exactly != nil && len(r.FirstAvailable) > 0:
		return append(errs, field.Invalid(at, nil, one+", but multiple fields are set"))
	case r.Exactly != nil:
		e := r.Exactly
		return append(errs, validateAsked(asked{e.DeviceClassName, e.Selectors, e.AllocationMode, e.Count, e.Tolerations, e.Capacity}, stored, at.Child("exactly"))...)
	}
	list := at.Child("firstAvailable")
	errs = append(errs, unique(r.FirstAvailable, resourcev1.FirstAvailableDeviceRequestMaxSize, list, "name", func(s resourcev1.DeviceSubRequest) string { return s.Name })...)
	for i, s := range bounded(r.FirstAvailable, resourcev1.FirstAvailableDeviceRequestMaxSize) {
		errs = append(errs, validateLabel(s.Name, list.Index(i).Child("name"))...)
		errs = append(errs, validateAsked(asked{s.DeviceClassName, s.Selectors, s.AllocationMode, s.Count, s.Tolerations, s.Capacity}, stored, list.Index(i))...)
	}
	return errs
}

// asked is what a request and one of several alternatives have in common.
type asked struct {
	class       string
	selectors   []resourcev1.DeviceSelector
	mode        resourcev1.DeviceAllocationMode
	count       int64
	tolerations []resourcev1.DeviceToleration
	capacity    *resourcev1.CapacityRequirements
}

func validateAsked(a asked, stored bool, at *field.Path) field.ErrorList {
	var errs field.ErrorList
	if class := at.Child("deviceClassName"); a.class == "" {
		errs = append(errs, field.Required(class, ""))
	} else {
		errs = append(errs, invalid(class, a.class, apivalidation.NameIsDNSSubdomain(a.class, false))...)
	}
	var known []resourcev1.DeviceSelector
	if stored {
		known = a.selectors
	}
	errs = append(errs, validateSelectors(a.selectors, known, at.Child("selectors"))...)
	switch a.mode {
	case resourcev1.DeviceAllocationModeAll:
		if a.count != 0 {
			errs = append(errs, field.Invalid(at.Child("count"), a.count, "must not be specified when allocationMode is 'All'"))
		}
	case resourcev1.DeviceAllocationModeExactCount:
		if a.count <= 0 {
			errs = append(errs, field.Invalid(at.Child("count"), a.count, "must be greater than zero"))
		}
	default:
		errs = append(errs, field.NotSupported(at.Child("allocationMode"), a.mode,
			[]resourcev1.DeviceAllocationMode{resourcev1.DeviceAllocationModeAll, resourcev1.DeviceAllocationModeExactCount}))
	}
	errs = append(errs, validateTolerations(a.tolerations, at.Child("tolerations"))...)
	if a.capacity != nil {
		for name := range a.capacity.Requests {
			errs = append(errs, validateQualified(string(name), at.Child("capacity", "requests").Key(string(name)))...)
		}
	}
	return errs
}

func validateTolerations(tolerations []resourcev1.DeviceToleration, at *field.Path) field.ErrorList {
	errs := atMost(tolerations, resourcev1.DeviceTolerationsMaxLength, at)
	for i, t := range bounded(tolerations, resourcev1.DeviceTolerationsMaxLength) {
		own := at.Index(i)
		if t.Key != "" {
			errs = append(errs, metav1validation.ValidateLabelName(t.Key, own.Child("key"))...)
		}
		switch operators := []resourcev1.DeviceTolerationOperator{resourcev1.DeviceTolerationOpEqual, resourcev1.DeviceTolerationOpExists}; t.Operator {
		case resourcev1.DeviceTolerationOpExists:
			if t.Value != "" {
				errs = append(errs, field.Invalid(own.Child("value"), t.Value, "must be empty for operator `Exists`"))
			}
		case resourcev1.DeviceTolerationOpEqual:
			errs = append(errs, validateLabelValue(t.Value, own.Child("value"))...)
		default:
			errs = append(errs, field.NotSupported(own.Child("operator"), t.Operator, operators))
		}
		if t.Effect != "" && !slices.Contains(taintEffects(), t.Effect) {
			errs = append(errs, field.NotSupported(own.Child("effect"), t.Effect, taintEffects()))
		}
	}
	return errs
}

func validateConstraint(c resourcev1.DeviceConstraint, names []string, at *field.Path) field.ErrorList {
	errs := validateReferences(c.Requests, names, at.Child("requests"))
	switch {
	case (c.MatchAttribute == nil) == (c.DistinctAttribute == nil):
		errs = append(errs, field.Required(at, `exactly one of "matchAttribute" or "distinctAttribute" is required, but multiple fields are set`))
	case c.MatchAttribute != nil:
		errs = append(errs, validateFullyQualified(string(*c.MatchAttribute), at.Child("matchAttribute"))...)
	default:
		errs = append(errs, validateFullyQualified(string(*c.DistinctAttribute), at.Child("distinctAttribute"))...)
	}
	return errs
}

func validateReferences(references, names []string, at *field.Path) field.ErrorList {
	errs := unique(references, resourcev1.DeviceRequestsMaxSize, at, "", func(r string) string { return r })
	for i, r := range bounded(references, resourcev1.DeviceRequestsMaxSize) {
		errs = append(errs, validateReference(r, names, at.Index(i))...)
	}
	return errs
}

// validateReference checks the name of a request, or of one of its alternatives.
func validateReference(reference string, names []string, at *field.Path) field.ErrorList {
	const unknown = "must be the name of a request in the claim or the name of a request and a subrequest separated by '/'"
	parts := strings.Split(reference, "/")
	if len(parts) > 2 {
		return field.ErrorList{field.Invalid(at, reference, unknown)}
	}
	var errs field.ErrorList
	for _, part := range parts {
		errs = append(errs, validateLabel(part, at)...)
	}
	if !slices.Contains(names, reference) {
		errs = append(errs, field.Invalid(at, reference, unknown))
	}
	return errs
}
