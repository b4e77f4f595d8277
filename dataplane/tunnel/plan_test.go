package tunnel

import (
	"errors"
	"fmt"
	"math/rand"
	"net/netip"
	"reflect"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/podvine/podvine/dataplane/tunnel/wireguard"
)

func self() Self {
	return Self{
		ID: "self", Addrs: []netip.Addr{netip.MustParseAddr("192.0.2.1")},
		PodCIDRs: []netip.Prefix{netip.MustParsePrefix("10.244.1.0/24"), netip.MustParsePrefix("fd00:1::/64")},
	}
}

func peer(id string, number int) Peer {
	return Peer{
		ID: id, Addrs: []netip.Addr{netip.MustParseAddr(fmt.Sprintf("192.0.2.%d", number))}, PublicKey: wireguard.Key{byte(number)},
		PodCIDRs: []netip.Prefix{netip.MustParsePrefix(fmt.Sprintf("10.244.%d.0/24", number))},
	}
}

func TestPeersThatCannotBeConnectedAreRefusedAlone(t *testing.T) {
	cases := map[string]struct {
		mode   Mode
		change func(*Peer)
		reason string
	}{
		"own identity":      {WireGuard, func(p *Peer) { p.ID = "self" }, "own identity"},
		"no key":            {WireGuard, func(p *Peer) { p.PublicKey = wireguard.Key{} }, "public key is not known"},
		"another's key":     {WireGuard, func(p *Peer) { p.PublicKey = wireguard.Key{2} }, "public key of node a"},
		"no address":        {WireGuard, func(p *Peer) { p.Addrs = nil }, "address is not known"},
		"this node's range": {VXLAN, func(p *Peer) { p.PodCIDRs[0] = netip.MustParsePrefix("10.244.0.0/16") }, "overlaps this node's own"},
		"another's range":   {Direct, func(p *Peer) { p.PodCIDRs[0] = netip.MustParsePrefix("10.244.2.0/24") }, "is node a's"},
		"invalid range":     {VXLAN, func(p *Peer) { p.PodCIDRs[0] = netip.Prefix{} }, "invalid pod range"},
		"other family":      {VXLAN, func(p *Peer) { p.Addrs[0] = netip.MustParseAddr("2001:db8::3") }, "no address of the family"},
		"no way for IPv6":   {Direct, func(p *Peer) { p.PodCIDRs = append(p.PodCIDRs, netip.MustParsePrefix("fd00:3::/64")) }, "family of its pod range fd00:3::/64"},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			bad := peer("b", 3)
			c.change(&bad)
			p, err := decide(State{Mode: c.mode, Self: self(), Peers: []Peer{bad, peer("a", 2)}})
			if err != nil {
				t.Fatal(err)
			}
			var refused *PeerError
			if len(p.refused) != 1 || !errors.As(p.refused[0], &refused) || refused.ID != bad.ID || !strings.Contains(refused.Reason, c.reason) {
				t.Errorf("refused %v, want one with %q", p.refused, c.reason)
			}
			if len(p.routes) == 0 || p.routes[0].to != netip.MustParsePrefix("10.244.2.0/24") {
				t.Errorf("the good peer's routes: %+v", p.routes)
			}
		})
	}
}

func TestDecideFillsInWhatModesNeed(t *testing.T) {
	v6 := peer("b", 3)
	v6.Addrs = []netip.Addr{netip.MustParseAddr("2001:db8::3")}
	p, err := decide(State{Mode: WireGuard, Self: self(), Peers: []Peer{v6, peer("a", 2)}})
	if err != nil || p.link != "pvwg0" || !p.outer6(&Self{Addrs: self().Addrs}) {
		t.Errorf("plan %+v, %v", p, err)
	}
	if p.wireguard.Port != 51820 || p.wireguard.Peers[0].Endpoint.String() != "192.0.2.2:51820" || p.routes[0].source.String() != "10.244.1.1" {
		t.Errorf("plan %+v", p)
	}
	p, err = decide(State{Mode: VXLAN, Self: self(), Peers: []Peer{peer("a", 2)}})
	if err != nil || p.link != "pvx0" || p.routes[0].via.String() != "10.244.2.1" || p.neighbours[0].at.String() != "192.0.2.2" {
		t.Errorf("plan %+v, %v", p, err)
	}
	if p, err = decide(State{Mode: Direct, Self: self(), Peers: []Peer{peer("a", 2)}}); err != nil || p.link != "" || p.routes[0].via.String() != "192.0.2.2" {
		t.Errorf("plan %+v, %v", p, err)
	}
	for _, bad := range []State{{Mode: WireGuard}, {Mode: "pigeon", Self: self()}} {
		if _, err := decide(bad); err == nil {
			t.Errorf("state %+v was accepted", bad)
		}
	}
}

// Whatever peers claim: no range leads to two nodes, none is this node's, and order does not matter.
func TestDecideIsSafeAndStable(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		state := State{Mode: rapid.SampledFrom([]Mode{WireGuard, VXLAN, Direct}).Draw(t, "mode"), Self: self()}
		for i := range rapid.IntRange(0, 8).Draw(t, "peers") {
			p := peer(fmt.Sprint("node", i), rapid.IntRange(1, 5).Draw(t, "number"))
			p.PublicKey = wireguard.Key{byte(rapid.IntRange(0, 6).Draw(t, "key"))}
			state.Peers = append(state.Peers, p)
		}
		p, err := decide(state)
		if err != nil {
			t.Fatal(err)
		}
		seen := map[netip.Prefix]bool{}
		for _, r := range p.routes {
			if seen[r.to] || r.to.Overlaps(state.Self.PodCIDRs[0]) {
				t.Fatalf("range %s twice, or this node's own: %+v", r.to, p.routes)
			}
			seen[r.to] = true
		}
		p.wireguard.KeyFile, p.wireguard.PublicKey, p.wireguard.Port = "k", wireguard.Key{99}, 1
		p.wireguard.Link = "pvwg0"
		if err := p.wireguard.Check(); err != nil {
			t.Fatalf("no device would take it: %v", err)
		}
		shuffled := state
		shuffled.Peers = append([]Peer(nil), state.Peers...)
		random := rand.New(rand.NewSource(rapid.Int64().Draw(t, "order")))
		random.Shuffle(len(shuffled.Peers), func(i, j int) {
			shuffled.Peers[i], shuffled.Peers[j] = shuffled.Peers[j], shuffled.Peers[i]
		})
		again, err := decide(shuffled)
		if err != nil || !reflect.DeepEqual(again.routes, p.routes) || len(again.refused) != len(p.refused) {
			t.Fatalf("another order gives another plan: %+v and %+v", p, again)
		}
	})
}

func TestOverhead(t *testing.T) {
	for _, c := range []struct {
		mode Mode
		v6   bool
		want int
	}{{WireGuard, false, 60}, {WireGuard, true, 80}, {VXLAN, false, 50}, {VXLAN, true, 70}, {Direct, false, 0}, {Direct, true, 0}} {
		if got := c.mode.Overhead(c.v6); got != c.want {
			t.Errorf("%s over IPv6 %v adds %d, want %d", c.mode, c.v6, got, c.want)
		}
	}
}

func TestParseMode(t *testing.T) {
	for text, want := range map[string]Mode{"": WireGuard, "wireguard": WireGuard, "VXLAN": VXLAN, "direct": Direct} {
		if got, err := ParseMode(text); err != nil || got != want {
			t.Errorf("%q is %q, %v", text, got, err)
		}
	}
	if _, err := ParseMode("gre"); err == nil {
		t.Error("gre was accepted")
	}
}
