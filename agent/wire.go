package agent

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"path/filepath"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/errgroup"
	authuser "k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/client-go/kubernetes"
	corelisters "k8s.io/client-go/listers/core/v1"
	"k8s.io/client-go/metadata"
	kubernetesversion "k8s.io/component-base/version"

	"github.com/podvine/podvine/agent/api"
	"github.com/podvine/podvine/agent/api/auth/aggregation"
	"github.com/podvine/podvine/agent/api/auth/standard"
	"github.com/podvine/podvine/agent/api/auth/tokens"
	"github.com/podvine/podvine/agent/bundle"
	"github.com/podvine/podvine/agent/cgroup"
	"github.com/podvine/podvine/agent/control"
	"github.com/podvine/podvine/agent/pki"
	"github.com/podvine/podvine/agent/pods"
	"github.com/podvine/podvine/agent/version"
	"github.com/podvine/podvine/consensus"
	"github.com/podvine/podvine/consensus/kubestore"
	"github.com/podvine/podvine/dataplane/netd"
	"github.com/podvine/podvine/dataplane/podnet"
	"github.com/podvine/podvine/dataplane/services"
	"github.com/podvine/podvine/dataplane/services/kube"
	"github.com/podvine/podvine/gossip"
)

// node is a wired agent.
type node struct {
	config   Config
	log      *slog.Logger
	dir      *dataDir
	settings Settings
	address  netip.Addr

	replica *consensus.Replica
	backend *kubestore.Backend
	mesh    *gossip.Mesh
	keys    *pki.PKI
	api     *api.Server

	programs bundle.Programs
	proxy    *services.Proxy
	names    *lateNames
	source   *kube.Source
	network  *podNetwork
	pods     *pods.Agent
	control  *control.Control
	roles    *aggregation.Loop

	// closers end the parts in the reverse order of their start.
	closers []func() error
}

// newNode builds every part and gives each what it needs of the others. What was built is ended again on an error.
func newNode(ctx context.Context, config Config, log *slog.Logger) (*node, error) {
	n := &node{config: config, log: log}
	for _, step := range []func(context.Context) error{
		n.openDisk, n.openStore, n.openMesh, n.openKeys, n.openAPI, n.openDataplane, n.openPods, n.openControl,
	} {
		if err := step(ctx); err != nil {
			return nil, errors.Join(err, n.close())
		}
	}
	return n, nil
}

func (n *node) openDisk(context.Context) (err error) {
	if n.address, err = n.config.nodeAddress(); err != nil {
		return err
	}
	if n.dir, err = openDataDir(n.config.DataDir, n.config.NodeName); err != nil {
		return err
	}
	n.closers = append(n.closers, n.dir.Close)
	if n.settings, err = loadSettings(n.dir.join("settings.json"), n.config.settings()); err != nil {
		return err
	}
	n.programs, err = bundle.Unpack(n.dir.join("programs"), n.config.ProgramsDir)
	return err
}

func (n *node) openStore(ctx context.Context) error {
	ring, err := openDataKeys(n.dir.join("data-keys.json"), n.dir.join("raft"))
	if err != nil {
		return err
	}
	n.replica, err = consensus.Open(ctx, consensus.Config{
		Dir: n.dir.join("raft"), NodeID: n.dir.NodeID, ClusterID: n.dir.ClusterID,
		Logger: n.log.With("part", "consensus"), Registerer: prometheus.NewRegistry(),
	})
	if err != nil {
		return err
	}
	n.closers = append(n.closers, n.replica.Close)
	if n.backend, err = kubestore.New(n.replica, kubestore.Options{Logger: n.log.With("part", "store"), Ring: ring}); err != nil {
		return err
	}
	n.closers = append(n.closers, func() error { n.backend.Close(); return nil })
	return nil
}

func (n *node) openMesh(context.Context) error {
	log := n.log.With("part", "gossip")
	transport, err := gossip.ListenUDPAndTCP(netip.AddrPortFrom(n.config.BindAddress, n.config.GossipPort), netip.AddrPortFrom(n.address, n.config.GossipPort), log)
	if err != nil {
		return err
	}
	n.mesh, err = gossip.Start(gossip.Config{
		ID: n.dir.NodeID, Transport: transport, Profile: n.config.GossipProfile, Dir: n.dir.path, Key: gossip.NewKey(), Log: log,
		Tags: gossip.Tags{Role: gossip.RoleVoter, APIPort: n.config.APIPort, PeerPort: n.config.PeerPort, Version: version.Version},
	})
	if err != nil {
		return err
	}
	n.closers = append(n.closers, n.mesh.Close)
	return nil
}

func (n *node) openKeys(context.Context) (err error) {
	n.keys, err = pki.Open(pki.Config{
		Dir: n.dir.join("pki"), NodeName: n.dir.NodeName, NodeIPs: []net.IP{n.address.AsSlice()},
		ServiceIP: n.settings.serviceAddress(apiServiceOffset).AsSlice(), ClusterDomain: n.settings.ClusterDomain,
		Log: n.log.With("part", "pki"),
	})
	return err
}

