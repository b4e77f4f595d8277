package nodes

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	v1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	corelisters "k8s.io/client-go/listers/core/v1"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/tools/record"

	"github.com/podvine/podvine/agent/control/loop"
)

// livenessPollMilliseconds is how often liveness is compared with what is written down. It costs a map look-up
// a node; only a difference does more. [Loop.Trigger] is faster.
const livenessPollMilliseconds = 500

// Liveness tells who is alive. Implementations answer from memory and are safe for concurrent use.
type Liveness interface {
	// Alive tells whether the node is alive, and since when it has been so or not. The zero time says that
	// nothing is known of the node.
	Alive(node string) (alive bool, since time.Time)
}

// Config wires a [Loop].
type Config struct {
	// Client acts as the node-controller. Required.
	Client kubernetes.Interface
	// Collector acts as the pod-garbage-collector; nil is Client.
	Collector kubernetes.Interface
	// Informers of nodes and pods; the caller starts them. Required.
	Informers informers.SharedInformerFactory
	// Logger is required.
	Logger *slog.Logger
	// Liveness is required.
	Liveness Liveness
	// Released tells whether a node holds no lease any more, see package isolation; nil is never.
	Released func(node string) bool
	// Ranges that pod addresses come from, both families in any order; empty is 10.244.0.0/16.
	Ranges []netip.Prefix
	// EndedPods is how many ended pods are kept; 0 is DefaultEndedPods.
	EndedPods int
	// Recorder receives events; nil records through Client.
	Recorder record.EventRecorder
	// Metrics is a registry of the loop's own; nil registers nowhere.
	Metrics prometheus.Registerer
}

// Loop is the three node loops. Make it with [New].
type Loop struct {
	cfg                  Config
	nodes, pods, history *loop.Driver
	nodeLister           corelisters.NodeLister
	podLister            corelisters.PodLister
	podIndex             cache.Indexer
	recorder             record.EventRecorder // of the current run
	started              time.Time            // likewise

	mu sync.Mutex
	// allotted are own allotments that the informer may not show yet, by node.
	allotted map[string][]netip.Prefix
	// missing is since when pods' nodes have been missing, by node.
	missing map[string]time.Time
	// pending is since when evictions have been due, by pod.
	pending map[string]time.Time
}

// podsByNode is the name of an index of pods.
const podsByNode = "podvine.io/node"

// New checks the configuration and asks the factory for its informers.
func New(cfg Config) (*Loop, error) {
	if cfg.Client == nil || cfg.Informers == nil || cfg.Logger == nil || cfg.Liveness == nil {
		return nil, errors.New("make node loop: Client, Informers, Logger and Liveness are required")
	}
	if cfg.Collector == nil {
		cfg.Collector = cfg.Client
	}
	if len(cfg.Ranges) == 0 {
		cfg.Ranges = []netip.Prefix{netip.MustParsePrefix("10.244.0.0/16")}
	}
	if cfg.EndedPods == 0 {
		cfg.EndedPods = DefaultEndedPods
	}
	core := cfg.Informers.Core().V1()
	l := &Loop{cfg: cfg, nodeLister: core.Nodes().Lister(), podLister: core.Pods().Lister(), podIndex: core.Pods().Informer().GetIndexer()}
	err := loop.Index(core.Pods().Informer(), podsByNode, func(object any) ([]string, error) {
		if pod, ok := object.(*v1.Pod); ok && pod.Spec.NodeName != "" {
			return []string{pod.Spec.NodeName}, nil
		}
		return nil, nil
	})
	if err != nil {
		return nil, err
	}
	return l, l.drivers()
}

