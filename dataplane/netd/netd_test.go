package netd_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	mdns "github.com/miekg/dns"

	"github.com/podvine/podvine/dataplane/dns"
	"github.com/podvine/podvine/dataplane/internal/nsrun"
	"github.com/podvine/podvine/dataplane/internal/testhost"
	"github.com/podvine/podvine/dataplane/netd"
	"github.com/podvine/podvine/dataplane/netd/daemon"
	"github.com/podvine/podvine/dataplane/podnet"
	"github.com/podvine/podvine/dataplane/services"
)

const childArgument = "be-netd"

// TestMain runs the test binary as netd where a test starts it so.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == childArgument {
		if err := daemon.Main(os.Args[2:]); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	os.Exit(testhost.Main(m))
}

const limit = 10 * time.Second

var loopback = netip.MustParseAddr("127.0.0.1")

func config(t *testing.T, addr netip.Addr) netd.Config {
	dir := filepath.Join(t.TempDir(), "netd")
	resolv := filepath.Join(t.TempDir(), "resolv.conf")
	must(t, os.WriteFile(resolv, []byte("nameserver 127.0.0.2\n"), 0o600))
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), limit)
		defer cancel()
		must(t, netd.Reset(ctx, dir))
	})
	return netd.Config{
		Dir:      dir,
		Command:  []string{"/proc/self/exe", childArgument},
		Cgroups:  []string{filepath.Join(testhost.New(t).Cgroup, "netd")},
		Settings: netd.Settings{Addrs: []netip.Addr{addr}, Port: 10053, Domain: "cluster.local", ResolvConf: resolv, Build: "1"},
		Logger:   slog.New(slog.DiscardHandler),
	}
}

func start(t *testing.T, config netd.Config) *netd.Client {
	t.Helper()
	client, err := netd.Start(t.Context(), config)
	if err != nil {
		log, _ := os.ReadFile(filepath.Join(config.Dir, netd.LogFile))
		t.Fatalf("%v\n%s", err, log)
	}
	t.Cleanup(func() { must(t, client.Close()) })
	return client
}

func web(ip string) dns.Service {
	return dns.Service{
		Namespace: "default", Name: "web", ClusterIPs: []netip.Addr{netip.MustParseAddr(ip)},
		Ports: []dns.Port{{Name: "http", Protocol: "tcp", Port: 80}},
	}
}

// resolver asks a server as programs do, from a network namespace.
func resolver(network string, server netip.AddrPort, netns string) *net.Resolver {
	return &net.Resolver{PreferGo: true, Dial: func(context.Context, string, string) (conn net.Conn, err error) {
		err = nsrun.In(netns, func() error {
			conn, err = net.Dial(network, server.String())
			return err
		})
		return conn, err
	}}
}

func expect(t *testing.T, r *net.Resolver, name, want string) {
	t.Helper()
	testhost.Eventually(t, limit, name+" is "+want, func() bool {
		got, err := r.LookupHost(t.Context(), name)
		return err == nil && len(got) == 1 && got[0] == want
	})
}

// upstream is a name server of the world: it knows one name.
func upstream(t *testing.T, at, name, address string) {
	t.Helper()
	conn, err := net.ListenPacket("udp", at)
	must(t, err)
	server := &mdns.Server{PacketConn: conn, Handler: mdns.HandlerFunc(func(w mdns.ResponseWriter, r *mdns.Msg) {
		reply := new(mdns.Msg)
		reply.SetReply(r)
		if r.Question[0].Name != name {
			reply.Rcode = mdns.RcodeNameError
		} else if r.Question[0].Qtype == mdns.TypeA {
			record, err := mdns.NewRR(name + " 1 IN A " + address)
			if err == nil {
				reply.Answer = append(reply.Answer, record)
			}
		}
		// A lost answer is asked for again.
		_ = w.WriteMsg(reply)
	})}
	done := make(chan error, 1)
	go func() { done <- server.ActivateAndServe() }()
	t.Cleanup(func() {
		must(t, conn.Close())
		<-done //nolint:errcheck // says that the connection is closed
	})
}