func (n *node) openAPI(ctx context.Context) error {
	listener, err := new(net.ListenConfig).Listen(ctx, "tcp", netip.AddrPortFrom(n.config.BindAddress, n.config.APIPort).String())
	if err != nil {
		return fmt.Errorf("listen for the API: %w", err)
	}
	address := netip.AddrPortFrom(n.address, n.config.APIPort)
	n.api, err = api.New(api.Config{
		Listener: listener, ServingCert: n.keys.Serving(), ClientCA: n.keys.ClusterCA(), ExternalAddress: address.String(),
		Storage: n.backend.Decorator, ListerWatcher: n.backend.ListerWatcher,
		Nodes:               newNodeConnector(n.nodeLister, n.keys.Cluster().Pool(), n.keys.KubeletClient().TLS),
		Settings:            n.settings.kinds(),
		Security:            n.security(address),
		Audit:               api.Audit{PolicyFile: n.config.AuditPolicyFile, LogFile: n.config.AuditLogPath},
		ProxyClientCertFile: n.keys.ProxyClient().File(), ProxyClientKeyFile: n.keys.ProxyClient().File(),
		KubernetesService: &api.KubernetesService{
			ClusterIP: n.settings.serviceAddress(apiServiceOffset),
			Endpoints: func() ([]netip.Addr, int32) { return []netip.Addr{n.address}, int32(n.config.APIPort) },
		},
		Bootstrap: []api.BootstrapHook{standard.Bootstrap(), dnsBootstrap(n.settings.serviceAddress(dnsServiceOffset))},
		Log:       n.log.With("part", "api"),
	})
	if err != nil {
		return errors.Join(err, listener.Close())
	}
	return n.writeKubeconfig()
}

// security is the usual one, with this member's own paths.
func (n *node) security(address netip.AddrPort) func(api.Access) (api.Security, error) {
	usual := standard.Config{
		PKI: n.keys, Issuer: "https://kubernetes.default.svc." + n.settings.ClusterDomain,
		KeySetURL: "https://" + address.String() + tokens.KeySetPath, TolerationSeconds: n.settings.evictionDelaySeconds(),
	}
	return func(access api.Access) (api.Security, error) {
		made, err := usual.Security(access)
		if err != nil {
			return api.Security{}, err
		}
		made.Routes[StatusPath] = serveJSON(n.status)
		made.Routes[KubeconfigPath] = http.HandlerFunc(n.issueKubeconfig)
		return made, nil
	}
}

func (n *node) nodeLister() corelisters.NodeLister {
	return n.api.Informers().Core().V1().Nodes().Lister()
}

// status is what this member tells of the cluster.
func (n *node) status(*http.Request) (Status, error) {
	replica := n.replica.Status()
	status := Status{Cluster: n.dir.ClusterID, Node: n.dir.NodeName, Version: version.Version, LastIndex: replica.LastIndex}
	names := map[string]string{n.dir.NodeID: n.dir.NodeName}
	status.Leader = names[replica.LeaderID]
	for _, condition := range n.replica.Conditions() {
		status.Conditions = append(status.Conditions, fmt.Sprintf("%s since %s: %s", condition.Type, condition.Since.Format(time.RFC3339), condition.Message))
	}
	for _, member := range n.mesh.Members() {
		name := names[member.ID]
		if name == "" {
			name = member.ID
		}
		status.Members = append(status.Members, memberStatus(member, name))
	}
	return status, nil
}

// openDataplane loads or adopts the service proxy. The pod network follows when the node's ranges are known.
func (n *node) openDataplane(context.Context) error {
	unified, err := cgroup.Unified()
	if err != nil {
		return err
	}
	n.network, n.names = newPodNetwork(), &lateNames{}
	n.proxy, err = services.Open(services.Config{
		CgroupPath: unified, BPFFSDir: bpffsDir, NAT: []netip.Addr{n.address}, Netns: podNamespaces, Logger: n.log.With("part", "services"),
	})
	if err != nil {
		return err
	}
	n.closers = append(n.closers, n.proxy.Close)
	n.source, err = kube.New(kube.Config{
		Informers: n.api.Informers(), NodeName: n.dir.NodeName, Proxy: n.proxy, Names: n.names, Logger: n.log.With("part", "services"),
	})
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
	n.pods, err = pods.New(pods.Config{
		NodeName: n.dir.NodeName, DataDir: n.dir.join("pods"), StateDir: filepath.Join(runDir, "pods"), ImageDir: n.dir.join("containerd"),
		KubeletDir: n.config.KubeletDir, LogDir: filepath.Join(n.config.LogDir, "pods"), ContainerLogDir: filepath.Join(n.config.LogDir, "containers"),
		SocketDir: filepath.Join(runDir, "s"), ShimPath: n.programs.Shim, RuncPath: n.programs.Runc, CgroupParent: cgroupName,
		Client: as, Network: n.network,
		ClusterDNS: []string{n.settings.serviceAddress(dnsServiceOffset).String()}, ClusterDomain: n.settings.ClusterDomain,
		NodeIPs: []string{n.address.String()}, NodeLabels: labels, NodeTaints: taints,
		KubeletVersion: kubernetesversion.Get().GitVersion + "+podvine", APIPort: int32(n.config.KubeletPort),
		APIListen: netip.AddrPortFrom(n.config.BindAddress, n.config.KubeletPort).String(), Server: security,
		Log: n.log.With("part", "pods"),
	})
	return err
}

