// Package deployment rolls ReplicaSets out and back for Deployments.
//
// Role: [Decide] looks at a Deployment and its sets and plans one step: make or find the set of the current
// template, spread a change of size, grow the current set and shrink the old ones within the surge and
// availability that the strategy allows, or, to recreate, stop the old pods first; prune the history; report
// status and conditions in Kubernetes' words, which kubectl rollout reads. The loop carries the plan out; each
// write makes an event that brings the next step.
//
// Ownership: the loop writes the Deployment's status and its revision annotation, and its sets but for their
// status. A rollback is an ordinary change of the template: the set that has it already becomes the current one.
//
// Reading behind its own writes: sets are changed under their resource version and made under a name that
// follows from the template, so a stale step fails and is decided again.
//
// Concurrency: as [loop.Driver]; a Deployment is worked on by one goroutine at a time.
package deployment

import (
	"context"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	appslisters "k8s.io/client-go/listers/apps/v1"
	"k8s.io/client-go/tools/cache"

	"github.com/podvine/podvine/agent/control/loop"
)

// Loop is the Deployment loop. Make it with [New].
type Loop struct {
	loop.Controller
	sets     appslisters.ReplicaSetLister
	setIndex cache.Indexer
	podIndex cache.Indexer
}

// New checks the configuration and asks the factory for its informers.
func New(w loop.Wiring) (*Loop, error) {
	if err := w.Check("deployment"); err != nil {
		return nil, err
	}
	apps := w.Informers.Apps().V1()
	sets, podInformer, deployments := apps.ReplicaSets().Informer(), w.Informers.Core().V1().Pods().Informer(), apps.Deployments().Informer()
	if err := loop.IndexByController(podInformer); err != nil {
		return nil, err
	}
	l := &Loop{Controller: loop.NewController(w, "deployment-controller"), sets: apps.ReplicaSets().Lister(),
		setIndex: sets.GetIndexer(), podIndex: podInformer.GetIndexer()}
	return l, loop.DriveOwners(&l.Controller, loop.Owners[*appsv1.Deployment]{
		Name: "deployment", Kind: "Deployment", Informer: deployments, Dependents: []cache.SharedIndexInformer{sets},
		Selector:  func(d *appsv1.Deployment) *metav1.LabelSelector { return d.Spec.Selector },
		Sources:   []loop.Source{loop.On(podInformer, l.podKeys)},
		Reconcile: l.reconcile,
	})
}

// podKeys: only a pod's end may matter to a Deployment beyond what its sets' status tells, for Recreate.
func (l *Loop) podKeys(old, new *v1.Pod) []string {
	if new != nil {
		return nil
	}
	owner := metav1.GetControllerOfNoCopy(old)
	if owner == nil || owner.Kind != "ReplicaSet" {
		return nil
	}
	set, err := l.sets.ReplicaSets(old.Namespace).Get(owner.Name)
	if err != nil {
		return nil // its own end brings the event
	}
	return loop.ControllerKey(set, "Deployment")
}

func (l *Loop) reconcile(ctx context.Context, d *appsv1.Deployment, now time.Time) (time.Duration, error) {
	view, err := l.view(d)
	if err != nil {
		return 0, err
	}
	if d.Spec.Selector == nil || len(d.Spec.Selector.MatchLabels)+len(d.Spec.Selector.MatchExpressions) == 0 {
		l.Recorder.Event(d, v1.EventTypeWarning, "SelectingAll",
			"This deployment is selecting all pods. A non-empty selector is required.")
	}
	plan := Decide(view, now)
	return plan.Again, l.apply(ctx, d, plan)
}

func (l *Loop) view(d *appsv1.Deployment) (View, error) {
	all, owned, err := loop.Dependents[*appsv1.ReplicaSet](l.setIndex, d)
	if err != nil {
		return View{}, err
	}
	sets, view := all[:owned], View{Deployment: d, Sets: all}
	if rolling(d) {
		return view, nil
	}
	view.Pods = make(map[types.UID][]*v1.Pod, len(sets))
	for _, set := range sets {
		if view.Pods[set.UID], err = loop.Indexed[*v1.Pod](l.podIndex, loop.ControllerIndex, string(set.UID)); err != nil {
			return View{}, err
		}
	}
	return view, nil
}
