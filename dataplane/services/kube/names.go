package kube

import (
	"net/netip"
	"strings"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"

	"github.com/podvine/podvine/dataplane/dns"
)

// names makes the DNS records' service of a Service; slices matter for headless ones only. It reports false for a service
// that has no address yet.
func names(s *corev1.Service, slices []*discoveryv1.EndpointSlice) (dns.Service, bool) {
	out := dns.Service{Namespace: s.Namespace, Name: s.Name}
	if s.Spec.Type == corev1.ServiceTypeExternalName {
		out.ExternalName = s.Spec.ExternalName
		return out, s.Spec.ExternalName != ""
	}
	for _, p := range s.Spec.Ports {
		out.Ports = append(out.Ports, dns.Port{Name: p.Name, Protocol: lowerProtocol(&p.Protocol), Port: uint16(p.Port)})
	}
	if s.Spec.ClusterIP != corev1.ClusterIPNone {
		out.ClusterIPs = parseAddrs(clusterIPs(s))
		return out, len(out.ClusterIPs) > 0
	}
	for _, slice := range slices {
		out.Endpoints = append(out.Endpoints, namedEndpoints(slice)...)
	}
	return out, true
}

func namedEndpoints(slice *discoveryv1.EndpointSlice) []dns.Endpoint {
	if slice.AddressType == discoveryv1.AddressTypeFQDN {
		return nil
	}
	var ports []dns.Port
	for _, p := range slice.Ports {
		port := dns.Port{Protocol: lowerProtocol(p.Protocol)}
		if p.Name != nil {
			port.Name = *p.Name
		}
		if p.Port != nil {
			port.Port = uint16(*p.Port)
			ports = append(ports, port)
		}
	}
	var out []dns.Endpoint
	for _, e := range slice.Endpoints {
		// An endpoint of a service that publishes all addresses is ready from the start.
		if e.Conditions.Ready != nil && !*e.Conditions.Ready {
			continue
		}
		hostname := ""
		if e.Hostname != nil {
			hostname = *e.Hostname
		}
		for _, text := range e.Addresses {
			if addr, err := netip.ParseAddr(text); err == nil {
				out = append(out, dns.Endpoint{Addr: addr.Unmap(), Hostname: hostname, Ports: ports})
			}
		}
	}
	return out
}

func lowerProtocol(p *corev1.Protocol) string {
	if p == nil || *p == "" {
		return "tcp"
	}
	return strings.ToLower(string(*p))
}
