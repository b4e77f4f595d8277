package services_test

import (
	"errors"
	"io"
	"net"
	"net/netip"
	"syscall"
	"testing"
	"time"

	"github.com/podvine/podvine/dataplane/internal/testhost"
	"github.com/podvine/podvine/dataplane/services"
)

// A client learns that nobody listens, wherever the endpoint is.
func TestPortUnreachableReachesTheClient(t *testing.T) {
	n := newNode(t)
	outside := testhost.NewOutside(t)
	web, client := n.web("web"), n.pod("client")
	n.set(webService(ready(web)))
	n.follow(outside, addrPort(testhost.HostIPv4, 30080))
	nobody := func(addrs ...string) []services.Endpoint {
		var out []services.Endpoint
		for _, a := range addrs {
			out = append(out, services.Endpoint{Addr: addrPort(a, 9), Ready: true, Local: a != testhost.OutsideIPv4 && a != testhost.OutsideIPv6})
		}
		return out
	}
	for name, endpoints := range map[string][]services.Endpoint{
		"a pod":               nobody(web.v4.String(), web.v6.String()),
		"the host":            nobody(testhost.HostIPv4, testhost.HostIPv6),
		"a machine elsewhere": nobody(testhost.OutsideIPv4, testhost.OutsideIPv6),
	} {
		n.set(webService(endpoints))
		for _, c := range []struct {
			from, place string
			to          netip.AddrPort
		}{
			{"outside", outside.Place, addrPort(testhost.HostIPv4, 30080)}, {"outside", outside.Place, addrPort(testhost.HostIPv6, 30080)},
			{"a pod's packets", testhost.Untranslated(client.netns), netip.AddrPortFrom(vip4, 80)},
			{"a pod's packets", testhost.Untranslated(client.netns), netip.AddrPortFrom(vip6, 80)},
			{"a pod's socket", client.netns, netip.AddrPortFrom(vip4, 80)}, {"a pod's socket", client.netns, netip.AddrPortFrom(vip6, 80)},
		} {
			t.Run(name+"/"+c.from+"/"+c.to.Addr().String(), func(t *testing.T) {
				conn, err := testhost.DialUDP(c.place, c.to)
				must(t, err)
				defer conn.Close()
				_, err = conn.Write([]byte("?"))
				must(t, err)
				must(t, conn.SetReadDeadline(time.Now().Add(5*time.Second)))
				if _, err := conn.Read(make([]byte, 16)); !errors.Is(err, syscall.ECONNREFUSED) {
					t.Errorf("read says %v, want a refusal", err)
				}
			})
		}
	}
	if n.proxy.Stats().Programs["error_translated"] == 0 {
		t.Error("no error was translated")
	}
}

// The way to an endpoint may be narrower than a client knows. It finds out, from the node itself or from a router beyond.
func TestPathMTUIsFoundThroughAService(t *testing.T) {
	const narrow = 1300
	for name, mtus := range map[string][2]int{"the node's link is narrow": {narrow, narrow}, "a link beyond is narrow": {1500, narrow}} {
		t.Run(name, func(t *testing.T) {
			n := newNode(t)
			outside := testhost.NewOutside(t)
			far := testhost.NewFar(t, mtus[0], mtus[1])
			var endpoints []services.Endpoint
			for _, a := range []string{testhost.FarIPv4, testhost.FarIPv6} {
				testhost.ServeTCP(t, far, addrPort(a, 8080), "far")
				testhost.ServeUDP(t, far, addrPort(a, 8080), "far")
				endpoints = append(endpoints, services.Endpoint{Addr: addrPort(a, 8080), Ready: true})
			}
			n.set(webService(endpoints))
			n.follow(outside, addrPort(testhost.HostIPv4, 30080))
			n.follow(outside, addrPort(testhost.HostIPv6, 30080))
			for _, host := range []string{testhost.HostIPv4, testhost.HostIPv6} {
				tcpFindsPathMTU(t, outside, addrPort(host, 30080), narrow)
				udpFindsPathMTU(t, outside, addrPort(host, 30080), narrow)
			}
			programs := n.proxy.Stats().Programs
			if sent := programs["too_big_sent"]; (mtus[0] == narrow) != (sent > 0) {
				t.Errorf("the node sent %d errors", sent)
			}
			if translated := programs["error_translated"]; (mtus[0] == narrow) != (translated == 0) {
				t.Errorf("the node translated %d errors", translated)
			}
		})
	}
}

func tcpFindsPathMTU(t *testing.T, outside *testhost.Outside, to netip.AddrPort, want int) {
	t.Helper()
	conn, err := testhost.DialTCP(outside.Place, to)
	must(t, err)
	defer conn.Close()
	_, err = testhost.ReadAnswer(conn)
	must(t, err)
	must(t, conn.SetDeadline(time.Now().Add(10*time.Second)))
	const size = 1 << 15
	sent := make(chan error, 1)
	go func() {
		_, err := conn.Write(make([]byte, size))
		sent <- err
	}()
	if _, err := io.ReadFull(conn, make([]byte, size)); err != nil {
		t.Errorf("%s: what is too big for the way does not arrive: %v", to, err)
	}
	if err := <-sent; err != nil {
		t.Error(err)
	}
	if got := testhost.PathMTU(t, conn); got != want {
		t.Errorf("%s: the client takes the way for %d bytes wide, want %d", to, got, want)
	}
}

func udpFindsPathMTU(t *testing.T, outside *testhost.Outside, to netip.AddrPort, want int) {
	t.Helper()
	conn, err := testhost.DialUDP(outside.Place, to)
	must(t, err)
	defer conn.Close()
	testhost.DontFragment(t, conn)
	long := make([]byte, want)
	testhost.Eventually(t, 10*time.Second, "a long datagram is refused", func() bool {
		_, err := conn.Write(long)
		var net *net.OpError
		return errors.As(err, &net) && errors.Is(err, syscall.EMSGSIZE)
	})
	if got := testhost.PathMTU(t, conn); got != want {
		t.Errorf("%s: the client takes the way for %d bytes wide, want %d", to, got, want)
	}
	_, err = conn.Write([]byte("?"))
	must(t, err)
	if got, err := testhost.ReadAnswer(conn); err != nil || got.Server != "far" {
		t.Errorf("%s: a short datagram: %+v, %v", to, got, err)
	}
}