func TestAnswersOfClusterAndWorld(t *testing.T) {
	upstream(t, "127.0.0.2:53", "www.example.org.", "192.0.2.99")
	upstream(t, "127.0.0.3:53", "new.example.org.", "192.0.2.98")
	c := config(t, loopback)
	client := start(t, c)
	external := dns.Service{Namespace: "default", Name: "world", ExternalName: "www.example.org"}
	client.Set([]dns.Service{web("10.96.0.80"), external})
	at := netip.AddrPortFrom(loopback, 10053)
	for _, network := range []string{"udp", "tcp"} {
		r := resolver(network, at, "")
		expect(t, r, "web.default.svc.cluster.local", "10.96.0.80")
		expect(t, r, "www.example.org", "192.0.2.99")
		expect(t, r, "world.default.svc.cluster.local", "192.0.2.99")
		var missing *net.DNSError
		if _, err := r.LookupHost(t.Context(), "nobody.default.svc.cluster.local"); !errors.As(err, &missing) || !missing.IsNotFound {
			t.Errorf("a missing service: %v", err)
		}
		_, ports, err := r.LookupSRV(t.Context(), "http", "tcp", "web.default.svc.cluster.local")
		if err != nil || len(ports) != 1 || ports[0].Port != 80 {
			t.Errorf("SRV: %v, %v", ports, err)
		}
		names, err := r.LookupAddr(t.Context(), "10.96.0.80")
		if err != nil || len(names) != 1 || names[0] != "web.default.svc.cluster.local." {
			t.Errorf("PTR: %v, %v", names, err)
		}
	}
	must(t, os.WriteFile(c.Settings.ResolvConf, []byte("nameserver 127.0.0.3\n"), 0o600))
	expect(t, resolver("udp", at, ""), "new.example.org", "192.0.2.98")
	// Deltas, and at once: the cluster's names are not cached.
	client.Apply(dns.Update{Upserts: []dns.Service{web("10.96.0.81")}, Deletes: []string{"default/world"}})
	expect(t, resolver("udp", at, ""), "web.default.svc.cluster.local", "10.96.0.81")
}

func TestOutlivesTheAgentAndIsAdopted(t *testing.T) {
	c := config(t, loopback)
	r := resolver("udp", netip.AddrPortFrom(loopback, 10053), "")
	first := start(t, c)
	first.Set([]dns.Service{web("10.96.0.80")})
	expect(t, r, "web.default.svc.cluster.local", "10.96.0.80")
	must(t, first.Close())
	expect(t, r, "web.default.svc.cluster.local", "10.96.0.80")
	second := start(t, c)
	if first.PID() != second.PID() {
		t.Errorf("netd %d was replaced by %d", first.PID(), second.PID())
	}
	// It keeps what it has until the agent knows better.
	expect(t, r, "web.default.svc.cluster.local", "10.96.0.80")
	second.Set([]dns.Service{web("10.96.0.82")})
	expect(t, r, "web.default.svc.cluster.local", "10.96.0.82")

	// Killed, it is started again and fed.
	must(t, syscall.Kill(second.PID(), syscall.SIGKILL))
	testhost.Eventually(t, limit, "another netd", func() bool { return second.PID() != first.PID() })
	expect(t, r, "web.default.svc.cluster.local", "10.96.0.82")
	procs, err := os.ReadFile(filepath.Join(c.Cgroups[0], "cgroup.procs"))
	must(t, err)
	if !strings.Contains(string(procs), fmt.Sprint(second.PID())) {
		t.Errorf("netd %d is not in its cgroup: %q", second.PID(), procs)
	}
}

// A machine that restarts with no quorum: netd answers from disk before any agent knows anything.
func TestAnswersFromDisk(t *testing.T) {
	c := config(t, loopback)
	r := resolver("udp", netip.AddrPortFrom(loopback, 10053), "")
	first := start(t, c)
	first.Set([]dns.Service{web("10.96.0.80")})
	testhost.Eventually(t, limit, "state on disk", func() bool {
		data, err := os.ReadFile(filepath.Join(c.Dir, netd.StateFile))
		return err == nil && strings.Contains(string(data), "10.96.0.80")
	})
	must(t, first.Close())
	must(t, syscall.Kill(first.PID(), syscall.SIGKILL))
	second := start(t, c)
	if second.PID() == first.PID() {
		t.Fatal("the killed netd was adopted")
	}
	expect(t, r, "web.default.svc.cluster.local", "10.96.0.80")
}

