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
	corelisters "k8s.io/client-go/listers/core/v1"
	"k8s.io/client-go/tools/cache"

	"github.com/podvine/podvine/agent/control/loop"
)

// Loop is the StatefulSet loop. Make it with [New].
type Loop struct {
	loop.Controller
	setIndex      cache.Indexer
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
	pods, revisions, sets := core.Pods().Informer(), apps.ControllerRevisions().Informer(), apps.StatefulSets().Informer()
	l := &Loop{Controller: loop.NewController(w, "statefulset-controller"), setIndex: sets.GetIndexer(), claims: core.PersistentVolumeClaims().Lister(),
		podIndex: pods.GetIndexer(), revisionIndex: revisions.GetIndexer()}
	return l, loop.DriveOwners(&l.Controller, loop.Owners[*appsv1.StatefulSet]{
		Name: "statefulset", Kind: kind().Kind, Informer: sets, Dependents: []cache.SharedIndexInformer{pods, revisions},
		Selector:  func(set *appsv1.StatefulSet) *metav1.LabelSelector { return set.Spec.Selector },
		Sources:   []loop.Source{loop.On(core.PersistentVolumeClaims().Informer(), l.claimKeys)},
		Reconcile: l.reconcile,
	})
}

// claimKeys: only a claim's end matters; a pod may wait for it.
func (l *Loop) claimKeys(old, new *v1.PersistentVolumeClaim) []string {
	if new != nil {
		return nil
	}
	return loop.KeysWhere(l.setIndex, old.Namespace, func(set *appsv1.StatefulSet) bool {
		return podOfClaim(set, old.Name) != ""
	})
}

func (l *Loop) reconcile(ctx context.Context, set *appsv1.StatefulSet, now time.Time) (time.Duration, error) {
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
	_, view.Deleted = loop.UnseenOf(l.Pending, set.UID, pods[:owned], now)
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
