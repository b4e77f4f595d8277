// Package gc deletes what nobody owns any more: Kubernetes' garbage collection, in the background, in the
// foreground, and orphaning.
//
// Role: a watch on the metadata of every deletable resource, custom ones included, feeds a [Graph] of owners
// and dependents. An object whose owners may be gone is looked at: its live metadata and its owners' are read,
// [Decide] says what follows, and that is done under the UID and version that were read. So a lagging watch can
// delay a deletion, and never cause a wrong one.
//
// Ownership: the loop deletes objects whose owners are all absent, takes away references to owners that are, and
// serves the finalizers foregroundDeletion and orphan.
//
// Memory: the graph keeps an identity for each object and the references of those that have owners; no object.
//
// Concurrency: as [loop.Driver]; an object is worked on by one goroutine at a time.
package gc

import (
	"context"
	"errors"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/discovery"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/metadata"
	"k8s.io/client-go/tools/record"
	"k8s.io/utils/lru"

	"github.com/podvine/podvine/agent/control/loop"
)

const (
	// rediscoverSeconds is how often the kinds are asked for; [Loop.Rediscover] is faster.
	rediscoverSeconds = 30
	// rediscoverFirstSeconds is when they are asked for after a change, which is rarely the only one, and again while an owner is of
	// a kind that nobody serves; doubled each time in vain, up to the above.
	rediscoverFirstSeconds = 1
	// rediscoverFailedSeconds is the same after a failure.
	rediscoverFailedSeconds = 2
	// syncSeconds is how long the first decisions wait for all watches to have listed. Later ones need not be
	// complete: what a watch has not shown is read live.
	syncSeconds = 30
	// unseenOwnerSeconds is when an object is looked at again whose owner is there but not watched (yet).
	unseenOwnerSeconds = 60
	// absentOwners bounds the memory of owners that are known to be gone, so that a thousand dependents of one
	// owner cost one look. A UID never comes back.
	absentOwners = 2048
	// workers is how many objects are worked on at once.
	workers = 16
)

// Config wires a [Loop].
type Config struct {
	// Client acts as the generic-garbage-collector. Required; for discovery and events.
	Client kubernetes.Interface
	// Metadata reads and deletes objects of any kind as the same identity. Required.
	Metadata metadata.Interface
	// Discovery tells which kinds there are; nil is Client's.
	Discovery discovery.DiscoveryInterface
	// Logger is required.
	Logger *slog.Logger
	// Recorder receives events; nil records through Client.
	Recorder record.EventRecorder
	// Metrics is a registry of the loop's own; nil registers nowhere.
	Metrics prometheus.Registerer
}

// Loop collects garbage. Make it with [New].
type Loop struct {
	cfg    Config
	driver *loop.Driver
	asked  chan struct{}

	// Of the current run.
	recorder record.EventRecorder
	graph    *Graph
	absent   *lru.Cache
	started  time.Time

	mu       sync.Mutex
	kinds    kinds
	monitors map[schema.GroupVersionResource]*monitor
	// waiting are objects with an owner of a kind that nobody serves, or whose watch has not shown yet what there is. They are
	// looked at when it has.
	waiting map[schema.GroupVersionKind]map[types.UID]bool
}

// New checks the configuration.
func New(cfg Config) (*Loop, error) {
	if cfg.Client == nil || cfg.Metadata == nil || cfg.Logger == nil {
		return nil, errors.New("make garbage collector: Client, Metadata and Logger are required")
	}
	if cfg.Discovery == nil {
		cfg.Discovery = cfg.Client.Discovery()
	}
	l := &Loop{cfg: cfg, asked: make(chan struct{}, 1)}
	metrics, err := loop.OptionalMetrics(cfg.Metrics)
	if err != nil {
		return nil, err
	}
	l.driver, err = loop.New(loop.Config{Name: "garbage_collector_attempt_to_delete", Reconcile: l.reconcile,
		Ready: l.ready, Beside: l.follow, Workers: workers, Logger: cfg.Logger, Metrics: metrics})
	return l, err
}

// Rediscover has the kinds asked for now: one came or went. Safe for concurrent use, also outside of Run.
func (l *Loop) Rediscover() {
	select {
	case l.asked <- struct{}{}:
	default:
	}
}

// Run collects until ctx ends. No watch is left then.
func (l *Loop) Run(ctx context.Context) error {
	l.recorder = l.cfg.Recorder
	if l.recorder == nil {
		recorder, stop := loop.NewRecorder(l.cfg.Client, "garbage-collector-controller")
		defer stop()
		l.recorder = recorder
	}
	l.graph, l.absent, l.started = NewGraph(), lru.New(absentOwners), time.Now()
	l.mu.Lock()
	l.kinds, l.monitors, l.waiting = kinds{}, map[schema.GroupVersionResource]*monitor{}, map[schema.GroupVersionKind]map[types.UID]bool{}
	l.mu.Unlock()
	return l.driver.Run(ctx)
}

