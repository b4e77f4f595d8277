package storage

import (
	"context"
	"slices"

	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	metav1validation "k8s.io/apimachinery/pkg/apis/meta/v1/validation"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/utils/ptr"

	"github.com/podvine/podvine/agent/api/kinds"
)

// Annotations that make a class the default one.
const (
	defaultClass     = "storageclass.kubernetes.io/is-default-class"
	betaDefaultClass = "storageclass.beta.kubernetes.io/is-default-class"
)

// protection keeps a class while volumes or claims name it; agent/control/protection takes it away.
const protection = "kubernetes.io/vac-protection"

func classes() kinds.Resource {
	type T = *storagev1.StorageClass
	doc := storagev1.StorageClass{}.SwaggerDoc()
	return &kinds.Kind[T]{
		GroupVersion: storagev1.SchemeGroupVersion,
		Kind:         "StorageClass", Resource: "storageclasses", Singular: "storageclass", ShortNames: []string{"sc"},
		New:     func() T { return &storagev1.StorageClass{} },
		NewList: func() runtime.Object { return &storagev1.StorageClassList{} },

		Default: func(c T) {
			if c.ReclaimPolicy == nil {
				c.ReclaimPolicy = ptr.To(corev1.PersistentVolumeReclaimDelete)
			}
			if c.VolumeBindingMode == nil {
				c.VolumeBindingMode = ptr.To(storagev1.VolumeBindingImmediate)
			}
		},
		Validate:            func(_ context.Context, c T) field.ErrorList { return validateClass(c) },
		ValidateUpdate:      func(_ context.Context, c, old T) field.ErrorList { return validateClassUpdate(c, old) },
		ReturnDeletedObject: true,
		Columns: []kinds.Column[T]{
			{Name: "Name", Format: "name", Description: kinds.NameColumn[T]().Description, Cell: func(c T) any { return c.Name + defaultMark(c) }},
			{Name: "Provisioner", Description: doc["provisioner"], Cell: func(c T) any { return c.Provisioner }},
			{Name: "ReclaimPolicy", Description: doc["reclaimPolicy"], Cell: func(c T) any {
				return string(ptr.Deref(c.ReclaimPolicy, corev1.PersistentVolumeReclaimDelete))
			}},
			{Name: "VolumeBindingMode", Description: doc["volumeBindingMode"], Cell: func(c T) any {
				return string(ptr.Deref(c.VolumeBindingMode, storagev1.VolumeBindingImmediate))
			}},
			{Name: "AllowVolumeExpansion", Description: doc["allowVolumeExpansion"], Cell: func(c T) any { return ptr.Deref(c.AllowVolumeExpansion, false) }},
			kinds.AgeColumn[T](),
		},
	}
}

// IsDefault says that claims which name no class get this one.
func IsDefault(c *storagev1.StorageClass) bool {
	return c.Annotations[defaultClass] == "true" || c.Annotations[betaDefaultClass] == "true"
}

func defaultMark(c *storagev1.StorageClass) string {
	if IsDefault(c) {
		return " (default)"
	}
	return ""
}

func validateClass(c *storagev1.StorageClass) field.ErrorList {
	errs := kinds.ValidateObjectMeta(&c.ObjectMeta, false, apivalidation.NameIsDNSSubdomain, field.NewPath("metadata"))
	errs = append(errs, validateDriver(c.Provisioner, field.NewPath("provisioner"))...)
	errs = append(errs, validateParameters(c.Parameters, false, field.NewPath("parameters"))...)
	if c.ReclaimPolicy != nil && *c.ReclaimPolicy != "" {
		errs = append(errs, notSupported(field.NewPath("reclaimPolicy"), *c.ReclaimPolicy, corev1.PersistentVolumeReclaimDelete, corev1.PersistentVolumeReclaimRetain)...)
	}
	if mode := field.NewPath("volumeBindingMode"); c.VolumeBindingMode == nil {
		errs = append(errs, field.Required(mode, ""))
	} else {
		errs = append(errs, notSupported(mode, *c.VolumeBindingMode, storagev1.VolumeBindingImmediate, storagev1.VolumeBindingWaitForFirstConsumer)...)
	}
	return append(errs, validateTopologies(c.AllowedTopologies, field.NewPath("allowedTopologies"))...)
}

