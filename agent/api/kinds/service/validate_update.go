package service

import (
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
	netutils "k8s.io/utils/net"
	"k8s.io/utils/ptr"

	"github.com/podvine/podvine/agent/api/kinds"
)

const onceSet = "may not change once set"

func validateUpdate(s, old *corev1.Service) field.ErrorList {
	errs := kinds.ValidateObjectMetaUpdate(&s.ObjectMeta, &old.ObjectMeta, field.NewPath("metadata"))
	errs = append(errs, validateKept(s, old)...)
	spec := field.NewPath("spec")
	if s.Spec.Type == corev1.ServiceTypeLoadBalancer && old.Spec.Type == corev1.ServiceTypeLoadBalancer &&
		!ptr.Equal(s.Spec.LoadBalancerClass, old.Spec.LoadBalancerClass) {
		errs = append(errs, field.Invalid(spec.Child("loadBalancerClass"), s.Spec.LoadBalancerClass, onceSet))
	}
	if needsHealthCheckPort(s) && needsHealthCheckPort(old) && s.Spec.HealthCheckNodePort != old.Spec.HealthCheckNodePort {
		errs = append(errs, field.Forbidden(spec.Child("healthCheckNodePort"), "field is immutable"))
	}
	return append(errs, validateService(s, old)...)
}

// validateKept checks that the first address and family stay, and that the second goes only on request.
func validateKept(s, old *corev1.Service) field.ErrorList {
	if isExternalName(s) || isExternalName(old) || isHeadless(s) && isHeadless(old) {
		return nil
	}
	spec := field.NewPath("spec")
	single := s.Spec.IPFamilyPolicy != nil && *s.Spec.IPFamilyPolicy == corev1.IPFamilyPolicySingleStack
	errs := validateKeptList(s.Spec.ClusterIPs, old.Spec.ClusterIPs, single, spec.Child("clusterIPs"), "primary clusterIP can not be unset",
		field.Invalid(spec.Child("ipFamilyPolicy"), s.Spec.IPFamilyPolicy, "must be set to 'SingleStack' when releasing the secondary clusterIP"))
	return append(errs, validateKeptList(s.Spec.IPFamilies, old.Spec.IPFamilies, single, spec.Child("ipFamilies"), "primary ipFamily can not be unset",
		field.Invalid(spec.Child("ipFamilyPolicy"), s.Spec.IPFamilyPolicy, "must be set to 'SingleStack' when releasing the secondary ipFamily"))...)
}

func validateKeptList[T comparable](now, was []T, single bool, at *field.Path, unset string, notSingle *field.Error) field.ErrorList {
	var errs field.ErrorList
	switch {
	case len(was) == len(now):
		for i := range was {
			if was[i] != now[i] {
				errs = append(errs, field.Invalid(at.Index(i), now, onceSet))
			}
		}
	case len(now) == 0:
		errs = append(errs, field.Invalid(at.Index(0), now, unset))
	case len(was) > 0 && was[0] != now[0]:
		errs = append(errs, field.Invalid(at.Index(0), now, onceSet))
	case len(was) > len(now) && !single:
		errs = append(errs, notSingle)
	}
	return errs
}

func validateStatusUpdate(s, old *corev1.Service) field.ErrorList {
	errs := kinds.ValidateObjectMetaUpdate(&s.ObjectMeta, &old.ObjectMeta, field.NewPath("metadata"))
	return append(errs, validateIngress(s, old, field.NewPath("status", "loadBalancer", "ingress"))...)
}

func validateIngress(s, old *corev1.Service, at *field.Path) field.ErrorList {
	ingress := s.Status.LoadBalancer.Ingress
	if len(ingress) == 0 {
		return nil
	}
	if s.Spec.Type != corev1.ServiceTypeLoadBalancer {
		return field.ErrorList{field.Forbidden(at, "may only be used when `spec.type` is 'LoadBalancer'")}
	}
	var known []string
	for _, i := range old.Status.LoadBalancer.Ingress {
		known = append(known, i.IP)
	}
	var errs field.ErrorList
	for i := range ingress {
		errs = append(errs, validateIngressPoint(&ingress[i], known, at.Index(i))...)
	}
	return errs
}

