// Package daemonset keeps a pod of each DaemonSet on every node that its template fits.
//
// Role: [Decide] compares nodes and pods and plans one step: make what is missing, end what may not stay or is too much,
// replace what failed, and roll a new template out, either by ending old pods, as many as may be away, or by putting new
// ones beside them (surge). The loop carries the plan out; each write makes an event that brings the next step. Pods are
// bound to their node by an affinity and placed by the scheduler, as all are.
//
// Ownership: the loop writes the set's status, its revisions and its pods.
//
// Reading behind its own writes: pods have generated names, so a set whose own creations the informer does not show yet
// is left alone until it does ([loop.Pending]); deletions count as done meanwhile.
//
// Concurrency: as [loop.Driver]; a set is worked on by one goroutine at a time.
package daemonset

import (
	"context"
	"maps"
	"sync"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"
	corelisters "k8s.io/client-go/listers/core/v1"
	"k8s.io/client-go/tools/cache"

	"github.com/podvine/podvine/agent/control/loop"
)

// unseenRetrySeconds is when a set is looked at again whose own creations are not shown yet, should no event come.
const unseenRetrySeconds = 10

// Loop is the DaemonSet loop. Make it with [New].
type Loop struct {
	loop.Controller
	setIndex      cache.Indexer
	nodes         corelisters.NodeLister
	podIndex      cache.Indexer
	revisionIndex cache.Indexer

	mu sync.Mutex
	// failures counts, by set and node, pods that failed since the loop runs; bounded by sets times nodes.
	failures map[types.UID]map[string]int
}

// New checks the configuration and asks the factory for its informers.
func New(w loop.Wiring) (*Loop, error) {
	if err := w.Check("daemonset"); err != nil {
		return nil, err
	}
	apps, core := w.Informers.Apps().V1(), w.Informers.Core().V1()
	pods, revisions, sets := core.Pods().Informer(), apps.ControllerRevisions().Informer(), apps.DaemonSets().Informer()
	l := &Loop{Controller: loop.NewController(w, "daemonset-controller"), setIndex: sets.GetIndexer(), nodes: core.Nodes().Lister(),
		podIndex: pods.GetIndexer(), revisionIndex: revisions.GetIndexer(), failures: map[types.UID]map[string]int{}}
	return l, loop.DriveOwners(&l.Controller, loop.Owners[*appsv1.DaemonSet]{
		Name: "daemonset", Kind: kind().Kind, Informer: sets, Dependents: []cache.SharedIndexInformer{pods, revisions},
		Selector:  func(set *appsv1.DaemonSet) *metav1.LabelSelector { return set.Spec.Selector },
		Sources:   []loop.Source{loop.On(core.Nodes().Informer(), l.nodeKeys)},
		Forget:    l.forget,
		Reconcile: l.reconcile,
	})
}

// forget drops the failures of a set that is gone.
func (l *Loop) forget(set *appsv1.DaemonSet) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.failures, set.UID)
}

// nodeKeys are the sets to which a node's change makes a difference.
func (l *Loop) nodeKeys(old, new *v1.Node) []string {
	if old != nil && new != nil && equality.Semantic.DeepEqual(old.Labels, new.Labels) && equality.Semantic.DeepEqual(old.Spec.Taints, new.Spec.Taints) {
		return nil
	}
	return loop.KeysWhere(l.setIndex, metav1.NamespaceAll, func(set *appsv1.DaemonSet) bool {
		if old == nil || new == nil {
			return true
		}
		run, stay := fits(set, old)
		runs, stays := fits(set, new)
		return run != runs || stay != stays
	})
}

func (l *Loop) failed(set types.UID, node string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.failures[set] == nil {
		l.failures[set] = map[string]int{}
	}
	l.failures[set][node]++
}

func (l *Loop) reconcile(ctx context.Context, set *appsv1.DaemonSet, now time.Time) (time.Duration, error) {
	view, err := l.view(set, now)
	if err != nil {
		return 0, err
	}
	plan, err := Decide(view, now)
	if err != nil {
		return 0, err
	}
	if view.Unseen && plan.Again == 0 {
		plan.Again = unseenRetrySeconds * time.Second
	}
	return plan.Again, l.apply(ctx, set, plan)
}

// view reads what a decision needs.
func (l *Loop) view(set *appsv1.DaemonSet, now time.Time) (View, error) {
	nodes, err := l.nodes.List(labels.Everything())
	if err != nil {
		return View{}, err
	}
	pods, owned, err := loop.Dependents[*v1.Pod](l.podIndex, set)
	if err != nil {
		return View{}, err
	}
	revisions, _, err := loop.Dependents[*appsv1.ControllerRevision](l.revisionIndex, set)
	if err != nil {
		return View{}, err
	}
	view := View{Set: set, Nodes: nodes, Pods: pods, Revisions: revisions}
	unseen, deleted := loop.UnseenOf(l.Pending, set.UID, pods[:owned], now)
	view.Deleted = deleted
	view.Unseen = unseen > 0
	l.mu.Lock()
	view.Failures = maps.Clone(l.failures[set.UID])
	l.mu.Unlock()
	return view, nil
}
