// Package networking is the kinds Ingress, IngressClass and NetworkPolicy: their defaults, rules and columns. All is
// pure functions and safe for concurrent use. Test with `go test ./agent/api/kinds/networking`.
package networking

import (
	"context"
	"fmt"
	"net"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	pathvalidation "k8s.io/apimachinery/pkg/api/validation/path"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
	netutils "k8s.io/utils/net"

	"github.com/podvine/podvine/agent/api/kinds"
)

// classAnnotation named the class of an ingress before spec.ingressClassName did.
const classAnnotation = "kubernetes.io/ingress.class"

// Ingresses returns the kind Ingress.
func Ingresses() kinds.Resource {
	type T = *networkingv1.Ingress
	return &kinds.Kind[T]{
		GroupVersion: networkingv1.SchemeGroupVersion,
		Kind:         "Ingress", Resource: "ingresses", Singular: "ingress", ShortNames: []string{"ing"},
		Namespaced: true,
		New:        func() T { return &networkingv1.Ingress{} },
		NewList:    func() runtime.Object { return &networkingv1.IngressList{} },

		HasGeneration:    true,
		PrepareForCreate: func(_ context.Context, i T) { i.Status = networkingv1.IngressStatus{} },
		Validate:         func(_ context.Context, i T) field.ErrorList { return validateIngressCreate(i) },
		ValidateUpdate: func(_ context.Context, i, old T) field.ErrorList {
			errs := kinds.ValidateObjectMetaUpdate(&i.ObjectMeta, &old.ObjectMeta, field.NewPath("metadata"))
			return append(errs, validateIngress(i)...)
		},
		WarningsOnCreate: func(_ context.Context, i T) []string {
			if _, ok := i.Annotations[classAnnotation]; ok {
				return []string{fmt.Sprintf("annotation %q is deprecated, please use 'spec.ingressClassName' instead", classAnnotation)}
			}
			return nil
		},
		Columns: ingressColumns(),
		Status: &kinds.Status[T]{ValidateUpdate: func(_ context.Context, i, old T) field.ErrorList {
			errs := kinds.ValidateObjectMetaUpdate(&i.ObjectMeta, &old.ObjectMeta, field.NewPath("metadata"))
			return append(errs, validateIngressStatus(&i.Status.LoadBalancer, &old.Status.LoadBalancer, field.NewPath("status", "loadBalancer"))...)
		}},
	}
}

func invalid(at *field.Path, value any, messages []string) field.ErrorList {
	var errs field.ErrorList
	for _, m := range messages {
		errs = append(errs, field.Invalid(at, value, m))
	}
	return errs
}

func validateIngressCreate(i *networkingv1.Ingress) field.ErrorList {
	errs := validateIngress(i)
	if class, ok := i.Annotations[classAnnotation]; ok && i.Spec.IngressClassName != nil && class != *i.Spec.IngressClassName {
		errs = append(errs, field.Invalid(field.NewPath("annotations").Child(classAnnotation), class, "must match `ingressClassName` when both are specified"))
	}
	return errs
}

func validateIngress(i *networkingv1.Ingress) field.ErrorList {
	errs := kinds.ValidateObjectMeta(&i.ObjectMeta, true, apivalidation.NameIsDNSSubdomain, field.NewPath("metadata"))
	spec, at := &i.Spec, field.NewPath("spec")
	if len(spec.Rules) == 0 && spec.DefaultBackend == nil {
		errs = append(errs, field.Invalid(at, spec.Rules, "either `defaultBackend` or `rules` must be specified"))
	}
	if spec.DefaultBackend != nil {
		errs = append(errs, validateBackend(spec.DefaultBackend, at.Child("defaultBackend"))...)
	}
	for n := range spec.Rules {
		errs = append(errs, validateRule(&spec.Rules[n], at.Child("rules").Index(n))...)
	}
	if spec.IngressClassName != nil {
		errs = append(errs, invalid(at.Child("ingressClassName"), *spec.IngressClassName, apivalidation.NameIsDNSSubdomain(*spec.IngressClassName, false))...)
	}
	for n, tls := range spec.TLS {
		own := at.Child("tls").Index(n)
		for h, host := range tls.Hosts {
			errs = append(errs, invalid(own.Child("hosts").Index(h), host, hostFaults(host))...)
		}
		if tls.SecretName != "" {
			errs = append(errs, invalid(own.Child("secretName"), tls.SecretName, apivalidation.NameIsDNSSubdomain(tls.SecretName, false))...)
		}
	}
	return errs
}

