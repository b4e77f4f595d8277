package service

import (
	"slices"
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"
	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	metav1validation "k8s.io/apimachinery/pkg/apis/meta/v1/validation"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/podvine/podvine/agent/api/kinds"
)

const (
	// kubeletPort is the port of a node's own API, which no load balancer may take.
	kubeletPort = 10250
	// maxAffinitySeconds is the longest time that a client stays with an endpoint: a day.
	maxAffinitySeconds = 86400
)

// validateService checks a whole service, on creation (old is nil) and on update.
func validateService(s, old *corev1.Service) field.ErrorList {
	spec := field.NewPath("spec")
	errs := kinds.ValidateObjectMeta(&s.ObjectMeta, true, apivalidation.NameIsDNSLabel, field.NewPath("metadata"))
	if len(s.Spec.Ports) == 0 && !isHeadless(s) && !isExternalName(s) {
		errs = append(errs, field.Required(spec.Child("ports"), ""))
	}
	errs = append(errs, validateType(s, spec)...)
	errs = append(errs, validatePorts(s, spec.Child("ports"))...)
	if s.Spec.Selector != nil {
		errs = append(errs, metav1validation.ValidateLabels(s.Spec.Selector, spec.Child("selector"))...)
	}
	errs = append(errs, validateAffinity(s, spec)...)
	errs = append(errs, validateExternalIPs(s, old, spec.Child("externalIPs"))...)
	errs = append(errs, validateLoadBalancer(s, old, spec)...)
	errs = append(errs, validateTrafficPolicies(s, spec)...)
	errs = append(errs, validateClusterIPs(s, old)...)
	return errs
}

// among reports a value that is not one of those allowed, or missing.
func among[T ~string](at *field.Path, value T, allowed ...T) field.ErrorList {
	switch {
	case value == "":
		return field.ErrorList{field.Required(at, "")}
	case !slices.Contains(allowed, value):
		return field.ErrorList{field.NotSupported(at, value, allowed)}
	}
	return nil
}

// invalid reports each complaint of check about value.
func invalid(at *field.Path, value string, check func(string) []string) field.ErrorList {
	var errs field.ErrorList
	for _, msg := range check(value) {
		errs = append(errs, field.Invalid(at, value, msg))
	}
	return errs
}

func validateType(s *corev1.Service, spec *field.Path) field.ErrorList {
	errs := among(spec.Child("type"), s.Spec.Type, corev1.ServiceTypeClusterIP, corev1.ServiceTypeExternalName,
		corev1.ServiceTypeLoadBalancer, corev1.ServiceTypeNodePort)
	switch s.Spec.Type {
	case corev1.ServiceTypeLoadBalancer:
		for i, p := range s.Spec.Ports {
			if p.Port == kubeletPort {
				errs = append(errs, field.Invalid(spec.Child("ports").Index(i), p.Port,
					"may not expose port "+strconv.Itoa(kubeletPort)+" externally since it is used by kubelet"))
			}
		}
		errs = append(errs, refuseHeadless(s, spec, "may not be set to 'None' for LoadBalancer services")...)
	case corev1.ServiceTypeNodePort:
		errs = append(errs, refuseHeadless(s, spec, "may not be set to 'None' for NodePort services")...)
	case corev1.ServiceTypeExternalName:
		errs = append(errs, validateExternalName(s, spec)...)
	}
	return errs
}

func refuseHeadless(s *corev1.Service, spec *field.Path, message string) field.ErrorList {
	if !isHeadless(s) {
		return nil
	}
	return field.ErrorList{field.Invalid(spec.Child("clusterIPs").Index(0), s.Spec.ClusterIPs, message)}
}

// validateExternalName checks a service that is only a DNS name: it has no address of its own.
func validateExternalName(s *corev1.Service, spec *field.Path) field.ErrorList {
	const forbidden = "may not be set for ExternalName services"
	var errs field.ErrorList
	if len(s.Spec.ClusterIPs) > 0 {
		errs = append(errs, field.Forbidden(spec.Child("clusterIPs"), forbidden))
	}
	if len(s.Spec.IPFamilies) > 0 {
		errs = append(errs, field.Forbidden(spec.Child("ipFamilies"), forbidden))
	}
	if s.Spec.IPFamilyPolicy != nil {
		errs = append(errs, field.Forbidden(spec.Child("ipFamilyPolicy"), forbidden))
	}
	at := spec.Child("externalName")
	if s.Spec.ExternalName == "" {
		return append(errs, field.Required(at, ""))
	}
	return append(errs, invalid(at, strings.TrimSuffix(s.Spec.ExternalName, "."), validation.IsDNS1123Subdomain)...)
}

