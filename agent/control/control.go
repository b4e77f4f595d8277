// Package control runs the loops that make the cluster what its objects say: the scheduler, workloads,
// endpoints, namespaces, nodes, garbage collection and the rest, each a package below this one.
//
// Role: [New] makes all loops once, each with a client of its own identity and a metrics registry of its own;
// [Control.Run] runs them while this member leads. A loop that fails is started again after a pause, and never
// takes the others along.
//
// Ownership: the caller makes and starts the informers (after New, which asks for them) and they outlive Run:
// a member that loses the lead and gains it again runs the same loops on the same informers.
//
// Concurrency: Run may be called again after it returned, not while it runs. Loops meet in API objects only.
package control

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/metadata"
	"k8s.io/client-go/tools/cache"

	"github.com/podvine/podvine/agent/control/addresses"
	"github.com/podvine/podvine/agent/control/certificates"
	"github.com/podvine/podvine/agent/control/disruption"
	"github.com/podvine/podvine/agent/control/endpoints"
	"github.com/podvine/podvine/agent/control/gc"
	"github.com/podvine/podvine/agent/control/loop"
	"github.com/podvine/podvine/agent/control/namespaces"
	"github.com/podvine/podvine/agent/control/nodes"
	"github.com/podvine/podvine/agent/control/policies"
	"github.com/podvine/podvine/agent/control/protection"
	"github.com/podvine/podvine/agent/control/quota"
	"github.com/podvine/podvine/agent/control/rebalance"
	"github.com/podvine/podvine/agent/control/rootca"
	"github.com/podvine/podvine/agent/control/scheduler"
	"github.com/podvine/podvine/agent/control/serviceaccounts"
	"github.com/podvine/podvine/agent/control/workloads/cronjob"
	"github.com/podvine/podvine/agent/control/workloads/daemonset"
	"github.com/podvine/podvine/agent/control/workloads/deployment"
	"github.com/podvine/podvine/agent/control/workloads/expiry"
	"github.com/podvine/podvine/agent/control/workloads/job"
	"github.com/podvine/podvine/agent/control/workloads/replicaset"
	"github.com/podvine/podvine/agent/control/workloads/replicationcontroller"
	"github.com/podvine/podvine/agent/control/workloads/statefulset"
)

// restartSeconds is the pause before a loop that failed is started again.
const restartSeconds = 5

// Config wires a [Control]. All but Binder, Budgets, Rebalance, PodRanges and EndedPods is required.
type Config struct {
	// ClientFor returns the client that acts as the named identity; see [User].
	ClientFor func(name string) kubernetes.Interface
	// MetadataFor likewise, for objects of any kind.
	MetadataFor func(name string) metadata.Interface
	// Informers that all loops share; the caller starts them after New.
	Informers informers.SharedInformerFactory
	Logger    *slog.Logger
	// Liveness tells which nodes are alive.
	Liveness nodes.Liveness
	// Released tells which nodes have stopped the pods that stop when their node is cut off; nil is none.
	Released func(node string) bool
	// CA is the bundle, in PEM, that pods verify the API with.
	CA func() []byte
	// Sign certifies what approved requests ask for. Required.
	Sign certificates.Sign
	// ServiceRanges are the cluster's service CIDRs, one or one of each family, primary first.
	ServiceRanges []string
	// PodRanges that nodes' blocks come from; empty is 10.244.0.0/16.
	PodRanges []netip.Prefix
	// EndedPods is how many ended pods are kept; 0 is Kubernetes' number.
	EndedPods int
	// Binder commits the scheduler's placements; nil binds through pods/binding.
	Binder scheduler.Binder
	// Rebalance is the cluster's setting that pods move to nodes which have just joined; nil is never.
	Rebalance func() bool
	// Budgets are the disruption budgets that preemption respects; nil is none.
	Budgets cache.SharedIndexInformer
}

// Control is all loops. Make it with [New].
type Control struct {
	log   *slog.Logger
	loops []member
	nodes *nodes.Loop
	ca    *rootca.Loop
	kinds *loop.Kinds
	// kindsChanged are what asks anew which kinds there are.
	kindsChanged []func()
}

type runner interface {
	Run(ctx context.Context) error
}

type member struct {
	name     string
	loop     runner
	registry *prometheus.Registry
}

