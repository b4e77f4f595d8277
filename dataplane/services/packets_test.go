package services_test

import (
	"errors"
	"net/netip"
	"syscall"
	"testing"

	"github.com/podvine/podvine/dataplane/internal/testhost"
	"github.com/podvine/podvine/dataplane/services"
)

// A pod whose sockets the socket programs do not see is served by the program on its link, itself included.
func TestUntranslatedPodIsServedByItsPackets(t *testing.T) {
	n := newNode(t)
	web := n.web("web")
	client := n.pod("client")
	n.set(webService(ready(web)))
	for _, c := range []struct {
		from   pod
		vip    netip.Addr
		source netip.Addr
	}{
		{client, vip4, client.v4}, {client, vip6, client.v6},
		// A pod that reaches itself sees the node's address.
		{web, vip4, netip.MustParseAddr(testhost.HostIPv4)}, {web, vip6, netip.MustParseAddr(testhost.HostIPv6)},
	} {
		for protocol, ask := range asks {
			to := netip.AddrPortFrom(c.vip, 80)
			got, err := ask(testhost.Untranslated(c.from.netns), to)
			if want := (testhost.Answer{Server: "web", Source: c.source, Peer: to}); err != nil || got != want {
				t.Errorf("%s to %s: %+v, %v; want %+v", protocol, to, got, err, want)
			}
		}
	}
	n.set(webService(nil))
	if got, err := testhost.AskTCP(testhost.Untranslated(client.netns), netip.AddrPortFrom(vip4, 80)); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("without endpoints: %+v, %v", got, err)
	}
}

// What a backend in the host's own namespace answers to such a pod leaves by the kernel's forwarding.
func TestUntranslatedPodReachesTheHost(t *testing.T) {
	n := newNode(t)
	testhost.NewOutside(t)
	client := n.pod("client")
	var endpoints []services.Endpoint
	for _, a := range []string{testhost.HostIPv4, testhost.HostIPv6} {
		testhost.ServeTCP(t, "", addrPort(a, 8181), "host")
		testhost.ServeUDP(t, "", addrPort(a, 8181), "host")
		endpoints = append(endpoints, services.Endpoint{Addr: addrPort(a, 8181), Ready: true, Local: true})
	}
	n.set(webService(endpoints))
	for vip, source := range map[netip.Addr]netip.Addr{vip4: client.v4, vip6: client.v6} {
		for protocol, ask := range asks {
			to := netip.AddrPortFrom(vip, 80)
			got, err := ask(testhost.Untranslated(client.netns), to)
			if want := (testhost.Answer{Server: "host", Source: source, Peer: to}); err != nil || got != want {
				t.Errorf("%s to %s: %+v, %v; want %+v", protocol, to, got, err, want)
			}
		}
	}
}
