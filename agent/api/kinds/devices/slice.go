package devices

import (
	"context"
	"strings"

	corev1 "k8s.io/api/core/v1"
	resourcev1 "k8s.io/api/resource/v1"
	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/utils/ptr"

	"github.com/podvine/podvine/agent/api/kinds"
	"github.com/podvine/podvine/agent/api/kinds/podspec"
)

func resourceSlices() kinds.Resource {
	type T = *resourcev1.ResourceSlice
	check := func(s T) field.ErrorList {
		errs := kinds.ValidateObjectMeta(&s.ObjectMeta, false, apivalidation.NameIsDNSSubdomain, field.NewPath("metadata"))
		return append(errs, validateSlice(&s.Spec, field.NewPath("spec"))...)
	}
	return &kinds.Kind[T]{
		GroupVersion: resourcev1.SchemeGroupVersion,
		Kind:         "ResourceSlice", Resource: "resourceslices", Singular: "resourceslice",
		New:     func() T { return &resourcev1.ResourceSlice{} },
		NewList: func() runtime.Object { return &resourcev1.ResourceSliceList{} },

		Default: func(s T) {
			for i := range s.Spec.Devices {
				defaultTaints(s.Spec.Devices[i].Taints)
			}
		},
		HasGeneration:    true,
		PrepareForCreate: func(_ context.Context, s T) { dropFromSlice(&s.Spec) },
		PrepareForUpdate: func(_ context.Context, s, _ T) { dropFromSlice(&s.Spec) },
		Validate:         func(_ context.Context, s T) field.ErrorList { return check(s) },
		ValidateUpdate: func(_ context.Context, s, old T) field.ErrorList {
			errs := kinds.ValidateObjectMetaUpdate(&s.ObjectMeta, &old.ObjectMeta, field.NewPath("metadata"))
			spec := field.NewPath("spec")
			errs = append(errs, check(s)...)
			errs = append(errs, immutable(s.Spec.Driver, old.Spec.Driver, spec.Child("driver"))...)
			errs = append(errs, immutable(s.Spec.Pool.Name, old.Spec.Pool.Name, spec.Child("pool", "name"))...)
			return append(errs, immutable(s.Spec.NodeName, old.Spec.NodeName, spec.Child("nodeName"))...)
		},
		FieldLabels: []string{resourcev1.ResourceSliceSelectorNodeName, resourcev1.ResourceSliceSelectorDriver, resourcev1.ResourceSliceSelectorPoolName},
		Fields: func(s T) fields.Set {
			return fields.Set{resourcev1.ResourceSliceSelectorNodeName: ptr.Deref(s.Spec.NodeName, ""), resourcev1.ResourceSliceSelectorDriver: s.Spec.Driver,
				resourcev1.ResourceSliceSelectorPoolName: s.Spec.Pool.Name}
		},
		Columns: sliceColumns(),
	}
}

func sliceColumns() []kinds.Column[*resourcev1.ResourceSlice] {
	type T = *resourcev1.ResourceSlice
	doc, pool := resourcev1.ResourceSliceSpec{}.SwaggerDoc(), resourcev1.ResourcePool{}.SwaggerDoc()
	return []kinds.Column[T]{
		kinds.NameColumn[T](),
		{Name: "Node", Description: doc["nodeName"], Cell: func(s T) any { return ptr.Deref(s.Spec.NodeName, "<unset>") }},
		{Name: "Driver", Description: doc["driver"], Cell: func(s T) any { return s.Spec.Driver }},
		{Name: "Pool", Description: pool["name"], Cell: func(s T) any { return s.Spec.Pool.Name }},
		kinds.AgeColumn[T](),
	}
}

// dropFromSlice takes out what belongs to features that are off in Kubernetes too.
func dropFromSlice(s *resourcev1.ResourceSliceSpec) {
	s.PartitionTypeAttribute, s.SkipNodeOperations = nil, nil
	for i := range s.Devices {
		d := &s.Devices[i]
		d.NodeAllocatableResources = nil
		for j := range d.ConsumesCounters {
			d.ConsumesCounters[j].CompatibilityGroups = nil
		}
		for name, a := range d.Attributes {
			a.IntValues, a.BoolValues, a.StringValues, a.VersionValues = nil, nil, nil, nil
			d.Attributes[name] = a
		}
	}
}