func (l *Loop) drivers() error {
	core := l.cfg.Informers.Core().V1()
	metrics, err := loop.OptionalMetrics(l.cfg.Metrics)
	if err != nil {
		return err
	}
	l.nodes, err = loop.New(loop.Config{
		Name:    "node_lifecycle_controller",
		Sources: []loop.Source{loop.OnKey(core.Nodes().Informer())},
		All:     core.Nodes().Informer().GetIndexer().ListKeys,
		// One at a time, so that two nodes are never allotted the same block.
		Workers:   1,
		Reconcile: l.reconcileNode, Logger: l.cfg.Logger, Metrics: metrics,
	})
	if err != nil {
		return err
	}
	l.pods, err = loop.New(loop.Config{
		Name:      "taint_eviction_controller",
		Sources:   []loop.Source{loop.OnKey(core.Pods().Informer()), loop.On(core.Nodes().Informer(), l.podsOf)},
		All:       l.podIndex.ListKeys,
		Reconcile: l.reconcilePod, Logger: l.cfg.Logger, Metrics: metrics,
	})
	if err != nil {
		return err
	}
	l.history, err = loop.New(loop.Config{
		Name:      "podgc",
		Sources:   []loop.Source{loop.On(core.Pods().Informer(), l.endedPod)},
		All:       func() []string { return []string{historyKey} },
		Workers:   1,
		Reconcile: l.reconcileHistory, Logger: l.cfg.Logger, Metrics: metrics,
	})
	return err
}

// Trigger has a node looked at now: its liveness changed. Safe for concurrent use, also outside of Run.
func (l *Loop) Trigger(node string) { l.nodes.Trigger(node) }

// Run keeps nodes until ctx ends.
func (l *Loop) Run(ctx context.Context) error {
	l.started, l.recorder = time.Now(), l.cfg.Recorder
	l.mu.Lock()
	l.allotted, l.missing, l.pending = map[string][]netip.Prefix{}, map[string]time.Time{}, map[string]time.Time{}
	l.mu.Unlock()
	if l.recorder == nil {
		recorder, stop := loop.NewRecorder(l.cfg.Client, "node-controller")
		defer stop()
		l.recorder = recorder
	}
	ctx, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	var group sync.WaitGroup
	for _, driver := range []*loop.Driver{l.nodes, l.pods, l.history} {
		group.Go(func() { stop(driver.Run(ctx)) })
	}
	group.Go(func() { l.poll(ctx) })
	group.Wait()
	return context.Cause(ctx)
}

// poll triggers the nodes whose record says something else than liveness.
func (l *Loop) poll(ctx context.Context) {
	ticker := time.NewTicker(livenessPollMilliseconds * time.Millisecond)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		nodes, err := l.nodeLister.List(labels.Everything())
		if err != nil {
			continue
		}
		for _, node := range nodes {
			alive, since := l.cfg.Liveness.Alive(node.Name)
			if !alive && !since.IsZero() && !hasTaint(node, v1.TaintNodeUnreachable) {
				l.nodes.Trigger(node.Name)
			}
		}
	}
}

