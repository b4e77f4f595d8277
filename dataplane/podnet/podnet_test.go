package podnet_test

import (
	"context"
	"errors"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/nftables"
	"github.com/vishvananda/netlink"

	"github.com/podvine/podvine/dataplane/internal/testhost"
	"github.com/podvine/podvine/dataplane/podnet"
)

func TestMain(m *testing.M) { os.Exit(testhost.Main(m)) }

const limit = 10 * time.Second

var (
	cidr4 = netip.MustParsePrefix("10.244.7.0/24")
	cidr6 = netip.MustParsePrefix("fd00:10:244:7::/64")
)

func config(t *testing.T) podnet.Config {
	host := testhost.New(t)
	c := podnet.Config{
		CIDRs:        []netip.Prefix{cidr4, cidr6},
		ClusterCIDRs: []netip.Prefix{netip.MustParsePrefix("10.244.0.0/16"), netip.MustParsePrefix("fd00:10:244::/48")},
		StateDir:     host.StateDir,
		BPFFSDir:     host.BPFFSDir,
		MTU:          1400,
		Logger:       slog.New(slog.DiscardHandler),
	}
	t.Cleanup(func() { must(t, podnet.Reset(c)) })
	return c
}

// network is closed once, by the test or at its end.
type network struct {
	*podnet.Network
	closed bool
}

func (n *network) close(t *testing.T) {
	t.Helper()
	if !n.closed {
		n.closed = true
		must(t, n.Close())
	}
}

func open(t *testing.T, c podnet.Config) *network {
	t.Helper()
	opened, err := podnet.Open(t.Context(), c)
	must(t, err)
	n := &network{Network: opened}
	t.Cleanup(func() { n.close(t) })
	return n
}

type pod struct {
	netns  string
	v4, v6 netip.Addr
	link   string
}

// serving connects a pod that answers on port 8080 with its name.
func serving(t *testing.T, n *network, name string) pod {
	t.Helper()
	netns := testhost.Netns(t)
	p := setup(t, n, name, netns)
	testhost.ServeTCP(t, netns, netip.AddrPortFrom(netip.IPv6Unspecified(), 8080), name)
	return p
}

func setup(t *testing.T, n *network, name, netns string) pod {
	t.Helper()
	result, err := n.Setup(t.Context(), name, netns, podnet.Options{})
	must(t, err)
	if result.MTU != 1400 || len(result.Addrs) != 2 || !cidr4.Contains(result.Addrs[0]) || !cidr6.Contains(result.Addrs[1]) {
		t.Fatalf("connected as %+v", result)
	}
	return pod{netns: netns, v4: result.Addrs[0], v6: result.Addrs[1], link: result.HostLink}
}

func (p pod) addrs() []netip.Addr { return []netip.Addr{p.v4, p.v6} }

// expect asks a server and demands its name and the source it sees.
func expect(t *testing.T, from string, to netip.Addr, server string, source netip.Addr) {
	t.Helper()
	got, err := testhost.AskTCP(from, netip.AddrPortFrom(to, 8080))
	if err != nil || got.Server != server || got.Source != source {
		t.Errorf("from %q to %s: %+v, %v; want %s seeing %s", from, to, got, err, server, source)
	}
}

func TestPodsReachEachOtherTheHostAndTheWorld(t *testing.T) {
	n := open(t, config(t))
	outside := testhost.NewOutside(t)
	testhost.ServeTCP(t, outside.Netns, netip.AddrPortFrom(netip.IPv6Unspecified(), 8080), "world")
	testhost.ServeTCP(t, "", netip.AddrPortFrom(netip.IPv6Unspecified(), 8080), "host")
	a, b := serving(t, n, "a"), serving(t, n, "b")
	for i, addr := range b.addrs() {
		expect(t, a.netns, addr, "b", a.addrs()[i])
		expect(t, b.netns, addr, "b", addr)
		expect(t, "", addr, "b", n.Addrs()[i])
		expect(t, a.netns, n.Addrs()[i], "host", a.addrs()[i])
	}
	for out, host := range map[string]string{testhost.OutsideIPv4: testhost.HostIPv4, testhost.OutsideIPv6: testhost.HostIPv6} {
		expect(t, a.netns, netip.MustParseAddr(out), "world", netip.MustParseAddr(host))
	}
}

