package services_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"syscall"
	"testing"
	"time"

	"github.com/podvine/podvine/dataplane/internal/testhost"
	"github.com/podvine/podvine/dataplane/podnet"
	"github.com/podvine/podvine/dataplane/services"
)

type askFunc = func(string, netip.AddrPort) (testhost.Answer, error)

var asks = map[string]askFunc{"TCP": testhost.AskTCP, "UDP": testhost.AskUDP}

func addrPort(addr string, port uint16) netip.AddrPort {
	return netip.AddrPortFrom(netip.MustParseAddr(addr), port)
}

// follow waits until the proxy has seen the host's new link.
func (n *node) follow(outside *testhost.Outside, to netip.AddrPort) {
	n.t.Helper()
	testhost.Eventually(n.t, 5*time.Second, "service answers outside", func() bool {
		_, err := testhost.AskTCP(outside.Place, to)
		return err == nil
	})
}

func TestNodePort(t *testing.T) {
	n := newNode(t)
	outside := testhost.NewOutside(t)
	web := n.web("web")
	client := n.pod("client")
	n.set(webService(ready(web)))
	n.follow(outside, addrPort(testhost.HostIPv4, 30080))

	cases := []struct {
		name, netns, to string
		source          netip.Addr
	}{
		{"host by loopback", "", "127.0.0.1", n.pods.Addrs()[0]},
		{"host by IPv6 loopback", "", "::1", n.pods.Addrs()[1]},
		{"host by its address", "", testhost.HostIPv4, n.pods.Addrs()[0]},
		{"host by its address in the pod range", "", n.pods.Addrs()[0].String(), n.pods.Addrs()[0]},
		{"pod", client.netns, testhost.HostIPv4, client.v4},
		{"pod IPv6", client.netns, testhost.HostIPv6, client.v6},
		{"outside", outside.Place, testhost.HostIPv4, netip.MustParseAddr(testhost.OutsideIPv4)},
		{"outside IPv6", outside.Place, testhost.HostIPv6, netip.MustParseAddr(testhost.OutsideIPv6)},
	}
	for _, c := range cases {
		for protocol, ask := range asks {
			t.Run(c.name+"/"+protocol, func(t *testing.T) {
				to := addrPort(c.to, 30080)
				got, err := ask(c.netns, to)
				must(t, err)
				if want := (testhost.Answer{Server: "web", Source: c.source, Peer: to}); got != want {
					t.Errorf("answer %+v, want %+v", got, want)
				}
			})
		}
	}
	t.Run("not on the loopback of a pod", func(t *testing.T) {
		if got, err := testhost.AskTCP(client.netns, addrPort("127.0.0.1", 30080)); !errors.Is(err, syscall.ECONNREFUSED) {
			t.Errorf("answer %+v, error %v; want a refusal", got, err)
		}
	})
}

func TestUnconnectedSocketKeepsItsBackendAndSeesTheService(t *testing.T) {
	n := newNode(t)
	a, b := n.web("a"), n.web("b")
	n.set(webService(ready(a, b)))
	for _, vip := range []netip.Addr{vip4, vip6} {
		conn, err := testhost.ListenUDP("")
		must(t, err)
		defer conn.Close()
		to := netip.AddrPortFrom(vip, 80)
		first, err := testhost.AskFrom(conn, to)
		if err != nil {
			t.Fatalf("first question to %s: %v", to, err)
		}
		for i := range 20 {
			got, err := testhost.AskFrom(conn, to)
			if err != nil {
				t.Fatalf("question %d to %s: %v", i, to, err)
			}
			if got != first || got.Peer != to {
				t.Fatalf("answer %+v after %+v", got, first)
			}
		}
	}
}

func TestExternalAddressFromEverywhere(t *testing.T) {
	n := newNode(t)
	outside := testhost.NewOutside(t)
	web := n.web("web")
	s := webService(ready(web))
	s.ExternalIPs = []netip.Addr{netip.MustParseAddr("192.0.2.77")}
	n.set(s)
	to := addrPort("192.0.2.77", 80)
	testhost.Route(t, outside.Netns, "192.0.2.77/32", testhost.HostIPv4)
	n.follow(outside, to)
	for name, netns := range map[string]string{"host": "", "outside": outside.Place, "pod": n.pod("client").netns} {
		for protocol, ask := range asks {
			got, err := ask(netns, to)
			if err != nil || got.Server != "web" || got.Peer != to {
				t.Errorf("%s over %s: %+v, %v", name, protocol, got, err)
			}
		}
	}
}

