package tunnel_test

import (
	"errors"
	"io"
	"net/netip"
	"strings"
	"testing"

	"github.com/google/nftables"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/podvine/podvine/dataplane/internal/testhost"
	"github.com/podvine/podvine/dataplane/tunnel"
)

// What WireGuard carries is not readable on the way; what VXLAN carries is, with the pod's own address as source.
func TestEncryption(t *testing.T) {
	secret := []byte("the-quick-brown-secret-of-podvine")
	for mode, readable := range map[tunnel.Mode]bool{tunnel.WireGuard: false, tunnel.VXLAN: true, tunnel.Direct: true} {
		t.Run(string(mode), func(t *testing.T) {
			m := newMesh(t, mode, 2, outer4)
			a, b := m.hosts[0].web("a"), m.hosts[1].web("b")
			m.hosts[0].expect(a.netns, at(b.v4), "b", a.v4)
			seen := startCapture(t, m.hosts[0].port)
			conn, err := testhost.DialTCP(a.netns, at(b.v4))
			must(t, err)
			defer conn.Close()
			_, err = testhost.ReadAnswer(conn)
			must(t, err)
			_, err = conn.Write(secret)
			must(t, err)
			_, err = io.ReadFull(conn, make([]byte, len(secret)))
			must(t, err)
			port := map[tunnel.Mode]uint16{tunnel.WireGuard: tunnel.WireGuardPort, tunnel.VXLAN: tunnel.VXLANPort}[mode]
			if mode != tunnel.Direct {
				testhost.Eventually(t, limit, "frames of the tunnel", func() bool { return seen.toPort(port) > 0 })
			}
			if !readable {
				if n := seen.count(secret); n > 0 {
					t.Errorf("%d frames show what pods say", n)
				}
				return
			}
			source := a.v4.As4()
			testhost.Eventually(t, limit, "readable frames", func() bool { return seen.count(secret) > 0 && seen.count(source[:]) > 0 })
		})
	}
}

// The largest packet that a pod may send arrives whole; a larger one is refused where it is made. A change is followed.
func TestMTU(t *testing.T) {
	for _, mode := range []tunnel.Mode{tunnel.WireGuard, tunnel.VXLAN, tunnel.Direct} {
		t.Run(string(mode), func(t *testing.T) {
			m := newMesh(t, mode, 2, outer4)
			a, b := m.hosts[0].web("a"), m.hosts[1].web("b")
			m.hosts[0].expect(a.netns, at(b.v4), "b", a.v4)
			for _, underlay := range []int{1500, 1400, 1450} {
				want := underlay - mode.Overhead(false)
				for _, h := range m.hosts {
					h.setUnderlayMTU(underlay)
				}
				for _, p := range []pod{a, b} {
					testhost.Eventually(t, limit, "MTU of pod "+p.name, func() bool { return podMTU(t, p) == want })
				}
				for _, v6 := range []bool{false, true} {
					// The tunnel's own link follows a moment after the pods'.
					var err error
					for range 5 {
						if err = sendWhole(a, b, v6, want); err == nil {
							break
						}
					}
					if err != nil {
						t.Errorf("underlay %d, IPv6 %v: %d bytes do not arrive: %v", underlay, v6, want, err)
					}
					if err := sendWhole(a, b, v6, want+1); !errors.Is(err, unix.EMSGSIZE) {
						t.Errorf("underlay %d, IPv6 %v: %d bytes: %v, want a refusal", underlay, v6, want+1, err)
					}
				}
				fresh := m.hosts[1].pod("late" + string(rune('a'+underlay%26)))
				if got := podMTU(t, fresh); got != want {
					t.Errorf("a new pod has MTU %d, want %d", got, want)
				}
			}
			// While a change settles, WireGuard may still pad to the size that was.
			seen := startCapture(t, m.hosts[0].port)
			transfer(t, a, b)
			if n := seen.fragments(); n > 0 {
				t.Errorf("%d frames are fragments", n)
			}
		})
	}
}

