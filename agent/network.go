package agent

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"sync"

	corev1 "k8s.io/api/core/v1"

	"github.com/podvine/podvine/agent/pods"
	"github.com/podvine/podvine/dataplane/podnet"
	"github.com/podvine/podvine/dataplane/services"
)

// podNetwork gives the pod runtime the data plane's network. That is open only when the node's ranges are known and the
// kernel has done what was asked, so a pod may have to wait for it.
type podNetwork struct {
	mu sync.Mutex
	// network is nil while there is none; opened is closed when it comes.
	network *podnet.Network
	opened  chan struct{}
}

func newPodNetwork() *podNetwork { return &podNetwork{opened: make(chan struct{})} }

func (p *podNetwork) open(network *podnet.Network) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.network = network
	close(p.opened)
}

func (p *podNetwork) close() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.network, p.opened = nil, make(chan struct{})
}

// wait returns the network once it is open.
func (p *podNetwork) wait(ctx context.Context) (*podnet.Network, error) {
	for {
		p.mu.Lock()
		network, opened := p.network, p.opened
		p.mu.Unlock()
		if network != nil {
			return network, nil
		}
		select {
		case <-opened:
		case <-ctx.Done():
			return nil, fmt.Errorf("wait for this node's pod addresses: %w", ctx.Err())
		}
	}
}

// Setup implements pods.Network.
func (p *podNetwork) Setup(ctx context.Context, pod pods.PodRef, netnsPath string, ports []pods.HostPort) (pods.NetworkResult, error) {
	network, err := p.wait(ctx)
	if err != nil {
		return pods.NetworkResult{}, err
	}
	options := podnet.Options{}
	for _, port := range ports {
		mapping, err := portMapping(port)
		if err != nil {
			return pods.NetworkResult{}, err
		}
		options.Ports = append(options.Ports, mapping)
	}
	result, err := network.Setup(ctx, string(pod.UID), netnsPath, options)
	if err != nil {
		return pods.NetworkResult{}, err
	}
	var ips []net.IP
	for _, address := range result.Addrs {
		ips = append(ips, address.AsSlice())
	}
	return pods.NetworkResult{IPs: ips}, nil
}

func portMapping(port pods.HostPort) (podnet.PortMapping, error) {
	mapping := podnet.PortMapping{HostPort: uint16(port.HostPort), PodPort: uint16(port.ContainerPort)}
	switch port.Protocol {
	case corev1.ProtocolTCP:
		mapping.Protocol = services.TCP
	case corev1.ProtocolUDP:
		mapping.Protocol = services.UDP
	default:
		return podnet.PortMapping{}, fmt.Errorf("publish host port %d: protocol %s is not served, only TCP and UDP are", port.HostPort, port.Protocol)
	}
	if port.HostIP != "" {
		address, err := netip.ParseAddr(port.HostIP)
		if err != nil {
			return podnet.PortMapping{}, fmt.Errorf("publish host port %d: %w", port.HostPort, err)
		}
		mapping.HostIP = address
	}
	return mapping, nil
}

// Teardown implements pods.Network.
func (p *podNetwork) Teardown(ctx context.Context, pod pods.PodRef, _ string) error {
	network, err := p.wait(ctx)
	if err != nil {
		return err
	}
	return network.Teardown(ctx, string(pod.UID))
}

// Check implements pods.Network. Setting up what is there changes nothing and repairs what is not.
func (p *podNetwork) Check(ctx context.Context, pod pods.PodRef, _ string) error {
	network, err := p.wait(ctx)
	if err != nil {
		return err
	}
	for _, id := range network.Pods() {
		if id == string(pod.UID) {
			return nil
		}
	}
	return fmt.Errorf("pod %s/%s is not connected", pod.Namespace, pod.Name)
}
