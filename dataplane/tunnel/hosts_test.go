package tunnel_test

import (
	"errors"
	"fmt"
	"net/netip"
	"net/rpc"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/podvine/podvine/dataplane/internal/nsrun"
	"github.com/podvine/podvine/dataplane/internal/testhost"
	"github.com/podvine/podvine/dataplane/netd/daemon"
	"github.com/podvine/podvine/dataplane/podnet"
	"github.com/podvine/podvine/dataplane/services"
	"github.com/podvine/podvine/dataplane/tunnel"
	"github.com/podvine/podvine/dataplane/tunnel/wireguard"
)

const (
	netdArgument = "be-netd"
	nodeArgument = "be-node"
	limit        = 20 * time.Second
	switchLink   = "switch"
)

// TestMain runs the test binary as a node or as netd where a test starts it so.
func TestMain(m *testing.M) {
	run := map[string]func() error{
		netdArgument: func() error { return daemon.Main(os.Args[2:]) },
		nodeArgument: serveNode,
	}
	if len(os.Args) > 1 && run[os.Args[1]] != nil {
		if err := run[os.Args[1]](); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	os.Exit(testhost.Main(m))
}

// mesh is a number of hosts on one switch.
type mesh struct {
	t     testing.TB
	mode  tunnel.Mode
	outer func(number int) []netip.Addr
	hosts []*host
}

// host is a machine in a network namespace of its own, with a process for its agent.
type host struct {
	t        testing.TB
	mesh     *mesh
	number   int
	netns    string
	port     string
	settings NodeSettings
	key      wireguard.Key
	netdPID  int
	process  *exec.Cmd
	client   *rpc.Client
}

func outer4(number int) []netip.Addr {
	return []netip.Addr{netip.MustParseAddr(fmt.Sprintf("192.0.2.%d", number)), netip.MustParseAddr(fmt.Sprintf("2001:db8::%d", number))}
}

func outer6(number int) []netip.Addr {
	addrs := outer4(number)
	return []netip.Addr{addrs[1], addrs[0]}
}

// newMesh starts hosts whose nodes all know each other.
func newMesh(t testing.TB, mode tunnel.Mode, count int, outer func(int) []netip.Addr) *mesh {
	t.Helper()
	bridge := &netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: switchLink}}
	must(t, netlink.LinkAdd(bridge))
	t.Cleanup(func() { must(t, netlink.LinkDel(bridge)) })
	must(t, netlink.LinkSetUp(bridge))
	m := &mesh{t: t, mode: mode, outer: outer}
	for number := 1; number <= count; number++ {
		m.hosts = append(m.hosts, m.newHost(number))
	}
	m.connect()
	return m
}

func (m *mesh) newHost(number int) *host {
	m.t.Helper()
	machine := testhost.New(m.t)
	h := &host{t: m.t, mesh: m, number: number, netns: testhost.Netns(m.t), port: fmt.Sprint("port", number)}
	plug(m.t, h.netns, h.port, m.outer(number))
	h.settings = NodeSettings{
		Dir: m.t.TempDir(), Cgroup: filepath.Join(machine.Cgroup, fmt.Sprint("h", number)), BPFFSDir: machine.BPFFSDir,
		Addrs: m.outer(number), Mode: m.mode, Build: "1",
		CIDRs: []netip.Prefix{
			netip.MustParsePrefix(fmt.Sprintf("10.244.%d.0/24", number)), netip.MustParsePrefix(fmt.Sprintf("fd00:10:244:%d::/64", number)),
		},
		ClusterCIDRs: []netip.Prefix{netip.MustParsePrefix("10.244.0.0/16"), netip.MustParsePrefix("fd00:10:244::/48")},
	}
	must(m.t, os.MkdirAll(filepath.Join(h.settings.Cgroup, "agent"), 0o755))
	m.t.Cleanup(func() {
		if h.client != nil {
			must(m.t, h.client.Call("Node.Close", struct{}{}, nil))
			h.stop()
		}
		h.spawn()
		must(m.t, h.client.Call("Node.Reset", h.settings, nil))
		h.stop()
	})
	h.start()
	return h
}

// plug connects a machine to the switch by its link "uplink".
func plug(t testing.TB, netns, port string, addrs []netip.Addr) {
	t.Helper()
	ns, err := os.Open(netns)
	must(t, err)
	defer ns.Close()
	bridge, err := netlink.LinkByName(switchLink)
	must(t, err)
	pair := &netlink.Veth{
		LinkAttrs: netlink.LinkAttrs{Name: port, TxQLen: -1, MasterIndex: bridge.Attrs().Index}, PeerName: "uplink", PeerNamespace: netlink.NsFd(ns.Fd()),
	}
	must(t, netlink.LinkAdd(pair))
	t.Cleanup(func() { must(t, netlink.LinkDel(pair)) })
	must(t, netlink.LinkSetUp(pair))
	must(t, nsrun.In(netns, func() error {
		uplink, err := netlink.LinkByName("uplink")
		if err != nil {
			return err
		}
		for _, a := range addrs {
			bits := 24
			if a.Is6() {
				bits = 64
			}
			addr, err := netlink.ParseAddr(netip.PrefixFrom(a, bits).String())
			if err != nil {
				return err
			}
			if a.Is6() {
				addr.Flags = unix.IFA_F_NODAD
			}
			if err := netlink.AddrAdd(uplink, addr); err != nil {
				return err
			}
		}
		return netlink.LinkSetUp(uplink)
	}))
}

