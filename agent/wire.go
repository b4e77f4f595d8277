package agent

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/errgroup"
	corelisters "k8s.io/client-go/listers/core/v1"

	"github.com/podvine/podvine/agent/api"
	"github.com/podvine/podvine/agent/api/auth/standard"
	"github.com/podvine/podvine/agent/api/auth/tokens"
	"github.com/podvine/podvine/agent/pki"
	"github.com/podvine/podvine/agent/version"
	"github.com/podvine/podvine/consensus"
	"github.com/podvine/podvine/consensus/kubestore"
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

	// closers end the parts in the reverse order of their start.
	closers []func() error
}

// newNode builds every part and gives each what it needs of the others. What was built is ended again on an error.
func newNode(ctx context.Context, config Config, log *slog.Logger) (n *node, err error) {
	n = &node{config: config, log: log}
	defer func() {
		if err != nil {
			err = errors.Join(err, n.close())
		}
	}()
	for _, step := range []func(context.Context) error{n.openDisk, n.openStore, n.openMesh, n.openKeys, n.openAPI} {
		if err := step(ctx); err != nil {
			return nil, err
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
	n.settings, err = loadSettings(n.dir.join("settings.json"), n.config.settings())
	return err
}

func (n *node) openStore(ctx context.Context) (err error) {
	n.replica, err = consensus.Open(ctx, consensus.Config{
		Dir: n.dir.join("raft"), NodeID: n.dir.NodeID, ClusterID: n.dir.ClusterID,
		Logger: n.log.With("part", "consensus"), Registerer: prometheus.NewRegistry(),
	})
	if err != nil {
		return err
	}
	n.closers = append(n.closers, n.replica.Close)
	if n.backend, err = kubestore.New(n.replica, kubestore.Options{Logger: n.log.With("part", "store")}); err != nil {
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
		Bootstrap: []api.BootstrapHook{standard.Bootstrap()},
		Log:       n.log.With("part", "api"),
	})
	if err != nil {
		return errors.Join(err, listener.Close())
	}
	if err := os.MkdirAll(n.config.ConfigDir, 0o755); err != nil {
		return fmt.Errorf("make the configuration folder: %w", err)
	}
	return n.keys.WriteAdminKubeconfig(filepath.Join(n.config.ConfigDir, "admin.kubeconfig"), "https://"+address.String(), time.Now())
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

// run runs the parts until ctx ends or one of them fails.
func (n *node) run(ctx context.Context) error {
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return n.api.Run(ctx) })
	err := group.Wait()
	return errors.Join(err, n.close())
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
