package services_test

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"syscall"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/podvine/podvine/dataplane/internal/testhost"
	"github.com/podvine/podvine/dataplane/services"
)

func TestDeadNodesLoseTrafficAndConnections(t *testing.T) {
	n := newTunedNode(t, func(*services.Config) {})
	outside := testhost.NewOutside(t)
	web := n.web("web")
	client := n.pod("client")
	registry := prometheus.NewRegistry()
	n.tune = func(c *services.Config) {
		c.Netns, c.Metrics = func() []string { return []string{client.netns} }, registry
	}
	must(t, n.proxy.Close())
	n.openProxy()
	var distant []services.Endpoint
	for _, a := range []string{testhost.OutsideIPv4, testhost.OutsideIPv6} {
		testhost.ServeTCP(t, outside.Netns, addrPort(a, 8282), "distant")
		testhost.ServeUDP(t, outside.Netns, addrPort(a, 8282), "distant")
		distant = append(distant, services.Endpoint{Addr: addrPort(a, 8282), Ready: true, Node: "n2"})
	}
	n.set(webService(distant))
	n.follow(outside, addrPort(testhost.HostIPv4, 30080))

	var conns []net.Conn
	for _, c := range []struct {
		place string
		to    netip.AddrPort
	}{
		{"", netip.AddrPortFrom(vip4, 80)}, {"", netip.AddrPortFrom(vip6, 80)}, {client.netns, netip.AddrPortFrom(vip4, 80)},
		{client.netns, netip.AddrPortFrom(vip6, 80)}, {outside.Place, addrPort(testhost.HostIPv4, 30080)}, {outside.Place, addrPort(testhost.HostIPv6, 30080)},
	} {
		conns = append(conns, dialAll(t, c.place, c.to, 1)...)
	}
	tell := func(silent bool, nodes ...string) uint64 {
		t.Helper()
		set, quiet := map[string]bool{}, map[string]bool{}
		for _, node := range nodes {
			set[node] = true
		}
		before := n.proxy.Stats().Writes
		if silent {
			quiet = set
		}
		must(t, n.proxy.SetDeadNodes(context.Background(), set, quiet))
		return n.proxy.Stats().Writes - before
	}
	dead := func(nodes ...string) uint64 { t.Helper(); return tell(true, nodes...) }
	askAll := func(what string, want ...string) {
		t.Helper()
		for _, w := range []struct {
			place string
			to    netip.AddrPort
		}{{"", netip.AddrPortFrom(vip4, 80)}, {"", netip.AddrPortFrom(vip6, 80)}, {outside.Place, addrPort(testhost.HostIPv4, 30080)}, {outside.Place, addrPort(testhost.HostIPv6, 30080)}} {
			seen := map[string]bool{}
			for range 40 {
				got, err := testhost.AskTCP(w.place, w.to)
				must(t, err)
				seen[got.Server] = true
			}
			for _, name := range want {
				if !seen[name] {
					t.Errorf("%s: %s was not asked through %s", what, name, w.to)
				}
			}
			if len(seen) != len(want) {
				t.Errorf("%s: %v through %s, want %v", what, seen, w.to, want)
			}
		}
	}

	// Every endpoint looks dead: all stay, connections too.
	if made := dead("n2"); made != 0 {
		t.Errorf("%d writes although all stay", made)
	}
	askAll("all look dead", "distant")
	for i, conn := range conns {
		expectEcho(t, i, conn)
	}
	dead()

	n.set(webService(append(ready(web), distant...)))
	askAll("all alive", "web", "distant")
	// While the agent of a node is away its connections go on.
	if made := tell(false, "n2"); made == 0 {
		t.Error("no write for a node whose agent is away")
	}
	askAll("the agent of n2 is away", "web")
	for i, conn := range conns {
		expectEcho(t, i, conn)
	}
	dead()
	// Four sets, each one backend: at most four writes and the head.
	if made := dead("n2", "n7"); made == 0 || made > 20 {
		t.Errorf("%d writes for a node that died, want 1 to 20", made)
	}
	expectMetrics(t, registry, n.proxy.Stats())
	askAll("n2 dead", "web")
	for i, conn := range conns {
		must(t, conn.SetDeadline(time.Now().Add(5*time.Second)))
		// From outside, the next packet is answered by a reset.
		_, err := conn.Write([]byte("still?"))
		if err == nil {
			_, err = conn.Read(make([]byte, 16))
		}
		if !errors.Is(err, syscall.ECONNABORTED) && !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("connection %d to a dead node: %v, want its end", i, err)
		}
	}
	if made := dead("n2"); made != 0 {
		t.Errorf("%d writes for nothing new", made)
	}
	// A change of the service meanwhile does not bring the dead back.
	s := webService(append(ready(web), distant...))
	s.AffinityTimeout = time.Nanosecond
	must(t, n.proxy.Apply(context.Background(), []services.Change{{Name: s.Name, Service: &s}}))
	s = webService(append(ready(web), distant...))
	must(t, n.proxy.Apply(context.Background(), []services.Change{{Name: s.Name, Service: &s}}))
	askAll("n2 still dead", "web")
	if made := dead(); made == 0 || made > 20 {
		t.Errorf("%d writes for a node that returned, want 1 to 20", made)
	}
	askAll("n2 returned", "web", "distant")
}

// expectMetrics compares what is shown with what the proxy says, after a node died and another that has no endpoints.
func expectMetrics(t *testing.T, registry *prometheus.Registry, s services.Stats) {
	t.Helper()
	families, err := registry.Gather()
	must(t, err)
	got := map[string]float64{}
	for _, family := range families {
		for _, m := range family.GetMetric() {
			name := family.GetName()
			for _, label := range m.GetLabel() {
				name += "/" + label.GetValue()
			}
			got[name] = m.GetCounter().GetValue() + m.GetGauge().GetValue() + float64(m.GetHistogram().GetSampleCount())
		}
	}
	for name, want := range map[string]float64{
		"podvine_proxy_dead_nodes": 2, "podvine_proxy_map_writes_total": float64(s.Writes), "podvine_proxy_frontends": float64(s.Frontends),
		"podvine_proxy_sockets_destroyed_total": float64(s.SocketsDestroyed), "podvine_proxy_failures_total": 0,
		"podvine_proxy_events_total/socket_translated":                 float64(s.Programs["socket_translated"]),
		"kubeproxy_sync_proxy_rules_no_local_endpoints_total/external": 0,
	} {
		if seen, ok := got[name]; !ok || seen != want {
			t.Errorf("%s is %v, want %v", name, seen, want)
		}
	}
	if s.Writes == 0 || s.SocketsDestroyed == 0 {
		t.Errorf("nothing was written, or no socket ended: %+v", s)
	}
	full, partial := got["kubeproxy_sync_full_proxy_rules_duration_seconds"], got["kubeproxy_sync_partial_proxy_rules_duration_seconds"]
	if full == 0 || partial == 0 || got["kubeproxy_sync_proxy_rules_duration_seconds"] != full+partial {
		t.Errorf("timed %v, of all services %v, of some %v", got["kubeproxy_sync_proxy_rules_duration_seconds"], full, partial)
	}
}

func expectEcho(t *testing.T, i int, conn net.Conn) {
	t.Helper()
	must(t, conn.SetDeadline(time.Now().Add(5*time.Second)))
	_, err := conn.Write([]byte("still"))
	must(t, err)
	if _, err := conn.Read(make([]byte, 16)); err != nil {
		t.Errorf("connection %d broke: %v", i, err)
	}
}
