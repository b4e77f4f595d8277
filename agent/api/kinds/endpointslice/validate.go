package endpointslice

import (
	"context"
	"net"
	"slices"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
	netutils "k8s.io/utils/net"

	"github.com/podvine/podvine/agent/api/kinds"
)

// Kubernetes' limits of one slice.
const (
	maxEndpoints = 1000
	maxAddresses = 100 // of one endpoint
	maxPorts     = 20000
	maxZoneHints = 8 // of one endpoint
	maxNodeHints = 8 // of one endpoint
)

func addressTypes() []discoveryv1.AddressType {
	return []discoveryv1.AddressType{discoveryv1.AddressTypeFQDN, discoveryv1.AddressTypeIPv4, discoveryv1.AddressTypeIPv6}
}

func protocols() []corev1.Protocol {
	return []corev1.Protocol{corev1.ProtocolSCTP, corev1.ProtocolTCP, corev1.ProtocolUDP}
}

func validate(_ context.Context, s *discoveryv1.EndpointSlice) field.ErrorList {
	errs := kinds.ValidateObjectMeta(&s.ObjectMeta, true, apivalidation.NameIsDNSSubdomain, field.NewPath("metadata"))
	return append(errs, validateContent(s, nil)...)
}

func validateUpdate(_ context.Context, s, old *discoveryv1.EndpointSlice) field.ErrorList {
	errs := kinds.ValidateObjectMetaUpdate(&s.ObjectMeta, &old.ObjectMeta, field.NewPath("metadata"))
	var known []string
	for i := range old.Endpoints {
		known = append(known, old.Endpoints[i].Addresses...)
	}
	errs = append(errs, validateContent(s, known)...)
	if s.AddressType != old.AddressType {
		errs = append(errs, field.Invalid(field.NewPath("addressType"), nil, apivalidation.FieldImmutableErrorMsg))
	}
	return errs
}

// validateContent checks all but metadata; known are addresses that were stored before and may stay as they are.
func validateContent(s *discoveryv1.EndpointSlice, known []string) field.ErrorList {
	errs := validateAddressType(s.AddressType)
	errs = append(errs, validateEndpoints(s.Endpoints, s.AddressType, known, field.NewPath("endpoints"))...)
	return append(errs, validatePorts(s.Ports, field.NewPath("ports"))...)
}

func validateAddressType(t discoveryv1.AddressType) field.ErrorList {
	at := field.NewPath("addressType")
	switch {
	case t == "":
		return field.ErrorList{field.Required(at, "")}
	case !slices.Contains(addressTypes(), t):
		return field.ErrorList{field.NotSupported(at, t, addressTypes())}
	}
	return nil
}

func validateEndpoints(endpoints []discoveryv1.Endpoint, t discoveryv1.AddressType, known []string, at *field.Path) field.ErrorList {
	if len(endpoints) > maxEndpoints {
		return field.ErrorList{field.TooMany(at, len(endpoints), maxEndpoints)}
	}
	var errs field.ErrorList
	for i := range endpoints {
		e, here := &endpoints[i], at.Index(i)
		addresses := here.Child("addresses")
		if len(e.Addresses) == 0 {
			errs = append(errs, field.Required(addresses, ""))
		}
		if len(e.Addresses) > maxAddresses {
			errs = append(errs, field.TooMany(addresses, len(e.Addresses), maxAddresses))
		}
		for j, address := range e.Addresses {
			errs = append(errs, validateAddress(address, t, known, addresses.Index(j))...)
		}
		if e.NodeName != nil {
			errs = append(errs, invalid(here.Child("nodeName"), *e.NodeName, validation.IsDNS1123Subdomain)...)
		}
		if e.Hostname != nil {
			errs = append(errs, invalid(here.Child("hostname"), *e.Hostname, validation.IsDNS1123Label)...)
		}
		if e.Hints != nil {
			errs = append(errs, validateHints(e.Hints, here.Child("hints"))...)
		}
	}
	return errs
}

// invalid reports each complaint of check about value.
func invalid(at *field.Path, value string, check func(string) []string) field.ErrorList {
	var errs field.ErrorList
	for _, msg := range check(value) {
		errs = append(errs, field.Invalid(at, value, msg))
	}
	return errs
}

