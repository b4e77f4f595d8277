package services_test

import (
	"errors"
	"net/netip"
	"syscall"
	"testing"

	"github.com/podvine/podvine/dataplane/internal/testhost"
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