func TestBackendInTheHostNamespace(t *testing.T) {
	n := newNode(t)
	outside := testhost.NewOutside(t)
	client := n.pod("client")
	backend := addrPort(testhost.HostIPv4, 8181)
	testhost.ServeTCP(t, "", backend, "host")
	testhost.ServeUDP(t, "", backend, "host")
	n.set(webService([]services.Endpoint{{Addr: backend, Ready: true, Local: true}}))
	n.follow(outside, addrPort(testhost.HostIPv4, 30080))
	for protocol, ask := range asks {
		got, err := ask(outside.Place, addrPort(testhost.HostIPv4, 30080))
		if err != nil || got.Server != "host" || got.Source.String() != testhost.OutsideIPv4 {
			t.Errorf("outside over %s: %+v, %v", protocol, got, err)
		}
		got, err = ask(client.netns, netip.AddrPortFrom(vip4, 80))
		if err != nil || got.Server != "host" || got.Source != client.v4 {
			t.Errorf("pod over %s: %+v, %v", protocol, got, err)
		}
	}
}

// A backend beyond the node must answer through it, whatever route it has itself.
func TestDistantBackendGetsTheNodesAddress(t *testing.T) {
	n := newNode(t)
	outside := testhost.NewOutside(t)
	for _, a := range []string{testhost.OutsideIPv4, testhost.OutsideIPv6} {
		testhost.ServeTCP(t, outside.Netns, addrPort(a, 8282), "distant")
		testhost.ServeUDP(t, outside.Netns, addrPort(a, 8282), "distant")
	}
	n.set(webService([]services.Endpoint{
		{Addr: addrPort(testhost.OutsideIPv4, 8282), Ready: true}, {Addr: addrPort(testhost.OutsideIPv6, 8282), Ready: true},
	}))
	n.follow(outside, addrPort(testhost.HostIPv4, 30080))
	for to, source := range map[string]string{testhost.HostIPv4: testhost.HostIPv4, testhost.HostIPv6: testhost.HostIPv6} {
		for protocol, ask := range asks {
			got, err := ask(outside.Place, addrPort(to, 30080))
			if err != nil || got.Server != "distant" || got.Source.String() != source {
				t.Errorf("%s over %s: %+v, %v", to, protocol, got, err)
			}
		}
	}
}

func TestHostPort(t *testing.T) {
	n := newNode(t)
	outside := testhost.NewOutside(t)
	p := n.pod("web", podnet.PortMapping{Protocol: services.TCP, HostPort: 8888, PodPort: 8080})
	testhost.ServeTCP(t, p.netns, netip.AddrPortFrom(netip.IPv6Unspecified(), 8080), "web")
	n.set()
	n.follow(outside, addrPort(testhost.HostIPv4, 8888))
	for name, c := range map[string]struct{ netns, to string }{
		"host": {"", "127.0.0.1"}, "outside": {outside.Place, testhost.HostIPv4}, "outside IPv6": {outside.Place, testhost.HostIPv6},
	} {
		if got, err := testhost.AskTCP(c.netns, addrPort(c.to, 8888)); err != nil || got.Server != "web" {
			t.Errorf("%s: %+v, %v", name, got, err)
		}
	}
	must(t, n.pods.Teardown(context.Background(), "web"))
	if got, err := testhost.AskTCP("", addrPort("127.0.0.1", 8888)); err == nil {
		t.Errorf("answer %+v after the pod went", got)
	}
}

func TestNoEndpointsIsRefused(t *testing.T) {
	n := newNode(t)
	outside := testhost.NewOutside(t)
	web := n.web("web")
	client := n.pod("client")
	n.set(webService(ready(web)))
	n.follow(outside, addrPort(testhost.HostIPv4, 30080))
	n.set(webService(nil))
	for name, c := range map[string]struct {
		netns string
		to    netip.AddrPort
	}{
		"host":           {"", netip.AddrPortFrom(vip4, 80)},
		"host IPv6":      {"", netip.AddrPortFrom(vip6, 80)},
		"pod":            {client.netns, netip.AddrPortFrom(vip4, 80)},
		"host node port": {"", addrPort("127.0.0.1", 30080)},
		"outside":        {outside.Place, addrPort(testhost.HostIPv4, 30080)},
		"outside IPv6":   {outside.Place, addrPort(testhost.HostIPv6, 30080)},
	} {
		for protocol, ask := range asks {
			if got, err := ask(c.netns, c.to); !errors.Is(err, syscall.ECONNREFUSED) {
				t.Errorf("%s over %s: %+v, %v; want a refusal", name, protocol, got, err)
			}
		}
	}
}