func validateAddress(address string, t discoveryv1.AddressType, known []string, at *field.Path) field.ErrorList {
	switch t {
	case discoveryv1.AddressTypeFQDN:
		return validation.IsFullyQualifiedDomainName(at, address)
	case discoveryv1.AddressTypeIPv4:
		return validateIP(address, netutils.IsIPv4, "must be an IPv4 address", known, at)
	case discoveryv1.AddressTypeIPv6:
		return validateIP(address, netutils.IsIPv6, "must be an IPv6 address", known, at)
	}
	return nil
}

func validateIP(address string, family func(net.IP) bool, wrongFamily string, known []string, at *field.Path) field.ErrorList {
	errs := validation.IsValidIPForLegacyField(at, address, true, known)
	if len(errs) > 0 {
		return errs
	}
	ip := netutils.ParseIPSloppy(address)
	if ip == nil {
		return nil // stored before, in a form that is no longer accepted
	}
	if !family(ip) {
		errs = append(errs, field.Invalid(at, address, wrongFamily))
	}
	return append(errs, kinds.ValidateRoutable(address, at)...)
}

func validateHints(hints *discoveryv1.EndpointHints, at *field.Path) field.ErrorList {
	var errs field.ErrorList
	zones := make([]string, 0, len(hints.ForZones))
	for _, z := range hints.ForZones {
		zones = append(zones, z.Name)
	}
	nodes := make([]string, 0, len(hints.ForNodes))
	for _, n := range hints.ForNodes {
		nodes = append(nodes, n.Name)
	}
	errs = append(errs, validateHintNames(zones, maxZoneHints, validation.IsValidLabelValue, at.Child("forZones"))...)
	return append(errs, validateHintNames(nodes, maxNodeHints, validation.IsDNS1123Subdomain, at.Child("forNodes"))...)
}

func validateHintNames(names []string, limit int, check func(string) []string, at *field.Path) field.ErrorList {
	if len(names) > limit {
		return field.ErrorList{field.TooMany(at, len(names), limit)}
	}
	var errs field.ErrorList
	seen := sets.New[string]()
	for i, name := range names {
		here := at.Index(i).Child("name")
		if seen.Has(name) {
			errs = append(errs, field.Duplicate(here, name))
			continue
		}
		seen.Insert(name)
		errs = append(errs, invalid(here, name, check)...)
	}
	return errs
}

func validatePorts(ports []discoveryv1.EndpointPort, at *field.Path) field.ErrorList {
	if len(ports) > maxPorts {
		return field.ErrorList{field.TooMany(at, len(ports), maxPorts)}
	}
	var errs field.ErrorList
	seen := sets.New[string]()
	for i := range ports {
		p, here := &ports[i], at.Index(i)
		var name string
		if p.Name != nil {
			name = *p.Name
		}
		if name != "" {
			errs = append(errs, invalid(here.Child("name"), name, validation.IsDNS1123Label)...)
		}
		if seen.Has(name) {
			errs = append(errs, field.Duplicate(here.Child("name"), name))
		}
		seen.Insert(name)
		if p.Protocol == nil {
			errs = append(errs, field.Required(here.Child("protocol"), ""))
		} else if !slices.Contains(protocols(), *p.Protocol) {
			errs = append(errs, field.NotSupported(here.Child("protocol"), *p.Protocol, protocols()))
		}
		if p.AppProtocol != nil {
			errs = append(errs, invalid(here.Child("appProtocol"), *p.AppProtocol, validation.IsQualifiedName)...)
		}
	}
	return errs
}

// warnings names addresses that are valid but not in canonical form.
func warnings(s *discoveryv1.EndpointSlice) []string {
	if s.AddressType == discoveryv1.AddressTypeFQDN {
		return nil
	}
	var out []string
	for i := range s.Endpoints {
		for j, address := range s.Endpoints[i].Addresses {
			if len(validation.IsValidIPForLegacyField(nil, address, false, nil)) == 0 {
				out = append(out, validation.GetWarningsForIP(field.NewPath("endpoints").Index(i).Child("addresses").Index(j), address)...)
			}
		}
	}
	return out
}