// A firewall that drops all forwarding, as others leave behind, must not part pods.
func TestForeignForwardDropDoesNotPartPods(t *testing.T) {
	n := open(t, config(t))
	a, b := serving(t, n, "a"), serving(t, n, "b")
	c, err := nftables.New()
	must(t, err)
	table := c.AddTable(&nftables.Table{Family: nftables.TableFamilyINet, Name: "foreign"})
	drop := nftables.ChainPolicyDrop
	c.AddChain(&nftables.Chain{
		Name: "forward", Table: table, Type: nftables.ChainTypeFilter, Hooknum: nftables.ChainHookForward, Priority: nftables.ChainPriorityFilter, Policy: &drop,
	})
	must(t, c.Flush())
	t.Cleanup(func() {
		c.DelTable(table)
		must(t, c.Flush())
	})
	for i, addr := range b.addrs() {
		expect(t, a.netns, addr, "b", a.addrs()[i])
	}
}

func TestRestartAdoptsPodsAndConnections(t *testing.T) {
	c := config(t)
	n := open(t, c)
	a, b := serving(t, n, "a"), serving(t, n, "b")
	conn, err := testhost.DialTCP(a.netns, netip.AddrPortFrom(b.v4, 8080))
	must(t, err)
	defer conn.Close()
	_, err = testhost.ReadAnswer(conn)
	must(t, err)
	before, err := netlink.LinkByName(a.link)
	must(t, err)
	n.close(t)

	n = open(t, c)
	if got := n.Pods(); !slices.Equal(got, []string{"a", "b"}) {
		t.Errorf("adopted %v", got)
	}
	// However long that took.
	must(t, conn.SetDeadline(time.Now().Add(10*time.Second)))
	_, err = conn.Write([]byte("still"))
	must(t, err)
	if _, err := conn.Read(make([]byte, 8)); err != nil {
		t.Errorf("the connection broke: %v", err)
	}
	// Setting up what is there changes nothing, and new pods get other addresses.
	if again := setup(t, n, "a", a.netns); again != a {
		t.Errorf("a is now %+v, was %+v", again, a)
	}
	after, err := netlink.LinkByName(a.link)
	must(t, err)
	if before.Attrs().Index != after.Attrs().Index {
		t.Error("the link was made anew")
	}
	fresh := serving(t, n, "c")
	if fresh.v4 == a.v4 || fresh.v4 == b.v4 {
		t.Errorf("address %s was given twice", fresh.v4)
	}
	expect(t, fresh.netns, a.v4, "a", fresh.v4)
}

// After a reboot the records are there and the links are not: pods keep their addresses in new namespaces.
func TestPodKeepsItsAddressInANewNamespace(t *testing.T) {
	n := open(t, config(t))
	old := setup(t, n, "a", testhost.Netns(t))
	peer := serving(t, n, "b")
	again := serving(t, n, "a")
	if again.v4 != old.v4 || again.v6 != old.v6 {
		t.Errorf("addresses %v, were %v", again.addrs(), old.addrs())
	}
	expect(t, peer.netns, again.v4, "a", peer.v4)
}

func TestTeardownAndCollect(t *testing.T) {
	c := config(t)
	n := open(t, c)
	a, b := serving(t, n, "a"), serving(t, n, "b")
	must(t, n.Teardown(t.Context(), "a"))
	must(t, n.Teardown(t.Context(), "a"))
	var refused syscall.Errno
	if got, err := testhost.AskTCP(b.netns, netip.AddrPortFrom(a.v4, 8080)); err == nil {
		t.Errorf("a still answers: %+v", got)
	} else if errors.As(err, &refused) && refused == syscall.ECONNREFUSED {
		t.Errorf("something else refused: %v", err)
	}
	gone(t, a.link)
	// Not at once: the address of a pod that went may be in somebody's mind.
	if next := setup(t, n, "c", testhost.Netns(t)); next.v4 == a.v4 {
		t.Errorf("address %s was given again at once", a.v4)
	}
	must(t, n.Collect(t.Context(), []string{"c"}))
	gone(t, b.link)
	if got := n.Pods(); !slices.Equal(got, []string{"c"}) {
		t.Errorf("pods %v", got)
	}
	n.close(t)
	records, err := os.ReadDir(filepath.Join(c.StateDir, "pods"))
	if err != nil || len(records) != 1 {
		t.Errorf("records %v, %v", records, err)
	}
}