func TestAnotherBuildTakesOverWithoutAGap(t *testing.T) {
	c := config(t, loopback)
	first := start(t, c)
	first.Set([]dns.Service{web("10.96.0.80")})
	r := resolver("tcp", netip.AddrPortFrom(loopback, 10053), "")
	expect(t, r, "web.default.svc.cluster.local", "10.96.0.80")
	testhost.Eventually(t, limit, "state on disk", func() bool {
		_, err := os.Stat(filepath.Join(c.Dir, netd.StateFile))
		return err == nil
	})
	must(t, first.Close())

	var asked, failed atomic.Int64
	stop, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		udp := resolver("udp", netip.AddrPortFrom(loopback, 10053), "")
		for {
			select {
			case <-stop:
				return
			default:
			}
			// The resolver repeats a lost question, as every program's does.
			if _, err := udp.LookupHost(context.Background(), "web.default.svc.cluster.local"); err != nil {
				failed.Add(1)
			}
			asked.Add(1)
		}
	}()
	c.Settings.Build = "2"
	second := start(t, c)
	close(stop)
	<-done
	if second.PID() == first.PID() || asked.Load() == 0 || failed.Load() > 0 {
		t.Errorf("netd %d after %d, %d of %d questions failed", second.PID(), first.PID(), failed.Load(), asked.Load())
	}
	testhost.Eventually(t, limit, "the predecessor has gone", func() bool {
		return errors.Is(syscall.Kill(first.PID(), 0), syscall.ESRCH)
	})
}

func TestRefusesThePortOfTheHost(t *testing.T) {
	c := config(t, loopback)
	c.Settings.Port = 53
	if _, err := netd.Start(t.Context(), c); err == nil {
		t.Error("netd was started on port 53")
	}
}

// The whole way: a pod asks kube-dns, the service proxy leads it to netd on the node.
func TestPodAsksTheClustersNameServer(t *testing.T) {
	host := testhost.New(t)
	log := slog.New(slog.DiscardHandler)
	proxy, err := services.Open(services.Config{CgroupPath: host.Cgroup, BPFFSDir: host.BPFFSDir, Logger: log})
	must(t, err)
	network := podnet.Config{
		CIDRs: []netip.Prefix{netip.MustParsePrefix("10.244.9.0/24")}, StateDir: host.StateDir, BPFFSDir: host.BPFFSDir, Logger: log,
	}
	pods, err := podnet.Open(t.Context(), network)
	must(t, err)
	t.Cleanup(func() {
		must(t, pods.Close())
		must(t, proxy.Close())
		must(t, services.Reset(host.BPFFSDir))
		must(t, podnet.Reset(network))
	})
	c := config(t, pods.Addrs()[0])
	client := start(t, c)
	client.Set([]dns.Service{web("10.96.0.80")})

	kubeDNS := netip.MustParseAddr("10.96.0.10")
	backend := []services.Endpoint{{Addr: netip.AddrPortFrom(pods.Addrs()[0], c.Settings.Port), Ready: true, Local: true}}
	must(t, proxy.SetLocal(t.Context(), "node/dns", &services.Service{Name: "node/dns", Static: true, ClusterIPs: []netip.Addr{kubeDNS}, Ports: []services.Port{
		{Name: "dns", Protocol: services.UDP, Port: 53, Endpoints: backend}, {Name: "dns-tcp", Protocol: services.TCP, Port: 53, Endpoints: backend},
	}}))
	pod := testhost.Netns(t)
	_, err = pods.Setup(t.Context(), "client", pod, podnet.Options{})
	must(t, err)
	for _, from := range []string{"", pod} {
		for _, protocol := range []string{"udp", "tcp"} {
			expect(t, resolver(protocol, netip.AddrPortFrom(kubeDNS, 53), from), "web.default.svc.cluster.local", "10.96.0.80")
		}
	}
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