// hostFaults is the rule for the names of hosts, the first label of which may be a wildcard.
func hostFaults(host string) []string {
	if strings.Contains(host, "*") {
		return validation.IsWildcardDNS1123Subdomain(host)
	}
	return validation.IsDNS1123Subdomain(host)
}

func validateRule(rule *networkingv1.IngressRule, at *field.Path) field.ErrorList {
	var errs field.ErrorList
	if rule.Host != "" {
		if netutils.ParseIPSloppy(rule.Host) != nil {
			errs = append(errs, field.Invalid(at.Child("host"), rule.Host, "must be a DNS name, not an IP address"))
		}
		errs = append(errs, invalid(at.Child("host"), rule.Host, hostFaults(rule.Host))...)
	}
	if rule.HTTP == nil {
		return errs
	}
	paths := at.Child("http", "paths")
	if len(rule.HTTP.Paths) == 0 {
		errs = append(errs, field.Required(paths, ""))
	}
	for n := range rule.HTTP.Paths {
		errs = append(errs, validatePath(&rule.HTTP.Paths[n], paths.Index(n))...)
	}
	return errs
}

func validatePath(p *networkingv1.HTTPIngressPath, at *field.Path) field.ErrorList {
	if p.PathType == nil {
		return field.ErrorList{field.Required(at.Child("pathType"), "pathType must be specified")}
	}
	var errs field.ErrorList
	own, absolute := at.Child("path"), strings.HasPrefix(p.Path, "/")
	switch *p.PathType {
	case networkingv1.PathTypeExact, networkingv1.PathTypePrefix:
		if !absolute {
			errs = append(errs, field.Invalid(own, p.Path, "must be an absolute path"))
		}
		for _, sequence := range []string{"//", "/./", "/../", "%2f", "%2F"} {
			if strings.Contains(p.Path, sequence) {
				errs = append(errs, field.Invalid(own, p.Path, fmt.Sprintf("must not contain '%s'", sequence)))
			}
		}
		for _, suffix := range []string{"/..", "/."} {
			if strings.HasSuffix(p.Path, suffix) {
				errs = append(errs, field.Invalid(own, p.Path, fmt.Sprintf("cannot end with '%s'", suffix)))
			}
		}
	case networkingv1.PathTypeImplementationSpecific:
		if p.Path != "" && !absolute {
			errs = append(errs, field.Invalid(own, p.Path, "must be an absolute path"))
		}
	default:
		errs = append(errs, field.NotSupported(at.Child("pathType"), *p.PathType,
			[]networkingv1.PathType{networkingv1.PathTypeExact, networkingv1.PathTypeImplementationSpecific, networkingv1.PathTypePrefix}))
	}
	return append(errs, validateBackend(&p.Backend, at.Child("backend"))...)
}

func validateBackend(b *networkingv1.IngressBackend, at *field.Path) field.ErrorList {
	switch {
	case b.Resource != nil && b.Service != nil:
		return field.ErrorList{field.Invalid(at, "", "cannot set both resource and service backends")}
	case b.Resource != nil:
		return validateReference(b.Resource.APIGroup, b.Resource.Kind, b.Resource.Name, at.Child("resource"))
	case b.Service == nil:
		return field.ErrorList{field.Invalid(at, "", "resource or service backend is required")}
	}
	var errs field.ErrorList
	own := at.Child("service")
	if b.Service.Name == "" {
		errs = append(errs, field.Required(own.Child("name"), ""))
	} else {
		errs = append(errs, invalid(own.Child("name"), b.Service.Name, apivalidation.NameIsDNSLabel(b.Service.Name, false))...)
	}
	switch port := b.Service.Port; {
	case port.Name != "" && port.Number != 0:
		errs = append(errs, field.Invalid(at, "", "cannot set both port name & port number"))
	case port.Name != "":
		errs = append(errs, invalid(own.Child("port", "name"), port.Name, validation.IsValidPortName(port.Name))...)
	case port.Number != 0:
		errs = append(errs, invalid(own.Child("port", "number"), port.Number, validation.IsValidPortNum(int(port.Number)))...)
	default:
		errs = append(errs, field.Required(at, "port name or number is required"))
	}
	return errs
}

