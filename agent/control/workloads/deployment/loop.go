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
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"
	appslisters "k8s.io/client-go/listers/apps/v1"
	"k8s.io/client-go/tools/cache"

	"github.com/podvine/podvine/agent/control/loop"
)

// Loop is the Deployment loop. Make it with [New].
type Loop struct {
	loop.Controller
	deployments appslisters.DeploymentLister
	sets        appslisters.ReplicaSetLister
	index       cache.Indexer // of deployments
	setIndex    cache.Indexer
	podIndex    cache.Indexer
}

// New checks the configuration and asks the factory for its informers.
func New(w loop.Wiring) (*Loop, error) {
	if err := w.Check("deployment"); err != nil {
		return nil, err
	}
	apps := w.Informers.Apps().V1()
	sets, podInformer := apps.ReplicaSets().Informer(), w.Informers.Core().V1().Pods().Informer()
	for _, informer := range []cache.SharedIndexInformer{sets, podInformer} {
		if err := loop.IndexByController(informer); err != nil {
			return nil, err
		}
	}
	l := &Loop{Controller: loop.NewController(w, "deployment-controller"), deployments: apps.Deployments().Lister(), sets: apps.ReplicaSets().Lister(),
		index: apps.Deployments().Informer().GetIndexer(), setIndex: sets.GetIndexer(), podIndex: podInformer.GetIndexer()}
	return l, l.Drive(loop.Config{
		Name: "deployment",
		Sources: []loop.Source{
			loop.OnKey(apps.Deployments().Informer()),
			loop.On(sets, l.setKeys),
			loop.On(podInformer, l.podKeys),
		},
		All:       func() []string { return l.index.ListKeys() },
		Reconcile: l.reconcile,
	})
}

// setKeys are the Deployments that a set's change concerns: its controller before and after, or, for a set
// without one, every Deployment that could adopt it.
func (l *Loop) setKeys(old, new *appsv1.ReplicaSet) []string {
	var keys []string
	for _, set := range []*appsv1.ReplicaSet{old, new} {
		if set != nil {
			keys = append(keys, loop.ControllerKey(set, "Deployment")...)
		}
	}
	if new == nil || metav1.GetControllerOfNoCopy(new) != nil || len(new.Labels) == 0 {
		return keys
	}
	deployments, err := l.deployments.Deployments(new.Namespace).List(labels.Everything())
	if err != nil {
		return keys
	}
	for _, d := range deployments {
		selector, err := metav1.LabelSelectorAsSelector(d.Spec.Selector)
		if err == nil && !selector.Empty() && selector.Matches(labels.Set(new.Labels)) {
			keys = append(keys, loop.Key(d))
		}
	}
	return keys
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

func (l *Loop) reconcile(ctx context.Context, key string) (time.Duration, error) {
	namespace, name, err := loop.SplitKey(key)
	if err != nil {
		return 0, err
	}
	d, err := l.deployments.Deployments(namespace).Get(name)
	if apierrors.IsNotFound(err) {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	view, err := l.view(d)
	if err != nil {
		return 0, err
	}
	if d.Spec.Selector == nil || len(d.Spec.Selector.MatchLabels)+len(d.Spec.Selector.MatchExpressions) == 0 {
		l.Recorder.Event(d, v1.EventTypeWarning, "SelectingAll",
			"This deployment is selecting all pods. A non-empty selector is required.")
	}
	plan := Decide(view, time.Now())
	return plan.Again, l.apply(ctx, d, plan)
}

func (l *Loop) view(d *appsv1.Deployment) (View, error) {
	sets, err := loop.Indexed[*appsv1.ReplicaSet](l.setIndex, loop.ControllerIndex, string(d.UID))
	if err != nil {
		return View{}, err
	}
	orphans, err := loop.Indexed[*appsv1.ReplicaSet](l.setIndex, loop.ControllerIndex, loop.OrphanValue(d.Namespace))
	if err != nil {
		return View{}, err
	}
	view := View{Deployment: d, Sets: append(sets, orphans...)}
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