func validateSlice(s *resourcev1.ResourceSliceSpec, at *field.Path) field.ErrorList {
	errs := validateDriver(s.Driver, at.Child("driver"))
	errs = append(errs, validatePool(s.Pool.Name, at.Child("pool", "name"))...)
	if s.Pool.ResourceSliceCount <= 0 {
		errs = append(errs, field.Invalid(at.Child("pool", "resourceSliceCount"), s.Pool.ResourceSliceCount, "must be greater than zero"))
	}
	if s.Pool.Generation < 0 {
		errs = append(errs, field.Invalid(at.Child("pool", "generation"), s.Pool.Generation, "must be greater than or equal to zero"))
	}
	chosen, chooses := validatePlace(s.NodeName, s.NodeSelector, s.AllNodes, at)
	errs = append(errs, chooses...)
	perDevice := ptr.Deref(s.PerDeviceNodeSelection, false)
	if s.PerDeviceNodeSelection != nil && !perDevice {
		errs = append(errs, mustBeTrue(at.Child("perDeviceNodeSelection")))
	}
	if perDevice {
		chosen = append(chosen, "`perDeviceNodeSelection`")
	}
	errs = append(errs, exactlyOne(chosen, "exactly one of `nodeName`, `nodeSelector`, `allNodes`, `perDeviceNodeSelection` is required", at)...)
	if len(s.Devices) > 0 && len(s.SharedCounters) > 0 {
		errs = append(errs, field.Invalid(at, nil, "only one of `sharedCounters` or `devices` is allowed"))
	}
	errs = append(errs, validateDevices(s.Devices, perDevice, at.Child("devices"))...)
	return append(errs, validateShared(s.SharedCounters, at.Child("sharedCounters"))...)
}

func mustBeTrue(at *field.Path) *field.Error {
	return field.Invalid(at, false, "must be either unset or set to true")
}

// validatePlace checks where devices are, and returns by which of the fields.
func validatePlace(node *string, selector *corev1.NodeSelector, all *bool, at *field.Path) (chosen []string, errs field.ErrorList) {
	if node != nil {
		own := at.Child("nodeName")
		if *node == "" {
			errs = append(errs, field.Invalid(own, *node, "must be either unset or set to a non-empty string"))
		} else {
			chosen = append(chosen, "`nodeName`")
			errs = append(errs, invalid(own, *node, apivalidation.NameIsDNSSubdomain(*node, false))...)
		}
	}
	if selector != nil {
		own := at.Child("nodeSelector")
		chosen = append(chosen, "`nodeSelector`")
		errs = append(errs, podspec.ValidateNodeSelector(selector, false, own)...)
		if len(selector.NodeSelectorTerms) != 1 {
			errs = append(errs, field.Invalid(own.Child("nodeSelectorTerms"), podspec.InternalView(selector.NodeSelectorTerms), "must have exactly one node selector term"))
		}
	}
	if all != nil {
		if *all {
			chosen = append(chosen, "`allNodes`")
		} else {
			errs = append(errs, mustBeTrue(at.Child("allNodes")))
		}
	}
	return chosen, errs
}

func exactlyOne(chosen []string, rule string, at *field.Path) field.ErrorList {
	switch len(chosen) {
	case 0:
		return field.ErrorList{field.Required(at, rule)}
	case 1:
		return nil
	}
	return field.ErrorList{field.Invalid(at, "{"+strings.Join(chosen, ", ")+"}", rule+", but multiple fields are set")}
}

func validateDevices(devices []resourcev1.Device, perDevice bool, at *field.Path) field.ErrorList {
	limit := resourcev1.ResourceSliceMaxDevices
	for _, d := range devices {
		if len(d.Taints) > 0 || len(d.ConsumesCounters) > 0 {
			limit = resourcev1.ResourceSliceMaxDevicesWithAdvancedFeatures
		}
	}
	errs := unique(devices, limit, at, "name", func(d resourcev1.Device) string { return d.Name })
	for i := range bounded(devices, limit) {
		errs = append(errs, validateDevice(&devices[i], perDevice, at.Index(i))...)
	}
	return errs
}

func validateShared(sets []resourcev1.CounterSet, at *field.Path) field.ErrorList {
	errs := unique(sets, resourcev1.ResourceSliceMaxCounterSets, at, "name", func(s resourcev1.CounterSet) string { return s.Name })
	for i, s := range bounded(sets, resourcev1.ResourceSliceMaxCounterSets) {
		errs = append(errs, validateNeeded(s.Name, at.Index(i).Child("name"))...)
		errs = append(errs, validateCounters(s.Counters, resourcev1.ResourceSliceMaxCountersPerCounterSet, at.Index(i).Child("counters"))...)
	}
	return errs
}

func validateCounters(counters map[string]resourcev1.Counter, limit int, at *field.Path) field.ErrorList {
	var errs field.ErrorList
	switch {
	case len(counters) == 0:
		errs = append(errs, field.Required(at, ""))
	case len(counters) > limit:
		errs = append(errs, field.TooMany(at, len(counters), limit))
	}
	for name := range counters {
		errs = append(errs, validateLabel(name, at)...)
	}
	return errs
}
