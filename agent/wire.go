package agent

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"net/netip"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/errgroup"
	authuser "k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	corelisters "k8s.io/client-go/listers/core/v1"
	kubernetesversion "k8s.io/component-base/version"

	"github.com/podvine/podvine/agent/api"
	"github.com/podvine/podvine/agent/api/auth/aggregation"
	"github.com/podvine/podvine/agent/bundle"
	"github.com/podvine/podvine/agent/cgroup"
	"github.com/podvine/podvine/agent/control"
	"github.com/podvine/podvine/agent/control/loop"
	"github.com/podvine/podvine/agent/peer"
	"github.com/podvine/podvine/agent/pki"
	"github.com/podvine/podvine/agent/pods"
	"github.com/podvine/podvine/agent/pods/vault"
	"github.com/podvine/podvine/agent/version"
	"github.com/podvine/podvine/consensus"
	"github.com/podvine/podvine/consensus/kubestore"
	"github.com/podvine/podvine/consensus/quorum"
	"github.com/podvine/podvine/dataplane/netd"
	"github.com/podvine/podvine/dataplane/podnet"
	"github.com/podvine/podvine/dataplane/services"
	"github.com/podvine/podvine/dataplane/services/kube"
	"github.com/podvine/podvine/dataplane/tunnel"
	"github.com/podvine/podvine/gossip"
)

// node is a wired agent.
type node struct {
	config Config
	log    *slog.Logger
	dir    *dataDir
	// settings are those that the node started with, live those of now.
	settings Settings
	live     *settingsKeeper
	address  netip.Addr
	// lastPeers are the members that the node knew before this start.
	lastPeers []gossip.Peer
	// roleComing says that the node has just joined and is about to be told its role.
	roleComing bool

	mesh      *gossip.Mesh
	keys      *pki.PKI
	peers     *peer.Network
	directory *directory
	informers informers.SharedInformerFactory

	// What a replica has.
	replica  *consensus.Replica
	dataKeys *dataKeys
	spreader *keySpreader
	former   formerReplicas
	// consensusMetrics are the replica's, proxyMetrics those of the service proxy.
	consensusMetrics, proxyMetrics *prometheus.Registry

	keeper  *quorum.Keeper
	backend *kubestore.Backend
	api     *api.Server
	// connector is how the API reaches nodes, authorities what the leader knows of a rotation of them.
	connector   *nodeConnector
	authorities *authorityKeeper
	control     *control.Control
	roles       *aggregation.Loop
	// replicasChanged tells the API that members have changed.
	replicasChanged chan struct{}

	// gate and listener are before the API's port.
	gate     *apiGate
	listener *joinedListener

	// link leads to the API of replicas: always for an edge, and for a replica until it is ready itself.
	link *replicaLink
	// What an edge has.
	carrier  *carrier
	access   *accessTransport
	asItself kubernetes.Interface

	programs bundle.Programs
	proxy    *services.Proxy
	names    *lateNames
	source   *kube.Source
	network  *podNetwork
	tunnels  *tunnels
	dead     *deadNodes
	paths    *pathWatcher
	images   *imageNetwork
	// leases are those that this replica has granted while it leads, lease this node's own.
	leases leaseBook
	lease  *leaseKeeper
	pods   *pods.Agent

	// leaving is how far this node is on its way out.
	leaving atomic.Int32

	mu sync.Mutex
	// endWith ends the running agent for a reason; nil before it runs.
	endWith context.CancelCauseFunc

	// closers end the parts in the reverse order of their start.
	closers []func() error
}

// newNode builds every part and gives each what it needs of the others. What was built is ended again on an error.
func newNode(ctx context.Context, config Config, log *slog.Logger) (*node, error) {
	n := &node{
		config: config, log: log, replicasChanged: make(chan struct{}, 1), spreader: newKeySpreader(), authorities: newAuthorityKeeper(),
		consensusMetrics: prometheus.NewRegistry(), proxyMetrics: prometheus.NewRegistry(),
	}
	if err := n.openDisk(ctx); err != nil {
		return nil, errors.Join(err, n.close())
	}
	if n.roleComing {
		if err := n.awaitRole(ctx); err != nil {
			return nil, errors.Join(err, n.close())
		}
	}
	steps := []func(context.Context) error{
		n.openMesh, n.openKeys, n.openPeers, n.openStore, n.openAPI, n.openDataplane, n.openPods, n.openControl,
	}
	if n.dir.Edge {
		steps = []func(context.Context) error{n.openMesh, n.openLink, n.openKeys, n.openPeers, n.openAccess, n.openDataplane, n.openPods}
	}
	for _, step := range steps {
		if err := step(ctx); err != nil {
			return nil, errors.Join(err, n.close())
		}
	}
	return n, nil
}

