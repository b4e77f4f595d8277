package tunnel_test

import (
	"net/netip"
	"testing"

	"github.com/podvine/podvine/dataplane/internal/testhost"
	"github.com/podvine/podvine/dataplane/tunnel"
)

var families = map[string]func(int) []netip.Addr{"IPv4": outer4, "IPv6": outer6}

// Every mode, over both families: pods of different nodes see each other's own addresses, and so do the hosts.
func TestPodsOfDifferentNodes(t *testing.T) {
	for _, mode := range []tunnel.Mode{tunnel.WireGuard, tunnel.VXLAN, tunnel.Direct} {
		for family, outer := range families {
			t.Run(string(mode)+" over "+family, func(t *testing.T) {
				m := newMesh(t, mode, 2, outer)
				h1, h2 := m.hosts[0], m.hosts[1]
				a, b := h1.web("a"), h2.web("b")
				testhost.ServeTCP(t, h2.netns, netip.AddrPortFrom(netip.IPv6Unspecified(), 8080), "h2")
				for _, addr := range h2.settings.Addrs {
					testhost.ServeUDP(t, h2.netns, at(addr), "h2")
				}
				for i, addr := range b.addrs() {
					h1.expect(a.netns, at(addr), "b", a.addrs()[i])
					h2.expect(b.netns, at(a.addrs()[i]), "a", addr)
					// The host itself, as the first address of its range.
					h1.expect("", at(addr), "b", h1.settings.CIDRs[i].Addr().Next())
				}
				// A pod to another node's host leaves the cluster's ranges: it gets its own node's address.
				for _, addr := range h2.settings.Addrs {
					source := h1.settings.Addrs[0]
					if source.Is4() != addr.Is4() {
						source = h1.settings.Addrs[1]
					}
					h1.expect(a.netns, at(addr), "h2", source)
				}
			})
		}
	}
}
