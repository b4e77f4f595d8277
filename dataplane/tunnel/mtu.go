package tunnel

import (
	"errors"
	"fmt"
	"net"
	"net/netip"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

const (
	// mtuMin is the least that IPv4 asks of a link.
	mtuMin = 576
	// ipv6MTUMin is the least that IPv6 asks of a link; with less, pods have no IPv6.
	ipv6MTUMin = 1280
)

// MTU is what pods may send, in bytes, with a mode on the node that has the address. It reads the MTU of the link which
// carries the address, or, where none does (a router translates it), of the link with the default route.
func MTU(mode Mode, addr netip.Addr) (int, error) { return podMTU(mode, addr, addr.Is6()) }

func podMTU(mode Mode, addr netip.Addr, outer6 bool) (int, error) {
	link, err := underlay(addr)
	if err != nil {
		return 0, fmt.Errorf("find the link of node address %s: %w", addr, err)
	}
	mtu := link.Attrs().MTU - mode.Overhead(outer6)
	if mtu < mtuMin {
		return 0, fmt.Errorf("link %s carries %d bytes: %s leaves %d, too few for IPv4", link.Attrs().Name, link.Attrs().MTU, mode, mtu)
	}
	return mtu, nil
}

// underlay is the link that carries the node's address.
func underlay(addr netip.Addr) (netlink.Link, error) {
	addrs, err := netlink.AddrList(nil, unix.AF_UNSPEC)
	if err != nil && !errors.Is(err, netlink.ErrDumpInterrupted) {
		return nil, err
	}
	for _, a := range addrs {
		if ip, ok := netip.AddrFromSlice(a.IP); ok && ip.Unmap() == addr.Unmap() {
			return netlink.LinkByIndex(a.LinkIndex)
		}
	}
	anywhere := net.IPv4(1, 1, 1, 1)
	if addr.Is6() {
		anywhere = net.ParseIP("2606:4700:4700::1111")
	}
	// Only the routing table is asked; nothing is sent.
	routes, err := netlink.RouteGet(anywhere)
	if err != nil {
		return nil, fmt.Errorf("no link has it, and there is no default route: %w", err)
	}
	return netlink.LinkByIndex(routes[0].LinkIndex)
}
