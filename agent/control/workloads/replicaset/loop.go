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
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	appslisters "k8s.io/client-go/listers/apps/v1"
	"k8s.io/client-go/tools/cache"

	"github.com/podvine/podvine/agent/control/loop"
	"github.com/podvine/podvine/agent/control/workloads/pods"
)

// Loop is the ReplicaSet loop. Make it with [New].
type Loop struct {
	loop.Controller
	sets     appslisters.ReplicaSetLister
	setIndex cache.Indexer
	podIndex cache.Indexer
}

// New checks the configuration and asks the factory for its informers.
func New(w loop.Wiring) (*Loop, error) {
	if err := w.Check("replicaset"); err != nil {
		return nil, err
	}
	sets, podInformer := w.Informers.Apps().V1().ReplicaSets(), w.Informers.Core().V1().Pods().Informer()
	for _, informer := range []cache.SharedIndexInformer{sets.Informer(), podInformer} {
		if err := loop.IndexByController(informer); err != nil {
			return nil, err
		}
	}
	l := &Loop{Controller: loop.NewController(w, "replicaset-controller"), sets: sets.Lister(), setIndex: sets.Informer().GetIndexer(), podIndex: podInformer.GetIndexer()}
	return l, l.Drive(loop.Config{
		Name: "replicaset",
		Sources: []loop.Source{
			loop.On(sets.Informer(), l.setKeys),
			loop.On(podInformer, l.podKeys),
		},
		All:       func() []string { return l.setIndex.ListKeys() },
		Reconcile: l.reconcile,
	})
}

// setKeys is the set itself; one that is gone needs no memory of what was done for it.
func (l *Loop) setKeys(old, new *appsv1.ReplicaSet) []string {
	if new == nil {
		l.Pending.Forget(old.UID)
		return nil
	}
	return []string{loop.Key(new)}
}

// podKeys are the sets that a pod's change concerns: its controller before and after, or, for a pod without
// one, every set that could adopt it.
func (l *Loop) podKeys(old, new *v1.Pod) []string {
	var keys []string
	for _, pod := range []*v1.Pod{old, new} {
		if pod != nil {
			keys = append(keys, loop.ControllerKey(pod, "ReplicaSet")...)
		}
	}
	if new == nil {
		if owner := metav1.GetControllerOfNoCopy(old); owner != nil {
			l.Pending.Seen(owner.UID, old.UID) // created and deleted before we looked
		}
		return keys
	}
	if metav1.GetControllerOfNoCopy(new) == nil && len(new.Labels) > 0 {
		sets, err := l.sets.GetPodReplicaSets(new)
		if err != nil {
			return keys // none matches
		}
		for _, set := range sets {
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
	set, err := l.sets.ReplicaSets(namespace).Get(name)
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
	owned, err := loop.Indexed[*v1.Pod](l.podIndex, loop.ControllerIndex, string(set.UID))
	if err != nil {
		return View{}, err
	}
	orphans, err := loop.Indexed[*v1.Pod](l.podIndex, loop.ControllerIndex, loop.OrphanValue(set.Namespace))
	if err != nil {
		return View{}, err
	}
	shown := make(map[types.UID]bool, len(owned))
	for _, pod := range owned {
		shown[pod.UID] = pod.DeletionTimestamp == nil
	}
	view := View{Set: set, Pods: append(owned, orphans...)}
	view.Unseen, view.Deleted = l.Pending.Unseen(set.UID, shown, now)
	view.PodsOnNode, err = l.podsOnNodes(set, owned)
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
