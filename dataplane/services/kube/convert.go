package kube

import (
	"net/netip"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	netutils "k8s.io/utils/net"

	"github.com/podvine/podvine/dataplane/services"
)

const (
	// AlgorithmAnnotation on a Service chooses how its backends are picked: random (default), round-robin, maglev,
	// least-connections.
	AlgorithmAnnotation = "podvine.io/load-balancing"
	proxyNameLabel      = "service.kubernetes.io/service-proxy-name"
	// affinityDefault is Kubernetes' own, should the field be unset.
	affinityDefault = 3 * time.Hour
)

// place is where this node is.
type place struct {
	node, zone string
}

// served reports whether the service is for this proxy at all.
func served(s *corev1.Service) bool {
	_, other := s.Labels[proxyNameLabel]
	return !other && s.Spec.Type != corev1.ServiceTypeExternalName && s.Spec.ClusterIP != corev1.ClusterIPNone && s.Spec.ClusterIP != ""
}

// convert makes the proxy's service of a Service and its slices.
func convert(s *corev1.Service, slices []*discoveryv1.EndpointSlice, here place) services.Service {
	out := services.Service{
		Name:          s.Namespace + "/" + s.Name,
		ClusterIPs:    parseAddrs(clusterIPs(s)),
		ExternalIPs:   parseAddrs(s.Spec.ExternalIPs),
		InternalLocal: s.Spec.InternalTrafficPolicy != nil && *s.Spec.InternalTrafficPolicy == corev1.ServiceInternalTrafficPolicyLocal,
		ExternalLocal: s.Spec.ExternalTrafficPolicy == corev1.ServiceExternalTrafficPolicyLocal,
	}
	out.Algorithm, _ = algorithm(s.Annotations[AlgorithmAnnotation])
	if s.Spec.SessionAffinity == corev1.ServiceAffinityClientIP {
		out.AffinityTimeout = affinityDefault
		if c := s.Spec.SessionAffinityConfig; c != nil && c.ClientIP != nil && c.ClientIP.TimeoutSeconds != nil {
			out.AffinityTimeout = time.Duration(*c.ClientIP.TimeoutSeconds) * time.Second
		}
	}
	if s.Spec.Type == corev1.ServiceTypeLoadBalancer {
		out.LoadBalancerIPs, out.Sources = loadBalancerIPs(s), sources(s)
		out.HealthCheckPort = uint16(s.Spec.HealthCheckNodePort)
	}
	for _, p := range s.Spec.Ports {
		protocol, ok := protocolOf(p.Protocol)
		if !ok {
			continue
		}
		out.Ports = append(out.Ports, services.Port{
			Name: p.Name, Protocol: protocol, Port: uint16(p.Port), NodePort: uint16(p.NodePort), Endpoints: endpoints(&p, slices, here),
		})
	}
	return out
}

func clusterIPs(s *corev1.Service) []string {
	if len(s.Spec.ClusterIPs) > 0 {
		return s.Spec.ClusterIPs
	}
	return []string{s.Spec.ClusterIP}
}

func loadBalancerIPs(s *corev1.Service) []netip.Addr {
	var addrs []netip.Addr
	for _, ingress := range s.Status.LoadBalancer.Ingress {
		// With mode Proxy the load balancer wants to see the traffic of the cluster too.
		if ingress.IPMode == nil || *ingress.IPMode == corev1.LoadBalancerIPModeVIP {
			addrs = append(addrs, parseAddrs([]string{ingress.IP})...)
		}
	}
	return addrs
}

// sources are the ranges that may use the load balancer's addresses; nil for everyone. The API checks what they look like;
// one that does not parse lets nobody in.
func sources(s *corev1.Service) []netip.Prefix {
	var out []netip.Prefix
	for _, text := range s.Spec.LoadBalancerSourceRanges {
		if out == nil {
			out = []netip.Prefix{}
		}
		// The API takes forms that net/netip does not, of old objects.
		_, network, err := netutils.ParseCIDRSloppy(strings.TrimSpace(text))
		if err != nil {
			continue
		}
		if addr, ok := netip.AddrFromSlice(network.IP); ok {
			bits, _ := network.Mask.Size()
			out = append(out, netip.PrefixFrom(addr.Unmap(), bits))
		}
	}
	return out
}

