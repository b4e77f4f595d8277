// Package ipaddress serves networking.k8s.io/v1 IPAddress: the record that an address of the service ranges is taken.
//
// The name is the address. The service kind writes and removes the addresses of services in the transaction of the
// service itself, and agent/control/addresses repairs what went wrong; users may hold further ones. Everything here
// is stateless and safe for concurrent use. Test with `go test ./agent/api/kinds/ipaddress`.
package ipaddress

import (
	"context"
	"strings"

	networkingv1 "k8s.io/api/networking/v1"
	apiequality "k8s.io/apimachinery/pkg/api/equality"
	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	"k8s.io/apimachinery/pkg/api/validation/path"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/podvine/podvine/agent/api/kinds"
)

// Resource returns the kind.
func Resource() kinds.Resource {
	return &kinds.Kind[*networkingv1.IPAddress]{
		GroupVersion:   networkingv1.SchemeGroupVersion,
		Kind:           "IPAddress",
		Resource:       "ipaddresses",
		Singular:       "ipaddress",
		ShortNames:     []string{"ip"},
		New:            func() *networkingv1.IPAddress { return &networkingv1.IPAddress{} },
		NewList:        func() runtime.Object { return &networkingv1.IPAddressList{} },
		Validate:       validate,
		ValidateUpdate: validateUpdate,
		Columns: []kinds.Column[*networkingv1.IPAddress]{
			kinds.NameColumn[*networkingv1.IPAddress](),
			{Name: "ParentRef", Description: "The object that holds the address.", Cell: func(a *networkingv1.IPAddress) any { return parentCell(a.Spec.ParentRef) }},
		},
	}
}

// validateName accepts the canonical text of an address.
func validateName(name string, _ bool) []string {
	var msgs []string
	for _, err := range validation.IsValidIP(nil, name) {
		msgs = append(msgs, err.Detail)
	}
	return msgs
}

func validate(_ context.Context, a *networkingv1.IPAddress) field.ErrorList {
	errs := kinds.ValidateObjectMeta(&a.ObjectMeta, false, validateName, field.NewPath("metadata"))
	return append(errs, validateParent(a.Spec.ParentRef, field.NewPath("spec", "parentRef"))...)
}

// validateParent checks the reference: group, resource and names are parts of a path, and never dereferenced here.
func validateParent(ref *networkingv1.ParentReference, at *field.Path) field.ErrorList {
	if ref == nil {
		return field.ErrorList{field.Required(at, "")}
	}
	var errs field.ErrorList
	if ref.Group != "" {
		for _, msg := range validation.IsDNS1123Subdomain(ref.Group) {
			errs = append(errs, field.Invalid(at.Child("group"), ref.Group, msg))
		}
	}
	segment := func(name, value string, required bool) {
		if value == "" {
			if required {
				errs = append(errs, field.Required(at.Child(name), ""))
			}
			return
		}
		for _, msg := range path.IsValidPathSegmentName(value) {
			errs = append(errs, field.Invalid(at.Child(name), value, msg))
		}
	}
	segment("resource", ref.Resource, true)
	segment("name", ref.Name, true)
	segment("namespace", ref.Namespace, false)
	return errs
}

func validateUpdate(_ context.Context, a, old *networkingv1.IPAddress) field.ErrorList {
	at := field.NewPath("spec", "parentRef")
	errs := kinds.ValidateObjectMetaUpdate(&a.ObjectMeta, &old.ObjectMeta, field.NewPath("metadata"))
	errs = append(errs, validateParent(a.Spec.ParentRef, at)...)
	if !apiequality.Semantic.DeepEqual(a.Spec.ParentRef, old.Spec.ParentRef) {
		errs = append(errs, field.Invalid(at, nil, apivalidation.FieldImmutableErrorMsg))
	}
	return errs
}

// parentCell is the reference as resource.group/namespace/name, without the parts that are empty.
func parentCell(ref *networkingv1.ParentReference) string {
	if ref == nil {
		return "<none>"
	}
	resource := ref.Resource
	if ref.Group != "" {
		resource += "." + ref.Group
	}
	parts := []string{resource}
	if ref.Namespace != "" {
		parts = append(parts, ref.Namespace)
	}
	return strings.Join(append(parts, ref.Name), "/")
}
