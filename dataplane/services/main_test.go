package services_test

import (
	"context"
	"log/slog"
	"net/netip"
	"os"
	"testing"

	"github.com/podvine/podvine/dataplane/internal/testhost"
	"github.com/podvine/podvine/dataplane/podnet"
	"github.com/podvine/podvine/dataplane/services"
)

func TestMain(m *testing.M) {
	if os.Getenv(holderVariable) != "" {
		os.Exit(holdProxy())
	}
	os.Exit(testhost.Main(m))
}

// node is a machine with a service proxy and a pod network.
type node struct {
	t     testing.TB
	host  *testhost.Host
	proxy *services.Proxy
	pods  *podnet.Network
	tune  func(*services.Config)
}

func newNode(t testing.TB) *node {
	t.Helper()
	return newTunedNode(t, func(*services.Config) {})
}

func newTunedNode(t testing.TB, tune func(*services.Config)) *node {
	t.Helper()
	n := &node{t: t, host: testhost.New(t), tune: tune}
	n.openProxy()
	n.openPods()
	t.Cleanup(func() {
		n.closeAll()
		must(t, services.Reset(n.host.BPFFSDir))
		must(t, podnet.Reset(n.podConfig()))
	})
	return n
}

func (n *node) proxyConfig() services.Config {
	config := services.Config{
		CgroupPath: n.host.Cgroup,
		BPFFSDir:   n.host.BPFFSDir,
		NAT:        []netip.Addr{netip.MustParseAddr(testhost.HostIPv4), netip.MustParseAddr(testhost.HostIPv6)},
		Logger:     slog.New(slog.DiscardHandler),
	}
	n.tune(&config)
	return config
}

func (n *node) podConfig() podnet.Config {
	return podnet.Config{
		CIDRs:        []netip.Prefix{netip.MustParsePrefix("10.244.7.0/24"), netip.MustParsePrefix("fd00:10:244:7::/64")},
		ClusterCIDRs: []netip.Prefix{netip.MustParsePrefix("10.244.0.0/16"), netip.MustParsePrefix("fd00:10:244::/48")},
		StateDir:     n.host.StateDir,
		BPFFSDir:     n.host.BPFFSDir,
		Ports:        n.proxy,
		Logger:       slog.New(slog.DiscardHandler),
	}
}

func (n *node) openProxy() {
	n.t.Helper()
	proxy, err := services.Open(n.proxyConfig())
	must(n.t, err)
	n.proxy = proxy
}

func (n *node) openPods() {
	n.t.Helper()
	pods, err := podnet.Open(context.Background(), n.podConfig())
	must(n.t, err)
	n.pods = pods
}

func (n *node) closeAll() {
	must(n.t, n.pods.Close())
	must(n.t, n.proxy.Close())
}

// pod is a network namespace with an address of each family.
type pod struct {
	netns  string
	v4, v6 netip.Addr
}

func (n *node) pod(name string, ports ...podnet.PortMapping) pod {
	n.t.Helper()
	p := pod{netns: testhost.Netns(n.t)}
	result, err := n.pods.Setup(context.Background(), name, p.netns, podnet.Options{Ports: ports})
	must(n.t, err)
	p.v4, p.v6 = result.Addrs[0], result.Addrs[1]
	n.t.Cleanup(func() { must(n.t, n.pods.Teardown(context.Background(), name)) })
	return p
}

// web is a pod that serves its name on TCP and UDP port 8080, in both families.
func (n *node) web(name string) pod {
	n.t.Helper()
	p := n.pod(name)
	testhost.ServeTCP(n.t, p.netns, netip.AddrPortFrom(netip.IPv6Unspecified(), 8080), name)
	for _, a := range []netip.Addr{p.v4, p.v6} {
		testhost.ServeUDP(n.t, p.netns, netip.AddrPortFrom(a, 8080), name)
	}
	return p
}

func ready(pods ...pod) []services.Endpoint {
	var out []services.Endpoint
	for _, p := range pods {
		for _, a := range []netip.Addr{p.v4, p.v6} {
			out = append(out, services.Endpoint{Addr: netip.AddrPortFrom(a, 8080), Ready: true, Serving: true, Local: true})
		}
	}
	return out
}

var (
	vip4 = netip.MustParseAddr("10.96.0.80")
	vip6 = netip.MustParseAddr("fd00:10:96::80")
)

// webService serves TCP and UDP port 80 and node port 30080 in both families.
func webService(endpoints []services.Endpoint) services.Service {
	s := services.Service{Name: "default/web", ClusterIPs: []netip.Addr{vip4, vip6}}
	for _, p := range []services.Protocol{services.TCP, services.UDP} {
		s.Ports = append(s.Ports, services.Port{Name: "web", Protocol: p, Port: 80, NodePort: 30080, Endpoints: endpoints})
	}
	return s
}

func (n *node) set(all ...services.Service) {
	n.t.Helper()
	must(n.t, n.proxy.Set(context.Background(), all))
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
