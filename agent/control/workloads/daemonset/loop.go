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
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"
	appslisters "k8s.io/client-go/listers/apps/v1"
	corelisters "k8s.io/client-go/listers/core/v1"
	"k8s.io/client-go/tools/cache"

	"github.com/podvine/podvine/agent/control/loop"
)

// unseenRetrySeconds is when a set is looked at again whose own creations are not shown yet, should no event come.
const unseenRetrySeconds = 10

// Loop is the DaemonSet loop. Make it with [New].
type Loop struct {
	loop.Controller
	sets          appslisters.DaemonSetLister
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
	podInformer, revisionInformer := core.Pods().Informer(), apps.ControllerRevisions().Informer()
	for _, informer := range []cache.SharedIndexInformer{podInformer, revisionInformer} {
		if err := loop.IndexByController(informer); err != nil {
			return nil, err
		}
	}
	sets := apps.DaemonSets().Informer()
	l := &Loop{Controller: loop.NewController(w, "daemonset-controller"), sets: apps.DaemonSets().Lister(), nodes: core.Nodes().Lister(),
		podIndex: podInformer.GetIndexer(), revisionIndex: revisionInformer.GetIndexer(),
		failures: map[types.UID]map[string]int{}}
	return l, l.Drive(loop.Config{
		Name: "daemonset",
		Sources: []loop.Source{
			loop.On(sets, l.setKeys),
			loop.OnDependents(podInformer, kind().Kind, l.adopters),
			loop.On(podInformer, l.gone),
			loop.OnDependents(revisionInformer, kind().Kind, l.adopters),
			loop.On(core.Nodes().Informer(), l.nodeKeys),
		},
		All:       func() []string { return sets.GetIndexer().ListKeys() },
		Reconcile: l.reconcile,
	})
}

// setKeys is the set itself; one that is gone needs no memory of what was done for it.
func (l *Loop) setKeys(old, new *appsv1.DaemonSet) []string {
	if new == nil {
		l.Pending.Forget(old.UID)
		l.mu.Lock()
		delete(l.failures, old.UID)
		l.mu.Unlock()
		return nil
	}
	return []string{loop.Key(new)}
}

// gone forgets the creation of a pod that came and went before it was looked at.
func (l *Loop) gone(old, new *v1.Pod) []string {
	if new == nil {
		if owner := metav1.GetControllerOfNoCopy(old); owner != nil {
			l.Pending.Seen(owner.UID, old.UID)
		}
	}
	return nil
}

// adopters are the sets that could take an object on.
func (l *Loop) adopters(object metav1.Object) []string {
	return l.keysWhere(object.GetNamespace(), func(set *appsv1.DaemonSet) bool { return loop.Selects(set.Spec.Selector, object) })
}

// nodeKeys are the sets to which a node's change makes a difference.
func (l *Loop) nodeKeys(old, new *v1.Node) []string {
	if old != nil && new != nil && equality.Semantic.DeepEqual(old.Labels, new.Labels) && equality.Semantic.DeepEqual(old.Spec.Taints, new.Spec.Taints) {
		return nil
	}
	return l.keysWhere(metav1.NamespaceAll, func(set *appsv1.DaemonSet) bool {
		if old == nil || new == nil {
			return true
		}
		run, stay := fits(set, old)
		runs, stays := fits(set, new)
		return run != runs || stay != stays
	})
}

// keysWhere are the namespace's sets that f holds for.
func (l *Loop) keysWhere(namespace string, f func(*appsv1.DaemonSet) bool) (keys []string) {
	sets, err := l.sets.DaemonSets(namespace).List(labels.Everything())
	if err != nil {
		return nil // a lister over a cache has no errors
	}
	for _, set := range sets {
		if f(set) {
			keys = append(keys, loop.Key(set))
		}
	}
	return keys
}

func (l *Loop) failed(set types.UID, node string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.failures[set] == nil {
		l.failures[set] = map[string]int{}
	}
	l.failures[set][node]++
}

func (l *Loop) reconcile(ctx context.Context, key string) (time.Duration, error) {
	namespace, name, err := loop.SplitKey(key)
	if err != nil {
		return 0, err
	}
	set, err := l.sets.DaemonSets(namespace).Get(name)
	if apierrors.IsNotFound(err) {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	now := time.Now()
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
	shown := make(map[types.UID]bool, owned)
	for _, pod := range pods[:owned] {
		shown[pod.UID] = pod.DeletionTimestamp == nil
	}
	var unseen int
	unseen, view.Deleted = l.Pending.Unseen(set.UID, shown, now)
	view.Unseen = unseen > 0
	l.mu.Lock()
	view.Failures = maps.Clone(l.failures[set.UID])
	l.mu.Unlock()
	return view, nil
}
