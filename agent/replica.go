package agent

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/http"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	authuser "k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/apiserver/pkg/server/healthz"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/metadata"

	"github.com/podvine/podvine/agent/api"
	"github.com/podvine/podvine/agent/api/admission"
	"github.com/podvine/podvine/agent/api/auth/aggregation"
	"github.com/podvine/podvine/agent/api/auth/standard"
	"github.com/podvine/podvine/agent/api/auth/tokens"
	"github.com/podvine/podvine/agent/control"
	"github.com/podvine/podvine/agent/version"
	"github.com/podvine/podvine/consensus"
	"github.com/podvine/podvine/consensus/kubestore"
	"github.com/podvine/podvine/consensus/quorum"
	"github.com/podvine/podvine/gossip"
)

// replicaParts are what a replica runs beside what every member does.
func (n *node) replicaParts() map[string]func(context.Context) error {
	return map[string]func(context.Context) error{
		"API": n.api.Run, "API gate": n.runGate, "control": n.runControl, "keys": n.runKeys, "issuer": n.runIssuer, "quorum": n.runQuorum,
		"keys of replicas": n.runKeySpreader, "kubeconfig": n.runKubeconfig, "members that are gone": n.runGoneMembers, "authorities": n.runAuthorities,
	}
}

// apiEndpoints are where replicas serve the API, this one included.
func (n *node) apiEndpoints() ([]netip.Addr, int32) {
	addresses := []netip.Addr{n.address}
	for id, member := range n.directory.all() {
		if id != n.dir.NodeID && member.Tags.Role.Replica() && member.State == gossip.StateAlive {
			addresses = append(addresses, member.Address.Addr())
		}
	}
	return addresses, int32(n.config.APIPort)
}

func (n *node) openStore(ctx context.Context) (err error) {
	if n.dataKeys, err = openDataKeys(n.dir.join(dataKeysFile), n.dir.join("raft")); err != nil {
		return err
	}
	network := &consensus.Network{Dial: n.peers.Dial}
	if network.Raft, err = n.peers.Listen(consensus.ProtocolRaft, true); err != nil {
		return err
	}
	if network.Store, err = n.peers.Listen(consensus.ProtocolStore, true); err != nil {
		return err
	}
	n.replica, err = consensus.Open(ctx, consensus.Config{
		Dir: n.dir.join("raft"), NodeID: n.dir.NodeID, ClusterID: n.dir.ClusterID, Join: n.dir.Joined, Epoch: n.dir.Epoch, Network: network,
		Logger: n.log.With("part", "consensus"), Registerer: n.consensusMetrics,
	})
	if err != nil {
		return err
	}
	n.closers = append(n.closers, n.replica.Close)
	if n.backend, err = kubestore.New(n.replica, kubestore.Options{Logger: n.log.With("part", "store"), Ring: n.dataKeys.ring}); err != nil {
		return err
	}
	n.closers = append(n.closers, func() error { n.backend.Close(); return nil })
	return nil
}

func (n *node) openAPI(ctx context.Context) error {
	listener, err := new(net.ListenConfig).Listen(ctx, "tcp", netip.AddrPortFrom(n.config.BindAddress, n.config.APIPort).String())
	if err != nil {
		return fmt.Errorf("listen for the API: %w", err)
	}
	proxies, err := standard.NewFrontProxies(n.keys, n.config.RequestHeader)
	if err != nil {
		return errors.Join(err, listener.Close())
	}
	n.openAPIGate()
	n.listener = joinListeners(listener, n.gate.admit, maxServed, n.log.With("part", "api"))
	address := netip.AddrPortFrom(n.address, n.config.APIPort)
	n.connector = newNodeConnector(n.nodeLister, n.keys.Cluster().Pool, n.keys.KubeletClient().TLS)
	n.api, err = api.New(api.Config{
		Listener: n.listener, ServingCert: n.keys.Serving(), ClientCA: n.keys.Cluster(), ExternalAddress: address.String(),
		Storage: n.backend.Decorator, ListerWatcher: n.backend.ListerWatcher,
		Nodes:               n.connector,
		Alive:               func(name string) (bool, time.Time) { return n.directory.Alive(name) }, // nobody asks before there is one
		KindsChanged:        func() { n.control.KindsChanged() },                                    // nor here
		Settings:            n.settings.kinds(),
		Security:            n.security(address, proxies),
		Audit:               api.Audit{PolicyFile: n.config.AuditPolicyFile, LogFile: n.config.AuditLogPath},
		ProxyClientCertFile: n.keys.ProxyClient().File(), ProxyClientKeyFile: n.keys.ProxyClient().File(),
		KubernetesService: &api.KubernetesService{
			ClusterIP: n.settings.serviceAddress(apiServiceOffset),
			Endpoints: n.apiEndpoints, Changed: n.replicasChanged,
			Writes: func() bool { _, leads := n.replica.Leading(); return leads },
		},
		Public:      n.publicRoutes(),
		ReadyChecks: []healthz.HealthChecker{n.caughtUp()},
		Bootstrap:   []api.BootstrapHook{standard.Bootstrap(), standard.Trust(n.keys, proxies), n.live.bootstrap(), dnsBootstrap(n.settings.serviceAddress(dnsServiceOffset))},
		Log:         n.log.With("part", "api"),
	})
	if err != nil {
		return errors.Join(err, n.listener.Close())
	}
	n.informers = n.api.Informers()
	if n.directory, err = newDirectory(n.dir.identity, n.mesh, n.informers); err != nil {
		return err
	}
	n.keeper, err = quorum.New(quorum.Config{Replica: n.replica, Members: n.quorumMembers, Assign: n.assign,
		Voters: func() int { return n.live.get().Voters }, Logger: n.log.With("part", "quorum")})
	if err != nil {
		return err
	}
	return n.writeKubeconfig()
}

