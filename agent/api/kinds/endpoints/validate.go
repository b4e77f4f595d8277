package endpoints

import (
	"slices"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/podvine/podvine/agent/api/kinds"
)

// protocols are the transports of a port, in the order of Kubernetes' messages.
func protocols() []corev1.Protocol {
	return []corev1.Protocol{corev1.ProtocolSCTP, corev1.ProtocolTCP, corev1.ProtocolUDP}
}

func validateSubsets(e *corev1.Endpoints, old []string) field.ErrorList {
	var errs field.ErrorList
	for i := range e.Subsets {
		subset, at := &e.Subsets[i], field.NewPath("subsets").Index(i)
		if len(subset.Addresses) == 0 && len(subset.NotReadyAddresses) == 0 {
			errs = append(errs, field.Required(at, "must specify `addresses` or `notReadyAddresses`"))
		}
		for j := range subset.Addresses {
			errs = append(errs, validateAddress(&subset.Addresses[j], at.Child("addresses").Index(j), old)...)
		}
		for j := range subset.NotReadyAddresses {
			errs = append(errs, validateAddress(&subset.NotReadyAddresses[j], at.Child("notReadyAddresses").Index(j), old)...)
		}
		for j := range subset.Ports {
			errs = append(errs, validatePort(&subset.Ports[j], len(subset.Ports) > 1, at.Child("ports").Index(j))...)
		}
	}
	return errs
}

func validateAddress(a *corev1.EndpointAddress, at *field.Path, old []string) field.ErrorList {
	errs := validation.IsValidIPForLegacyField(at.Child("ip"), a.IP, true, old)
	if a.Hostname != "" {
		for _, msg := range validation.IsDNS1123Label(a.Hostname) {
			errs = append(errs, field.Invalid(at.Child("hostname"), a.Hostname, msg))
		}
	}
	if a.NodeName != nil {
		for _, msg := range validation.IsDNS1123Subdomain(*a.NodeName) {
			errs = append(errs, field.Invalid(at.Child("nodeName"), *a.NodeName, msg))
		}
	}
	return append(errs, kinds.ValidateRoutable(a.IP, at.Child("ip"))...)
}

func validatePort(p *corev1.EndpointPort, nameRequired bool, at *field.Path) field.ErrorList {
	var errs field.ErrorList
	if p.Name == "" {
		if nameRequired {
			errs = append(errs, field.Required(at.Child("name"), ""))
		}
	} else {
		for _, msg := range validation.IsDNS1123Label(p.Name) {
			errs = append(errs, field.Invalid(at.Child("name"), p.Name, msg))
		}
	}
	for _, msg := range validation.IsValidPortNum(int(p.Port)) {
		errs = append(errs, field.Invalid(at.Child("port"), p.Port, msg))
	}
	if p.Protocol == "" {
		errs = append(errs, field.Required(at.Child("protocol"), ""))
	} else if !slices.Contains(protocols(), p.Protocol) {
		errs = append(errs, field.NotSupported(at.Child("protocol"), p.Protocol, protocols()))
	}
	if p.AppProtocol != nil {
		for _, msg := range validation.IsQualifiedName(*p.AppProtocol) {
			errs = append(errs, field.Invalid(at.Child("appProtocol"), *p.AppProtocol, msg))
		}
	}
	return errs
}
