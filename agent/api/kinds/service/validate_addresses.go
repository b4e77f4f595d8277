package service

import (
	"fmt"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
	netutils "k8s.io/utils/net"
)

// maxFamilies is how many addresses a service has at most: one of each IP family.
const maxFamilies = 2

// validateClusterIPs checks addresses, families and their policy against each other. ExternalName services have none
// of them, which is checked elsewhere.
func validateClusterIPs(s, old *corev1.Service) field.ErrorList {
	if isExternalName(s) {
		return nil
	}
	spec := field.NewPath("spec")
	errs := validateSameIPs(s, spec.Child("clusterIPs"))
	errs = append(errs, validateFamilies(s, spec)...)
	wrong, parsed := validateEachIP(s, old, spec.Child("clusterIPs"))
	errs = append(errs, wrong...)
	if !parsed {
		return errs
	}
	if ips := s.Spec.ClusterIPs; len(ips) > 1 {
		if dual, err := netutils.IsDualStackIPStrings(ips); err != nil || !dual {
			errs = append(errs, field.Invalid(spec.Child("clusterIPs"), ips, "may specify no more than one IP for each IP family"))
		}
	}
	return append(errs, validateIPsOfFamilies(s, spec.Child("clusterIPs"))...)
}

// validateSameIPs checks that the single form is the first of the plural one.
func validateSameIPs(s *corev1.Service, at *field.Path) field.ErrorList {
	one, all := s.Spec.ClusterIP, s.Spec.ClusterIPs
	switch {
	case one == "" && len(all) > 0:
		return field.ErrorList{field.Invalid(at, all, "must be empty when `clusterIP` is not specified")}
	case one != "" && len(all) == 0:
		return field.ErrorList{field.Required(at, "")}
	case one != "" && all[0] != one:
		return field.ErrorList{field.Invalid(at, all, "first value must match `clusterIP`")}
	}
	return nil
}

func validateFamilies(s *corev1.Service, spec *field.Path) field.ErrorList {
	var errs field.ErrorList
	supported := sets.New(corev1.IPv4Protocol, corev1.IPv6Protocol)
	seen := sets.New[corev1.IPFamily]()
	for i, family := range s.Spec.IPFamilies {
		at := spec.Child("ipFamilies").Index(i)
		if !supported.Has(family) {
			errs = append(errs, field.NotSupported(at, family, sets.List(supported)))
		}
		if seen.Has(family) {
			errs = append(errs, field.Duplicate(at, family))
		}
		seen.Insert(family)
	}
	if policy := s.Spec.IPFamilyPolicy; policy != nil {
		policies := sets.New(corev1.IPFamilyPolicySingleStack, corev1.IPFamilyPolicyPreferDualStack, corev1.IPFamilyPolicyRequireDualStack)
		if !policies.Has(*policy) {
			errs = append(errs, field.NotSupported(spec.Child("ipFamilyPolicy"), *policy, sets.List(policies)))
		}
	}
	return errs
}

// validateEachIP checks the form of each address; parsed says that all are well-formed.
func validateEachIP(s, old *corev1.Service, at *field.Path) (errs field.ErrorList, parsed bool) {
	var known []string
	if old != nil {
		known = old.Spec.ClusterIPs
	}
	ips := s.Spec.ClusterIPs
	parsed = true
	for i, ip := range ips {
		if i == 0 && ip == corev1.ClusterIPNone {
			if len(ips) > 1 {
				errs, parsed = append(errs, field.Invalid(at, ips, "'None' must be the first and only value")), false
			}
			continue
		}
		wrong := validation.IsValidIPForLegacyField(at.Index(i), ip, true, known)
		errs, parsed = append(errs, wrong...), parsed && len(wrong) == 0
	}
	if len(ips) > maxFamilies {
		errs = append(errs, field.Invalid(at, ips, "may only hold up to 2 values"))
	}
	return errs, parsed
}

func validateIPsOfFamilies(s *corev1.Service, at *field.Path) field.ErrorList {
	if isHeadless(s) {
		return nil
	}
	var errs field.ErrorList
	for i, ip := range s.Spec.ClusterIPs {
		if i >= len(s.Spec.IPFamilies) {
			break
		}
		is6 := netutils.IsIPv6String(ip)
		switch family := s.Spec.IPFamilies[i]; {
		case family == corev1.IPv4Protocol && is6:
			errs = append(errs, field.Invalid(at.Index(i), ip, fmt.Sprintf("expected an IPv4 value as indicated by `ipFamilies[%d]`", i)))
		case family == corev1.IPv6Protocol && !is6:
			errs = append(errs, field.Invalid(at.Index(i), ip, fmt.Sprintf("expected an IPv6 value as indicated by `ipFamilies[%d]`", i)))
		}
	}
	return errs
}

// validateLoadBalancer checks the fields that only load balancers have.
func validateLoadBalancer(s, old *corev1.Service, spec *field.Path) field.ErrorList {
	const forbidden = "may only be used when `type` is 'LoadBalancer'"
	balanced := s.Spec.Type == corev1.ServiceTypeLoadBalancer
	errs := validateSourceRanges(s, old, spec, forbidden)
	allocate := spec.Child("allocateLoadBalancerNodePorts")
	if balanced && s.Spec.AllocateLoadBalancerNodePorts == nil {
		errs = append(errs, field.Required(allocate, ""))
	}
	if !balanced && s.Spec.AllocateLoadBalancerNodePorts != nil {
		errs = append(errs, field.Forbidden(allocate, forbidden))
	}
	if class := s.Spec.LoadBalancerClass; class != nil {
		if balanced {
			errs = append(errs, invalid(spec.Child("loadBalancerClass"), *class, validation.IsQualifiedName)...)
		} else {
			errs = append(errs, field.Forbidden(spec.Child("loadBalancerClass"), forbidden))
		}
	}
	return errs
}

// validateSourceRanges checks the client ranges, in the field or in the annotation that came before it. The field's
// path has a capital letter in Kubernetes too.
func validateSourceRanges(s, old *corev1.Service, spec *field.Path, forbidden string) field.ErrorList {
	var errs field.ErrorList
	balanced := s.Spec.Type == corev1.ServiceTypeLoadBalancer
	if ranges := s.Spec.LoadBalancerSourceRanges; len(ranges) > 0 {
		at := spec.Child("LoadBalancerSourceRanges")
		if !balanced {
			errs = append(errs, field.Forbidden(at, forbidden))
		}
		var known []string
		if old != nil {
			known = old.Spec.LoadBalancerSourceRanges
		}
		for i, r := range ranges {
			errs = append(errs, validation.IsValidCIDRForLegacyField(at.Index(i), strings.TrimSpace(r), true, known)...)
		}
		return errs
	}
	text, ok := s.Annotations[corev1.AnnotationLoadBalancerSourceRangesKey]
	if !ok {
		return nil
	}
	at := field.NewPath("metadata", "annotations").Key(corev1.AnnotationLoadBalancerSourceRangesKey)
	if !balanced {
		errs = append(errs, field.Forbidden(at, forbidden))
	}
	if text = strings.TrimSpace(text); text == "" {
		return errs
	}
	for r := range strings.SplitSeq(text, ",") {
		if len(validation.IsValidCIDRForLegacyField(nil, strings.TrimSpace(r), false, nil)) > 0 {
			return append(errs, field.Invalid(at, text, "must be a list of IP ranges. For example, 10.240.0.0/24,10.250.0.0/24"))
		}
	}
	return errs
}
