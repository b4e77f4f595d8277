package tunnel

import (
	"cmp"
	"crypto/sha256"
	"fmt"
	"net"
	"net/netip"
	"slices"

	"github.com/podvine/podvine/dataplane/tunnel/wireguard"
)

const (
	// wireGuardLink and vxlanLink are the names of our links.
	wireGuardLink = "pvwg0"
	vxlanLink     = "pvx0"
)

// plan is what a state amounts to. It is a value: equal states give equal plans.
type plan struct {
	mode Mode
	// link is ours, or empty for Direct.
	link string
	// wireguard lacks key and MTU, which the state does not know.
	wireguard  wireguard.Config
	neighbours []neighbour
	routes     []route
	refused    []error
}

// neighbour is a node behind the VXLAN link.
type neighbour struct {
	mac string
	// at is the node's address outside, gateways are those that routes name.
	at       netip.Addr
	gateways []netip.Addr
}

// route leads to a range of another node.
type route struct {
	to netip.Prefix
	// via is the next hop; on a link of ours that has none it is invalid.
	via netip.Addr
	// source is what the host's own packets leave with.
	source netip.Addr
}

// firstAddress is a node's own in its range.
func firstAddress(r netip.Prefix) netip.Addr { return r.Masked().Addr().Next() }

// hardwareAddress of a node's VXLAN link: locally administered, the same on every node's view.
func hardwareAddress(id string) net.HardwareAddr {
	sum := sha256.Sum256([]byte(id))
	return append(net.HardwareAddr{0x0a}, sum[:5]...)
}

// decide is pure. A peer that cannot be connected is refused with a reason and harms no other.
func decide(state State) (plan, error) {
	p := plan{mode: state.Mode}
	if len(state.Self.Addrs) == 0 || len(state.Self.PodCIDRs) == 0 {
		return plan{}, fmt.Errorf("node %s has no address or no pod range", state.Self.ID)
	}
	switch state.Mode {
	case WireGuard:
		p.link = wireGuardLink
		p.wireguard = wireguard.Config{Link: wireGuardLink, Port: cmp.Or(state.Self.Port, WireGuardPort)}
	case VXLAN:
		p.link = vxlanLink
	case Direct:
	default:
		return plan{}, fmt.Errorf("tunnel %q is unknown", state.Mode)
	}
	peers := slices.Clone(state.Peers)
	slices.SortFunc(peers, func(a, b Peer) int { return cmp.Compare(a.ID, b.ID) })
	taken := map[netip.Prefix]string{}
	keys := map[wireguard.Key]string{}
	for i := range peers {
		if reason := p.add(&state.Self, &peers[i], taken, keys); reason != "" {
			p.refused = append(p.refused, &PeerError{ID: peers[i].ID, Reason: reason})
		}
	}
	return p, nil
}

// add connects a peer, or says why not.
func (p *plan) add(self *Self, peer *Peer, taken map[netip.Prefix]string, keys map[wireguard.Key]string) string {
	if peer.ID == self.ID {
		return "it has this node's own identity"
	}
	if reason := checkRanges(self, peer, taken); reason != "" {
		return reason
	}
	at := ofFamily(peer.Addrs, self.Addrs[0].Is6())
	switch p.mode {
	case WireGuard:
		if len(peer.Addrs) > 0 && !at.IsValid() {
			at = peer.Addrs[0]
		}
		if other, double := keys[peer.PublicKey]; double {
			return "it has the public key of node " + other
		}
		if peer.PublicKey.IsZero() {
			return "its public key is not known"
		}
		if !at.IsValid() {
			return "its address is not known"
		}
		keys[peer.PublicKey] = peer.ID
		p.wireguard.Peers = append(p.wireguard.Peers, wireguard.Peer{
			PublicKey: peer.PublicKey, Endpoint: netip.AddrPortFrom(at, cmp.Or(peer.Port, WireGuardPort)), AllowedIPs: masked(peer.PodCIDRs),
		})
	case VXLAN:
		if !at.IsValid() {
			return fmt.Sprintf("it has no address of the family of %s", self.Addrs[0])
		}
		p.neighbours = append(p.neighbours, neighbour{mac: hardwareAddress(peer.ID).String(), at: at, gateways: gateways(peer)})
	}
	return p.addRoutes(self, peer, taken)
}

// checkRanges makes sure that a peer's ranges are nobody else's.
func checkRanges(self *Self, peer *Peer, taken map[netip.Prefix]string) string {
	for _, r := range masked(peer.PodCIDRs) {
		if !r.IsValid() {
			return "it has an invalid pod range"
		}
		for _, own := range self.PodCIDRs {
			if own.Overlaps(r) {
				return fmt.Sprintf("its pod range %s overlaps this node's own", r)
			}
		}
		if other, double := taken[r]; double {
			return fmt.Sprintf("its pod range %s is node %s's", r, other)
		}
	}
	return ""
}

func (p *plan) addRoutes(self *Self, peer *Peer, taken map[netip.Prefix]string) (reason string) {
	for _, r := range masked(peer.PodCIDRs) {
		taken[r] = peer.ID
		made := route{to: r}
		for _, own := range self.PodCIDRs {
			if own.Addr().Is4() == r.Addr().Is4() {
				made.source = firstAddress(own)
			}
		}
		switch p.mode {
		case VXLAN:
			made.via = firstAddress(r)
		case Direct:
			made.via = ofFamily(peer.Addrs, r.Addr().Is6())
			if !made.via.IsValid() {
				reason = fmt.Sprintf("it has no address of the family of its pod range %s", r)
				continue
			}
		}
		p.routes = append(p.routes, made)
	}
	return reason
}

func gateways(peer *Peer) []netip.Addr {
	var out []netip.Addr
	for _, r := range peer.PodCIDRs {
		out = append(out, firstAddress(r))
	}
	return out
}

func masked(ranges []netip.Prefix) []netip.Prefix {
	out := make([]netip.Prefix, 0, len(ranges))
	for _, r := range ranges {
		out = append(out, r.Masked())
	}
	return out
}

func ofFamily(addrs []netip.Addr, v6 bool) netip.Addr {
	for _, a := range addrs {
		if a = a.Unmap(); a.IsValid() && a.Is6() == v6 {
			return a
		}
	}
	return netip.Addr{}
}

// outer6 tells whether the tunnel's own packets are IPv6: one peer is enough, for the larger header decides the MTU.
func (p *plan) outer6(self *Self) bool {
	return self.Addrs[0].Is6() || slices.ContainsFunc(p.wireguard.Peers, func(peer wireguard.Peer) bool { return peer.Endpoint.Addr().Is6() })
}