func validateAffinity(s *corev1.Service, spec *field.Path) field.ErrorList {
	errs := among(spec.Child("sessionAffinity"), s.Spec.SessionAffinity, corev1.ServiceAffinityClientIP, corev1.ServiceAffinityNone)
	at, config := spec.Child("sessionAffinityConfig"), s.Spec.SessionAffinityConfig
	switch s.Spec.SessionAffinity {
	case corev1.ServiceAffinityNone:
		if config != nil {
			errs = append(errs, field.Forbidden(at, "must not be set when session affinity is None"))
		}
	case corev1.ServiceAffinityClientIP:
		const required = "when session affinity type is ClientIP"
		switch {
		case config == nil:
			errs = append(errs, field.Required(at, required))
		case config.ClientIP == nil:
			errs = append(errs, field.Required(at.Child("clientIP"), required))
		case config.ClientIP.TimeoutSeconds == nil:
			errs = append(errs, field.Required(at.Child("clientIP", "timeoutSeconds"), required))
		case *config.ClientIP.TimeoutSeconds <= 0 || *config.ClientIP.TimeoutSeconds > maxAffinitySeconds:
			errs = append(errs, field.Invalid(at.Child("clientIP", "timeoutSeconds"), *config.ClientIP.TimeoutSeconds,
				"must be greater than 0 and less than "+strconv.Itoa(maxAffinitySeconds)))
		}
	}
	return errs
}

func validateExternalIPs(s, old *corev1.Service, at *field.Path) field.ErrorList {
	var known []string
	if old != nil {
		known = old.Spec.ExternalIPs
	}
	var errs field.ErrorList
	for i, ip := range s.Spec.ExternalIPs {
		wrong := validation.IsValidIPForLegacyField(at.Index(i), ip, true, known)
		if len(wrong) == 0 {
			wrong = kinds.ValidateRoutable(ip, at.Index(i))
		}
		errs = append(errs, wrong...)
	}
	return errs
}

func validateTrafficPolicies(s *corev1.Service, spec *field.Path) field.ErrorList {
	var errs field.ErrorList
	external := spec.Child("externalTrafficPolicy")
	if isExternallyAccessible(s) {
		errs = append(errs, among(external, s.Spec.ExternalTrafficPolicy,
			corev1.ServiceExternalTrafficPolicyCluster, corev1.ServiceExternalTrafficPolicyLocal)...)
	} else if s.Spec.ExternalTrafficPolicy != "" {
		errs = append(errs, field.Invalid(external, s.Spec.ExternalTrafficPolicy, "may only be set for externally-accessible services"))
	}
	internal := spec.Child("internalTrafficPolicy")
	if policy := s.Spec.InternalTrafficPolicy; policy != nil {
		if allowed := []corev1.ServiceInternalTrafficPolicy{corev1.ServiceInternalTrafficPolicyCluster, corev1.ServiceInternalTrafficPolicyLocal}; !slices.Contains(allowed, *policy) {
			errs = append(errs, field.NotSupported(internal, *policy, allowed))
		}
	} else if s.Spec.Type == corev1.ServiceTypeClusterIP || s.Spec.Type == corev1.ServiceTypeNodePort || s.Spec.Type == corev1.ServiceTypeLoadBalancer {
		errs = append(errs, field.Required(internal, ""))
	}
	if want := s.Spec.TrafficDistribution; want != nil {
		if allowed := trafficDistributions(); !slices.Contains(allowed, *want) {
			errs = append(errs, field.NotSupported(spec.Child("trafficDistribution"), *want, allowed))
		}
	}
	return append(errs, validateHealthCheckPort(s, spec.Child("healthCheckNodePort"))...)
}

func trafficDistributions() []string {
	return []string{corev1.ServiceTrafficDistributionPreferClose, corev1.ServiceTrafficDistributionPreferSameZone,
		corev1.ServiceTrafficDistributionPreferSameNode}
}

func validateHealthCheckPort(s *corev1.Service, at *field.Path) field.ErrorList {
	port := s.Spec.HealthCheckNodePort
	if !needsHealthCheckPort(s) {
		if port == 0 {
			return nil
		}
		return field.ErrorList{field.Invalid(at, port, "may only be set when `type` is 'LoadBalancer' and `externalTrafficPolicy` is 'Local'")}
	}
	var errs field.ErrorList
	for _, msg := range validation.IsValidPortNum(int(port)) {
		errs = append(errs, field.Invalid(at, port, msg))
	}
	return errs
}
