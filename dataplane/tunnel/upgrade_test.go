package tunnel_test

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/nftables"
	"github.com/vishvananda/netlink"

	"github.com/podvine/podvine/dataplane/internal/testhost"
	"github.com/podvine/podvine/dataplane/tunnel"
)

// An agent that is killed and started again loses no packet: what carries them is elsewhere.
func TestKilledAgentLosesNoPacket(t *testing.T) {
	for _, mode := range []tunnel.Mode{tunnel.WireGuard, tunnel.VXLAN, tunnel.Direct} {
		t.Run(string(mode), func(t *testing.T) {
			m := newMesh(t, mode, 2, outer4)
			h1 := m.hosts[0]
			a, b := h1.web("a"), m.hosts[1].web("b")
			h1.expect(a.netns, at(b.v4), "b", a.v4)
			netd, links := h1.netdPID, []int{h1.linkIndex("pvwg0"), h1.linkIndex("pvx0")}
			load := startTraffic(a, b, time.Millisecond)
			h1.kill()
			h1.start()
			h1.set(h1.state())
			h1.set(h1.state())
			load.end()
			if load.lost > 0 || load.asked == 0 {
				t.Errorf("%d of %d questions were lost", load.lost, load.asked)
			}
			if h1.netdPID != netd || !slices.Equal(links, []int{h1.linkIndex("pvwg0"), h1.linkIndex("pvx0")}) {
				t.Errorf("netd %d, was %d; links were %v", h1.netdPID, netd, links)
			}
		})
	}
}

// Another build of netd takes over the tunnel's link: a short break, no new link.
func TestNetdTakesOverTheTunnel(t *testing.T) {
	m := newMesh(t, tunnel.WireGuard, 2, outer4)
	h1 := m.hosts[0]
	a, b := h1.web("a"), m.hosts[1].web("b")
	h1.expect(a.netns, at(b.v4), "b", a.v4)
	old, link := h1.netdPID, h1.linkIndex("pvwg0")
	load := startTraffic(a, b, time.Millisecond)
	h1.kill()
	h1.settings.Build = "2"
	h1.start()
	h1.set(h1.state())
	h1.expect(a.netns, at(b.v4), "b", a.v4)
	load.end()
	t.Logf("%d of %d questions lost, longest gap %v", load.lost, load.asked, load.gap)
	if h1.netdPID == old || h1.linkIndex("pvwg0") != link {
		t.Errorf("netd %d, was %d; link %d, was %d", h1.netdPID, old, h1.linkIndex("pvwg0"), link)
	}
	// A new session instead of the 15 s after which a peer would notice by itself.
	if load.gap > 5*time.Second {
		t.Errorf("nothing went through for %v", load.gap)
	}
}

// A netd that is killed comes back with the tunnel from its disk, and greets the peers.
func TestKilledNetdBringsTheTunnelBack(t *testing.T) {
	m := newMesh(t, tunnel.WireGuard, 2, outer4)
	h1, h2 := m.hosts[0], m.hosts[1]
	a, b := h1.web("a"), h2.web("b")
	h1.expect(a.netns, at(b.v4), "b", a.v4)
	link := h1.linkIndex("pvwg0")
	must(t, syscall.Kill(h1.netdPID, syscall.SIGKILL))
	begun := time.Now()
	// From the other side, which notices nothing: only a greeting can be what brings it back so soon.
	h2.expect(b.netns, at(a.v4), "a", b.v4)
	t.Logf("back after %v", time.Since(begun))
	if h1.linkIndex("pvwg0") != link {
		t.Error("the link was made anew")
	}
}

// A node that forgets a peer and gets it back greets it: the peer still holds the old session, and sends into the void.
func TestPeerThatComesBackIsGreeted(t *testing.T) {
	m := newMesh(t, tunnel.WireGuard, 2, outer4)
	h1, h2 := m.hosts[0], m.hosts[1]
	a, b := h1.web("a"), h2.web("b")
	h1.expect(a.netns, at(b.v4), "b", a.v4)
	alone := h1.state()
	alone.Peers = nil
	h1.set(alone)
	h1.set(h1.state())
	begun := time.Now()
	h2.expect(b.netns, at(a.v4), "a", b.v4)
	// Without a greeting it is 15 s, after which the other side notices by itself.
	if took := time.Since(begun); took > 10*time.Second {
		t.Errorf("the way back was there after %v", took)
	}
}

// What a burst of traffic takes is bounded, and given back.
func TestMemoryOfNetdIsBounded(t *testing.T) {
	m := newMesh(t, tunnel.WireGuard, 2, outer4)
	h1, h2 := m.hosts[0], m.hosts[1]
	a, b := h1.web("a"), h2.web("b")
	h1.expect(a.netns, at(b.v4), "b", a.v4)
	idle, peak := anonymousBytes(t, h1.netdPID), 0
	stop := time.Now().Add(4 * time.Second)
	for time.Now().Before(stop) {
		for range 8 {
			transfer(t, a, b)
		}
		peak = max(peak, anonymousBytes(t, h1.netdPID), anonymousBytes(t, h2.netdPID))
	}
	const bound, quiet = 160 << 20, 40 << 20
	testhost.Eventually(t, 3*limit, "netd is small again", func() bool { return anonymousBytes(t, h1.netdPID) < quiet })
	t.Logf("anonymous memory of netd: %d KiB before, %d at its peak, %d after", idle>>10, peak>>10, anonymousBytes(t, h1.netdPID)>>10)
	if peak > bound {
		t.Errorf("netd took %d MiB, want at most %d", peak>>20, bound>>20)
	}
}

func TestResetLeavesNoTrace(t *testing.T) {
	for _, mode := range []tunnel.Mode{tunnel.WireGuard, tunnel.VXLAN, tunnel.Direct} {
		t.Run(string(mode), func(t *testing.T) {
			m := newMesh(t, mode, 2, outer4)
			h := m.hosts[0]
			a, b := h.web("a"), m.hosts[1].web("b")
			h.expect(a.netns, at(b.v4), "b", a.v4)
			if during := h.trace(); !contains(during, "10.244.2.0/24") {
				t.Errorf("the test looks at nothing: %v", during)
			}
			h.kill()
			h.spawn()
			must(t, h.client.Call("Node.Reset", h.settings, nil))
			h.stop()
			for _, left := range h.trace() {
				if strings.Contains(left, "pv") || strings.Contains(left, "10.244.") || strings.Contains(left, "fd00:") || strings.Contains(left, "podvine") {
					t.Errorf("left over: %s", left)
				}
			}
			for _, folder := range []string{"tunnel", "netd", "podnet"} {
				if _, err := os.Stat(h.settings.Dir + "/" + folder); !errors.Is(err, os.ErrNotExist) {
					t.Errorf("folder %s: %v", folder, err)
				}
			}
			h.start() // for the end of the test
		})
	}
}

// trace describes what could be left on a host.
func (h *host) trace() []string {
	h.t.Helper()
	var out []string
	h.inside(func() error {
		links, err := netlink.LinkList()
		if err != nil {
			return err
		}
		for _, l := range links {
			out = append(out, "link "+l.Attrs().Name)
		}
		routes, err := netlink.RouteList(nil, netlink.FAMILY_ALL)
		if err != nil {
			return err
		}
		for _, r := range routes {
			out = append(out, fmt.Sprint("route ", r.Dst))
		}
		c, err := nftables.New()
		if err != nil {
			return err
		}
		tables, err := c.ListTables()
		for _, table := range tables {
			out = append(out, "table "+table.Name)
		}
		return err
	})
	return out
}
