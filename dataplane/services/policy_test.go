package services_test

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"syscall"
	"testing"
	"time"

	"github.com/podvine/podvine/dataplane/internal/testhost"
	"github.com/podvine/podvine/dataplane/services"
)

func withSources(s services.Service, lb []netip.Addr, ranges ...string) services.Service {
	s.LoadBalancerIPs = lb
	for _, r := range ranges {
		s.Sources = append(s.Sources, netip.MustParsePrefix(r))
	}
	return s
}

// restartProxy is another agent taking over; it finds everything at work and has nothing to write.
func (n *node) restartProxy(t *testing.T, served services.Service) {
	t.Helper()
	must(t, n.proxy.Close())
	n.openProxy()
	if n.proxy.Stats().Adopted == 0 {
		t.Error("nothing was adopted")
	}
	n.set(served)
	if made := n.proxy.Stats().Writes; made != 0 {
		t.Errorf("taking over took %d map writes, want none", made)
	}
}

func TestAnotherAgentTakesOverEveryAlgorithm(t *testing.T) {
	n := newNode(t)
	a, b := n.web("a"), n.web("b")
	for algorithm := services.Random; algorithm <= services.LeastConnections; algorithm++ {
		s := webService(ready(a, b))
		s.Algorithm = algorithm
		n.set(s)
		n.restartProxy(t, s)
	}
}

func distantEndpoints(t *testing.T, outside *testhost.Outside) []services.Endpoint {
	t.Helper()
	var out []services.Endpoint
	for _, a := range []string{testhost.OutsideIPv4, testhost.OutsideIPv6} {
		testhost.ServeTCP(t, outside.Netns, addrPort(a, 8282), "distant")
		testhost.ServeUDP(t, outside.Netns, addrPort(a, 8282), "distant")
		out = append(out, services.Endpoint{Addr: addrPort(a, 8282), Ready: true})
	}
	return out
}

func TestPoliciesLocal(t *testing.T) {
	n := newNode(t)
	outside := testhost.NewOutside(t)
	web, client := n.web("web"), n.pod("client")
	distant := distantEndpoints(t, outside)
	s := webService(append(ready(web), distant...))
	s.InternalLocal, s.ExternalLocal = true, true
	n.set(s)
	n.follow(outside, addrPort(testhost.HostIPv4, 30080))
	for _, c := range []struct {
		name, place string
		to          netip.AddrPort
		source      netip.Addr
	}{
		{"pod", client.netns, netip.AddrPortFrom(vip4, 80), client.v4}, {"pod", client.netns, netip.AddrPortFrom(vip6, 80), client.v6},
		{"a pod's packets", testhost.Untranslated(client.netns), netip.AddrPortFrom(vip4, 80), client.v4},
		{"a pod's packets", testhost.Untranslated(client.netns), netip.AddrPortFrom(vip6, 80), client.v6},
		{"outside", outside.Place, addrPort(testhost.HostIPv4, 30080), netip.MustParseAddr(testhost.OutsideIPv4)},
		{"outside", outside.Place, addrPort(testhost.HostIPv6, 30080), netip.MustParseAddr(testhost.OutsideIPv6)},
	} {
		for protocol, ask := range asks {
			for range 12 {
				got, err := ask(c.place, c.to)
				if err != nil || got.Server != "web" || got.Source != c.source {
					t.Fatalf("%s over %s to %s: %+v, %v; want web, and %s as the source", c.name, protocol, c.to, got, err, c.source)
				}
			}
		}
	}
	// Without an endpoint here, what starts on the node is refused, and what comes from outside is not answered.
	s = webService(distant)
	s.InternalLocal, s.ExternalLocal = true, true
	n.set(s)
	for _, vip := range []netip.Addr{vip4, vip6} {
		if got, err := testhost.AskTCP(client.netns, netip.AddrPortFrom(vip, 80)); !errors.Is(err, syscall.ECONNREFUSED) {
			t.Errorf("pod to %s: %+v, %v; want a refusal", vip, got, err)
		}
	}
	for _, host := range []string{testhost.HostIPv4, testhost.HostIPv6} {
		var silence net.Error
		if got, err := testhost.AskUDP(outside.Place, addrPort(host, 30080)); !errors.As(err, &silence) || !silence.Timeout() {
			t.Errorf("outside to %s: %+v, %v; want silence", host, got, err)
		}
	}
}

// Endpoints meant for other zones get nothing while there are others, and what comes from outside follows hints too.
func TestHintsKeepTrafficClose(t *testing.T) {
	n := newNode(t)
	near, away := n.web("near"), n.web("away")
	endpoints := ready(near)
	for _, e := range ready(away) {
		e.Elsewhere = true
		endpoints = append(endpoints, e)
	}
	n.set(webService(endpoints))
	for _, w := range newWays(t, n) {
		for range 20 {
			if got, err := testhost.AskTCP(w.place, w.to); err != nil || got.Server != "near" {
				t.Fatalf("%s: %+v, %v", w.name, got, err)
			}
		}
	}
}

func TestAffinityEndsWithItsTimeout(t *testing.T) {
	n := newNode(t)
	var pods []pod
	for i := range 4 {
		pods = append(pods, n.web(fmt.Sprint("web", i)))
	}
	s := webService(ready(pods...))
	s.AffinityTimeout = time.Second
	n.set(s)
	for _, w := range newWays(t, n) {
		first, err := testhost.AskTCP(w.place, w.to)
		must(t, err)
		// By chance it is the same one of four again 20 times in a row once in 10^12 runs.
		for attempt := 0; ; attempt++ {
			if attempt == 20 {
				t.Errorf("%s: still %s after silence that is longer than the timeout", w.name, first.Server)
				break
			}
			<-time.After(1100 * time.Millisecond)
			got, err := testhost.AskTCP(w.place, w.to)
			must(t, err)
			if got.Server != first.Server {
				break
			}
		}
	}
}

func TestTerminatingEndpointKeepsConnectionsAndGetsNoNewOnes(t *testing.T) {
	n := newNode(t)
	old, fresh := n.web("old"), n.web("fresh")
	n.set(webService(ready(old)))
	ways := newWays(t, n)
	var conns []net.Conn
	for _, w := range ways {
		conns = append(conns, dialAll(t, w.place, w.to, 1)...)
	}
	endpoints := ready(old)
	for i := range endpoints {
		endpoints[i].Ready, endpoints[i].Terminating = false, true
	}
	// Alone, an endpoint that ends is better than none.
	n.set(webService(endpoints))
	for _, w := range ways {
		if got, err := testhost.AskTCP(w.place, w.to); err != nil || got.Server != "old" {
			t.Errorf("%s, with none ready: %+v, %v", w.name, got, err)
		}
	}
	n.set(webService(append(endpoints, ready(fresh)...)))
	for i, w := range ways {
		for range 10 {
			if got, err := testhost.AskTCP(w.place, w.to); err != nil || got.Server != "fresh" {
				t.Fatalf("%s, new connection: %+v, %v", w.name, got, err)
			}
		}
		must(t, conns[i].SetDeadline(time.Now().Add(5*time.Second)))
		_, err := conns[i].Write([]byte("still"))
		must(t, err)
		if _, err := io.ReadAtLeast(conns[i], make([]byte, 16), 5); err != nil {
			t.Errorf("%s: the open connection broke: %v", w.name, err)
		}
	}
}
