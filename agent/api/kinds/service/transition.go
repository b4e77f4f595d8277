package service

import (
	"slices"

	corev1 "k8s.io/api/core/v1"
	apiequality "k8s.io/apimachinery/pkg/api/equality"
)

func sameClusterIPs(a, b *corev1.Service) bool {
	return slices.Equal(a.Spec.ClusterIPs, b.Spec.ClusterIPs)
}

func sameFamilies(a, b *corev1.Service) bool {
	return slices.Equal(a.Spec.IPFamilies, b.Spec.IPFamilies)
}

// adoptAllocated fills what an update leaves out although the server gave it before, so that an applied manifest
// stays applicable.
func adoptAllocated(s, old *corev1.Service) {
	if needsClusterIP(s) && needsClusterIP(old) {
		if s.Spec.ClusterIP == "" {
			s.Spec.ClusterIP = old.Spec.ClusterIP
		}
		if len(s.Spec.ClusterIPs) == 0 && s.Spec.ClusterIP == old.Spec.ClusterIP {
			s.Spec.ClusterIPs = slices.Clone(old.Spec.ClusterIPs)
		}
	}
	if needsNodePorts(s) && needsNodePorts(old) {
		adoptNodePorts(s, old)
	}
	if needsHealthCheckPort(s) && needsHealthCheckPort(old) && s.Spec.HealthCheckNodePort == 0 {
		s.Spec.HealthCheckNodePort = old.Spec.HealthCheckNodePort
	}
}

// adoptNodePorts gives each port without a node port the one that the same protocol and port had before, unless
// the update uses that node port elsewhere.
func adoptNodePorts(s, old *corev1.Service) {
	type front struct {
		protocol corev1.Protocol
		port     int32
	}
	type claim struct {
		protocol corev1.Protocol
		nodePort int32
	}
	used := map[claim]bool{}
	for _, p := range s.Spec.Ports {
		if p.NodePort != 0 {
			used[claim{p.Protocol, p.NodePort}] = true
		}
	}
	before := map[front]int32{}
	for _, p := range old.Spec.Ports {
		before[front{p.Protocol, p.Port}] = p.NodePort
	}
	for i := range s.Spec.Ports {
		p := &s.Spec.Ports[i]
		if p.NodePort != 0 {
			continue
		}
		was := before[front{p.Protocol, p.Port}]
		if was != 0 && !used[claim{p.Protocol, was}] {
			p.NodePort = was
			used[claim{p.Protocol, was}] = true
		}
	}
}

// alignClusterIPs keeps the single and the plural form of the addresses the same where a client set only one. old is
// nil on creation. Where both were set it leaves them to validation.
func alignClusterIPs(s, old *corev1.Service) {
	if old == nil {
		if s.Spec.ClusterIP != "" && len(s.Spec.ClusterIPs) == 0 {
			s.Spec.ClusterIPs = []string{s.Spec.ClusterIP}
		}
		return
	}
	if s.Spec.ClusterIP == old.Spec.ClusterIP {
		if len(s.Spec.ClusterIPs) == 0 {
			s.Spec.ClusterIPs = slices.Clone(old.Spec.ClusterIPs)
		}
		return
	}
	if !sameClusterIPs(s, old) {
		return
	}
	if s.Spec.ClusterIP == "" {
		s.Spec.ClusterIPs = nil
	} else {
		s.Spec.ClusterIPs = []string{s.Spec.ClusterIP}
	}
}

// dropTypeDependentFields clears what the old type had and the new one cannot have, where the client left it as it
// was: changing only the type is then enough.
func dropTypeDependentFields(s, old *corev1.Service) {
	if needsClusterIP(old) && !needsClusterIP(s) && s.Spec.ClusterIP == old.Spec.ClusterIP &&
		sameClusterIPs(s, old) && sameFamilies(s, old) && apiequality.Semantic.DeepEqual(s.Spec.IPFamilyPolicy, old.Spec.IPFamilyPolicy) {
		s.Spec.ClusterIP, s.Spec.ClusterIPs, s.Spec.IPFamilies, s.Spec.IPFamilyPolicy = "", nil, nil, nil
	}
	if needsNodePorts(old) && !needsNodePorts(s) && sameNodePorts(s, old) {
		for i := range s.Spec.Ports {
			s.Spec.Ports[i].NodePort = 0
		}
	}
	if needsHealthCheckPort(old) && !needsHealthCheckPort(s) && s.Spec.HealthCheckNodePort == old.Spec.HealthCheckNodePort {
		s.Spec.HealthCheckNodePort = 0
	}
	wasBalanced, isBalanced := old.Spec.Type == corev1.ServiceTypeLoadBalancer, s.Spec.Type == corev1.ServiceTypeLoadBalancer
	if wasBalanced && !isBalanced {
		if apiequality.Semantic.DeepEqual(s.Spec.AllocateLoadBalancerNodePorts, old.Spec.AllocateLoadBalancerNodePorts) {
			s.Spec.AllocateLoadBalancerNodePorts = nil
		}
		if apiequality.Semantic.DeepEqual(s.Spec.LoadBalancerClass, old.Spec.LoadBalancerClass) {
			s.Spec.LoadBalancerClass = nil
		}
	}
	if isExternallyAccessible(old) && !isExternallyAccessible(s) && s.Spec.ExternalTrafficPolicy == old.Spec.ExternalTrafficPolicy {
		s.Spec.ExternalTrafficPolicy = ""
	}
	if needsClusterIP(old) && !needsClusterIP(s) && apiequality.Semantic.DeepEqual(s.Spec.InternalTrafficPolicy, old.Spec.InternalTrafficPolicy) {
		s.Spec.InternalTrafficPolicy = nil
	}
}

// sameNodePorts says that an update asks for no node port that the service did not have.
func sameNodePorts(s, old *corev1.Service) bool {
	had := nodePortsOf(old)
	for port := range nodePortsOf(s) {
		if !had[port] {
			return false
		}
	}
	return true
}

func nodePortsOf(s *corev1.Service) map[int32]bool {
	ports := map[int32]bool{}
	for _, p := range s.Spec.Ports {
		if p.NodePort != 0 {
			ports[p.NodePort] = true
		}
	}
	return ports
}
