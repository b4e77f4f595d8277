package storage

import (
	"context"
	"fmt"
	"slices"

	storagev1 "k8s.io/api/storage/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	metav1validation "k8s.io/apimachinery/pkg/apis/meta/v1/validation"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/podvine/podvine/agent/api/kinds"
	"github.com/podvine/podvine/agent/api/kinds/podspec"
)

// maxNodeIDBytes is the longest identity of a node with a driver.
const maxNodeIDBytes = 256

func nodes() kinds.Resource {
	type T = *storagev1.CSINode
	validateMeta := func(n T) field.ErrorList {
		return kinds.ValidateObjectMeta(&n.ObjectMeta, false, apivalidation.NameIsDNSSubdomain, field.NewPath("metadata"))
	}
	return &kinds.Kind[T]{
		GroupVersion: storagev1.SchemeGroupVersion,
		Kind:         "CSINode", Resource: "csinodes", Singular: "csinode",
		New:     func() T { return &storagev1.CSINode{} },
		NewList: func() runtime.Object { return &storagev1.CSINodeList{} },

		// The health of storage is not on by default, so its status stays empty.
		PrepareForCreate: func(_ context.Context, n T) { n.Status = storagev1.CSINodeStatus{} },
		Validate: func(_ context.Context, n T) field.ErrorList {
			return append(validateMeta(n), validateNodeDrivers(n.Spec.Drivers, nil, field.NewPath("spec", "drivers"))...)
		},
		ValidateUpdate: func(_ context.Context, n, old T) field.ErrorList {
			errs := kinds.ValidateObjectMetaUpdate(&n.ObjectMeta, &old.ObjectMeta, field.NewPath("metadata"))
			errs = append(errs, validateMeta(n)...)
			at := field.NewPath("spec", "drivers")
			errs = append(errs, validateNodeDrivers(n.Spec.Drivers, old.Spec.Drivers, at)...)
			return append(errs, validateKnownDrivers(n.Spec.Drivers, old.Spec.Drivers, at)...)
		},
		ForbidUnconditionalUpdate: true,
		ReturnDeletedObject:       true,
		Columns: []kinds.Column[T]{
			kinds.NameColumn[T](),
			{Name: "Drivers", Type: "integer", Description: "Drivers indicates the number of CSI drivers registered on the node", Cell: func(n T) any { return int64(len(n.Spec.Drivers)) }},
			kinds.AgeColumn[T](),
		},
		Status: &kinds.Status[T]{
			PrepareForUpdate: func(_ context.Context, n, old T) { n.Spec, n.Status = old.Spec, old.Status },
			ValidateUpdate: func(_ context.Context, n, old T) field.ErrorList {
				return kinds.ValidateObjectMetaUpdate(&n.ObjectMeta, &old.ObjectMeta, field.NewPath("metadata"))
			},
		},
	}
}

// validateNodeDrivers checks the drivers of a node. old ones may have longer identities than new ones.
func validateNodeDrivers(list, old []storagev1.CSINodeDriver, at *field.Path) field.ErrorList {
	var errs field.ErrorList
	for i := range list {
		d, own := &list[i], at.Index(i)
		errs = append(errs, validateNodeDriver(d, own)...)
		known := slices.ContainsFunc(old, func(o storagev1.CSINodeDriver) bool { return o.Name == d.Name && o.NodeID == d.NodeID })
		if len(d.NodeID) > maxNodeIDBytes && !known {
			errs = append(errs, field.Invalid(own.Child("nodeID"), d.NodeID, fmt.Sprintf("must be %d characters or less", maxNodeIDBytes)))
		}
		if slices.ContainsFunc(list[:i], func(o storagev1.CSINodeDriver) bool { return o.Name == d.Name }) {
			errs = append(errs, field.Duplicate(own.Child("name"), d.Name))
		}
	}
	return errs
}

func validateNodeDriver(d *storagev1.CSINodeDriver, at *field.Path) field.ErrorList {
	errs := podspec.ValidateCSIDriverName(d.Name, at.Child("name"))
	if d.NodeID == "" {
		errs = append(errs, field.Required(at.Child("nodeID"), ""))
	}
	if d.Allocatable != nil && d.Allocatable.Count != nil {
		errs = append(errs, apivalidation.ValidateNonnegativeField(int64(*d.Allocatable.Count), at.Child("allocatable", "count"))...)
	}
	// Faults of the keys are told of the driver as a whole.
	for i, key := range d.TopologyKeys {
		if slices.Contains(d.TopologyKeys[:i], key) {
			errs = append(errs, field.Duplicate(at, key))
		}
		if key == "" {
			errs = append(errs, field.Required(at, ""))
		}
		errs = append(errs, invalid(at, key, validation.IsQualifiedName(key))...)
	}
	return errs
}

// validateKnownDrivers keeps drivers that stay from changing, but for how many volumes they can have.
func validateKnownDrivers(list, old []storagev1.CSINodeDriver, at *field.Path) field.ErrorList {
	var errs field.ErrorList
	for _, d := range list {
		for _, was := range old {
			if d.Name != was.Name {
				continue
			}
			d.Allocatable, was.Allocatable = nil, nil
			if !equality.Semantic.DeepEqual(d, was) {
				errs = append(errs, field.Invalid(at, podspec.InternalView(d), apivalidation.FieldImmutableErrorMsg))
			}
		}
	}
	return errs
}

func capacities() kinds.Resource {
	type T = *storagev1.CSIStorageCapacity
	validate := func(c T) field.ErrorList {
		errs := kinds.ValidateObjectMeta(&c.ObjectMeta, true, apivalidation.NameIsDNSSubdomain, field.NewPath("metadata"))
		if c.NodeTopology != nil {
			errs = append(errs, metav1validation.ValidateLabelSelector(c.NodeTopology, metav1validation.LabelSelectorValidationOptions{}, field.NewPath("nodeTopology"))...)
		}
		errs = append(errs, invalid(field.NewPath("storageClassName"), c.StorageClassName, apivalidation.NameIsDNSSubdomain(c.StorageClassName, false))...)
		if c.Capacity != nil && c.Capacity.Sign() < 0 {
			errs = append(errs, field.Invalid(field.NewPath("capacity"), c.Capacity.String(), apivalidation.IsNegativeErrorMsg))
		}
		return errs
	}
	return &kinds.Kind[T]{
		GroupVersion: storagev1.SchemeGroupVersion,
		Kind:         "CSIStorageCapacity", Resource: "csistoragecapacities", Singular: "csistoragecapacity",
		Namespaced: true,
		New:        func() T { return &storagev1.CSIStorageCapacity{} },
		NewList:    func() runtime.Object { return &storagev1.CSIStorageCapacityList{} },

		Validate: func(_ context.Context, c T) field.ErrorList { return validate(c) },
		ValidateUpdate: func(_ context.Context, c, old T) field.ErrorList {
			errs := kinds.ValidateObjectMetaUpdate(&c.ObjectMeta, &old.ObjectMeta, field.NewPath("metadata"))
			errs = append(errs, validate(c)...)
			errs = append(errs, apivalidation.ValidateImmutableField(c.NodeTopology, old.NodeTopology, field.NewPath("nodeTopology"))...)
			return append(errs, apivalidation.ValidateImmutableField(c.StorageClassName, old.StorageClassName, field.NewPath("storageClassName"))...)
		},
		ForbidUnconditionalUpdate: true,
	}
}