// transfer moves a megabyte there and back.
func transfer(t *testing.T, a, b pod) {
	t.Helper()
	conn, err := testhost.DialTCP(a.netns, at(b.v4))
	must(t, err)
	defer conn.Close()
	_, err = testhost.ReadAnswer(conn)
	must(t, err)
	const size = 1 << 20
	go func() { _, _ = conn.Write(make([]byte, size)) }() // the reader notices what is missing
	_, err = io.ReadFull(conn, make([]byte, size))
	must(t, err)
}

func TestRemovedPeerIsCutOff(t *testing.T) {
	for _, mode := range []tunnel.Mode{tunnel.WireGuard, tunnel.VXLAN, tunnel.Direct} {
		t.Run(string(mode), func(t *testing.T) {
			m := newMesh(t, mode, 3, outer4)
			h1, h2, h3 := m.hosts[0], m.hosts[1], m.hosts[2]
			a, b, c := h1.web("a"), h2.web("b"), h3.web("c")
			h1.expect(a.netns, at(b.v4), "b", a.v4)
			h1.expect(a.netns, at(c.v4), "c", a.v4)
			without := h1.state()
			without.Peers = []tunnel.Peer{h3.peer()}
			h1.set(without)
			h1.silence(a.netns, at(b.v4))
			h1.expect(a.netns, at(c.v4), "c", a.v4)
			if mode == tunnel.WireGuard {
				// The other way round too: its packets are not taken any more.
				h2.silence(b.netns, at(a.v4))
			}
			h1.set(h1.state())
			h1.expect(a.netns, at(b.v4), "b", a.v4)
		})
	}
}

func TestKeyRotation(t *testing.T) {
	m := newMesh(t, tunnel.WireGuard, 2, outer4)
	h1, h2 := m.hosts[0], m.hosts[1]
	a, b := h1.web("a"), h2.web("b")
	h1.expect(a.netns, at(b.v4), "b", a.v4)
	old := h1.key
	must(t, h1.client.Call("Node.Rotate", struct{}{}, &h1.key))
	if h1.key == old || h1.status().WireGuard.PublicKey != h1.key {
		t.Errorf("key %s, was %s; the device has %s", h1.key, old, h1.status().WireGuard.PublicKey)
	}
	h2.silence(b.netns, at(a.v4)) // it does not know the new key yet
	h2.set(h2.state())
	h2.expect(b.netns, at(a.v4), "a", b.v4)
	h1.expect(a.netns, at(b.v4), "b", a.v4)
}

// A peer that moves is followed within its session: nothing is shaken hands over.
func TestAddressChange(t *testing.T) {
	for _, mode := range []tunnel.Mode{tunnel.WireGuard, tunnel.VXLAN, tunnel.Direct} {
		t.Run(string(mode), func(t *testing.T) {
			m := newMesh(t, mode, 2, outer4)
			h1, h2 := m.hosts[0], m.hosts[1]
			a, b := h1.web("a"), h2.web("b")
			h1.expect(a.netns, at(b.v4), "b", a.v4)
			before := h1.status()
			conn, err := testhost.DialTCP(a.netns, at(b.v4))
			must(t, err)
			defer conn.Close()
			_, err = testhost.ReadAnswer(conn)
			must(t, err)

			h2.inside(func() error {
				uplink, err := netlink.LinkByName("uplink")
				if err != nil {
					return err
				}
				for _, change := range []struct {
					do   func(netlink.Link, *netlink.Addr) error
					addr string
				}{{netlink.AddrDel, "192.0.2.2/24"}, {netlink.AddrAdd, "192.0.2.77/24"}} {
					addr, err := netlink.ParseAddr(change.addr)
					if err != nil {
						return err
					}
					if err := change.do(uplink, addr); err != nil {
						return err
					}
				}
				return nil
			})
			h2.settings.Addrs[0] = netip.MustParseAddr("192.0.2.77")
			m.connect()
			_, err = conn.Write([]byte("still"))
			must(t, err)
			if _, err := io.ReadFull(conn, make([]byte, 5)); err != nil {
				t.Errorf("the connection broke: %v", err)
			}
			h1.expect(a.netns, at(b.v4), "b", a.v4)
			if mode == tunnel.WireGuard {
				after := h1.status()
				was, is := before.WireGuard.Peers[0], after.WireGuard.Peers[0]
				if !is.LastHandshake.Equal(was.LastHandshake) || is.Endpoint.Addr() != h2.settings.Addrs[0] {
					t.Errorf("peer %+v, was %+v", is, was)
				}
			}
		})
	}
}

