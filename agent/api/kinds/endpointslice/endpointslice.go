// Package endpointslice serves discovery.k8s.io/v1 EndpointSlice: a part of the addresses behind a service.
//
// agent/control/endpoints writes those of services; the rest are users' own. Everything here is stateless and safe
// for concurrent use. Test with `go test ./agent/api/kinds/endpointslice`.
package endpointslice

import (
	"context"
	"fmt"
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	apiequality "k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/runtime"

	"k8s.io/utils/ptr"

	"github.com/podvine/podvine/agent/api/kinds"
)

// maxShown is how many addresses or ports a table cell names.
const maxShown = 3

// unset is what a table shows for a list without elements.
const unset = "<unset>"

// Resource returns the kind.
func Resource() kinds.Resource {
	return &kinds.Kind[*discoveryv1.EndpointSlice]{
		GroupVersion:     discoveryv1.SchemeGroupVersion,
		Kind:             "EndpointSlice",
		Resource:         "endpointslices",
		Singular:         "endpointslice",
		Namespaced:       true,
		New:              func() *discoveryv1.EndpointSlice { return &discoveryv1.EndpointSlice{} },
		NewList:          func() runtime.Object { return &discoveryv1.EndpointSliceList{} },
		Default:          setDefaults,
		PrepareForCreate: prepareForCreate,
		PrepareForUpdate: prepareForUpdate,
		Validate:         validate,
		ValidateUpdate:   validateUpdate,
		WarningsOnCreate: func(_ context.Context, s *discoveryv1.EndpointSlice) []string { return warnings(s) },
		WarningsOnUpdate: func(_ context.Context, s, _ *discoveryv1.EndpointSlice) []string { return warnings(s) },
		Columns: []kinds.Column[*discoveryv1.EndpointSlice]{
			kinds.NameColumn[*discoveryv1.EndpointSlice](),
			{Name: "AddressType", Description: "What the addresses are.", Cell: func(s *discoveryv1.EndpointSlice) any { return string(s.AddressType) }},
			{Name: "Ports", Description: "The first ports.", Cell: func(s *discoveryv1.EndpointSlice) any { return portsCell(s.Ports) }},
			{Name: "Endpoints", Description: "The first addresses.", Cell: func(s *discoveryv1.EndpointSlice) any { return endpointsCell(s.Endpoints) }},
			kinds.AgeColumn[*discoveryv1.EndpointSlice](),
		},
	}
}

func setDefaults(s *discoveryv1.EndpointSlice) {
	for i := range s.Ports {
		p := &s.Ports[i]
		if p.Name == nil {
			p.Name = ptr.To("")
		}
		if p.Protocol == nil {
			p.Protocol = ptr.To(corev1.ProtocolTCP)
		}
	}
}

func prepareForCreate(_ context.Context, s *discoveryv1.EndpointSlice) {
	s.Generation = 1
	for i := range s.Endpoints {
		s.Endpoints[i].DeprecatedTopology = nil
	}
}

// prepareForUpdate counts every change but of metadata other than labels as a generation, and keeps the topology that
// version v1beta1 had only where it is already stored.
func prepareForUpdate(_ context.Context, s, old *discoveryv1.EndpointSlice) {
	stored := false
	for i := range old.Endpoints {
		stored = stored || len(old.Endpoints[i].DeprecatedTopology) > 0
	}
	if !stored {
		for i := range s.Endpoints {
			s.Endpoints[i].DeprecatedTopology = nil
		}
	}
	same := s.AddressType == old.AddressType &&
		apiequality.Semantic.DeepEqual(s.Endpoints, old.Endpoints) &&
		apiequality.Semantic.DeepEqual(s.Ports, old.Ports) &&
		apiequality.Semantic.DeepEqual(s.Labels, old.Labels)
	s.Generation = old.Generation
	if !same {
		s.Generation++
	}
}

// portsCell names the first port numbers; a port without a number is any port.
func portsCell(ports []discoveryv1.EndpointPort) string {
	var all []string
	for i := range ports {
		text := "*"
		if p := ports[i].Port; p != nil {
			text = strconv.Itoa(int(*p))
		}
		all = append(all, text)
	}
	return firstOf(all)
}

func endpointsCell(endpoints []discoveryv1.Endpoint) string {
	var all []string
	for i := range endpoints {
		all = append(all, endpoints[i].Addresses...)
	}
	return firstOf(all)
}

func firstOf(all []string) string {
	if len(all) == 0 {
		return unset
	}
	if len(all) <= maxShown {
		return strings.Join(all, ",")
	}
	return fmt.Sprintf("%s + %d more...", strings.Join(all[:maxShown], ","), len(all)-maxShown)
}
