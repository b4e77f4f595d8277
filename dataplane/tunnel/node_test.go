package tunnel_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"net/rpc"
	"os"
	"path/filepath"
	"time"

	"github.com/podvine/podvine/dataplane/internal/testhost"
	"github.com/podvine/podvine/dataplane/netd"
	"github.com/podvine/podvine/dataplane/podnet"
	"github.com/podvine/podvine/dataplane/services"
	"github.com/podvine/podvine/dataplane/tunnel"
	"github.com/podvine/podvine/dataplane/tunnel/wireguard"
)

// nodeProcess is the part of an agent that the tunnel needs, in a process of its own that a test can kill.
type nodeProcess struct {
	settings NodeSettings
	proxy    *services.Proxy
	pods     *podnet.Network
	netd     *netd.Client
	tunnel   *tunnel.Tunnel
}

type NodeSettings struct {
	Dir, Cgroup, BPFFSDir string
	Addrs                 []netip.Addr
	CIDRs, ClusterCIDRs   []netip.Prefix
	Mode                  tunnel.Mode
	// Build of netd.
	Build string
}

func (s *NodeSettings) netdDir() string { return filepath.Join(s.Dir, "netd") }

func (s *NodeSettings) podnet() podnet.Config {
	return podnet.Config{
		CIDRs: s.CIDRs, ClusterCIDRs: s.ClusterCIDRs, StateDir: filepath.Join(s.Dir, "podnet"), BPFFSDir: s.BPFFSDir,
		Logger: slog.New(slog.DiscardHandler),
	}
}

type NodeReply struct {
	PublicKey wireguard.Key
	NetdPID   int
}

// Open starts, or adopts, everything in the order in which an agent does.
func (n *nodeProcess) Open(settings NodeSettings, reply *NodeReply) (err error) {
	log := slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelWarn}))
	ctx := context.Background()
	n.settings = settings
	n.proxy, err = services.Open(services.Config{
		CgroupPath: settings.Cgroup, BPFFSDir: settings.BPFFSDir, NAT: settings.Addrs, Logger: log,
	})
	if err != nil {
		return err
	}
	config := settings.podnet()
	config.Ports, config.Logger = n.proxy, log
	if config.MTU, err = tunnel.MTU(settings.Mode, settings.Addrs[0]); err != nil {
		return err
	}
	if n.pods, err = podnet.Open(ctx, config); err != nil {
		return err
	}
	if err := n.proxy.SetPodSources(n.pods.Addrs()); err != nil {
		return err
	}
	n.netd, err = netd.Start(ctx, netd.Config{
		Dir: settings.netdDir(), Command: []string{"/proc/self/exe", netdArgument}, Cgroups: []string{filepath.Join(settings.Cgroup, "netd")},
		Settings: netd.Settings{Addrs: n.pods.Addrs(), Port: 10053, Domain: "cluster.local", ResolvConf: "/dev/null", Build: settings.Build},
		Logger:   log,
	})
	if err != nil {
		return err
	}
	n.tunnel, err = tunnel.Open(ctx, tunnel.Config{
		Dir: filepath.Join(settings.Dir, "tunnel"), BPFFSDir: settings.BPFFSDir, Userspace: n.netd, SetMTU: n.pods.SetMTU, Logger: log,
	})
	if err != nil {
		return err
	}
	*reply = NodeReply{n.tunnel.PublicKey(), n.netd.PID()}
	return nil
}

func (n *nodeProcess) Set(state tunnel.State, _ *struct{}) error {
	return n.tunnel.Set(context.Background(), state)
}

func (n *nodeProcess) Services(all []services.Service, _ *struct{}) error {
	return n.proxy.Set(context.Background(), all)
}

func (n *nodeProcess) Rotate(_ struct{}, key *wireguard.Key) (err error) {
	*key, err = n.tunnel.RotateKey(context.Background())
	return err
}

func (n *nodeProcess) Status(_ struct{}, status *tunnel.Status) (err error) {
	*status, err = n.tunnel.Status(context.Background())
	status.Refused = nil // errors have no form in gob
	return err
}

type PodArgs struct{ ID, Netns string }

func (n *nodeProcess) Pod(args PodArgs, result *podnet.Result) error {
	made, err := n.pods.Setup(context.Background(), args.ID, args.Netns, podnet.Options{})
	if err == nil {
		*result = *made
	}
	return err
}

type AskArgs struct {
	Netns, Protocol string
	To              netip.AddrPort
}

// Ask asks from a process that the service proxy of this node sees.
func (n *nodeProcess) Ask(args AskArgs, answer *testhost.Answer) (err error) {
	ask := testhost.AskTCP
	if args.Protocol == "udp" {
		ask = testhost.AskUDP
	}
	*answer, err = ask(args.Netns, args.To)
	return err
}

// Close ends the agent's part; everything that is pinned, and netd, stays.
func (n *nodeProcess) Close(struct{}, *struct{}) error {
	if n.tunnel == nil {
		return errors.New("the node is not open")
	}
	return errors.Join(n.tunnel.Close(), n.netd.Close(), n.pods.Close(), n.proxy.Close())
}

// Reset removes every trace, as `podvine agent reset` does.
func (n *nodeProcess) Reset(settings NodeSettings, _ *struct{}) error {
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	return errors.Join(
		netd.Reset(ctx, settings.netdDir()), tunnel.Reset(filepath.Join(settings.Dir, "tunnel")),
		services.Reset(settings.BPFFSDir), podnet.Reset(settings.podnet()),
	)
}

// pipe is a process' standard input and output as one connection.
type pipe struct{ in, out *os.File }

func (p pipe) Read(b []byte) (int, error)  { return p.in.Read(b) }
func (p pipe) Write(b []byte) (int, error) { return p.out.Write(b) }
func (p pipe) Close() error                { return errors.Join(p.in.Close(), p.out.Close()) }

func serveNode() error {
	server := rpc.NewServer()
	if err := server.RegisterName("Node", &nodeProcess{}); err != nil {
		return fmt.Errorf("register node: %w", err)
	}
	server.ServeConn(pipe{os.Stdin, os.Stdout})
	return nil
}
