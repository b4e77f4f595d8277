package podnet

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"github.com/podvine/podvine/dataplane/bpf"
)

// podLink is the name of the link inside a pod, as workloads know it.
const podLink = "eth0"

// The kernel takes microseconds to raise a link, or, on a busy machine, milliseconds.
const (
	linkUpLimit = 5 * time.Second
	linkUpPoll  = 500 * time.Microsecond
)

// gateway4 and gateway6 are the next hops of every pod. No machine has them: the pods know the hardware address.
func gateway(like netip.Addr) netip.Addr {
	if like.Is4() {
		return netip.AddrFrom4([4]byte{169, 254, 1, 1})
	}
	return netip.AddrFrom16([16]byte{0: 0xfe, 1: 0x80, 15: 1})
}

// Setup connects the network namespace at netnsPath. It may be repeated: a pod keeps its addresses for as long as it is
// not torn down, also into a new namespace after a reboot. On an error nothing but the reserved addresses is left.
func (n *Network) Setup(ctx context.Context, id, netnsPath string, options Options) (*Result, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	// A link of this pod that is still being removed must be gone before its successor comes.
	n.reaper.wait(linkName(id))
	r, err := n.reserve(id, netnsPath, options)
	if err != nil {
		return nil, fmt.Errorf("set up network of pod %s: %w", id, err)
	}
	if err := n.connect(ctx, r, netnsPath); err != nil {
		return nil, fmt.Errorf("set up network of pod %s: %w", id, err)
	}
	result := &Result{Addrs: r.Addrs, HostLink: linkName(id), MTU: n.currentMTU()}
	for _, addr := range r.Addrs {
		result.Gateways = append(result.Gateways, gateway(addr))
	}
	return result, nil
}

// reserve finds or makes the pod's record.
func (n *Network) reserve(id, netnsPath string, options Options) (*record, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	old := n.pods[id]
	r := &record{ID: id, Ports: options.Ports, Netns: netnsPath}
	if old != nil {
		r.Addrs = old.Addrs
	} else {
		for _, p := range n.pools {
			addr, err := p.take(id)
			if err != nil {
				n.releaseLocked(r)
				return nil, err
			}
			r.Addrs = append(r.Addrs, addr)
		}
	}
	if err := n.save(r); err != nil {
		if old == nil {
			n.releaseLocked(r)
		}
		return nil, err
	}
	n.pods[id] = r
	return r, nil
}

func (n *Network) releaseLocked(r *record) {
	for _, addr := range r.Addrs {
		for _, p := range n.pools {
			if p.prefix.Contains(addr) {
				p.release(addr)
			}
		}
	}
}

func (n *Network) connect(ctx context.Context, r *record, netnsPath string) error {
	ns, err := netns.GetFromPath(netnsPath)
	if err != nil {
		return fmt.Errorf("open network namespace: %w", err)
	}
	defer ns.Close()
	inside, err := netlink.NewHandleAt(ns, unix.NETLINK_ROUTE)
	if err != nil {
		return fmt.Errorf("open netlink in network namespace: %w", err)
	}
	defer inside.Close()

	host, err := n.ensurePair(r, ns, inside)
	if err != nil {
		return err
	}
	if err := n.configureInside(r, inside); err != nil {
		return errors.Join(err, deleteLink(host))
	}
	if err := n.configureHostEnd(r, host); err != nil {
		return errors.Join(err, deleteLink(host))
	}
	if err := waitUp(ctx, r, host, inside); err != nil {
		return errors.Join(err, deleteLink(host))
	}
	if err := n.publish(ctx, r); err != nil {
		return errors.Join(err, deleteLink(host))
	}
	// It may have changed while the pod was connected.
	return n.fitMTU(r)
}

// waitUp returns once both ends carry packets and the pod receives on its addresses. The kernel raises the end that was
// opened first, and takes an IPv6 address into use, in the background; till then it loses what is sent without a word.
func waitUp(ctx context.Context, r *record, host netlink.Link, inside *netlink.Handle) error {
	ctx, cancel := context.WithTimeout(ctx, linkUpLimit)
	defer cancel()
	for {
		up, err := isUp(r, host, inside)
		if err != nil || up {
			return err
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("wait for link %s to come up: %w", host.Attrs().Name, ctx.Err())
		case <-time.After(linkUpPoll):
		}
	}
}

func isUp(r *record, host netlink.Link, inside *netlink.Handle) (bool, error) {
	outer, err := netlink.LinkByIndex(host.Attrs().Index)
	if err != nil {
		return false, fmt.Errorf("look at link %s: %w", host.Attrs().Name, err)
	}
	inner, err := inside.LinkByName(podLink)
	if err != nil {
		return false, fmt.Errorf("look at link of the pod: %w", err)
	}
	if outer.Attrs().OperState != netlink.OperUp || inner.Attrs().OperState != netlink.OperUp {
		return false, nil
	}
	for _, addr := range r.Addrs {
		if addr.Is4() {
			continue
		}
		// The route of an address in use is in the table of local addresses.
		filter := &netlink.Route{Table: unix.RT_TABLE_LOCAL, Dst: hostAddr(addr).IPNet}
		routes, err := inside.RouteListFiltered(netlink.FAMILY_V6, filter, netlink.RT_FILTER_TABLE|netlink.RT_FILTER_DST)
		if err != nil && !errors.Is(err, netlink.ErrDumpInterrupted) {
			return false, fmt.Errorf("look at routes of the pod: %w", err)
		}
		if len(routes) == 0 {
			return false, nil
		}
	}
	return true, nil
}