func validateIngressPoint(in *corev1.LoadBalancerIngress, known []string, at *field.Path) field.ErrorList {
	var errs field.ErrorList
	if in.IP != "" {
		errs = append(errs, validation.IsValidIPForLegacyField(at.Child("ip"), in.IP, true, known)...)
		modes := []corev1.LoadBalancerIPMode{corev1.LoadBalancerIPModeProxy, corev1.LoadBalancerIPModeVIP}
		if in.IPMode == nil {
			errs = append(errs, field.Required(at.Child("ipMode"), "must be specified when `ip` is set"))
		} else if !slices.Contains(modes, *in.IPMode) {
			errs = append(errs, field.NotSupported(at.Child("ipMode"), *in.IPMode, modes))
		}
	} else if in.IPMode != nil {
		errs = append(errs, field.Forbidden(at.Child("ipMode"), "may not be specified when `ip` is not set"))
	}
	if in.Hostname != "" {
		errs = append(errs, invalid(at.Child("hostname"), in.Hostname, validation.IsDNS1123Subdomain)...)
		if netutils.ParseIPSloppy(in.Hostname) != nil {
			errs = append(errs, field.Invalid(at.Child("hostname"), in.Hostname, "must be a DNS name, not an IP address"))
		}
	}
	for j, p := range in.Ports {
		errs = append(errs, validateIngressPort(&p, at.Child("ports").Index(j))...)
	}
	return errs
}

func validateIngressPort(p *corev1.PortStatus, at *field.Path) field.ErrorList {
	var errs field.ErrorList
	for _, msg := range validation.IsValidPortNum(int(p.Port)) {
		errs = append(errs, field.Invalid(at.Child("port"), p.Port, msg))
	}
	errs = append(errs, among(at.Child("protocol"), p.Protocol, corev1.ProtocolSCTP, corev1.ProtocolTCP, corev1.ProtocolUDP)...)
	if p.Error != nil {
		errs = append(errs, invalid(at.Child("error"), *p.Error, validation.IsQualifiedName)...)
	}
	return errs
}

// warnings names fields that are deprecated, have no effect, or are written in a form that others misread. old is nil
// on creation.
func warnings(s, _ *corev1.Service) []string {
	spec := field.NewPath("spec")
	var out []string
	headless := isHeadless(s)
	if !headless && !isExternalName(s) {
		for i, ip := range s.Spec.ClusterIPs {
			out = append(out, ipWarnings(spec.Child("clusterIPs").Index(i), ip)...)
		}
	}
	if len(s.Spec.ExternalIPs) > 0 {
		if isExternalName(s) {
			out = append(out, `spec.externalIPs is ignored when spec.type is "ExternalName"`)
		} else {
			out = append(out, "spec.externalIPs is deprecated and may no longer be implemented in some clusters")
		}
	}
	for i, ip := range s.Spec.ExternalIPs {
		out = append(out, ipWarnings(spec.Child("externalIPs").Index(i), ip)...)
	}
	if s.Spec.LoadBalancerIP != "" {
		out = append(out, ipWarnings(spec.Child("loadBalancerIP"), s.Spec.LoadBalancerIP)...)
	}
	for i, r := range s.Spec.LoadBalancerSourceRanges {
		if r = strings.TrimSpace(r); len(validation.IsValidCIDRForLegacyField(nil, r, false, nil)) == 0 {
			out = append(out, validation.GetWarningsForCIDR(spec.Child("loadBalancerSourceRanges").Index(i), r)...)
		}
	}
	if headless {
		if s.Spec.LoadBalancerIP != "" {
			out = append(out, "spec.loadBalancerIP is ignored for headless services")
		}
		if s.Spec.SessionAffinity != corev1.ServiceAffinityNone {
			out = append(out, "spec.SessionAffinity is ignored for headless services")
		}
	}
	if s.Spec.ExternalName != "" && !isExternalName(s) {
		out = append(out, `spec.externalName is ignored when spec.type is not "ExternalName"`)
	}
	if want := s.Spec.TrafficDistribution; want != nil && *want == corev1.ServiceTrafficDistributionPreferClose {
		out = append(out, `spec.trafficDistribution: "PreferClose" is deprecated; use "PreferSameZone"`)
	}
	return out
}

func ipWarnings(at *field.Path, ip string) []string {
	if len(validation.IsValidIPForLegacyField(nil, ip, false, nil)) > 0 {
		return nil
	}
	return validation.GetWarningsForIP(at, ip)
}
