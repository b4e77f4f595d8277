// Package replicaset keeps as many pods running as each ReplicaSet asks for.
//
// Role: [Decide] sorts a namespace's pods into the set's own, those to adopt and those to release, and says how
// many to create or which to delete, and what status to report; the loop does it. Pods are created in batches
// that double while all goes well, so that a template which the API refuses costs one request.
//
// Ownership: the loop writes the set's status, creates and deletes its pods, and writes the controller reference
// of pods that it adopts or releases.
//
// Reading behind its own writes: what was created or deleted is remembered until the informer shows it
// ([loop.Pending]), and counts meanwhile. Adoption is confirmed by a live read of the set first.
//
// Concurrency: as [loop.Driver]; a set is worked on by one goroutine at a time.
package replicaset

import (
	"context"
	"errors"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/tools/cache"

	"github.com/podvine/podvine/agent/control/loop"
	"github.com/podvine/podvine/agent/control/workloads/pods"
)

// Loop is the ReplicaSet loop. Make it with [New].
type Loop struct {
	loop.Controller
	setIndex cache.Indexer
	podIndex cache.Indexer
}

// New checks the configuration and asks the factory for its informers.
func New(w loop.Wiring) (*Loop, error) {
	if err := w.Check("replicaset"); err != nil {
		return nil, err
	}
	sets, podInformer := w.Informers.Apps().V1().ReplicaSets().Informer(), w.Informers.Core().V1().Pods().Informer()
	if err := loop.IndexByController(sets); err != nil {
		return nil, err
	}
	l := &Loop{Controller: loop.NewController(w, "replicaset-controller"), setIndex: sets.GetIndexer(), podIndex: podInformer.GetIndexer()}
	return l, loop.DriveOwners(&l.Controller, loop.Owners[*appsv1.ReplicaSet]{
		Name: "replicaset", Kind: "ReplicaSet", Informer: sets, Dependents: []cache.SharedIndexInformer{podInformer},
		Selector:  func(set *appsv1.ReplicaSet) *metav1.LabelSelector { return set.Spec.Selector },
		Reconcile: l.reconcile,
	})
}

func (l *Loop) reconcile(ctx context.Context, set *appsv1.ReplicaSet, now time.Time) (time.Duration, error) {
	view, err := l.view(set, now)
	if err != nil {
		return 0, err
	}
	plan := Decide(view, now)
	if err := l.claim(ctx, set, plan); err != nil {
		return 0, err
	}
	reason, failure := l.scale(ctx, set, plan)
	message := ""
	if failure != nil {
		message = failure.Error()
	}
	plan.Status.Conditions = Failed(plan.Status.Conditions, reason, message, now)
	if err := l.writeStatus(ctx, set, plan.Status); err != nil {
		return 0, errors.Join(failure, err)
	}
	return plan.Again, failure
}

// view reads what a decision needs.
func (l *Loop) view(set *appsv1.ReplicaSet, now time.Time) (View, error) {
	all, owned, err := loop.Dependents[*v1.Pod](l.podIndex, set)
	if err != nil {
		return View{}, err
	}
	view := View{Set: set, Pods: all}
	view.Unseen, view.Deleted = loop.UnseenOf(l.Pending, set.UID, all[:owned], now)
	view.PodsOnNode, err = l.podsOnNodes(set, all[:owned])
	return view, err
}

// podsOnNodes counts the pods of all sets of the same owner by node, so that a rollout thins out full nodes first.
func (l *Loop) podsOnNodes(set *appsv1.ReplicaSet, owned []*v1.Pod) (map[string]int, error) {
	all := owned
	if owner := metav1.GetControllerOfNoCopy(set); owner != nil {
		siblings, err := loop.Indexed[*appsv1.ReplicaSet](l.setIndex, loop.ControllerIndex, string(owner.UID))
		if err != nil {
			return nil, err
		}
		all = nil
		for _, sibling := range siblings {
			theirs, err := loop.Indexed[*v1.Pod](l.podIndex, loop.ControllerIndex, string(sibling.UID))
			if err != nil {
				return nil, err
			}
			all = append(all, theirs...)
		}
	}
	count := map[string]int{}
	for _, pod := range all {
		if pods.Active(pod) && pod.Spec.NodeName != "" {
			count[pod.Spec.NodeName]++
		}
	}
	return count, nil
}
