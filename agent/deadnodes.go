package agent

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"net/netip"
	"slices"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sync/errgroup"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/labels"
	corelisters "k8s.io/client-go/listers/core/v1"
	"k8s.io/client-go/tools/cache"

	"github.com/podvine/podvine/agent/control/nodes"
)

const (
	// deadNodesPause is the pause before the proxy is told again what it could not do, and before machines are looked at again
	// whose agents are away.
	deadNodesPause = time.Second
	// deadNodesIdle is how often everything is looked at without a cause.
	deadNodesIdle = time.Minute
	// knockTimeout is how long a machine may take to answer; knocksAtOnce bounds how many are asked at the same time.
	knockTimeout = 300 * time.Millisecond
	knocksAtOnce = 64
)

// deadNodes tells the service proxy which nodes gossip believes dead: their endpoints get no more traffic from this node, at
// once and without a word to the API, until they return. Connections are ended where the machine is silent too. Where it
// answers, only the agent is away, which pods do not need: an upgrade of agents breaks no connection.
type deadNodes struct {
	liveness nodes.Liveness
	self     string
	nodes    corelisters.NodeLister
	proxy    interface {
		SetDeadNodes(ctx context.Context, dead, silent map[string]bool) error
	}
	// closed are nodes that live and cannot be reached from here; nil is none.
	closed func() map[string]bool
	// answers knocks at a node's machine.
	answers func(ctx context.Context, name string) bool
	log     *slog.Logger
	started time.Time
	synced  cache.InformerSynced
	// changed has a capacity of one.
	changed chan struct{}

	// heard carries the names of silent machines from who knocked to run.
	heard chan []string

	// What follows is run's. dead are the nodes that were so at the last look.
	dead map[string]bool
	// quiet are the dead nodes whose machines did not answer, knocked when those were last asked that are not.
	quiet    map[string]bool
	knocked  map[string]time.Time
	knocking bool
	// toldDead and toldSilent are what the proxy was told.
	toldDead, toldSilent map[string]bool
}

// newDeadNodes must be called before the informers start.
func newDeadNodes(n *node) (*deadNodes, error) {
	d := &deadNodes{
		liveness: n.directory, self: n.dir.NodeName, nodes: n.nodeLister(), proxy: n.proxy, log: n.log.With("part", "services"),
		started: time.Now(), changed: make(chan struct{}, 1), heard: make(chan []string, 1),
		quiet: map[string]bool{}, knocked: map[string]time.Time{},
		answers: func(ctx context.Context, name string) bool {
			address, known := n.directory.peerAddress(n.directory.id(name))
			return known && knock(ctx, address, knockTimeout)
		},
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

// knock reports whether a machine answers, by taking a connection or by refusing it, which its kernel does alone.
func knock(ctx context.Context, address netip.AddrPort, timeout time.Duration) bool {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	conn, err := new(net.Dialer).DialContext(ctx, "tcp", address.String())
	if err != nil {
		return errors.Is(err, syscall.ECONNREFUSED)
	}
	_ = conn.Close() // nothing was said
	return true
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
	var knockers sync.WaitGroup
	defer knockers.Wait()
	for {
		pause := d.step(ctx, &knockers)
		again := time.NewTimer(pause)
		select {
		case <-ctx.Done():
			return nil
		case <-d.changed:
		case names := <-d.heard:
			d.knocking = false
			for _, name := range names {
				if d.dead[name] {
					d.quiet[name] = true
				}
			}
		case <-again.C:
		}
		again.Stop()
	}
}

// step tells the proxy what is believed and knocks at machines. It returns for how long nothing is to be done.
func (d *deadNodes) step(ctx context.Context, knockers *sync.WaitGroup) time.Duration {
	pause := deadNodesIdle
	if silent := time.Until(d.started.Add(silenceMeansDeath)); silent > 0 {
		pause = silent // gossip tells nothing of nodes that it has never heard of
	}
	if err := d.tell(ctx); err != nil && ctx.Err() == nil {
		d.log.Warn("turn traffic away from dead nodes, again in a moment", "error", err)
		pause = deadNodesPause
	}
	names, next := d.due(time.Now())
	if len(names) > 0 && !d.knocking {
		d.knocking = true
		for _, name := range names {
			d.knocked[name] = time.Now()
		}
		knockers.Go(func() { d.heard <- d.knockAt(ctx, names) })
	}
	return min(pause, next)
}

// due picks the dead nodes whose machines are to be asked now, in order, and tells when others are.
func (d *deadNodes) due(now time.Time) (names []string, next time.Duration) {
	next = deadNodesIdle
	for name := range d.dead {
		if d.quiet[name] {
			continue
		}
		if wait := d.knocked[name].Add(deadNodesPause).Sub(now); wait > 0 {
			next = min(next, wait)
		} else {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names, next
}

// knockAt returns those of the nodes whose machines do not answer.
func (d *deadNodes) knockAt(ctx context.Context, names []string) (silent []string) {
	var mu sync.Mutex // guards silent
	var group errgroup.Group
	group.SetLimit(knocksAtOnce)
	for _, name := range names {
		group.Go(func() error {
			if !d.answers(ctx, name) && ctx.Err() == nil {
				mu.Lock()
				defer mu.Unlock()
				silent = append(silent, name)
			}
			return nil
		})
	}
	_ = group.Wait() // none of them fails
	return silent
}

// tell hands the proxy what is believed now, if that is news.
func (d *deadNodes) tell(ctx context.Context) error {
	known, err := d.nodes.List(labels.Everything())
	if err != nil {
		return fmt.Errorf("list nodes: %w", err)
	}
	dead := deadOf(known, d.self, d.liveness)
	// A node that came back and dies again is asked again.
	forget := func(name string) bool { return !dead[name] || !d.dead[name] }
	maps.DeleteFunc(d.quiet, func(name string, _ bool) bool { return forget(name) })
	maps.DeleteFunc(d.knocked, func(name string, _ time.Time) bool { return forget(name) })
	d.dead = dead
	silent := maps.Clone(d.quiet)
	if d.closed != nil {
		dead = maps.Clone(dead)
		for name := range d.closed() {
			dead[name], silent[name] = true, true
		}
	}
	if maps.Equal(dead, d.toldDead) && maps.Equal(silent, d.toldSilent) {
		return nil
	}
	if err := d.proxy.SetDeadNodes(ctx, dead, silent); err != nil {
		return err
	}
	d.log.Info("nodes that look dead from here get no traffic", "nodes", slices.Sorted(maps.Keys(dead)), "silent", slices.Sorted(maps.Keys(silent)))
	d.toldDead, d.toldSilent = dead, silent
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