// New makes the loops.
func New(cfg Config) (*Control, error) {
	if cfg.ClientFor == nil || cfg.MetadataFor == nil || cfg.Informers == nil || cfg.Logger == nil {
		return nil, errors.New("make control loops: ClientFor, MetadataFor, Informers and Logger are required")
	}
	c := &Control{log: cfg.Logger, kinds: loop.NewKinds(cfg.ClientFor(NameQuota).Discovery())}
	c.kindsChanged = append(c.kindsChanged, c.kinds.Changed)
	for _, add := range []func(Config) error{c.addScheduler, c.addWorkloads, c.addProtection, c.addNamespaces, c.addNodes, c.addCollector, c.addServices} {
		if err := add(cfg); err != nil {
			return nil, err
		}
	}
	return c, nil
}

// add makes a loop with a registry of its own.
func add[L runner](c *Control, name string, create func(*prometheus.Registry) (L, error)) (made L, err error) {
	registry := prometheus.NewRegistry()
	if made, err = create(registry); err != nil {
		return made, fmt.Errorf("make %s: %w", name, err)
	}
	c.loops = append(c.loops, member{name, made, registry})
	return made, nil
}

func (c *Control) addScheduler(cfg Config) error {
	if cfg.Rebalance != nil {
		rebalancer := func(w loop.Wiring) (*rebalance.Loop, error) { return rebalance.New(w, cfg.Rebalance) }
		if err := addController(c, cfg, "rebalance", NameRebalancer, rebalancer); err != nil {
			return err
		}
	}
	_, err := add(c, "scheduler", func(registry *prometheus.Registry) (*scheduler.Scheduler, error) {
		return scheduler.New(scheduler.Config{Client: cfg.ClientFor(NameScheduler), Informers: cfg.Informers, Logger: cfg.Logger,
			Binder: cfg.Binder, Budgets: cfg.Budgets, Metrics: registry})
	})
	return err
}

func (c *Control) addWorkloads(cfg Config) error {
	return errors.Join(
		addController(c, cfg, "replicaset", NameReplicaSet, replicaset.New),
		addController(c, cfg, "statefulset", NameStatefulSet, statefulset.New),
		addController(c, cfg, "deployment", NameDeployment, deployment.New),
		addController(c, cfg, "daemonset", NameDaemonSet, daemonset.New),
		addController(c, cfg, "job", NameJob, job.New),
		addController(c, cfg, "job_orphan_pod", NameJob, job.NewOrphans),
		addController(c, cfg, "cronjob", NameCronJob, cronjob.New),
		addController(c, cfg, "ttl-after-finished", NameJobExpiry, expiry.New),
		addController(c, cfg, "replicationmanager", NameReplication, replicationcontroller.New),
		addController(c, cfg, "disruption", NameDisruption, func(w loop.Wiring) (*disruption.Loop, error) { return disruption.New(w, c.kinds) }),
		addController(c, cfg, "stale-pod-disruption", NameDisruption, disruption.NewStale))
}

// addController makes a loop that acts as the service account.
func addController[L runner](c *Control, cfg Config, name, account string, create func(loop.Wiring) (L, error)) error {
	_, err := add(c, name, func(registry *prometheus.Registry) (L, error) {
		return create(loop.Wiring{Client: cfg.ClientFor(account), Informers: cfg.Informers, Logger: cfg.Logger, Metrics: registry})
	})
	return err
}

// addProtection adds the loops that keep what holds storage from going while it is in use.
func (c *Control) addProtection(cfg Config) error {
	return errors.Join(
		addController(c, cfg, "pvcprotection", NameClaimProtection, protection.New),
		addController(c, cfg, "pvprotection", NameVolumeProtection, protection.NewVolumes),
		addController(c, cfg, "vacprotection", NameClassProtection, protection.NewClasses))
}

func (c *Control) addNamespaces(cfg Config) error {
	var ending *namespaces.Loop
	var counting *quota.Loop
	err := errors.Join(
		addController(c, cfg, "namespace", NameNamespace, func(w loop.Wiring) (_ *namespaces.Loop, err error) {
			ending, err = namespaces.New(w, cfg.MetadataFor(NameNamespace))
			return ending, err
		}),
		addController(c, cfg, "serviceaccount", NameServiceAccount, serviceaccounts.New),
		addController(c, cfg, "rootca", NameRootCA, func(w loop.Wiring) (_ *rootca.Loop, err error) {
			c.ca, err = rootca.New(w, cfg.CA)
			return c.ca, err
		}),
		addController(c, cfg, "resourcequota", NameQuota, func(w loop.Wiring) (_ *quota.Loop, err error) {
			counting, err = quota.New(w, cfg.MetadataFor(NameQuota))
			return counting, err
		}),
		addController(c, cfg, "validatingadmissionpolicy-status", NamePolicyStatus, func(w loop.Wiring) (*policies.Loop, error) { return policies.New(w, nil) }),
		addController(c, cfg, "certificate", NameCertificates, func(w loop.Wiring) (*certificates.Loop, error) { return certificates.New(w, cfg.Sign) }),
		addController(c, cfg, "podcertificaterequestcleaner", NamePodCertificates, certificates.NewPodCleaner))
	if err != nil {
		return err
	}
	c.kindsChanged = append(c.kindsChanged, ending.KindsChanged, counting.KindsChanged)
	return nil
}