func (n *node) openDisk(ctx context.Context) (err error) {
	if n.address, err = n.config.nodeAddress(); err != nil {
		return err
	}
	if n.dir, err = openDataDir(n.config.DataDir, n.config.NodeName); err != nil {
		return err
	}
	n.closers = append(n.closers, n.dir.Close)
	if err := n.identify(ctx); err != nil {
		return err
	}
	if n.settings, err = loadSettings(n.dir.join("settings.json"), n.config.settings()); err != nil {
		return err
	}
	n.live = newSettingsKeeper(n.dir.join("settings.json"), n.settings, n.log.With("part", "settings"))
	n.live.changed = n.settingsChanged
	if n.lastPeers, err = gossip.LastPeers(n.dir.path); err != nil {
		return err
	}
	n.programs, err = bundle.Unpack(n.dir.join("programs"), n.config.ProgramsDir)
	return err
}

func (n *node) openMesh(context.Context) error {
	log := n.log.With("part", "gossip")
	transport, err := gossip.ListenUDPAndTCP(netip.AddrPortFrom(n.config.BindAddress, n.config.GossipPort), netip.AddrPortFrom(n.address, n.config.GossipPort), log)
	if err != nil {
		return err
	}
	n.mesh, err = gossip.Start(gossip.Config{
		ID: n.dir.NodeID, Transport: transport, Profile: n.config.GossipProfile, Dir: n.dir.path, Key: gossip.NewKey(), Log: log,
		Tags: n.tags(),
	})
	if err != nil {
		return err
	}
	n.closers = append(n.closers, n.mesh.Close)
	return nil
}

// tags are what this node says of itself in gossip. A replica that the quorum has removed is no edge before it has been told so:
// until then it holds what an edge must not.
func (n *node) tags() gossip.Tags {
	tags := gossip.Tags{Role: gossip.RoleEdge, APIPort: n.config.APIPort, PeerPort: n.config.PeerPort, Version: version.Version}
	tags.Leaving = n.leaving.Load() == leavingQuorum
	if n.replica == nil {
		return tags
	}
	tags.Role = gossip.RoleStandby
	if n.replica.Role() == consensus.RoleVoter {
		tags.Role = gossip.RoleVoter
	}
	return tags
}

func (n *node) openKeys(context.Context) (err error) {
	config := pki.Config{
		Dir: n.dir.join("pki"), NodeName: n.dir.NodeName, NodeID: n.dir.NodeID, NodeIPs: []net.IP{n.address.AsSlice()},
		ServiceIP: n.settings.serviceAddress(apiServiceOffset).AsSlice(), ClusterDomain: n.settings.ClusterDomain,
		Ranges: n.settings.ranges(),
		Log:    n.log.With("part", "pki"),
	}
	if n.dir.Edge {
		config.Sign = n.sign
	}
	config.MakesTokenKeys = func() bool {
		if n.replica == nil {
			return false
		}
		_, leads := n.replica.Leading()
		return leads
	}
	n.keys, err = pki.Open(config)
	if errors.Is(err, pki.ErrRanOut) {
		return fmt.Errorf("%w: if the clock is right, it was off for too long: run `podvine agent reset --yes` on it and join it again", err)
	}
	return err
}

// openPeers opens the port on which members speak to each other.
func (n *node) openPeers(ctx context.Context) error {
	listener, err := new(net.ListenConfig).Listen(ctx, "tcp", netip.AddrPortFrom(n.config.BindAddress, n.config.PeerPort).String())
	if err != nil {
		return fmt.Errorf("listen for peers: %w", err)
	}
	n.peers = peer.New(peer.Config{
		Listener: listener, Certificate: n.keys.Peer().TLS, Authority: n.keys.Cluster().Pool, Resolve: n.resolve, Log: n.log.With("part", "peers"),
	})
	n.closers = append(n.closers, n.peers.Close)
	return nil
}

// resolve finds the peer port of a node: gossip knows best, and before it knows anybody, what was so the last time.
func (n *node) resolve(id string) (netip.AddrPort, bool) {
	for _, member := range n.mesh.Members() {
		if member.ID == id && member.Tags.PeerPort != 0 {
			return netip.AddrPortFrom(member.Address.Addr(), member.Tags.PeerPort), true
		}
	}
	return lastAddress(n.lastPeers, id)
}

func (n *node) nodeLister() corelisters.NodeLister { return n.informers.Core().V1().Nodes().Lister() }