// A firewall that drops all forwarding, as others leave behind, must not part pods of different nodes.
func TestForeignForwardDropDoesNotPartNodes(t *testing.T) {
	for _, mode := range []tunnel.Mode{tunnel.WireGuard, tunnel.VXLAN, tunnel.Direct} {
		t.Run(string(mode), func(t *testing.T) {
			m := newMesh(t, mode, 2, outer4)
			for _, h := range m.hosts {
				h.inside(func() error {
					c, err := nftables.New()
					if err != nil {
						return err
					}
					drop := nftables.ChainPolicyDrop
					table := c.AddTable(&nftables.Table{Family: nftables.TableFamilyINet, Name: "foreign"})
					c.AddChain(&nftables.Chain{
						Name: "forward", Table: table, Type: nftables.ChainTypeFilter, Hooknum: nftables.ChainHookForward,
						Priority: nftables.ChainPriorityFilter, Policy: &drop,
					})
					return c.Flush()
				})
			}
			a, b := m.hosts[0].web("a"), m.hosts[1].web("b")
			for i, addr := range b.addrs() {
				m.hosts[0].expect(a.netns, at(addr), "b", a.addrs()[i])
			}
		})
	}
}

// The setting may change while the cluster runs. What another mode made goes.
func TestChangeOfMode(t *testing.T) {
	m := newMesh(t, tunnel.WireGuard, 2, outer4)
	h1 := m.hosts[0]
	a, b := h1.web("a"), m.hosts[1].web("b")
	h1.expect(a.netns, at(b.v4), "b", a.v4)
	for _, mode := range []tunnel.Mode{tunnel.VXLAN, tunnel.Direct, tunnel.WireGuard} {
		m.mode = mode
		m.connect()
		h1.expect(a.netns, at(b.v4), "b", a.v4)
		for link, of := range map[string]tunnel.Mode{"pvwg0": tunnel.WireGuard, "pvx0": tunnel.VXLAN} {
			if there := h1.linkIndex(link) != 0; there != (mode == of) {
				t.Errorf("in mode %s link %s is there: %v", mode, link, there)
			}
		}
	}
}

// Repeating writes nothing, and what somebody removed comes back.
func TestSetIsIdempotentAndRepairs(t *testing.T) {
	m := newMesh(t, tunnel.VXLAN, 2, outer4)
	h1 := m.hosts[0]
	a, b := h1.web("a"), m.hosts[1].web("b")
	before := h1.linkIndex("pvx0")
	h1.set(h1.state())
	if h1.linkIndex("pvx0") != before {
		t.Error("the link was made anew")
	}
	h1.inside(func() error {
		link, err := netlink.LinkByName("pvx0")
		if err != nil {
			return err
		}
		return netlink.LinkDel(link)
	})
	testhost.Eventually(t, limit, "the link comes back", func() bool { return h1.linkIndex("pvx0") != 0 })
	h1.expect(a.netns, at(b.v4), "b", a.v4)
}

func TestPeerThatCannotBeConnectedHarmsNoOther(t *testing.T) {
	m := newMesh(t, tunnel.WireGuard, 2, outer4)
	h1 := m.hosts[0]
	a, b := h1.web("a"), m.hosts[1].web("b")
	state := h1.state()
	state.Peers = append(state.Peers, tunnel.Peer{ID: "odd", PodCIDRs: []netip.Prefix{netip.MustParsePrefix("10.244.9.0/24")}})
	err := h1.client.Call("Node.Set", state, nil)
	if err == nil || !strings.Contains(err.Error(), "node odd is not connected: its public key is not known") {
		t.Errorf("error %v", err)
	}
	h1.expect(a.netns, at(b.v4), "b", a.v4)
}
