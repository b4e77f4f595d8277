package podnet

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"sync"

	"github.com/podvine/podvine/dataplane/bpf"
	"github.com/podvine/podvine/dataplane/services"
)

// Publisher serves the host ports of a pod; none withdraws them. [services.Proxy] is one.
type Publisher interface {
	Publish(ctx context.Context, pod string, ports []services.HostPort) error
}

// Config is what a [Network] needs.
type Config struct {
	// CIDRs are this node's ranges, at most one of each family. The first address of each is the node's own.
	CIDRs []netip.Prefix
	// ClusterCIDRs are the ranges of all pods: traffic to them keeps its source.
	ClusterCIDRs []netip.Prefix
	// StateDir is the folder for records of pods and of changed kernel settings.
	StateDir string
	// BPFFSDir is the folder for pinned programs and maps, the same as the service proxy's.
	BPFFSDir string
	// MTU of the pods' links in bytes; 0 takes that of the link with the default route. [Network.SetMTU] changes it.
	MTU int
	// Ports serves host ports. Without it a pod that asks for one is refused.
	Ports  Publisher
	Logger *slog.Logger
}

// PortMapping asks for a port of the host to lead to a port of the pod.
type PortMapping struct {
	Protocol services.Protocol `json:"protocol"`
	// HostIP limits the mapping to one address of the host; the zero value means all.
	HostIP   netip.Addr `json:"hostIP"`
	HostPort uint16     `json:"hostPort"`
	PodPort  uint16     `json:"podPort"`
}

// Options of a pod's connection.
type Options struct {
	Ports []PortMapping
}

// Result is how a pod is connected.
type Result struct {
	// Addrs are the pod's addresses, IPv4 first.
	Addrs []netip.Addr
	// Gateways are the link-local next hops of the default routes.
	Gateways []netip.Addr
	// HostLink names the host's end of the pod's link.
	HostLink string
	MTU      int
}

// Network is the pod network of a node. See [Open].
type Network struct {
	config  Config
	log     *slog.Logger
	packets *bpf.Packets
	reaper  *reaper

	mu sync.Mutex // guards what follows
	// mtu of all links, in bytes.
	mtu int
	// pools are in the order of Config.CIDRs.
	pools []*pool
	pods  map[string]*record
}

// Open prepares the node and adopts the pods of an earlier agent. Host ports of adopted pods are published anew.
func Open(ctx context.Context, config Config) (*Network, error) {
	if err := config.check(); err != nil {
		return nil, fmt.Errorf("open pod network: %w", err)
	}
	packets, err := bpf.OpenPackets(config.BPFFSDir)
	if err != nil {
		return nil, fmt.Errorf("open pod network: %w", err)
	}
	n := &Network{config: config, log: config.Logger, packets: packets, pods: map[string]*record{}}
	for _, prefix := range config.CIDRs {
		n.pools = append(n.pools, newPool(prefix))
	}
	n.reaper = newReaper(n.log)
	if err := n.start(ctx); err != nil {
		return nil, errors.Join(fmt.Errorf("open pod network: %w", err), n.Close())
	}
	return n, nil
}

func (c *Config) check() error {
	if len(c.CIDRs) == 0 || len(c.CIDRs) > 2 {
		return fmt.Errorf("want one or two pod ranges, have %d", len(c.CIDRs))
	}
	if len(c.CIDRs) == 2 && c.CIDRs[0].Addr().Is4() == c.CIDRs[1].Addr().Is4() {
		return errors.New("two pod ranges of one family")
	}
	for _, p := range c.CIDRs {
		if room := p.Addr().BitLen() - p.Bits(); room < 2 {
			return fmt.Errorf("pod range %s has no room for pods", p)
		}
	}
	return nil
}

func (n *Network) start(ctx context.Context) error {
	if err := n.prepareHost(); err != nil {
		return err
	}
	records, err := n.loadRecords()
	if err != nil {
		return err
	}
	for _, r := range records {
		if !n.adoptAddrs(r) {
			n.log.Warn("drop pod record whose addresses are not this node's", "pod", r.ID)
			if err := n.forget(r.ID); err != nil {
				return err
			}
			continue
		}
		n.pods[r.ID] = r
		if err := n.publish(ctx, r); err != nil {
			return err
		}
	}
	if err := n.adoptLinks(); err != nil {
		return err
	}
	for _, r := range records {
		if n.pods[r.ID] == nil {
			continue
		}
		if err := n.fitMTU(r); err != nil {
			n.log.Warn("cannot set MTU of adopted pod", "pod", r.ID, "err", err)
		}
	}
	return nil
}

func (n *Network) adoptAddrs(r *record) bool {
	for _, addr := range r.Addrs {
		if !slices.ContainsFunc(n.pools, func(p *pool) bool { return p.adopt(addr, r.ID) }) {
			return false
		}
	}
	return true
}

// Close waits for links that are being removed and lets go of the maps. Every pod stays connected.
func (n *Network) Close() error {
	n.reaper.close()
	return n.packets.Close()
}

// Addrs returns the node's own addresses in its ranges, in the order of Config.CIDRs.
func (n *Network) Addrs() []netip.Addr {
	var out []netip.Addr
	for _, p := range n.config.CIDRs {
		out = append(out, firstAddress(p))
	}
	return out
}

// Pods lists the IDs of the pods that are connected or about to be, sorted.
func (n *Network) Pods() []string {
	n.mu.Lock()
	defer n.mu.Unlock()
	out := make([]string, 0, len(n.pods))
	for id := range n.pods {
		out = append(out, id)
	}
	slices.Sort(out)
	return out
}

func (n *Network) publish(ctx context.Context, r *record) error {
	if len(r.Ports) == 0 {
		return nil
	}
	if n.config.Ports == nil {
		return fmt.Errorf("publish host ports of pod %s: no service proxy", r.ID)
	}
	var ports []services.HostPort
	for _, m := range r.Ports {
		for _, addr := range r.Addrs {
			if m.HostIP.IsValid() && !m.HostIP.IsUnspecified() && m.HostIP.Unmap().Is4() != addr.Is4() {
				continue
			}
			host := m.HostIP.Unmap()
			if host.IsValid() && host.IsUnspecified() {
				host = netip.Addr{}
			}
			ports = append(ports, services.HostPort{Protocol: m.Protocol, Host: host, Port: m.HostPort, Pod: netip.AddrPortFrom(addr, m.PodPort)})
		}
	}
	return n.config.Ports.Publish(ctx, r.ID, ports)
}
