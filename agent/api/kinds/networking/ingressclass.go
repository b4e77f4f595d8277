package networking

import (
	"context"
	"slices"

	networkingv1 "k8s.io/api/networking/v1"
	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/utils/ptr"

	"github.com/podvine/podvine/agent/api/kinds"
)

// maxControllerBytes is the longest name of a controller.
const maxControllerBytes = 250

// IngressClasses returns the kind IngressClass.
func IngressClasses() kinds.Resource {
	type T = *networkingv1.IngressClass
	return &kinds.Kind[T]{
		GroupVersion: networkingv1.SchemeGroupVersion,
		Kind:         "IngressClass", Resource: "ingressclasses", Singular: "ingressclass",
		New:     func() T { return &networkingv1.IngressClass{} },
		NewList: func() runtime.Object { return &networkingv1.IngressClassList{} },

		Default: func(c T) {
			if p := c.Spec.Parameters; p != nil && p.Scope == nil {
				p.Scope = ptr.To(networkingv1.IngressClassParametersReferenceScopeCluster)
			}
		},
		HasGeneration: true,
		Validate: func(_ context.Context, c T) field.ErrorList {
			errs := kinds.ValidateObjectMeta(&c.ObjectMeta, false, apivalidation.NameIsDNSSubdomain, field.NewPath("metadata"))
			return append(errs, validateClassSpec(&c.Spec, field.NewPath("spec"))...)
		},
		ValidateUpdate: func(_ context.Context, c, old T) field.ErrorList {
			at := field.NewPath("spec")
			errs := kinds.ValidateObjectMetaUpdate(&c.ObjectMeta, &old.ObjectMeta, field.NewPath("metadata"))
			errs = append(errs, apivalidation.ValidateImmutableField(c.Spec.Controller, old.Spec.Controller, at.Child("controller"))...)
			return append(errs, validateClassSpec(&c.Spec, at)...)
		},
		Columns: []kinds.Column[T]{
			kinds.NameColumn[T](),
			{Name: "Controller", Description: "Controller that is responsible for handling this class", Cell: func(c T) any { return c.Spec.Controller }},
			{Name: "Parameters", Description: "A reference to a resource with additional parameters", Cell: func(c T) any {
				p := c.Spec.Parameters
				if p == nil {
					return "<none>"
				}
				kind := p.Kind
				if p.APIGroup != nil {
					kind += "." + *p.APIGroup
				}
				return kind + "/" + p.Name
			}},
			kinds.AgeColumn[T](),
		},
	}
}

func validateClassSpec(spec *networkingv1.IngressClassSpec, at *field.Path) field.ErrorList {
	var errs field.ErrorList
	if len(spec.Controller) > maxControllerBytes {
		errs = append(errs, field.TooLong(at.Child("controller"), spec.Controller, maxControllerBytes))
	}
	errs = append(errs, validation.IsDomainPrefixedPath(at.Child("controller"), spec.Controller)...)
	p, at := spec.Parameters, at.Child("parameters")
	if p == nil {
		return errs
	}
	errs = append(errs, validateReference(p.APIGroup, p.Kind, p.Name, at)...)
	if p.Scope == nil {
		return append(errs, field.Required(at.Child("scope"), ""))
	}
	const cluster, namespaced = networkingv1.IngressClassParametersReferenceScopeCluster, networkingv1.IngressClassParametersReferenceScopeNamespace
	if scopes := []string{cluster, namespaced}; !slices.Contains(scopes, *p.Scope) {
		errs = append(errs, field.NotSupported(at.Child("scope"), *p.Scope, scopes))
	}
	switch {
	case *p.Scope == namespaced && p.Namespace == nil:
		errs = append(errs, field.Required(at.Child("namespace"), "`parameters.scope` is set to 'Namespace'"))
	case *p.Scope == namespaced:
		errs = append(errs, invalid(at.Child("namespace"), *p.Namespace, apivalidation.ValidateNamespaceName(*p.Namespace, false))...)
	case *p.Scope == cluster && p.Namespace != nil:
		errs = append(errs, field.Forbidden(at.Child("namespace"), "`parameters.scope` is set to 'Cluster'"))
	}
	return errs
}