// A crash between making a link and noting it, or a record of a pod that was never made.
func TestOpenRemovesLeftovers(t *testing.T) {
	c := config(t)
	n := open(t, c)
	a := serving(t, n, "a")
	n.close(t)
	stray := &netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: "pv0123456789ab"}, PeerName: "pv0123456789ac"}
	must(t, netlink.LinkAdd(stray))
	must(t, os.WriteFile(filepath.Join(c.StateDir, "pods", "half.json"), []byte("{"), 0o600))
	n = open(t, c)
	gone(t, "pv0123456789ab")
	if got := n.Pods(); !slices.Equal(got, []string{"a"}) {
		t.Errorf("pods %v", got)
	}
	expect(t, "", a.v4, "a", n.Addrs()[0])
}

// Links of others stay, even if their names begin like ours.
func TestForeignLinksStay(t *testing.T) {
	names := []string{"pvlan0", "pvstorage-bond"}
	link := &netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: names[0]}, PeerName: names[1]}
	must(t, netlink.LinkAdd(link))
	t.Cleanup(func() { must(t, netlink.LinkDel(link)) })
	c := config(t)
	n := open(t, c)
	n.close(t)
	must(t, podnet.Reset(c))
	for _, name := range names {
		if _, err := netlink.LinkByName(name); err != nil {
			t.Errorf("link %s: %v", name, err)
		}
	}
}

func TestHostPortNeedsAProxy(t *testing.T) {
	n := open(t, config(t))
	netns := testhost.Netns(t)
	_, err := n.Setup(t.Context(), "a", netns, podnet.Options{Ports: []podnet.PortMapping{{Protocol: 6, HostPort: 80, PodPort: 80}}})
	if err == nil {
		t.Error("a host port was promised that nobody serves")
	}
	must(t, n.Teardown(context.Background(), "a"))
}

func TestRangeIsExhaustedWithAClearError(t *testing.T) {
	c := config(t)
	c.CIDRs = []netip.Prefix{netip.MustParsePrefix("10.244.8.0/30")}
	n := open(t, c)
	netns := testhost.Netns(t)
	_, err := n.Setup(t.Context(), "a", netns, podnet.Options{})
	must(t, err)
	if _, err := n.Setup(t.Context(), "b", testhost.Netns(t), podnet.Options{}); !errors.Is(err, podnet.ErrExhausted) {
		t.Errorf("error %v", err)
	}
}

func TestResetLeavesNoTrace(t *testing.T) {
	before := trace(t)
	c := config(t)
	n := open(t, c)
	serving(t, n, "a")
	during := trace(t)
	n.close(t)
	must(t, podnet.Reset(c))
	if after := trace(t); after != before {
		t.Errorf("left over:\n%s\nwas:\n%s", after, before)
	}
	if during == before {
		t.Error("the pod network left no trace while it was there: the test looks at nothing")
	}
	if _, err := os.Stat(c.StateDir); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("state folder: %v", err)
	}
	if _, err := os.Stat(c.BPFFSDir); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("pinned programs: %v", err)
	}
}

// trace describes what a pod network could leave on a host.
func trace(t *testing.T) string {
	t.Helper()
	var out []string
	links, err := netlink.LinkList()
	must(t, err)
	for _, l := range links {
		out = append(out, "link "+l.Attrs().Name)
	}
	routes, err := netlink.RouteList(nil, netlink.FAMILY_ALL)
	must(t, err)
	for _, r := range routes {
		out = append(out, "route "+r.String())
	}
	c, err := nftables.New()
	must(t, err)
	tables, err := c.ListTables()
	must(t, err)
	for _, table := range tables {
		out = append(out, "table "+table.Name)
	}
	for _, name := range []string{"net/ipv4/ip_forward", "net/ipv6/conf/all/forwarding"} {
		value, err := os.ReadFile("/proc/sys/" + name)
		must(t, err)
		out = append(out, name+" "+strings.TrimSpace(string(value)))
	}
	slices.Sort(out)
	return strings.Join(out, "\n")
}

func gone(t *testing.T, link string) {
	t.Helper()
	testhost.Eventually(t, limit, "link "+link+" is gone", func() bool {
		_, err := netlink.LinkByName(link)
		return errors.As(err, &netlink.LinkNotFoundError{})
	})
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
