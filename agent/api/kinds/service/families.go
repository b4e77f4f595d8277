package service

import (
	"fmt"
	"slices"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"
	netutils "k8s.io/utils/net"
	"k8s.io/utils/ptr"
)

func familyOf(ip string) corev1.IPFamily {
	if netutils.IsIPv6String(ip) {
		return corev1.IPv6Protocol
	}
	return corev1.IPv4Protocol
}

func otherFamily(f corev1.IPFamily) corev1.IPFamily {
	if f == corev1.IPv4Protocol {
		return corev1.IPv6Protocol
	}
	return corev1.IPv4Protocol
}

// setFamilies decides which IP families a service has, from what it asks for, what it was (nil on creation) and which
// families the cluster has, primary first. It reports requests that the cluster cannot serve or that contradict
// themselves; then the service is not to be stored.
func setFamilies(s, old *corev1.Service, cluster []corev1.IPFamily) field.ErrorList {
	if isExternalName(s) || keepsPreferredFamilies(s, old) {
		return nil
	}
	setPolicy(s, old)
	if errs := validateClusterIPs(s, old); len(errs) > 0 {
		return errs
	}
	errs := narrow(s, old)
	errs = append(errs, inferFamilies(s, cluster)...)
	if len(errs) > 0 {
		return errs
	}
	single := *s.Spec.IPFamilyPolicy == corev1.IPFamilyPolicySingleStack
	if isHeadless(s) && len(s.Spec.Selector) == 0 {
		// Its endpoints come from elsewhere and may have any family, whatever the cluster has.
		if len(s.Spec.IPFamilies) == 0 {
			s.Spec.IPFamilies = []corev1.IPFamily{cluster[0]}
		}
		if len(s.Spec.IPFamilies) == 1 && !single {
			s.Spec.IPFamilies = append(s.Spec.IPFamilies, otherFamily(s.Spec.IPFamilies[0]))
		}
		return nil
	}
	if errs := checkServed(s, cluster); len(errs) > 0 {
		return errs
	}
	if len(s.Spec.IPFamilies) == 0 {
		s.Spec.IPFamilies = []corev1.IPFamily{cluster[0]}
	}
	if len(s.Spec.IPFamilies) == 1 && !single && len(cluster) > 1 {
		s.Spec.IPFamilies = append(s.Spec.IPFamilies, otherFamily(s.Spec.IPFamilies[0]))
	}
	return nil
}

// keepsPreferredFamilies says that an update leaves a service alone that prefers two families: it must not gain or
// lose an address just because the cluster's families changed meanwhile.
func keepsPreferredFamilies(s, old *corev1.Service) bool {
	if old == nil || isExternalName(old) || s.Spec.IPFamilyPolicy == nil || old.Spec.IPFamilyPolicy == nil {
		return false
	}
	prefer := corev1.IPFamilyPolicyPreferDualStack
	return *s.Spec.IPFamilyPolicy == prefer && *old.Spec.IPFamilyPolicy == prefer && sameClusterIPs(s, old) && sameFamilies(s, old)
}

func setPolicy(s, old *corev1.Service) {
	switch {
	case s.Spec.IPFamilyPolicy != nil:
	case old != nil && old.Spec.IPFamilyPolicy != nil:
		s.Spec.IPFamilyPolicy = ptr.To(*old.Spec.IPFamilyPolicy)
	case isHeadless(s) && len(s.Spec.Selector) == 0:
		s.Spec.IPFamilyPolicy = ptr.To(corev1.IPFamilyPolicyRequireDualStack)
	default:
		s.Spec.IPFamilyPolicy = ptr.To(corev1.IPFamilyPolicySingleStack)
	}
}

// narrow releases the second family of an update to a single one, and refuses lists that contradict the policy.
func narrow(s, old *corev1.Service) field.ErrorList {
	var errs field.ErrorList
	refuse := func(message string) {
		errs = append(errs, field.Invalid(field.NewPath("spec", "ipFamilyPolicy"), s.Spec.IPFamilyPolicy, message))
	}
	single := *s.Spec.IPFamilyPolicy == corev1.IPFamilyPolicySingleStack
	switch {
	case old != nil && single:
		if sameClusterIPs(s, old) && len(s.Spec.ClusterIPs) > 1 {
			s.Spec.ClusterIPs = slices.Clone(s.Spec.ClusterIPs[:1])
		}
		if sameFamilies(s, old) && len(s.Spec.IPFamilies) > 1 {
			s.Spec.IPFamilies = slices.Clone(s.Spec.IPFamilies[:1])
		}
	case old != nil:
		if isReduced(s.Spec.ClusterIPs, old.Spec.ClusterIPs) {
			refuse("must be 'SingleStack' to release the secondary cluster IP")
		}
		if isReduced(s.Spec.IPFamilies, old.Spec.IPFamilies) {
			refuse("must be 'SingleStack' to release the secondary IP family")
		}
	}
	if single && len(s.Spec.ClusterIPs) == 2 {
		refuse("must be 'RequireDualStack' or 'PreferDualStack' when multiple cluster IPs are specified")
	}
	if single && len(s.Spec.IPFamilies) == 2 {
		refuse("must be 'RequireDualStack' or 'PreferDualStack' when multiple IP families are specified")
	}
	return errs
}

// isReduced says that the second of two values was given up and the first kept.
func isReduced[T comparable](now, was []T) bool {
	return len(was) == 2 && len(now) == 1 && now[0] == was[0]
}

// inferFamilies takes the family of each given address that has none listed.
func inferFamilies(s *corev1.Service, cluster []corev1.IPFamily) field.ErrorList {
	var errs field.ErrorList
	for i, ip := range s.Spec.ClusterIPs {
		if ip == corev1.ClusterIPNone {
			break
		}
		if i < len(s.Spec.IPFamilies) {
			continue
		}
		family := familyOf(ip)
		if !slices.Contains(cluster, family) {
			errs = append(errs, field.Invalid(field.NewPath("spec", "clusterIPs").Index(i), s.Spec.ClusterIPs,
				fmt.Sprintf("%s is not configured on this cluster", family)))
			continue
		}
		s.Spec.IPFamilies = append(s.Spec.IPFamilies, family)
	}
	return errs
}

func checkServed(s *corev1.Service, cluster []corev1.IPFamily) field.ErrorList {
	var errs field.ErrorList
	if *s.Spec.IPFamilyPolicy == corev1.IPFamilyPolicyRequireDualStack && len(cluster) < 2 {
		errs = append(errs, field.Invalid(field.NewPath("spec", "ipFamilyPolicy"), s.Spec.IPFamilyPolicy,
			"this cluster is not configured for dual-stack services"))
	}
	for i, family := range s.Spec.IPFamilies {
		if !slices.Contains(cluster, family) {
			errs = append(errs, field.Invalid(field.NewPath("spec", "ipFamilies").Index(i), family, "not configured on this cluster"))
		}
	}
	return errs
}