func TestExternalPolicyLocal(t *testing.T) {
	n := newNode(t)
	outside := testhost.NewOutside(t)
	web := n.web("web")
	s := webService(ready(web))
	s.ExternalLocal, s.HealthCheckPort = true, 32001
	n.set(s)
	n.follow(outside, addrPort(testhost.HostIPv4, 30080))
	expectHealth(t, http.StatusOK, `{"localEndpoints":1`)

	// The same endpoints, but on another node: outside traffic vanishes, the cluster's own goes on.
	for i := range s.Ports {
		elsewhere := ready(web)
		for j := range elsewhere {
			elsewhere[j].Local = false
		}
		s.Ports[i].Endpoints = elsewhere
	}
	n.set(s)
	expectHealth(t, http.StatusServiceUnavailable, `{"localEndpoints":0`)
	if got, err := testhost.AskTCP("", addrPort("127.0.0.1", 30080)); err != nil || got.Server != "web" {
		t.Errorf("from the host: %+v, %v", got, err)
	}
	var timeout net.Error
	if got, err := testhost.AskUDP(outside.Place, addrPort(testhost.HostIPv4, 30080)); !errors.As(err, &timeout) || !timeout.Timeout() {
		t.Errorf("from outside: %+v, %v; want silence", got, err)
	}
}

func expectHealth(t *testing.T, status int, prefix string) {
	t.Helper()
	response, err := http.Get("http://127.0.0.1:32001/")
	must(t, err)
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	must(t, err)
	if response.StatusCode != status || len(body) < len(prefix) || string(body[:len(prefix)]) != prefix {
		t.Errorf("health check answers %s %s, want %d %s…", response.Status, body, status, prefix)
	}
}

func TestAffinity(t *testing.T) {
	n := newNode(t)
	outside := testhost.NewOutside(t)
	var pods []pod
	for i := range 4 {
		pods = append(pods, n.web(fmt.Sprint("web", i)))
	}
	client := n.pod("client")
	s := webService(ready(pods...))
	s.AffinityTimeout = time.Hour
	n.set(s)
	n.follow(outside, addrPort(testhost.HostIPv4, 30080))
	for name, c := range map[string]struct {
		netns string
		to    netip.AddrPort
	}{
		"host": {"", netip.AddrPortFrom(vip4, 80)}, "pod": {client.netns, netip.AddrPortFrom(vip4, 80)},
		"outside": {outside.Place, addrPort(testhost.HostIPv4, 30080)}, "outside IPv6": {outside.Place, addrPort(testhost.HostIPv6, 30080)},
		"host IPv6": {"", netip.AddrPortFrom(vip6, 80)}, "pod IPv6": {client.netns, netip.AddrPortFrom(vip6, 80)},
	} {
		first, err := testhost.AskTCP(c.netns, c.to)
		must(t, err)
		for range 12 {
			got, err := testhost.AskTCP(c.netns, c.to)
			must(t, err)
			if got.Server != first.Server {
				t.Fatalf("%s: %s after %s", name, got.Server, first.Server)
			}
		}
	}
	// Without the favourite the client gets another.
	favourite, err := testhost.AskTCP("", netip.AddrPortFrom(vip4, 80))
	must(t, err)
	var rest []pod
	for i, p := range pods {
		if fmt.Sprint("web", i) != favourite.Server {
			rest = append(rest, p)
		}
	}
	s = webService(ready(rest...))
	s.AffinityTimeout = time.Hour
	n.set(s)
	got, err := testhost.AskTCP("", netip.AddrPortFrom(vip4, 80))
	must(t, err)
	if got.Server == favourite.Server {
		t.Errorf("still sent to %s, which was removed", got.Server)
	}
}

func TestConnectedDatagramSocketIsEndedWithItsEndpoint(t *testing.T) {
	n := newNode(t)
	a, b := n.web("a"), n.web("b")
	n.set(webService(ready(a)))
	conn, err := testhost.DialUDP("", netip.AddrPortFrom(vip4, 80))
	must(t, err)
	defer conn.Close()
	_, err = conn.Write([]byte("?"))
	must(t, err)
	_, err = testhost.ReadAnswer(conn)
	must(t, err)
	n.set(webService(ready(b)))
	if got := n.proxy.Stats().SocketsDestroyed; got != 1 {
		t.Errorf("%d sockets destroyed, want 1", got)
	}
	must(t, conn.SetReadDeadline(time.Now().Add(3*time.Second)))
	if _, err := conn.Read(make([]byte, 16)); !errors.Is(err, syscall.ECONNABORTED) {
		t.Errorf("read says %v, want an aborted connection", err)
	}
}