func parseAddrs(texts []string) []netip.Addr {
	var out []netip.Addr
	for _, text := range texts {
		if addr, err := netip.ParseAddr(text); err == nil {
			out = append(out, addr.Unmap())
		}
	}
	return out
}

// algorithm reads the annotation; false for a name that there is not.
func algorithm(name string) (services.Algorithm, bool) {
	if name == "" {
		return services.Random, true
	}
	for a := services.Random; a <= services.LeastConnections; a++ {
		if a.String() == strings.ToLower(name) {
			return a, true
		}
	}
	return services.Random, false
}

func protocolOf(p corev1.Protocol) (services.Protocol, bool) {
	switch p {
	case corev1.ProtocolTCP, "":
		return services.TCP, true
	case corev1.ProtocolUDP:
		return services.UDP, true
	}
	return 0, false
}

// endpoints collects what stands behind a port of the service.
func endpoints(port *corev1.ServicePort, all []*discoveryv1.EndpointSlice, here place) []services.Endpoint {
	var out []services.Endpoint
	var hints []*discoveryv1.EndpointHints
	for _, slice := range all {
		number, ok := portOf(slice, port)
		if !ok || slice.AddressType == discoveryv1.AddressTypeFQDN {
			continue
		}
		for i := range slice.Endpoints {
			e := &slice.Endpoints[i]
			if len(e.Addresses) == 0 {
				continue
			}
			// Kubernetes promises that the others are the same endpoint.
			addr, err := netip.ParseAddr(e.Addresses[0])
			if err != nil {
				continue
			}
			ready := e.Conditions.Ready == nil || *e.Conditions.Ready
			node := ""
			if e.NodeName != nil {
				node = *e.NodeName
			}
			out = append(out, services.Endpoint{
				Node:        node,
				Addr:        netip.AddrPortFrom(addr.Unmap(), number),
				Ready:       ready,
				Serving:     e.Conditions.Serving == nil && ready || e.Conditions.Serving != nil && *e.Conditions.Serving,
				Terminating: e.Conditions.Terminating != nil && *e.Conditions.Terminating,
				Local:       node != "" && node == here.node,
			})
			hints = append(hints, e.Hints)
		}
	}
	applyHints(out, hints, here)
	return out
}

func portOf(slice *discoveryv1.EndpointSlice, port *corev1.ServicePort) (uint16, bool) {
	for _, p := range slice.Ports {
		name, protocol := "", corev1.ProtocolTCP
		if p.Name != nil {
			name = *p.Name
		}
		if p.Protocol != nil {
			protocol = *p.Protocol
		}
		want := port.Protocol
		if want == "" {
			want = corev1.ProtocolTCP
		}
		if name == port.Name && protocol == want && p.Port != nil {
			return uint16(*p.Port), true
		}
	}
	return 0, false
}

// applyHints marks ready endpoints that are meant for others. Hints count only if every ready endpoint has one and at
// least one is for here; hints for nodes come before hints for zones.
func applyHints(endpoints []services.Endpoint, hints []*discoveryv1.EndpointHints, here place) {
	forNode := func(h *discoveryv1.EndpointHints) (hinted, mine bool) {
		return h != nil && len(h.ForNodes) > 0, h != nil && slices.ContainsFunc(h.ForNodes, func(n discoveryv1.ForNode) bool { return n.Name == here.node })
	}
	forZone := func(h *discoveryv1.EndpointHints) (hinted, mine bool) {
		return h != nil && len(h.ForZones) > 0, h != nil && here.zone != "" && slices.ContainsFunc(h.ForZones, func(z discoveryv1.ForZone) bool { return z.Name == here.zone })
	}
	for _, test := range []func(*discoveryv1.EndpointHints) (bool, bool){forNode, forZone} {
		all, any := true, false
		for i, e := range endpoints {
			if e.Ready {
				hinted, mine := test(hints[i])
				all, any = all && hinted, any || mine
			}
		}
		if !all || !any {
			continue
		}
		for i := range endpoints {
			_, mine := test(hints[i])
			endpoints[i].Elsewhere = endpoints[i].Ready && !mine
		}
		return
	}
}
