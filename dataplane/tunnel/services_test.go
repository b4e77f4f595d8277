package tunnel_test

import (
	"net/netip"
	"testing"

	"github.com/podvine/podvine/dataplane/internal/testhost"
	"github.com/podvine/podvine/dataplane/services"
	"github.com/podvine/podvine/dataplane/tunnel"
)

// endpoints are pods as one node sees them.
func (h *host) endpoints(pods ...pod) []services.Endpoint {
	var out []services.Endpoint
	for _, p := range pods {
		for _, a := range p.addrs() {
			out = append(out, services.Endpoint{Addr: at(a), Ready: true, Serving: true, Local: p.host == h})
		}
	}
	return out
}

func (h *host) serve(externalLocal bool, pods ...pod) {
	h.t.Helper()
	s := services.Service{
		Name: "default/web", ClusterIPs: []netip.Addr{netip.MustParseAddr("10.96.0.80"), netip.MustParseAddr("fd00:10:96::80")},
		Algorithm: services.RoundRobin, ExternalLocal: externalLocal,
	}
	for _, protocol := range []services.Protocol{services.TCP, services.UDP} {
		s.Ports = append(s.Ports, services.Port{Name: "web", Protocol: protocol, Port: 80, NodePort: 30080, Endpoints: h.endpoints(pods...)})
	}
	h.services(s)
}

// A service is balanced over pods of all nodes, from pods, from hosts, and from outside.
func TestServicesBalanceOverNodes(t *testing.T) {
	for _, mode := range []tunnel.Mode{tunnel.WireGuard, tunnel.VXLAN, tunnel.Direct} {
		t.Run(string(mode), func(t *testing.T) {
			m := newMesh(t, mode, 3, outer4)
			var pods []pod
			for _, h := range m.hosts {
				pods = append(pods, h.web("web-"+h.id()))
			}
			outside := testhost.Netns(t)
			plug(t, outside, "world", outer4(9))
			client := m.hosts[0].pod("client")
			for _, p := range pods {
				m.hosts[0].expect(client.netns, at(p.v4), p.name, client.v4)
			}
			for _, h := range m.hosts {
				h.serve(false, pods...)
			}
			h1 := m.hosts[0]
			for _, vip := range []string{"10.96.0.80:80", "[fd00:10:96::80]:80"} {
				to := netip.MustParseAddrPort(vip)
				balanced(t, "pod to "+vip, func(protocol string) (testhost.Answer, error) { return h1.ask(client.netns, protocol, to) },
					func(a testhost.Answer) bool { return a.Source == client.v4 || a.Source == client.v6 })
				balanced(t, "host to "+vip, func(protocol string) (testhost.Answer, error) { return h1.ask("", protocol, to) },
					func(a testhost.Answer) bool { return a.Peer == to })
			}
			// From outside, through one node: the answer of another node's pod comes back through the first.
			for _, addr := range h1.settings.Addrs {
				to := netip.AddrPortFrom(addr, 30080)
				balanced(t, "outside to "+to.String(), func(protocol string) (testhost.Answer, error) { return askFrom(outside, protocol, to) },
					func(a testhost.Answer) bool { return a.Peer == to })
			}
			// Local: the node's own pod alone, and the client's own address.
			for _, h := range m.hosts {
				h.serve(true, pods...)
			}
			for range 6 {
				got, err := askFrom(outside, "tcp", netip.AddrPortFrom(h1.settings.Addrs[0], 30080))
				if err != nil || got.Server != pods[0].name || got.Source != outer4(9)[0] {
					t.Fatalf("Local answers %+v, %v", got, err)
				}
			}
		})
	}
}

func askFrom(netns, protocol string, to netip.AddrPort) (testhost.Answer, error) {
	if protocol == "udp" {
		return testhost.AskUDP(netns, to)
	}
	return testhost.AskTCP(netns, to)
}

// balanced demands that every server answers in turn.
func balanced(t *testing.T, what string, ask func(protocol string) (testhost.Answer, error), right func(testhost.Answer) bool) {
	t.Helper()
	for _, protocol := range []string{"tcp", "udp"} {
		seen := map[string]int{}
		for range 9 {
			got, err := ask(protocol)
			if err != nil || !right(got) {
				t.Errorf("%s over %s: %+v, %v", what, protocol, got, err)
				return
			}
			seen[got.Server]++
		}
		if len(seen) != 3 {
			t.Errorf("%s over %s was served by %v", what, protocol, seen)
		}
	}
}
