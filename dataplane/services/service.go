package services

import (
	"fmt"
	"net/netip"
	"time"

	"github.com/podvine/podvine/dataplane/bpf"
)

// Protocol is TCP or UDP.
type Protocol uint8

// The protocols that are served.
const (
	TCP = Protocol(bpf.ProtocolTCP)
	UDP = Protocol(bpf.ProtocolUDP)
)

func (p Protocol) String() string {
	switch p {
	case TCP:
		return "TCP"
	case UDP:
		return "UDP"
	}
	return fmt.Sprintf("protocol %d", uint8(p))
}

// Algorithm says how a backend is chosen.
type Algorithm uint8

// The algorithms. RoundRobin takes turns over all of the node's clients. Maglev goes by a hash of a flow's source, the
// same on every node, that changes little when endpoints come and go; for a connection that starts on the node, the socket
// is what is hashed. LeastConnections counts what this node has connected, and compares up to 16 endpoints.
const (
	Random Algorithm = iota
	RoundRobin
	Maglev
	LeastConnections
)

func (a Algorithm) String() string {
	names := [...]string{"random", "round-robin", "maglev", "least-connections"}
	if int(a) < len(names) {
		return names[a]
	}
	return fmt.Sprintf("algorithm %d", uint8(a))
}

// Service is what is wanted: addresses and ports, and the endpoints behind them.
type Service struct {
	// Name identifies the service; Kubernetes' ones are "namespace/name".
	Name string
	// Static services win an address against others: the node's own DNS and API in place of the cluster's.
	Static bool

	ClusterIPs []netip.Addr
	// ExternalIPs and LoadBalancerIPs are reached from outside as well.
	ExternalIPs     []netip.Addr
	LoadBalancerIPs []netip.Addr
	// Sources are the clients that LoadBalancerIPs serve, nil for all. Others are dropped, pods and the node included.
	Sources []netip.Prefix
	Ports   []Port

	Algorithm Algorithm
	// AffinityTimeout keeps a client on its backend for so long after its last connection; 0 means no affinity.
	AffinityTimeout time.Duration
	// InternalLocal and ExternalLocal are the traffic policies "Local".
	InternalLocal bool
	ExternalLocal bool
	// HealthCheckPort answers load balancers whether this node has endpoints; 0 for none.
	HealthCheckPort uint16
}

// Port is a port of a service.
type Port struct {
	// Name is unique among the service's ports of one protocol; it may be empty.
	Name     string
	Protocol Protocol
	Port     uint16
	// NodePort is served on every address of the node, loopback included; 0 for none.
	NodePort uint16
	// HostPorts are addresses of the node itself (an unspecified address stands for all of its family).
	HostPorts []netip.AddrPort
	Endpoints []Endpoint
}

// Endpoint is a backend as the cluster knows it.
type Endpoint struct {
	Addr  netip.AddrPort
	Ready bool
	// Serving and Terminating endpoints are used when none is ready.
	Serving     bool
	Terminating bool
	// Node is the name of the node it runs on, "" if that is not known. What is known of nodes that died (see
	// [Proxy.SetDeadNodes]) goes by it.
	Node string
	// Local endpoints run on this node.
	Local bool
	// Elsewhere endpoints are meant for clients of other zones or nodes (topology hints); only a traffic policy Local
	// makes use of them.
	Elsewhere bool
}

// HostPort publishes a port of a pod on the node.
type HostPort struct {
	Protocol Protocol
	// Host is where the node listens; an invalid or unspecified address stands for all.
	Host netip.Addr
	Port uint16
	Pod  netip.AddrPort
}

// hostPortService expresses a pod's host ports as a service.
func hostPortService(pod string, ports []HostPort) Service {
	s := Service{Name: "hostport/" + pod}
	for i, p := range ports {
		host := p.Host
		if !host.IsValid() {
			host = unspecified(p.Pod.Addr())
		}
		s.Ports = append(s.Ports, Port{
			Name:      fmt.Sprint(i),
			Protocol:  p.Protocol,
			HostPorts: []netip.AddrPort{netip.AddrPortFrom(host, p.Port)},
			Endpoints: []Endpoint{{Addr: p.Pod, Ready: true, Serving: true, Local: true}},
		})
	}
	return s
}

func unspecified(like netip.Addr) netip.Addr {
	if like.Is4() {
		return netip.IPv4Unspecified()
	}
	return netip.IPv6Unspecified()
}
