package services_test

import (
	"fmt"
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/podvine/podvine/dataplane/internal/testhost"
	"github.com/podvine/podvine/dataplane/services"
)

// way is how a client reaches the service: by its socket, or by its packets.
type way struct {
	name, place string
	to          netip.AddrPort
}

func newWays(t *testing.T, n *node) []way {
	t.Helper()
	outside := testhost.NewOutside(t)
	n.follow(outside, addrPort(testhost.HostIPv4, 30080))
	n.follow(outside, addrPort(testhost.HostIPv6, 30080))
	return []way{
		{"socket/IPv4", "", netip.AddrPortFrom(vip4, 80)}, {"socket/IPv6", "", netip.AddrPortFrom(vip6, 80)},
		{"packets/IPv4", outside.Place, addrPort(testhost.HostIPv4, 30080)}, {"packets/IPv6", outside.Place, addrPort(testhost.HostIPv6, 30080)},
	}
}

func TestAlgorithmsShareConnections(t *testing.T) {
	n := newNode(t)
	names := []string{"a", "b", "c"}
	var pods []pod
	for _, name := range names {
		pods = append(pods, n.web(name))
	}
	n.set(webService(ready(pods...)))
	ways := newWays(t, n)
	for _, test := range []struct {
		algorithm services.Algorithm
		// least is the smallest share of 240 connections: a fair one is 80, with a standard deviation of 7.3 by chance.
		least int
	}{{services.Random, 36}, {services.RoundRobin, 80}, {services.Maglev, 36}, {services.LeastConnections, 36}} {
		s := webService(ready(pods...))
		s.Algorithm = test.algorithm
		n.set(s)
		for _, w := range ways {
			t.Run(test.algorithm.String()+"/"+w.name, func(t *testing.T) {
				seen := map[string]int{}
				for range 240 {
					got, err := testhost.AskTCP(w.place, w.to)
					must(t, err)
					seen[got.Server]++
				}
				for _, name := range names {
					if seen[name] < test.least {
						t.Errorf("shares %v of 240, want at least %d each", seen, test.least)
					}
				}
				t.Logf("shares %v", seen)
			})
		}
	}
}

func TestLeastConnectionsCountsWhatIsOpen(t *testing.T) {
	n := newNode(t)
	names := []string{"a", "b", "c"}
	var pods []pod
	for _, name := range names {
		pods = append(pods, n.web(name))
	}
	s := webService(ready(pods...))
	s.Algorithm = services.LeastConnections
	n.set(s)
	for _, w := range newWays(t, n) {
		t.Run(w.name, func(t *testing.T) {
			load := func(p pod) int {
				addr := p.v4
				if w.to.Addr().Is6() {
					addr = p.v6
				}
				sockets, flows, err := n.proxy.Load(netip.AddrPortFrom(addr, 8080), services.TCP)
				must(t, err)
				return int(sockets + flows)
			}
			settle := func(want ...int) {
				t.Helper()
				testhost.Eventually(t, 10*time.Second, fmt.Sprintf("loads are %v", want), func() bool {
					must(t, n.proxy.Sweep())
					return load(pods[0]) == want[0] && load(pods[1]) == want[1] && load(pods[2]) == want[2]
				})
			}
			settle(0, 0, 0)
			open := map[string][]net.Conn{}
			dial := func(count int) {
				for range count {
					conn, err := testhost.DialTCP(w.place, w.to)
					must(t, err)
					t.Cleanup(func() { _ = conn.Close() })
					answer, err := testhost.ReadAnswer(conn)
					must(t, err)
					open[answer.Server] = append(open[answer.Server], conn)
				}
			}
			shares := func(a, b, c int) {
				t.Helper()
				if len(open["a"]) != a || len(open["b"]) != b || len(open["c"]) != c {
					t.Errorf("open connections: a %d, b %d, c %d; want %d, %d, %d", len(open["a"]), len(open["b"]), len(open["c"]), a, b, c)
				}
			}
			dial(30)
			shares(10, 10, 10)
			for _, conn := range open["b"] {
				must(t, conn.Close())
			}
			open["b"] = nil
			settle(10, 0, 10)
			dial(8)
			shares(10, 8, 10)
			settle(10, 8, 10)
			for _, conns := range open {
				for _, conn := range conns {
					must(t, conn.Close())
				}
			}
			settle(0, 0, 0)
		})
	}
}