func (c *Control) addNodes(cfg Config) (err error) {
	c.nodes, err = add(c, "nodes", func(registry *prometheus.Registry) (*nodes.Loop, error) {
		return nodes.New(nodes.Config{Client: cfg.ClientFor(NameNode), Collector: cfg.ClientFor(NamePodCollector), Informers: cfg.Informers,
			Logger: cfg.Logger, Liveness: cfg.Liveness, Released: cfg.Released, Ranges: cfg.PodRanges, EndedPods: cfg.EndedPods, Metrics: registry})
	})
	return err
}

func (c *Control) addCollector(cfg Config) error {
	collector, err := add(c, "gc", func(registry *prometheus.Registry) (*gc.Loop, error) {
		return gc.New(gc.Config{Client: cfg.ClientFor(NameGarbageCollector), Metadata: cfg.MetadataFor(NameGarbageCollector),
			Logger: cfg.Logger, Metrics: registry})
	})
	c.kindsChanged = append(c.kindsChanged, collector.Rediscover)
	return err
}

func (c *Control) addServices(cfg Config) error {
	_, endpointsErr := add(c, "endpoints", func(registry *prometheus.Registry) (*endpoints.Loop, error) {
		metrics, err := loop.NewMetrics(registry)
		if err != nil {
			return nil, err
		}
		client := slicesAs{cfg.ClientFor(NameEndpoints), cfg.ClientFor(NameEndpointSlices)}
		return endpoints.New(endpoints.Config{Client: client, Informers: cfg.Informers, Logger: cfg.Logger, Metrics: metrics})
	})
	_, err := add(c, "addresses", func(registry *prometheus.Registry) (*addresses.Loop, error) {
		metrics, err := loop.NewMetrics(registry)
		if err != nil {
			return nil, err
		}
		return addresses.New(addresses.Config{Client: cfg.ClientFor(NameAPIServer), Informers: cfg.Informers, Logger: cfg.Logger,
			ServiceRanges: cfg.ServiceRanges, Metrics: metrics})
	})
	return errors.Join(endpointsErr, err)
}

// Run runs all loops until ctx ends: the lead is lost, or the agent ends. No goroutine of a loop is left then.
func (c *Control) Run(ctx context.Context) error {
	var group sync.WaitGroup
	for _, m := range c.loops {
		group.Go(func() { c.keep(ctx, m) })
	}
	group.Wait()
	return ctx.Err()
}

// keep runs one loop, again and again if it fails.
func (c *Control) keep(ctx context.Context, m member) {
	for {
		err := m.loop.Run(ctx)
		if ctx.Err() != nil {
			return
		}
		c.log.Error("control loop ended, starting it again", "loop", m.name, "err", err)
		select {
		case <-ctx.Done():
			return
		case <-time.After(restartSeconds * time.Second):
		}
	}
}

// NodeChanged has a node looked at now: its liveness changed. Safe for concurrent use, also outside of Run.
func (c *Control) NodeChanged(node string) { c.nodes.Trigger(node) }

// CAChanged has all namespaces told of the bundle of now. Safe for concurrent use, also outside of Run.
func (c *Control) CAChanged() { c.ca.Changed() }

// KindsChanged has the loops ask which kinds there are: a custom resource or an API service came or went.
// Safe for concurrent use, also outside of Run.
func (c *Control) KindsChanged() {
	for _, changed := range c.kindsChanged {
		changed()
	}
}

// Registries are the loops' metrics by loop name. One registry each: stock dashboards want the workqueue and
// scheduler metrics under Kubernetes' names, once a component.
func (c *Control) Registries() map[string]*prometheus.Registry {
	registries := make(map[string]*prometheus.Registry, len(c.loops))
	for _, m := range c.loops {
		registries[m.name] = m.registry
	}
	return registries
}
