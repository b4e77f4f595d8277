package devices

import (
	"context"

	resourcev1 "k8s.io/api/resource/v1"
	"k8s.io/apimachinery/pkg/api/operation"
	"k8s.io/apimachinery/pkg/api/validate"
	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/podvine/podvine/agent/api/kinds"
)

func classes() kinds.Resource {
	type T = *resourcev1.DeviceClass
	check := func(ctx context.Context, c T, stored *resourcev1.DeviceClassSpec) field.ErrorList {
		errs := kinds.ValidateObjectMeta(&c.ObjectMeta, false, apivalidation.NameIsDNSSubdomain, field.NewPath("metadata"))
		return append(errs, validateClass(ctx, &c.Spec, stored, field.NewPath("spec"))...)
	}
	return &kinds.Kind[T]{
		GroupVersion: resourcev1.SchemeGroupVersion,
		Kind:         "DeviceClass", Resource: "deviceclasses", Singular: "deviceclass",
		New:     func() T { return &resourcev1.DeviceClass{} },
		NewList: func() runtime.Object { return &resourcev1.DeviceClassList{} },

		HasGeneration: true,
		Validate: func(ctx context.Context, c T) field.ErrorList {
			return check(ctx, c, &resourcev1.DeviceClassSpec{})
		},
		ValidateUpdate: func(ctx context.Context, c, old T) field.ErrorList {
			errs := kinds.ValidateObjectMetaUpdate(&c.ObjectMeta, &old.ObjectMeta, field.NewPath("metadata"))
			return append(errs, check(ctx, c, &old.Spec)...)
		},
		Columns: []kinds.Column[T]{kinds.NameColumn[T](), kinds.AgeColumn[T]()},
	}
}

func validateClass(ctx context.Context, spec, stored *resourcev1.DeviceClassSpec, at *field.Path) field.ErrorList {
	errs := validateSelectors(spec.Selectors, stored.Selectors, at.Child("selectors"))
	if len(spec.Config) > resourcev1.DeviceConfigMaxSize {
		return append(errs, field.TooMany(at.Child("config"), len(spec.Config), resourcev1.DeviceConfigMaxSize))
	}
	for i := range spec.Config {
		errs = append(errs, validateOpaque(spec.Config[i].Opaque, at.Child("config").Index(i).Child("opaque"))...)
	}
	return append(errs, validate.ExtendedResourceName(ctx, operation.Operation{Type: operation.Create}, at.Child("extendedResourceName"), spec.ExtendedResourceName, nil)...)
}