func validateTopologies(topologies []corev1.TopologySelectorTerm, at *field.Path) field.ErrorList {
	var errs field.ErrorList
	terms := make([]map[string]sets.Set[string], 0, len(topologies)+1)
	terms = append(terms, nil) // a term without expressions counts as a repeated one
	for i, t := range topologies {
		own := at.Index(i).Child("matchLabelExpressions")
		term := map[string]sets.Set[string]{}
		for n, e := range t.MatchLabelExpressions {
			errs = append(errs, validateRequirement(e, own.Index(n))...)
			if _, ok := term[e.Key]; ok {
				errs = append(errs, field.Duplicate(own.Index(n).Child("key"), e.Key))
			}
			term[e.Key] = sets.New(e.Values...)
		}
		if slices.ContainsFunc(terms, func(other map[string]sets.Set[string]) bool { return equality.Semantic.DeepEqual(term, other) }) {
			errs = append(errs, field.Duplicate(own, ""))
		}
		terms = append(terms, term)
	}
	return errs
}

func validateRequirement(r corev1.TopologySelectorLabelRequirement, at *field.Path) field.ErrorList {
	var errs field.ErrorList
	if len(r.Values) == 0 {
		errs = append(errs, field.Required(at.Child("values"), ""))
	}
	for i, value := range r.Values {
		if slices.Contains(r.Values[:i], value) {
			errs = append(errs, field.Duplicate(at.Child("values").Index(i), value))
		}
	}
	return append(errs, metav1validation.ValidateLabelName(r.Key, at.Child("key"))...)
}

func validateClassUpdate(c, old *storagev1.StorageClass) field.ErrorList {
	errs := kinds.ValidateObjectMetaUpdate(&c.ObjectMeta, &old.ObjectMeta, field.NewPath("metadata"))
	immutable := func(name string, now, was any) {
		if !equality.Semantic.DeepEqual(now, was) {
			// The value that Kubernetes shows here is null.
			errs = append(errs, field.Invalid(field.NewPath(name), nil, apivalidation.FieldImmutableErrorMsg))
		}
	}
	immutable("parameters", c.Parameters, old.Parameters)
	immutable("provisioner", c.Provisioner, old.Provisioner)
	immutable("reclaimPolicy", c.ReclaimPolicy, old.ReclaimPolicy)
	immutable("volumeBindingMode", c.VolumeBindingMode, old.VolumeBindingMode)
	return append(errs, validateClass(c)...)
}

func attributesClasses() kinds.Resource {
	type T = *storagev1.VolumeAttributesClass
	validate := func(c T) field.ErrorList {
		errs := kinds.ValidateObjectMeta(&c.ObjectMeta, false, apivalidation.NameIsDNSSubdomain, field.NewPath("metadata"))
		errs = append(errs, validateDriver(c.DriverName, field.NewPath("driverName"))...)
		return append(errs, validateParameters(c.Parameters, true, field.NewPath("parameters"))...)
	}
	return &kinds.Kind[T]{
		GroupVersion: storagev1.SchemeGroupVersion,
		Kind:         "VolumeAttributesClass", Resource: "volumeattributesclasses", Singular: "volumeattributesclass", ShortNames: []string{"vac"},
		New:     func() T { return &storagev1.VolumeAttributesClass{} },
		NewList: func() runtime.Object { return &storagev1.VolumeAttributesClassList{} },

		PrepareForCreate: func(_ context.Context, c T) {
			if !slices.Contains(c.Finalizers, protection) {
				c.Finalizers = append(c.Finalizers, protection)
			}
		},
		Validate: func(_ context.Context, c T) field.ErrorList { return validate(c) },
		ValidateUpdate: func(_ context.Context, c, old T) field.ErrorList {
			errs := kinds.ValidateObjectMetaUpdate(&c.ObjectMeta, &old.ObjectMeta, field.NewPath("metadata"))
			if c.DriverName != old.DriverName {
				errs = append(errs, field.Forbidden(field.NewPath("driverName"), "updates to driverName are forbidden."))
			}
			if !equality.Semantic.DeepEqual(c.Parameters, old.Parameters) {
				errs = append(errs, field.Forbidden(field.NewPath("parameters"), "updates to parameters are forbidden."))
			}
			return append(errs, validate(c)...)
		},
		ReturnDeletedObject: true,
		Columns: []kinds.Column[T]{
			kinds.NameColumn[T](),
			{Name: "DriverName", Description: storagev1.VolumeAttributesClass{}.SwaggerDoc()["driverName"], Cell: func(c T) any { return c.DriverName }},
			kinds.AgeColumn[T](),
		},
	}
}
