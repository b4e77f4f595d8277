// Package endpoints serves core/v1 Endpoints, the older, deprecated form of EndpointSlice.
//
// agent/control/endpoints writes those of services with a selector; the rest are users' own. Everything here is
// stateless and safe for concurrent use. Test with `go test ./agent/api/kinds/endpoints`.
package endpoints

import (
	"context"
	"fmt"
	"strings"

	corev1 "k8s.io/api/core/v1"
	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/podvine/podvine/agent/api/kinds"
)

// maxShownAddresses is how many addresses a table cell names.
const maxShownAddresses = 3

// Resource returns the kind.
func Resource() kinds.Resource {
	return &kinds.Kind[*corev1.Endpoints]{
		GroupVersion:        corev1.SchemeGroupVersion,
		Kind:                "Endpoints",
		Resource:            "endpoints",
		Singular:            "endpoints",
		ShortNames:          []string{"ep"},
		Namespaced:          true,
		New:                 func() *corev1.Endpoints { return &corev1.Endpoints{} },
		NewList:             func() runtime.Object { return &corev1.EndpointsList{} },
		Default:             setDefaults,
		Validate:            validate,
		ValidateUpdate:      validateUpdate,
		WarningsOnCreate:    func(_ context.Context, e *corev1.Endpoints) []string { return warnings(e) },
		WarningsOnUpdate:    func(_ context.Context, e, _ *corev1.Endpoints) []string { return warnings(e) },
		AllowCreateOnUpdate: true,
		Columns: []kinds.Column[*corev1.Endpoints]{
			kinds.NameColumn[*corev1.Endpoints](),
			{Name: "Endpoints", Description: "The first ready addresses.", Cell: func(e *corev1.Endpoints) any { return addressesCell(e.Subsets) }},
			kinds.AgeColumn[*corev1.Endpoints](),
		},
	}
}

func setDefaults(e *corev1.Endpoints) {
	for i := range e.Subsets {
		for j := range e.Subsets[i].Ports {
			if port := &e.Subsets[i].Ports[j]; port.Protocol == "" {
				port.Protocol = corev1.ProtocolTCP
			}
		}
	}
}

// addressesCell names the first ready "address:port" pairs.
func addressesCell(subsets []corev1.EndpointSubset) string {
	if len(subsets) == 0 {
		return "<none>"
	}
	var shown []string
	total := 0
	add := func(s string) {
		if total++; len(shown) < maxShownAddresses {
			shown = append(shown, s)
		}
	}
	for i := range subsets {
		s := &subsets[i]
		for a := range s.Addresses {
			if len(s.Ports) == 0 {
				add(s.Addresses[a].IP)
			}
		}
		for p := range s.Ports {
			for a := range s.Addresses {
				add(joinHostPort(s.Addresses[a].IP, s.Ports[p].Port))
			}
		}
	}
	out := strings.Join(shown, ",")
	if total > len(shown) {
		return fmt.Sprintf("%s + %d more...", out, total-len(shown))
	}
	return out
}

func joinHostPort(ip string, port int32) string {
	if strings.Contains(ip, ":") {
		return fmt.Sprintf("[%s]:%d", ip, port)
	}
	return fmt.Sprintf("%s:%d", ip, port)
}

// eachAddress calls f for every address with its path.
func eachAddress(e *corev1.Endpoints, f func(a *corev1.EndpointAddress, at *field.Path)) {
	for i := range e.Subsets {
		at := field.NewPath("subsets").Index(i)
		for j := range e.Subsets[i].Addresses {
			f(&e.Subsets[i].Addresses[j], at.Child("addresses").Index(j))
		}
		for j := range e.Subsets[i].NotReadyAddresses {
			f(&e.Subsets[i].NotReadyAddresses[j], at.Child("notReadyAddresses").Index(j))
		}
	}
}

// warnings names addresses that are valid but not in canonical form.
func warnings(e *corev1.Endpoints) []string {
	var out []string
	eachAddress(e, func(a *corev1.EndpointAddress, at *field.Path) {
		if len(validation.IsValidIPForLegacyField(nil, a.IP, false, nil)) == 0 {
			out = append(out, validation.GetWarningsForIP(at.Child("ip"), a.IP)...)
		}
	})
	return out
}

// oldAddresses are the addresses of an object, which its update may keep whatever they are.
func oldAddresses(e *corev1.Endpoints) []string {
	var ips []string
	eachAddress(e, func(a *corev1.EndpointAddress, _ *field.Path) { ips = append(ips, a.IP) })
	return ips
}

func validate(_ context.Context, e *corev1.Endpoints) field.ErrorList {
	errs := kinds.ValidateObjectMeta(&e.ObjectMeta, true, apivalidation.NameIsDNSSubdomain, field.NewPath("metadata"))
	return append(errs, validateSubsets(e, nil)...)
}

func validateUpdate(_ context.Context, e, old *corev1.Endpoints) field.ErrorList {
	errs := kinds.ValidateObjectMetaUpdate(&e.ObjectMeta, &old.ObjectMeta, field.NewPath("metadata"))
	return append(errs, validateSubsets(e, oldAddresses(old))...)
}