// openDataplane loads or adopts the service proxy. The pod network follows when the node's ranges are known.
func (n *node) openDataplane(context.Context) error {
	unified, err := cgroup.Unified()
	if err != nil {
		return err
	}
	n.network, n.names = newPodNetwork(), new(lateNames)
	n.proxy, err = services.Open(services.Config{
		CgroupPath: unified, BPFFSDir: bpffsDir, NAT: []netip.Addr{n.address}, Netns: podNamespaces, Logger: n.log.With("part", "services"),
		Metrics: n.proxyMetrics,
	})
	if err != nil {
		return err
	}
	n.closers = append(n.closers, n.proxy.Close)
	events, stop := loop.NewRecorder(n.client(pki.NodeUserStart+n.dir.NodeName, pki.NodesGroup), "podvine-proxy")
	n.closers = append(n.closers, func() error { stop(); return nil })
	keep, err := vault.Open(n.dir.join("services"))
	if err != nil {
		return err
	}
	n.source, err = kube.New(kube.Config{
		Informers: n.informers, NodeName: n.dir.NodeName, Proxy: n.proxy, Names: n.names, Keep: keep, Events: events, Logger: n.log.With("part", "services"),
		Metrics: n.proxyMetrics,
	})
	if err != nil {
		return err
	}
	if n.dead, err = newDeadNodes(n); err != nil {
		return err
	}
	n.paths = newPathWatcher(n, n.dead.trigger)
	n.dead.closed = n.paths.Closed
	n.tunnels, err = newTunnels(n)
	return err
}

func (n *node) openPods(context.Context) error {
	as := n.client(pki.NodeUserStart+n.dir.NodeName, pki.NodesGroup)
	security, err := n.kubeletSecurity(as)
	if err != nil {
		return err
	}
	labels, taints, err := n.config.nodeMarks()
	if err != nil {
		return err
	}
	n.lease = newLeaseKeeper(n)
	n.images = newImageNetwork(n.dir.identity, n.peers, n.directory.all, n.log.With("part", "images"))
	n.pods, err = pods.New(pods.Config{
		NodeName: n.dir.NodeName, DataDir: n.dir.join("pods"), StateDir: filepath.Join(runDir, "pods"), ImageDir: n.dir.join("containerd"),
		KubeletDir: n.config.KubeletDir, LogDir: filepath.Join(n.config.LogDir, "pods"), ContainerLogDir: filepath.Join(n.config.LogDir, "containers"),
		SocketDir: filepath.Join(runDir, "s"), ShimPath: n.programs.Shim, RuncPath: n.programs.Runc, CgroupParent: cgroupName,
		Client: as, Network: n.network, ImagePeers: n.images, ImportedImages: n.images,
		ClusterDNS: []string{n.settings.serviceAddress(dnsServiceOffset).String()}, ClusterDomain: n.settings.ClusterDomain,
		NodeIPs: []string{n.address.String()}, NodeLabels: labels, NodeTaints: taints,
		NodeAnnotations: map[string]string{NodeIDAnnotation: n.dir.NodeID},
		KubeletVersion:  kubernetesversion.Get().GitVersion + "+podvine", APIPort: int32(n.config.KubeletPort),
		APIListen: netip.AddrPortFrom(n.config.BindAddress, n.config.KubeletPort).String(), Server: security,
		ManifestDir: n.dir.join("manifests"), CompletePod: completePod, Lease: n.lease, Confirm: n.confirmPod(as),
		Log: n.log.With("part", "pods"),
	})
	return err
}

// client acts as the user, in process. An edge acts as its own node, whoever is named.
func (n *node) client(user string, groups ...string) kubernetes.Interface {
	if n.api == nil {
		return n.asItself
	}
	return kubernetes.NewForConfigOrDie(n.api.ClientConfig(&authuser.DefaultInfo{Name: user, Groups: append(groups, authuser.AllAuthenticated)}))
}

// run runs the parts until ctx ends or one of them fails.
func (n *node) run(ctx context.Context) error {
	parts := map[string]func(context.Context) error{
		"peers": n.peers.Run, "calls of agents": n.runAgentCalls, "members": n.runMembers, "pods": n.pods.Run, "data plane": n.runDataplane,
		"dead nodes": n.dead.run, "paths": n.paths.run, "own address": n.followAddress, "calls of root": n.runLocal, "lease": n.lease.run,
		"settings": func(ctx context.Context) error {
			return n.live.follow(ctx, n.client(authuser.APIServerUser, authuser.SystemPrivilegedGroup))
		},
		"keys of gossip":   n.runGossipKeys,
		"outdated":         n.runOutdated,
		"images for peers": func(ctx context.Context) error { return n.images.serve(ctx, n.pods.Images()) },
		"list of imported images": func(ctx context.Context) error {
			return followConfigMap(ctx, n.client(authuser.APIServerUser, authuser.SystemPrivilegedGroup), ImagesObjectName, n.images.take)
		},
	}
	if n.dir.Edge {
		maps.Copy(parts, n.edgeParts())
	} else {
		maps.Copy(parts, n.replicaParts())
	}
	asked, end := context.WithCancelCause(ctx)
	defer end(nil)
	n.setEnd(end)
	// The parts go on while the lead is handed over.
	ctx, stop := context.WithCancelCause(context.WithoutCancel(ctx))
	defer stop(nil)
	ended := make(chan struct{})
	var parting sync.WaitGroup
	parting.Go(func() {
		select {
		case <-asked.Done():
			n.lease.part()
			n.handOver()
			stop(context.Cause(asked))
		case <-ended:
		}
	})
	group, ctx := errgroup.WithContext(ctx)
	for name, part := range parts {
		group.Go(func() error {
			if err := part(ctx); err != nil && ctx.Err() == nil {
				return fmt.Errorf("run %s: %w", name, err)
			}
			return nil
		})
	}
	err := group.Wait()
	close(ended)
	parting.Wait() // it needs the replica, which close ends
	if cause := context.Cause(ctx); startsAnew(cause) {
		err = cause
	}
	return errors.Join(err, n.close())
}