// follow keeps the watches at what discovery says, and ends with them.
func (l *Loop) follow(ctx context.Context) {
	var group sync.WaitGroup
	defer group.Wait()
	first := rediscoverFirstSeconds * time.Second
	for next := first; ctx.Err() == nil; {
		pause := rediscoverSeconds * time.Second
		found, err := discover(l.cfg.Discovery)
		if err != nil {
			l.cfg.Logger.Warn("discover kinds", "err", err)
			pause = rediscoverFailedSeconds * time.Second
		} else if l.adopt(ctx, &group, found) {
			pause, next = next, min(2*next, pause)
		} else {
			next = first
		}
		select {
		case <-ctx.Done():
		case <-time.After(pause):
		case <-l.asked:
			select {
			case <-ctx.Done():
			case <-time.After(first):
				next = first
			}
		}
	}
}

// adopt starts and stops watches. It tells whether an owner is of a kind that was not found.
func (l *Loop) adopt(ctx context.Context, group *sync.WaitGroup, found kinds) (missing bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for resource, m := range l.monitors {
		if found.watched[resource] || found.failed[resource.GroupVersion()] {
			continue
		}
		m.stop()
		delete(l.monitors, resource)
		m.drop(func(types.UID) bool { return true }) // a kind that went took its objects along
	}
	for gvk, k := range l.kinds.byKind {
		if found.failed[gvk.GroupVersion()] {
			found.byKind[gvk] = k
		}
	}
	l.kinds = found
	for resource := range found.watched {
		if l.monitors[resource] != nil {
			continue
		}
		watching, stop := context.WithCancel(ctx)
		m := &monitor{resource: resource, graph: l.graph, look: l.look, logger: l.cfg.Logger, stop: stop,
			synced: make(chan struct{}), listed: l.shown, uids: map[types.NamespacedName]types.UID{}}
		l.monitors[resource] = m
		group.Go(func() { m.watch(watching, l.cfg.Metadata) })
	}
	for gvk, children := range l.waiting {
		k, ok := found.byKind[gvk]
		if listed, watched := l.watched(k.resource.GroupResource()); ok && (listed || !watched) {
			l.free(gvk)
			continue
		}
		for uid := range children {
			if _, _, _, there := l.graph.Find(uid); !there {
				delete(children, uid)
			}
		}
		if len(children) == 0 {
			delete(l.waiting, gvk)
			continue
		}
		missing = missing || !ok
	}
	return missing
}

// watched tells whether a resource is watched, and whether that has shown what there is. Callers hold mu.
func (l *Loop) watched(of schema.GroupResource) (listed, watched bool) {
	for resource, m := range l.monitors {
		if resource.GroupResource() == of {
			select {
			case <-m.synced:
				return true, true
			default:
				watched = true
			}
		}
	}
	return false, watched
}

// shown has the objects looked at that waited for the watch of a resource.
func (l *Loop) shown(resource schema.GroupVersionResource) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for gvk := range l.waiting {
		if k, ok := l.kinds.byKind[gvk]; ok && k.resource.GroupResource() == resource.GroupResource() {
			l.free(gvk)
		}
	}
}

// free has the objects looked at that waited for a kind. Callers hold mu.
func (l *Loop) free(gvk schema.GroupVersionKind) {
	l.look(slices.Collect(maps.Keys(l.waiting[gvk])))
	delete(l.waiting, gvk)
}

// ready tells whether decisions may begin.
func (l *Loop) ready() bool {
	if time.Since(l.started) > syncSeconds*time.Second {
		return true
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, m := range l.monitors {
		select {
		case <-m.synced:
		default:
			return false
		}
	}
	return len(l.monitors) > 0
}

func (l *Loop) look(uids []types.UID) {
	for _, uid := range uids {
		l.driver.Trigger(string(uid))
	}
}

// kind finds where objects of a kind are; listed tells whether a watch has shown them. If one has yet to, or nobody serves the kind,
// the child waits for that.
func (l *Loop) kind(gvk schema.GroupVersionKind, child types.UID) (k kind, listed, ok bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	k, ok = l.kinds.byKind[gvk]
	listed, watched := l.watched(k.resource.GroupResource())
	if ok && (listed || !watched) {
		return k, listed, ok
	}
	if l.waiting[gvk] == nil {
		l.waiting[gvk] = map[types.UID]bool{}
		if !ok {
			l.cfg.Logger.Info("an object's owner is of a kind that is not served", "kind", gvk.String(), "object", child)
			l.Rediscover()
		}
	}
	l.waiting[gvk][child] = true
	return k, false, ok
}