func (l *Loop) reconcileNode(ctx context.Context, key string) (time.Duration, error) {
	node, err := l.nodeLister.Get(key)
	if apierrors.IsNotFound(err) {
		l.mu.Lock()
		delete(l.allotted, key)
		l.mu.Unlock()
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	view := NodeView{Node: node, Watching: l.started}
	view.Alive, view.Since = l.cfg.Liveness.Alive(key)
	if !view.Alive && view.Since.IsZero() {
		if view.Renewed, err = l.renewed(ctx, key); err != nil {
			return 0, err
		}
	}
	if view.Storm, err = l.storm(); err != nil {
		return 0, err
	}
	plan := DecideNode(view, time.Now())
	if plan.Conditions != nil {
		if err := l.writeConditions(ctx, node, plan.Conditions); err != nil {
			return 0, err
		}
		l.recorder.Eventf(node, v1.EventTypeNormal, "NodeNotReady", "Node %s status is now: NodeNotReady", node.Name)
	}
	return plan.Again, l.writeSpec(ctx, node, plan)
}

// renewed is when a node that is no member last renewed its lease. It is asked for when a node changes and when the last
// renewal would run out, which is rarer than a watch on everybody's leases would wake.
func (l *Loop) renewed(ctx context.Context, node string) (time.Time, error) {
	lease, err := l.cfg.Client.CoordinationV1().Leases(v1.NamespaceNodeLease).Get(ctx, node, metav1.GetOptions{})
	if apierrors.IsNotFound(err) || err == nil && lease.Spec.RenewTime == nil {
		return time.Time{}, nil
	}
	if err != nil {
		return time.Time{}, fmt.Errorf("read lease of node %s: %w", node, err)
	}
	return lease.Spec.RenewTime.Time, nil
}

// storm counts by liveness where it knows, else by what is written.
func (l *Loop) storm() (bool, error) {
	nodes, err := l.nodeLister.List(labels.Everything())
	if err != nil {
		return false, err
	}
	ready := 0
	for _, node := range nodes {
		if alive, since := l.cfg.Liveness.Alive(node.Name); isReady(node) && (alive || since.IsZero()) {
			ready++
		}
	}
	return Storm(ready, len(nodes)-ready), nil
}

func (l *Loop) writeConditions(ctx context.Context, node *v1.Node, conditions []v1.NodeCondition) error {
	patch, err := json.Marshal(map[string]any{"metadata": map[string]any{"uid": node.UID},
		"status": map[string]any{"conditions": conditions}})
	if err != nil {
		return fmt.Errorf("encode conditions of node %s: %w", node.Name, err)
	}
	_, err = l.cfg.Client.CoreV1().Nodes().Patch(ctx, node.Name, types.StrategicMergePatchType, patch, metav1.PatchOptions{}, "status")
	return err
}

// writeSpec writes taints and address ranges in one update, under the version that was decided on; conditions
// have been written by then, so it reads again if they were.
func (l *Loop) writeSpec(ctx context.Context, node *v1.Node, plan NodePlan) error {
	blocks, err := l.allot(node)
	if err != nil {
		l.recorder.Eventf(node, v1.EventTypeNormal, "CIDRNotAvailable", "Node %s status is now: CIDRNotAvailable", node.Name)
		l.cfg.Logger.Warn("allot pod addresses", "node", node.Name, "err", err)
	}
	if !plan.SetTaints && len(blocks) == 0 {
		return nil
	}
	next := node.DeepCopy()
	if plan.Conditions != nil {
		live, err := l.cfg.Client.CoreV1().Nodes().Get(ctx, node.Name, metav1.GetOptions{})
		if err != nil {
			return err
		}
		if live.UID != node.UID || live.Spec.Unschedulable != node.Spec.Unschedulable {
			return apierrors.NewConflict(v1.Resource("nodes"), node.Name, errors.New("changed meanwhile"))
		}
		next = live.DeepCopy()
	}
	if plan.SetTaints {
		next.Spec.Taints = plan.Taints
	}
	for _, block := range blocks {
		next.Spec.PodCIDRs = append(next.Spec.PodCIDRs, block.String())
	}
	if len(blocks) > 0 {
		next.Spec.PodCIDR = next.Spec.PodCIDRs[0]
	}
	_, err = l.cfg.Client.CoreV1().Nodes().Update(ctx, next, metav1.UpdateOptions{})
	return err
}

// allot finds address blocks for a node that has none.
func (l *Loop) allot(node *v1.Node) ([]netip.Prefix, error) {
	if len(node.Spec.PodCIDRs) > 0 || node.Spec.PodCIDR != "" {
		return nil, nil
	}
	nodes, err := l.nodeLister.List(labels.Everything())
	if err != nil {
		return nil, err
	}
	used := map[netip.Prefix]bool{}
	for _, other := range nodes {
		for _, text := range append(other.Spec.PodCIDRs, other.Spec.PodCIDR) {
			if p, err := netip.ParsePrefix(text); err == nil {
				used[p.Masked()] = true
			}
		}
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if mine, ok := l.allotted[node.Name]; ok {
		return mine, nil // a try before this one failed; the block is still kept for the node
	}
	for _, blocks := range l.allotted {
		for _, block := range blocks {
			used[block] = true
		}
	}
	blocks, err := Allot(l.cfg.Ranges, used)
	if err == nil {
		l.allotted[node.Name] = blocks
	}
	return blocks, err
}