// runDataplane keeps the data plane fed. What fails (a link that is not there yet, an nftables table that somebody holds)
// is tried again and never ends the agent; what is pinned works on meanwhile.
func (n *node) runDataplane(ctx context.Context) error {
	const pause = 2 * time.Second
	for {
		err := n.feedDataplane(ctx)
		if ctx.Err() != nil {
			return nil //nolint:nilerr // it ended because it was to end
		}
		n.log.Error("run the data plane, again in a moment", "pause", pause, "error", err)
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(pause):
		}
	}
}

// feedDataplane opens the pod network when the node's ranges are known, starts or adopts netd, and feeds both.
func (n *node) feedDataplane(ctx context.Context) error {
	ranges, err := n.podRanges(ctx)
	if err != nil {
		return err
	}
	mtu, err := tunnel.MTU(n.live.get().tunnelMode(), n.address)
	if err != nil {
		return err
	}
	network, err := podnet.Open(ctx, podnet.Config{
		CIDRs: ranges, MTU: mtu, ClusterCIDRs: n.settings.podRanges(), StateDir: n.dir.join("network"), BPFFSDir: bpffsDir,
		Ports: n.proxy, Logger: n.log.With("part", "podnet"),
	})
	if err != nil {
		return err
	}
	defer func() {
		if err := network.Close(); err != nil {
			n.log.Warn("close the pod network", "error", err)
		}
	}()
	dns, err := netd.Start(ctx, netd.Config{
		Dir: n.dir.join("netd"), Command: []string{n.programs.Netd}, Logger: n.log.With("part", "netd"),
		Settings: netd.Settings{Addrs: network.Addrs(), Port: dnsPort, Domain: n.settings.ClusterDomain, Build: version.Version},
	})
	if err != nil {
		return err
	}
	defer func() {
		if err := dns.Close(); err != nil {
			n.log.Warn("let go of netd", "error", err)
		}
	}()
	n.names.use(dns)
	link, err := tunnel.Open(ctx, tunnel.Config{
		Dir: n.dir.join("tunnel"), BPFFSDir: bpffsDir, Userspace: dns, SetMTU: network.SetMTU, Logger: n.log.With("part", "tunnel"),
	})
	if err != nil {
		return err
	}
	defer func() {
		if err := link.Close(); err != nil {
			n.log.Warn("let go of the tunnel", "error", err)
		}
	}()
	if err := n.proxy.SetPodSources(network.Addrs()); err != nil {
		return err
	}
	if err := n.setLocalServices(ctx, network.Addrs()); err != nil {
		return err
	}
	n.network.open(network)
	defer n.network.close()
	tunnels, source := errgroup.WithContext(ctx)
	tunnels.Go(func() error { n.tunnels.run(source, link, ranges); return nil })
	tunnels.Go(func() error { return n.source.Run(source) })
	return tunnels.Wait()
}

// setLocalServices leads the names' and the API's addresses to this node's own netd and agent.
func (n *node) setLocalServices(ctx context.Context, own []netip.Addr) error {
	for _, service := range []*services.Service{
		dnsService(n.settings.serviceAddress(dnsServiceOffset), own),
		apiService(n.settings.serviceAddress(apiServiceOffset), netip.AddrPortFrom(n.address, n.config.APIPort)),
	} {
		if err := n.proxy.SetLocal(ctx, service.Name, service); err != nil {
			return err
		}
	}
	return nil
}

// end ends the agent for that reason.
func (n *node) end(reason error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.endWith != nil {
		n.endWith(reason)
	}
}

func (n *node) setEnd(end context.CancelCauseFunc) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.endWith = end
}

// close ends the parts in the reverse order of their start.
func (n *node) close() error {
	var errs []error
	for i := len(n.closers) - 1; i >= 0; i-- {
		errs = append(errs, n.closers[i]())
	}
	n.closers = nil
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("end the agent: %w", err)
	}
	return nil
}