func (n *node) openControl(context.Context) (err error) {
	n.control, err = control.New(control.Config{
		ClientFor: func(name string) kubernetes.Interface { return n.loopClient(name) },
		MetadataFor: func(name string) metadata.Interface {
			user, groups := control.User(name)
			return metadata.NewForConfigOrDie(n.api.ClientConfig(&authuser.DefaultInfo{Name: user, Groups: groups}))
		},
		Informers: n.api.Informers(), Logger: n.log.With("part", "control"), Liveness: aliveItself{n.dir.NodeName, time.Now()},
		CA: n.keys.Cluster().CertPEM(), ServiceRanges: n.settings.ServiceRanges, PodRanges: n.settings.podRanges(),
	})
	if err != nil {
		return err
	}
	n.roles, err = aggregation.New(n.client("system:serviceaccount:kube-system:clusterrole-aggregation-controller",
		"system:serviceaccounts", "system:serviceaccounts:kube-system"), n.api.Informers().Rbac().V1().ClusterRoles(), n.log.With("part", "control"))
	return err
}

// loopClient acts in process as one of the loops.
func (n *node) loopClient(name string) kubernetes.Interface {
	user, groups := control.User(name)
	return n.client(user, groups...)
}

// client acts in process as the user.
func (n *node) client(user string, groups ...string) kubernetes.Interface {
	return kubernetes.NewForConfigOrDie(n.api.ClientConfig(&authuser.DefaultInfo{Name: user, Groups: append(groups, authuser.AllAuthenticated)}))
}

// run runs the parts until ctx ends or one of them fails.
func (n *node) run(ctx context.Context) error {
	group, ctx := errgroup.WithContext(ctx)
	for name, part := range map[string]func(context.Context) error{
		"API": n.api.Run, "pods": n.pods.Run, "control": n.runControl, "data plane": n.runDataplane, "keys": n.runKeys, "issuer": n.runIssuer,
	} {
		group.Go(func() error {
			if err := part(ctx); err != nil && ctx.Err() == nil {
				return fmt.Errorf("run %s: %w", name, err)
			}
			return nil
		})
	}
	err := group.Wait()
	return errors.Join(err, n.close())
}

// runControl runs the loops for as long as this member leads, as often as it does.
func (n *node) runControl(ctx context.Context) error {
	if err := n.waitReady(ctx); err != nil {
		return err
	}
	for ctx.Err() == nil {
		changed := n.replica.LeadershipChanged()
		if _, leading := n.replica.Leading(); leading {
			if err := n.lead(ctx, changed); err != nil {
				return err
			}
			continue
		}
		select {
		case <-ctx.Done():
		case <-changed:
		}
	}
	return nil
}

// waitReady returns when the API is: before, the loops would lack the roles that the bootstrap makes.
func (n *node) waitReady(ctx context.Context) error {
	client := n.client(authuser.APIServerUser, authuser.SystemPrivilegedGroup)
	return retry(ctx, func(ctx context.Context) error {
		return client.Discovery().RESTClient().Get().AbsPath("/readyz").Do(ctx).Error()
	})
}

func (n *node) lead(ctx context.Context, changed <-chan struct{}) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	go func() {
		select {
		case <-changed:
			cancel()
		case <-ctx.Done():
		}
	}()
	var roles sync.WaitGroup
	roles.Go(func() { n.roles.Run(ctx) })
	err := n.control.Run(ctx)
	ended := ctx.Err() != nil // the lead was lost, or the agent ends: no failure of a loop
	cancel()
	roles.Wait()
	if ended {
		return nil
	}
	return err
}

// runDataplane keeps the data plane fed. What fails (a link that is not there yet, an nftables table that somebody holds)
// is tried again and never ends the agent; what is pinned works on meanwhile.
func (n *node) runDataplane(ctx context.Context) error {
	const pause = 2 * time.Second
	for {
		err := n.feedDataplane(ctx)
		if ctx.Err() != nil {
			return nil
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
	network, err := podnet.Open(ctx, podnet.Config{
		CIDRs: ranges, ClusterCIDRs: n.settings.podRanges(), StateDir: n.dir.join("network"), BPFFSDir: bpffsDir,
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
	n.names.client = dns
	static := []*services.Service{
		dnsService(n.settings.serviceAddress(dnsServiceOffset), network.Addrs()),
		apiService(n.settings.serviceAddress(apiServiceOffset), netip.AddrPortFrom(n.address, n.config.APIPort)),
	}
	for _, service := range static {
		if err := n.proxy.SetLocal(ctx, service.Name, service); err != nil {
			return err
		}
	}
	n.network.open(network)
	defer n.network.close()
	return n.source.Run(ctx)
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
