// Package runtimeclass is the kind RuntimeClass. It holds no state; what a class adds to a pod is the business of admission.
package runtimeclass

import (
	"context"
	"slices"

	corev1 "k8s.io/api/core/v1"
	nodev1 "k8s.io/api/node/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/api/validate/content"
	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	metav1validation "k8s.io/apimachinery/pkg/apis/meta/v1/validation"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/podvine/podvine/agent/api/kinds"
	"github.com/podvine/podvine/agent/api/kinds/podspec"
)

// Resource returns the kind RuntimeClass.
func Resource() kinds.Resource {
	return &kinds.Kind[*nodev1.RuntimeClass]{
		GroupVersion: nodev1.SchemeGroupVersion,
		Kind:         "RuntimeClass", Resource: "runtimeclasses", Singular: "runtimeclass",
		New:     func() *nodev1.RuntimeClass { return &nodev1.RuntimeClass{} },
		NewList: func() runtime.Object { return &nodev1.RuntimeClassList{} },

		Validate:                  func(_ context.Context, c *nodev1.RuntimeClass) field.ErrorList { return validate(c) },
		ValidateUpdate:            func(_ context.Context, c, old *nodev1.RuntimeClass) field.ErrorList { return validateUpdate(c, old) },
		ForbidUnconditionalUpdate: true,

		Columns: []kinds.Column[*nodev1.RuntimeClass]{
			kinds.NameColumn[*nodev1.RuntimeClass](),
			{Name: "Handler", Description: nodev1.RuntimeClass{}.SwaggerDoc()["handler"], Cell: func(c *nodev1.RuntimeClass) any { return c.Handler }},
			kinds.AgeColumn[*nodev1.RuntimeClass](),
		},
	}
}

func validate(c *nodev1.RuntimeClass) field.ErrorList {
	// As on Kubernetes, finalizers need no domain here.
	errs := apivalidation.ValidateObjectMeta(&c.ObjectMeta, false, apivalidation.NameIsDNSSubdomain, field.NewPath("metadata"))
	path := field.NewPath("handler")
	if c.Handler == "" {
		errs = append(errs, field.Required(path, ""))
	}
	for _, fault := range content.IsDNS1123Label(c.Handler) {
		if c.Handler != "" {
			errs = append(errs, field.Invalid(path, c.Handler, fault))
		}
	}
	if c.Overhead != nil {
		errs = append(errs, podspec.ValidateOverhead(c.Overhead.PodFixed, field.NewPath("overhead"))...)
	}
	if c.Scheduling != nil {
		errs = append(errs, validateScheduling(c.Scheduling, field.NewPath("scheduling"))...)
	}
	return errs
}

func validateScheduling(s *nodev1.Scheduling, path *field.Path) field.ErrorList {
	errs := metav1validation.ValidateLabels(s.NodeSelector, path.Child("nodeSelector"))
	at := path.Child("tolerations")
	errs = append(errs, podspec.ValidateTolerations(s.Tolerations, at)...)
	for i, t := range s.Tolerations {
		same := func(other corev1.Toleration) bool { return equality.Semantic.DeepEqual(t, other) }
		if slices.ContainsFunc(s.Tolerations[:i], same) {
			errs = append(errs, field.Duplicate(at.Index(i), podspec.InternalView(t)))
		}
	}
	return errs
}

func validateUpdate(c, old *nodev1.RuntimeClass) field.ErrorList {
	errs := append(validate(c), apivalidation.ValidateObjectMetaUpdate(&c.ObjectMeta, &old.ObjectMeta, field.NewPath("metadata"))...)
	if c.Handler != old.Handler {
		// The value that Kubernetes shows here is null.
		errs = append(errs, field.Invalid(field.NewPath("handler"), nil, apivalidation.FieldImmutableErrorMsg))
	}
	return errs
}
