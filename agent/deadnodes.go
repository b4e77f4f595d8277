package agent

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/labels"
	corelisters "k8s.io/client-go/listers/core/v1"
	"k8s.io/client-go/tools/cache"

	"github.com/podvine/podvine/agent/control/nodes"
)

// deadNodesRetry is the pause before the proxy is told again what it could not do.
const deadNodesRetry = time.Second

// deadNodes tells the service proxy which nodes gossip believes dead: their endpoints get no more traffic from this node, at
// once and without a word to the API, until they return.
type deadNodes struct {
	liveness nodes.Liveness
	self     string
	nodes    corelisters.NodeLister
	proxy    interface {
		SetDeadNodes(ctx context.Context, dead map[string]bool) error
	}
	log     *slog.Logger
	started time.Time
	synced  cache.InformerSynced
	// changed has a capacity of one.
	changed chan struct{}
	// last is what the proxy was told.
	last map[string]bool
}

// newDeadNodes must be called before the informers start.
func newDeadNodes(n *node) (*deadNodes, error) {
	d := &deadNodes{
		liveness: n.directory, self: n.dir.NodeName, nodes: n.nodeLister(), proxy: n.proxy, log: n.log.With("part", "services"),
		started: time.Now(), changed: make(chan struct{}, 1),
	}
	registration, err := n.informers.Core().V1().Nodes().Informer().AddEventHandler(cache.ResourceEventHandlerFuncs{
		AddFunc: func(any) { d.trigger() },
		UpdateFunc: func(old, fresh any) {
			before, ok := old.(*corev1.Node)
			after, also := fresh.(*corev1.Node)
			if !ok || !also || before.Annotations[NodeIDAnnotation] != after.Annotations[NodeIDAnnotation] {
				d.trigger()
			}
		},
		DeleteFunc: func(any) { d.trigger() },
	})
	if err != nil {
		return nil, fmt.Errorf("subscribe to nodes: %w", err)
	}
	d.synced = registration.HasSynced
	return d, nil
}

// trigger has the nodes looked at anew.
func (d *deadNodes) trigger() {
	select {
	case d.changed <- struct{}{}:
	default: // it is told already
	}
}

// run keeps the proxy told until ctx ends.
func (d *deadNodes) run(ctx context.Context) error {
	if !cache.WaitForCacheSync(ctx.Done(), d.synced) {
		return nil
	}
	for {
		var again <-chan time.Time
		if err := d.tell(ctx); err != nil && ctx.Err() == nil {
			d.log.Warn("turn traffic away from dead nodes, again in a moment", "error", err)
			again = time.After(deadNodesRetry)
		} else if silent := time.Until(d.started.Add(silenceMeansDeath)); silent > 0 {
			again = time.After(silent) // gossip tells nothing of nodes that it has never heard of
		}
		select {
		case <-ctx.Done():
			return nil
		case <-d.changed:
		case <-again:
		}
	}
}

// tell hands the proxy what is believed now, if that is news.
func (d *deadNodes) tell(ctx context.Context) error {
	known, err := d.nodes.List(labels.Everything())
	if err != nil {
		return fmt.Errorf("list nodes: %w", err)
	}
	dead := deadOf(known, d.self, d.liveness)
	if maps.Equal(dead, d.last) {
		return nil
	}
	if err := d.proxy.SetDeadNodes(ctx, dead); err != nil {
		return err
	}
	d.log.Info("nodes that look dead get no traffic", "nodes", slices.Sorted(maps.Keys(dead)))
	d.last = dead
	return nil
}

// deadOf picks the nodes that are known to have died. One that nobody has heard of yet is not among them, nor is this one.
func deadOf(known []*corev1.Node, self string, liveness nodes.Liveness) map[string]bool {
	dead := map[string]bool{}
	for _, node := range known {
		if node.Name == self {
			continue
		}
		if alive, since := liveness.Alive(node.Name); !alive && !since.IsZero() {
			dead[node.Name] = true
		}
	}
	return dead
}
