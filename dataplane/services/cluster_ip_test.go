package services_test

import (
	"net/netip"
	"testing"

	"github.com/podvine/podvine/dataplane/internal/testhost"
)

func TestClusterIPAnswersFromPodAndHost(t *testing.T) {
	n := newNode(t)
	web := n.web("web")
	client := n.pod("client")
	n.set(webService(ready(web)))

	for _, from := range []struct {
		name, netns string
		v4, v6      netip.Addr
	}{
		{"host", "", n.pods.Addrs()[0], n.pods.Addrs()[1]},
		{"another pod", client.netns, client.v4, client.v6},
		{"itself", web.netns, web.v4, web.v6},
	} {
		for _, vip := range []netip.Addr{vip4, vip6} {
			source := from.v4
			if vip.Is6() {
				source = from.v6
			}
			to := netip.AddrPortFrom(vip, 80)
			for protocol, ask := range map[string]func(string, netip.AddrPort) (testhost.Answer, error){"TCP": testhost.AskTCP, "UDP": testhost.AskUDP} {
				t.Run(from.name+"/"+protocol+"/"+vip.String(), func(t *testing.T) {
					got, err := ask(from.netns, to)
					must(t, err)
					if want := (testhost.Answer{Server: "web", Source: source, Peer: to}); got != want {
						t.Errorf("answer %+v, want %+v", got, want)
					}
				})
			}
		}
	}
}