// validateReference checks a reference to an object of any kind: group, kind and name become parts of a path.
func validateReference(group *string, kind, name string, at *field.Path) field.ErrorList {
	var errs field.ErrorList
	if group != nil {
		errs = append(errs, invalid(at.Child("apiGroup"), *group, validation.IsDNS1123Subdomain(*group))...)
	}
	for _, part := range []struct{ field, value string }{{"kind", kind}, {"name", name}} {
		if part.value == "" {
			errs = append(errs, field.Required(at.Child(part.field), ""))
		} else {
			errs = append(errs, invalid(at.Child(part.field), part.value, pathvalidation.IsValidPathSegmentName(part.value))...)
		}
	}
	return errs
}

func validateIngressStatus(status, old *networkingv1.IngressLoadBalancerStatus, at *field.Path) field.ErrorList {
	var errs field.ErrorList
	var stored []string
	for _, i := range old.Ingress {
		stored = append(stored, i.IP)
	}
	for n, i := range status.Ingress {
		own := at.Child("ingress").Index(n)
		if i.IP != "" {
			errs = append(errs, validation.IsValidIPForLegacyField(own.Child("ip"), i.IP, true, stored)...)
		}
		if i.Hostname == "" {
			continue
		}
		errs = append(errs, invalid(own.Child("hostname"), i.Hostname, validation.IsDNS1123Subdomain(i.Hostname))...)
		if net.ParseIP(i.Hostname) != nil {
			errs = append(errs, field.Invalid(own.Child("hostname"), i.Hostname, "must be a DNS name, not an IP address"))
		}
	}
	return errs
}

func ingressColumns() []kinds.Column[*networkingv1.Ingress] {
	type T = *networkingv1.Ingress
	return []kinds.Column[T]{
		kinds.NameColumn[T](),
		{Name: "Class", Description: "The name of the IngressClass resource that should be used for additional configuration", Cell: func(i T) any {
			if i.Spec.IngressClassName == nil {
				return "<none>"
			}
			return *i.Spec.IngressClassName
		}},
		{Name: "Hosts", Description: "Hosts that incoming requests are matched against before the ingress rule", Cell: func(i T) any { return hosts(i.Spec.Rules) }},
		{Name: "Address", Description: "Address is a list containing ingress points for the load-balancer", Cell: func(i T) any { return addresses(i.Status.LoadBalancer.Ingress) }},
		{Name: "Ports", Description: "Ports of TLS configurations that open", Cell: func(i T) any {
			if len(i.Spec.TLS) > 0 {
				return "80, 443"
			}
			return "80"
		}},
		kinds.AgeColumn[T](),
	}
}

// maxListedHosts is how many hosts a table shows.
const maxListedHosts = 3

func hosts(rules []networkingv1.IngressRule) string {
	var names []string
	for _, r := range rules {
		if r.Host != "" {
			names = append(names, r.Host)
		}
	}
	switch {
	case len(names) == 0:
		return "*"
	case len(names) > maxListedHosts:
		return fmt.Sprintf("%s + %d more...", strings.Join(names[:maxListedHosts], ","), len(names)-maxListedHosts)
	}
	return strings.Join(names, ",")
}

func addresses(list []networkingv1.IngressLoadBalancerIngress) string {
	var out []string
	for _, i := range list {
		if i.IP != "" {
			out = append(out, i.IP)
		} else if i.Hostname != "" {
			out = append(out, i.Hostname)
		}
	}
	return strings.Join(slices.Compact(out), ",")
}

// protocols are those that a port may have.
func protocols() []corev1.Protocol {
	return []corev1.Protocol{corev1.ProtocolTCP, corev1.ProtocolUDP, corev1.ProtocolSCTP}
}