// caughtUp is not ready before this replica has, once, had all records: a new one begins with none.
func (n *node) caughtUp() healthz.HealthChecker {
	const wait = time.Second
	var once atomic.Bool
	return healthz.NamedCheck("podvine-store", func(r *http.Request) error {
		if once.Load() {
			return nil
		}
		ctx, cancel := context.WithTimeout(r.Context(), wait)
		defer cancel()
		if _, err := n.replica.ReadRevision(ctx); err != nil {
			return fmt.Errorf("this member does not have all records yet: %w", err)
		}
		once.Store(true)
		return nil
	})
}

// security is the usual one, with this member's own paths.
func (n *node) security(address netip.AddrPort, proxies *standard.FrontProxies) func(api.Access) (api.Security, error) {
	usual := standard.Config{
		PKI: n.keys, Issuer: "https://kubernetes.default.svc." + n.settings.ClusterDomain,
		KeySetURL: "https://" + address.String() + tokens.KeySetPath, TolerationSeconds: func() int64 { return n.live.get().evictionDelaySeconds() },
		External: n.config.External, FrontProxies: proxies, ServerID: n.dir.NodeName, Log: n.log.With("part", "access"),
		MoreAdmission: []admission.Named{{Name: "ClusterSettings", Plugin: newSettingsAdmission(n.live.get)}},
	}
	return func(access api.Access) (api.Security, error) {
		made, err := usual.Security(access)
		if err != nil {
			return api.Security{}, err
		}
		made.Routes[StatusPath] = serveJSON(n.status)
		made.Routes[QuorumPath] = serveJSON(func(r *http.Request) (quorum.Status, error) { return n.keeper.Status(r.Context()), nil })
		made.Routes[BackupPath] = administratorOnly("backup", n.serveBackup, http.MethodGet)
		made.Routes[RestorePath] = administratorOnly("restore", n.serveRestore, http.MethodPost)
		made.LongRunning = []string{BackupPath, RestorePath}
		made.Routes[KubeconfigPath] = administratorOnly("kubeconfig", n.issueKubeconfig, http.MethodPost)
		made.Routes[KeysPath] = administratorOnly("keys", n.serveKeys, http.MethodGet, http.MethodPost)
		maps.Copy(made.Routes, n.apiMetrics())
		return made, nil
	}
}

// status is what this member tells of the cluster.
func (n *node) status(r *http.Request) (Status, error) {
	replica := n.replica.Status()
	status := Status{Cluster: n.dir.ClusterID, Node: n.dir.NodeName, Version: version.Version, LastIndex: replica.LastIndex}
	status.Leader = n.directory.name(replica.LeaderID)
	for _, condition := range n.replica.Conditions() {
		status.Conditions = append(status.Conditions, fmt.Sprintf("%s since %s: %s", condition.Type, condition.Since.Format(time.RFC3339), condition.Message))
	}
	if going, err := n.rotationStatus(r.Context()); err == nil && going != nil { // without a quorum there is worse to tell
		status.Conditions = append(status.Conditions, fmt.Sprintf("RotatesAuthority since %s: %s", going.Since.Format(time.RFC3339), going))
	}
	for _, member := range n.mesh.Members() {
		name := cmp.Or(n.directory.name(member.ID), member.ID)
		status.Members = append(status.Members, memberStatus(member, name))
	}
	return status, nil
}

func (n *node) openControl(context.Context) (err error) {
	n.control, err = control.New(control.Config{
		ClientFor: func(name string) kubernetes.Interface { return n.loopClient(name) },
		MetadataFor: func(name string) metadata.Interface {
			user, groups := control.User(name)
			return metadata.NewForConfigOrDie(n.api.ClientConfig(&authuser.DefaultInfo{Name: user, Groups: groups}))
		},
		Informers: n.informers, Logger: n.log.With("part", "control"), Liveness: n.directory, Released: n.released,
		CA: n.keys.Cluster().CertPEM, Sign: n.keys.SignRequest, ServiceRanges: n.settings.ServiceRanges, PodRanges: n.settings.podRanges(),
		Binder: batchBinder{n.api}, Budgets: n.budgets(), Rebalance: func() bool { return n.live.get().Rebalance },
	})
	if err != nil {
		return err
	}
	n.api.OnKindsChanged(n.control.KindsChanged)
	n.roles, err = aggregation.New(n.client("system:serviceaccount:kube-system:clusterrole-aggregation-controller",
		"system:serviceaccounts", "system:serviceaccounts:kube-system"), n.informers.Rbac().V1().ClusterRoles(), n.log.With("part", "control"))
	return err
}

// loopClient acts in process as one of the loops.
func (n *node) loopClient(name string) kubernetes.Interface {
	user, groups := control.User(name)
	return n.client(user, groups...)
}

// runControl runs the loops for as long as this member leads, as often as it does.
func (n *node) runControl(ctx context.Context) error {
	// Before the API is ready, the loops would lack the roles that the bootstrap makes.
	if err := retry(ctx, n.ready); err != nil {
		return err
	}
	for ctx.Err() == nil {
		changed := n.replica.LeadershipChanged()
		if term, leading := n.replica.Leading(); leading {
			n.leases.lead(term, time.Now())
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
	n.tellAPI() // the replicas' endpoints are its to write now
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