// spawn starts the process of the agent, in the host's network and cgroup.
func (h *host) spawn() {
	h.t.Helper()
	cgroup, err := os.Open(filepath.Join(h.settings.Cgroup, "agent"))
	must(h.t, err)
	defer cgroup.Close()
	fromChild, childOut, err := os.Pipe()
	must(h.t, err)
	childIn, toChild, err := os.Pipe()
	must(h.t, err)
	h.process = exec.Command("/proc/self/exe", nodeArgument)
	h.process.Stdin, h.process.Stdout, h.process.Stderr = childIn, childOut, os.Stderr
	h.process.SysProcAttr = &syscall.SysProcAttr{UseCgroupFD: true, CgroupFD: int(cgroup.Fd())}
	must(h.t, nsrun.In(h.netns, h.process.Start))
	must(h.t, errors.Join(childIn.Close(), childOut.Close()))
	h.client = rpc.NewClient(pipe{fromChild, toChild})
}

func (h *host) start() {
	h.t.Helper()
	h.spawn()
	var reply NodeReply
	must(h.t, h.client.Call("Node.Open", h.settings, &reply))
	h.key, h.netdPID = reply.PublicKey, reply.NetdPID
}

// stop ends the process by closing its input; kill does not ask.
func (h *host) stop() {
	h.t.Helper()
	must(h.t, h.client.Close())
	must(h.t, h.process.Wait())
	h.client = nil
}

func (h *host) kill() {
	h.t.Helper()
	must(h.t, h.process.Process.Kill())
	_ = h.process.Wait() // it was killed, and says so
	_ = h.client.Close() // the other end has gone
	h.client = nil
}

func (h *host) id() string { return fmt.Sprint("node-", h.number) }

func (h *host) peer() tunnel.Peer {
	return tunnel.Peer{ID: h.id(), Addrs: h.settings.Addrs, PublicKey: h.key, PodCIDRs: h.settings.CIDRs}
}

func (h *host) state() tunnel.State {
	s := tunnel.State{Mode: h.mesh.mode, Self: tunnel.Self{ID: h.id(), Addrs: h.settings.Addrs, PodCIDRs: h.settings.CIDRs}}
	for _, other := range h.mesh.hosts {
		if other != h {
			s.Peers = append(s.Peers, other.peer())
		}
	}
	return s
}

func (h *host) set(state tunnel.State) {
	h.t.Helper()
	must(h.t, h.client.Call("Node.Set", state, nil))
}

func (m *mesh) connect() {
	m.t.Helper()
	for _, h := range m.hosts {
		h.set(h.state())
	}
}

func (h *host) status() tunnel.Status {
	h.t.Helper()
	var s tunnel.Status
	must(h.t, h.client.Call("Node.Status", struct{}{}, &s))
	return s
}

// pod is a network namespace with an address of each family, connected to a host.
type pod struct {
	host   *host
	name   string
	netns  string
	v4, v6 netip.Addr
}

func (p pod) addrs() []netip.Addr { return []netip.Addr{p.v4, p.v6} }

func (h *host) pod(name string) pod {
	h.t.Helper()
	p := pod{host: h, name: name, netns: testhost.Netns(h.t)}
	var result podnet.Result
	must(h.t, h.client.Call("Node.Pod", PodArgs{name, p.netns}, &result))
	p.v4, p.v6 = result.Addrs[0], result.Addrs[1]
	return p
}

// web is a pod that serves its name on port 8080.
func (h *host) web(name string) pod {
	h.t.Helper()
	p := h.pod(name)
	testhost.ServeTCP(h.t, p.netns, netip.AddrPortFrom(netip.IPv6Unspecified(), 8080), name)
	for _, a := range p.addrs() {
		testhost.ServeUDP(h.t, p.netns, netip.AddrPortFrom(a, 8080), name)
	}
	return p
}

// ask asks from a network namespace as a process of the host; from "" it is the host itself.
func (h *host) ask(netns, protocol string, to netip.AddrPort) (testhost.Answer, error) {
	if netns == "" {
		netns = h.netns
	}
	var answer testhost.Answer
	err := h.client.Call("Node.Ask", AskArgs{netns, protocol, to}, &answer)
	return answer, err
}

// expect demands an answer, and the source that the server sees. It waits for one: a session has to begin first.
func (h *host) expect(netns string, to netip.AddrPort, server string, source netip.Addr) {
	h.t.Helper()
	for _, protocol := range []string{"tcp", "udp"} {
		var got testhost.Answer
		var err error
		deadline := time.Now().Add(limit)
		for {
			got, err = h.ask(netns, protocol, to)
			if err == nil || time.Now().After(deadline) {
				break
			}
		}
		if err != nil || got.Server != server || got.Source != source {
			h.t.Errorf("h%d over %s to %s: %+v, %v; want %s seeing %s", h.number, protocol, to, got, err, server, source)
		}
	}
}

// silence demands that nobody answers.
func (h *host) silence(netns string, to netip.AddrPort) {
	h.t.Helper()
	if got, err := h.ask(netns, "udp", to); err == nil {
		h.t.Errorf("h%d to %s: %+v, want silence", h.number, to, got)
	}
}

func (h *host) services(all ...services.Service) {
	h.t.Helper()
	must(h.t, h.client.Call("Node.Services", all, nil))
}

// inside runs a function in the host's network.
func (h *host) inside(f func() error) {
	h.t.Helper()
	must(h.t, nsrun.In(h.netns, f))
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func at(addr netip.Addr) netip.AddrPort { return netip.AddrPortFrom(addr, 8080) }

func contains(list []string, part string) bool {
	return strings.Contains(strings.Join(list, "\n"), part)
}
