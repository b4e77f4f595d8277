package tunnel

import (
	"errors"
	"fmt"
	"net"
	"net/netip"

	"github.com/cilium/ebpf"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/podvine/podvine/dataplane/bpf"
)

// routeProtocol marks our routes ("v"); nobody else's are touched.
const routeProtocol netlink.RouteProtocol = 118

// ownRoutes are the ones that we made.
func ownRoutes() ([]netlink.Route, error) {
	var out []netlink.Route
	for _, family := range []int{unix.AF_INET, unix.AF_INET6} {
		list, err := netlink.RouteListFiltered(family, &netlink.Route{Protocol: routeProtocol}, netlink.RT_FILTER_PROTOCOL)
		if err != nil && !errors.Is(err, netlink.ErrDumpInterrupted) {
			return nil, fmt.Errorf("list routes: %w", err)
		}
		out = append(out, list...)
	}
	return out, nil
}

// withdrawRoutes removes our routes to ranges that are no longer wanted.
func withdrawRoutes(wanted []route) error {
	keep := map[netip.Prefix]bool{}
	for _, r := range wanted {
		keep[r.to] = true
	}
	have, err := ownRoutes()
	if err != nil {
		return err
	}
	for i := range have {
		if keep[prefixOf(have[i].Dst)] {
			continue
		}
		if err := netlink.RouteDel(&have[i]); err != nil && !errors.Is(err, unix.ESRCH) {
			return fmt.Errorf("withdraw route to %s: %w", have[i].Dst, err)
		}
	}
	return nil
}

// ensureRoutes makes the routes that are missing or differ, and returns the link that leads to each range.
func ensureRoutes(p *plan, mtu int) (map[netip.Prefix]int, error) {
	have, err := ownRoutes()
	if err != nil {
		return nil, err
	}
	byRange := map[netip.Prefix]*netlink.Route{}
	for i := range have {
		byRange[prefixOf(have[i].Dst)] = &have[i]
	}
	index := 0
	if p.link != "" {
		link, err := netlink.LinkByName(p.link)
		if err != nil {
			return nil, fmt.Errorf("find link %s: %w", p.link, err)
		}
		index = link.Attrs().Index
	}
	out := map[netip.Prefix]int{}
	var problems []error
	for _, r := range p.routes {
		made, err := makeRoute(r, index, mtu)
		if err == nil {
			err = putRoute(byRange[r.to], made)
		}
		if err != nil {
			problems = append(problems, fmt.Errorf("route to pod range %s: %w", r.to, err))
			continue
		}
		out[r.to] = made.LinkIndex
	}
	return out, errors.Join(problems...)
}

// putRoute makes a route what it should be. One that moves to another link is taken away first: to replace an IPv6 route by one
// with a gateway on another link, the kernel refuses as invalid.
func putRoute(have, want *netlink.Route) error {
	if sameRoute(have, want) {
		return nil
	}
	if have != nil && have.LinkIndex != want.LinkIndex {
		if err := netlink.RouteDel(have); err != nil && !errors.Is(err, unix.ESRCH) {
			return err
		}
	}
	return netlink.RouteReplace(want)
}

// makeRoute puts a route on our link, or, for index 0, on the one that leads to the next hop.
func makeRoute(r route, index, mtu int) (*netlink.Route, error) {
	made := &netlink.Route{
		LinkIndex: index, Protocol: routeProtocol, MTU: mtu, Table: unix.RT_TABLE_MAIN,
		Dst: &net.IPNet{IP: r.to.Addr().AsSlice(), Mask: net.CIDRMask(r.to.Bits(), r.to.Addr().BitLen())},
	}
	if r.source.IsValid() {
		made.Src = r.source.AsSlice()
	}
	switch {
	case index == 0:
		way, err := netlink.RouteGet(r.via.AsSlice())
		if err != nil {
			return nil, fmt.Errorf("find the way to its node %s: %w", r.via, err)
		}
		made.LinkIndex, made.Gw = way[0].LinkIndex, way[0].Gw
		if made.Gw == nil {
			made.Gw = r.via.AsSlice()
		}
	case r.via.IsValid():
		made.Gw, made.Flags = r.via.AsSlice(), int(netlink.FLAG_ONLINK)
	case r.to.Addr().Is4():
		made.Scope = netlink.SCOPE_LINK
	}
	return made, nil
}

func sameRoute(have, want *netlink.Route) bool {
	return have != nil && have.LinkIndex == want.LinkIndex && have.MTU == want.MTU && have.Gw.Equal(want.Gw) && have.Src.Equal(want.Src)
}

func prefixOf(n *net.IPNet) netip.Prefix {
	if n == nil {
		return netip.Prefix{}
	}
	addr, ok := netip.AddrFromSlice(n.IP)
	if !ok {
		return netip.Prefix{}
	}
	bits, _ := n.Mask.Size()
	return netip.PrefixFrom(addr.Unmap(), bits)
}

// writeRemotes makes the programs' map of ranges fit.
func writeRemotes(packets *bpf.Packets, wanted map[netip.Prefix]int) error {
	var key bpf.RemoteKey
	var value bpf.Remote
	have, stale := map[netip.Prefix]int{}, []bpf.RemoteKey{}
	iterator := packets.Remotes.Iterate()
	for iterator.Next(&key, &value) {
		have[key.Prefix()] = int(value.Ifindex)
		if _, ok := wanted[key.Prefix()]; !ok {
			stale = append(stale, key)
		}
	}
	if err := iterator.Err(); err != nil {
		return fmt.Errorf("read map of remote ranges: %w", err)
	}
	for _, key := range stale {
		if err := packets.Remotes.Delete(key); err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
			return fmt.Errorf("withdraw remote range %s: %w", key.Prefix(), err)
		}
	}
	for prefix, index := range wanted {
		if at, ok := have[prefix]; ok && at == index {
			continue
		}
		if err := packets.Remotes.Put(bpf.MakeRemoteKey(prefix), bpf.Remote{Ifindex: uint32(index)}); err != nil {
			return fmt.Errorf("enter remote range %s: %w", prefix, err)
		}
	}
	return nil
}
