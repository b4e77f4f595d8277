package service

import (
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// shownPort is a port as Kubernetes prints it in a message about duplicates: under its internal field names.
type shownPort struct {
	Name        string
	Protocol    corev1.Protocol
	AppProtocol *string
	Port        int32
	TargetPort  intstr.IntOrString
	NodePort    int32
}

func validatePorts(s *corev1.Service, at *field.Path) field.ErrorList {
	type key struct {
		protocol corev1.Protocol
		port     int32
	}
	var errs field.ErrorList
	names, ports, nodePorts := sets.New[string](), sets.New[key](), sets.New[key]()
	for i := range s.Spec.Ports {
		p, here := &s.Spec.Ports[i], at.Index(i)
		errs = append(errs, validatePort(p, len(s.Spec.Ports) > 1, names, here)...)
		if p.NodePort != 0 {
			if s.Spec.Type == corev1.ServiceTypeClusterIP {
				errs = append(errs, field.Forbidden(here.Child("nodePort"), "may not be used when `type` is 'ClusterIP'"))
			}
			if k := (key{p.Protocol, p.NodePort}); nodePorts.Has(k) {
				errs = append(errs, field.Duplicate(here.Child("nodePort"), p.NodePort))
			} else {
				nodePorts.Insert(k)
			}
		}
		if k := (key{p.Protocol, p.Port}); ports.Has(k) {
			errs = append(errs, field.Duplicate(here, shownPort{Protocol: p.Protocol, Port: p.Port}))
		} else {
			ports.Insert(k)
		}
	}
	return errs
}

func validatePort(p *corev1.ServicePort, nameRequired bool, names sets.Set[string], at *field.Path) field.ErrorList {
	var errs field.ErrorList
	switch {
	case p.Name != "":
		errs = append(errs, invalid(at.Child("name"), p.Name, validation.IsDNS1123Label)...)
		if names.Has(p.Name) {
			errs = append(errs, field.Duplicate(at.Child("name"), p.Name))
		}
		names.Insert(p.Name)
	case nameRequired:
		errs = append(errs, field.Required(at.Child("name"), ""))
	}
	for _, msg := range validation.IsValidPortNum(int(p.Port)) {
		errs = append(errs, field.Invalid(at.Child("port"), p.Port, msg))
	}
	errs = append(errs, among(at.Child("protocol"), p.Protocol, corev1.ProtocolSCTP, corev1.ProtocolTCP, corev1.ProtocolUDP)...)
	errs = append(errs, validateTargetPort(p.TargetPort, at.Child("targetPort"))...)
	if p.AppProtocol != nil {
		errs = append(errs, invalid(at.Child("appProtocol"), *p.AppProtocol, validation.IsQualifiedName)...)
	}
	return errs
}

func validateTargetPort(port intstr.IntOrString, at *field.Path) field.ErrorList {
	if port.Type == intstr.String {
		return invalid(at, port.StrVal, validation.IsValidPortName)
	}
	var errs field.ErrorList
	for _, msg := range validation.IsValidPortNum(port.IntValue()) {
		errs = append(errs, field.Invalid(at, port.IntValue(), msg))
	}
	return errs
}
