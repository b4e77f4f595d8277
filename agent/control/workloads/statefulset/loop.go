// Package statefulset keeps the pods of StatefulSets: each with a name, a number and claims of its own, started, replaced
// and ended in order.
//
// Role: [Decide] looks at a set, its pods, their claims and the revisions of its template, and plans one step: make what
// is missing, from the lowest number; end what is too many, from the highest; replace what is of an older revision, from
// the highest. Pods in order wait for each other; a partition and the number of pods that may be away bound a roll-out.
// The loop carries the plan out; each write makes an event that brings the next step. As in Kubernetes, a roll-out that
// hangs on a broken pod goes on, or back, when that pod is deleted.
//
// Ownership: the loop writes the set's status, its revisions and pods, and the owner references of their claims. What
// claims ask for is the user's after their creation.
//
// Identity: a pod's name is the only lock there is, and it suffices. A pod is made under its fixed name when none of the
// name is there any more; one whose end is not known (its node is cut off or dead) keeps the name, and is not replaced.
//
// Reading behind its own writes: names are fixed, deletions are made under the UID and remembered until the informer
// shows them ([loop.Pending]), so that no second pod is taken for one that is on its way out.
//
// Concurrency: as [loop.Driver]; a set is worked on by one goroutine at a time.
package statefulset

import (
	"context"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	v1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"
	appslisters "k8s.io/client-go/listers/apps/v1"
	corelisters "k8s.io/client-go/listers/core/v1"
	"k8s.io/client-go/tools/cache"

	"github.com/podvine/podvine/agent/control/loop"
)

// Loop is the StatefulSet loop. Make it with [New].
type Loop struct {
	loop.Controller
	sets          appslisters.StatefulSetLister
	claims        corelisters.PersistentVolumeClaimLister
	podIndex      cache.Indexer
	revisionIndex cache.Indexer
}

// New checks the configuration and asks the factory for its informers.
func New(w loop.Wiring) (*Loop, error) {
	if err := w.Check("statefulset"); err != nil {
		return nil, err
	}
	apps, core := w.Informers.Apps().V1(), w.Informers.Core().V1()
	podInformer, revisionInformer := core.Pods().Informer(), apps.ControllerRevisions().Informer()
	for _, informer := range []cache.SharedIndexInformer{podInformer, revisionInformer} {
		if err := loop.IndexByController(informer); err != nil {
			return nil, err
		}
	}
	sets := apps.StatefulSets().Informer()
	l := &Loop{Controller: loop.NewController(w, "statefulset-controller"), sets: apps.StatefulSets().Lister(), claims: core.PersistentVolumeClaims().Lister(),
		podIndex: podInformer.GetIndexer(), revisionIndex: revisionInformer.GetIndexer()}
	return l, l.Drive(loop.Config{
		Name: "statefulset",
		Sources: []loop.Source{
			loop.On(sets, l.setKeys),
			loop.OnDependents(podInformer, kind().Kind, l.adopters),
			loop.OnDependents(revisionInformer, kind().Kind, l.adopters),
			loop.On(core.PersistentVolumeClaims().Informer(), l.claimKeys),
		},
		All:       func() []string { return sets.GetIndexer().ListKeys() },
		Reconcile: l.reconcile,
	})
}

// setKeys is the set itself; one that is gone needs no memory of what was done for it.
func (l *Loop) setKeys(old, new *appsv1.StatefulSet) []string {
	if new == nil {
		l.Pending.Forget(old.UID)
		return nil
	}
	return []string{loop.Key(new)}
}

// adopters are the sets that could take an object on.
func (l *Loop) adopters(object metav1.Object) []string {
	return l.keysWhere(object.GetNamespace(), func(set *appsv1.StatefulSet) bool { return loop.Selects(set.Spec.Selector, object) })
}

// claimKeys: only a claim's end matters; a pod may wait for it.
func (l *Loop) claimKeys(old, new *v1.PersistentVolumeClaim) []string {
	if new != nil {
		return nil
	}
	return l.keysWhere(old.Namespace, func(set *appsv1.StatefulSet) bool {
		return podOfClaim(set, old.Name) != ""
	})
}

// keysWhere are the namespace's sets that f holds for.
func (l *Loop) keysWhere(namespace string, f func(*appsv1.StatefulSet) bool) (keys []string) {
	sets, err := l.sets.StatefulSets(namespace).List(labels.Everything())
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

func (l *Loop) reconcile(ctx context.Context, key string) (time.Duration, error) {
	namespace, name, err := loop.SplitKey(key)
	if err != nil {
		return 0, err
	}
	set, err := l.sets.StatefulSets(namespace).Get(name)
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
	return plan.Again, l.apply(ctx, set, plan)
}

// view reads what a decision needs.
func (l *Loop) view(set *appsv1.StatefulSet, now time.Time) (View, error) {
	pods, owned, err := loop.Dependents[*v1.Pod](l.podIndex, set)
	if err != nil {
		return View{}, err
	}
	revisions, _, err := loop.Dependents[*appsv1.ControllerRevision](l.revisionIndex, set)
	if err != nil {
		return View{}, err
	}
	view := View{Set: set, Pods: pods, Revisions: revisions, Claims: map[string]*v1.PersistentVolumeClaim{}}
	shown := make(map[types.UID]bool, owned)
	for _, pod := range pods[:owned] {
		shown[pod.UID] = pod.DeletionTimestamp == nil
	}
	_, view.Deleted = l.Pending.Unseen(set.UID, shown, now)
	if len(set.Spec.VolumeClaimTemplates) == 0 {
		return view, nil
	}
	numbers := map[int]bool{}
	for i := range size(set) {
		numbers[first(set)+i] = true
	}
	for _, pod := range pods {
		if n, ok := ordinal(set, pod.Name); ok {
			numbers[n] = true
		}
	}
	for n := range numbers {
		for _, name := range claimNames(set, n) {
			claim, err := l.claims.PersistentVolumeClaims(set.Namespace).Get(name)
			if err == nil {
				view.Claims[name] = claim
			} else if !apierrors.IsNotFound(err) {
				return View{}, err
			}
		}
	}
	return view, nil
}