// ensurePair returns the host's end of the pod's link pair. A pair that does not end in this namespace is replaced.
func (n *Network) ensurePair(r *record, ns netns.NsHandle, inside *netlink.Handle) (netlink.Link, error) {
	name := linkName(r.ID)
	podMAC, hostMAC := macs(r.ID)
	if old, err := netlink.LinkByName(name); err == nil {
		peer, err := inside.LinkByName(podLink)
		if err == nil && peer.Attrs().ParentIndex == old.Attrs().Index && peer.Attrs().HardwareAddr.String() == net.HardwareAddr(podMAC[:]).String() {
			return old, nil
		}
		if err := deleteLink(old); err != nil {
			return nil, err
		}
	}
	mtu := n.currentMTU()
	pair := &netlink.Veth{
		LinkAttrs:        netlink.LinkAttrs{Name: name, MTU: mtu, HardwareAddr: hostMAC[:], TxQLen: -1},
		PeerName:         podLink,
		PeerNamespace:    netlink.NsFd(ns),
		PeerHardwareAddr: podMAC[:],
		PeerMTU:          uint32(mtu),
	}
	if err := netlink.LinkAdd(pair); err != nil {
		return nil, fmt.Errorf("make link pair: %w", err)
	}
	host, err := netlink.LinkByName(name)
	if err != nil {
		return nil, fmt.Errorf("find new link: %w", err)
	}
	return host, nil
}

func (n *Network) configureInside(r *record, inside *netlink.Handle) error {
	loopback, err := inside.LinkByName("lo")
	if err != nil {
		return fmt.Errorf("find loopback of the pod: %w", err)
	}
	eth, err := inside.LinkByName(podLink)
	if err != nil {
		return fmt.Errorf("find link of the pod: %w", err)
	}
	for _, l := range []netlink.Link{loopback, eth} {
		if err := inside.LinkSetUp(l); err != nil {
			return fmt.Errorf("raise link %s of the pod: %w", l.Attrs().Name, err)
		}
	}
	_, hostMAC := macs(r.ID)
	for _, addr := range r.Addrs {
		if err := inside.AddrReplace(eth, hostAddr(addr)); err != nil {
			return fmt.Errorf("give address %s to the pod: %w", addr, err)
		}
		if err := inside.NeighSet(neighbour(eth, gateway(addr), hostMAC)); err != nil {
			return fmt.Errorf("name gateway to the pod: %w", err)
		}
		route := &netlink.Route{
			LinkIndex: eth.Attrs().Index, Gw: gateway(addr).AsSlice(), Flags: int(netlink.FLAG_ONLINK), Dst: defaultRoute(addr),
		}
		if err := inside.RouteReplace(route); err != nil {
			return fmt.Errorf("route the pod to its gateway: %w", err)
		}
	}
	return nil
}

func (n *Network) configureHostEnd(r *record, host netlink.Link) error {
	if err := netlink.LinkSetUp(host); err != nil {
		return fmt.Errorf("raise link %s: %w", host.Attrs().Name, err)
	}
	podMAC, hostMAC := macs(r.ID)
	index := host.Attrs().Index
	if err := n.packets.AttachPod(host.Attrs().Name, index); err != nil {
		return err
	}
	for i, addr := range r.Addrs {
		if err := netlink.NeighSet(neighbour(host, addr, podMAC)); err != nil {
			return fmt.Errorf("name pod to the host: %w", err)
		}
		route := &netlink.Route{
			LinkIndex: index, Dst: hostAddr(addr).IPNet, Src: firstAddress(n.pools[i].prefix).AsSlice(), Scope: netlink.SCOPE_LINK,
		}
		if addr.Is6() {
			route.Scope = netlink.SCOPE_UNIVERSE
		}
		if err := netlink.RouteReplace(route); err != nil {
			return fmt.Errorf("route to pod address %s: %w", addr, err)
		}
		value := bpf.Pod{Ifindex: uint32(index), MAC: podMAC, HostMAC: hostMAC}
		if err := n.packets.Pods.Put(bpf.MakeAddr(addr), value); err != nil {
			return fmt.Errorf("enter pod address %s: %w", addr, err)
		}
	}
	return nil
}

// hostAddr is an address alone in its network, without duplicate detection: nobody else has it.
func hostAddr(addr netip.Addr) *netlink.Addr {
	a := &netlink.Addr{IPNet: &net.IPNet{IP: addr.AsSlice(), Mask: net.CIDRMask(addr.BitLen(), addr.BitLen())}}
	if addr.Is6() {
		a.Flags = unix.IFA_F_NODAD
	}
	return a
}

func defaultRoute(like netip.Addr) *net.IPNet {
	bits := like.BitLen()
	return &net.IPNet{IP: make(net.IP, bits/8), Mask: net.CIDRMask(0, bits)}
}

func neighbour(link netlink.Link, addr netip.Addr, mac [6]byte) *netlink.Neigh {
	return &netlink.Neigh{LinkIndex: link.Attrs().Index, State: netlink.NUD_PERMANENT, IP: addr.AsSlice(), HardwareAddr: mac[:]}
}
