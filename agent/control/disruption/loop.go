// Package disruption counts for each PodDisruptionBudget how many of its pods may go.
//
// Role: [Decide] looks at a budget, the pods that it selects and what their controllers want, and says what its status is; the
// loop writes it. The API books evictions in the same status (agent/api/kinds/poddisruptionbudget), preemption reads it.
// [NewStale] makes a second loop, which takes back what a pod says of its coming end when that does not come.
//
// Ownership: the loop writes the status of budgets. The API beside it takes from disruptionsAllowed and adds to disruptedPods; whoever
// read an older status is refused, so no booking is lost. A booking counts until its pod is being deleted, or two minutes.
//
// Concurrency: as [loop.Driver].
package disruption

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	v1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	appslisters "k8s.io/client-go/listers/apps/v1"
	listers "k8s.io/client-go/listers/core/v1"
	"k8s.io/client-go/tools/cache"

	"github.com/podvine/podvine/agent/control/loop"
	"github.com/podvine/podvine/agent/control/workloads/dependents"
	"github.com/podvine/podvine/agent/control/workloads/pods"
)

// Loop keeps the status of budgets. Make it with [New].
type Loop struct {
	loop.Controller
	kinds       *loop.Kinds
	budgets     cache.Indexer
	pods        listers.PodLister
	controllers listers.ReplicationControllerLister
	sets        appslisters.ReplicaSetLister
	deployments appslisters.DeploymentLister
	stateful    appslisters.StatefulSetLister
}

// New checks the configuration and asks the factory for its informers. kinds finds the resources of controllers that are custom
// resources.
func New(w loop.Wiring, kinds *loop.Kinds) (*Loop, error) {
	if err := w.Check("disruption"); err != nil {
		return nil, err
	}
	if kinds == nil {
		return nil, errors.New("make disruption loop: kinds are required")
	}
	core, apps, budgets := w.Informers.Core().V1(), w.Informers.Apps().V1(), w.Informers.Policy().V1().PodDisruptionBudgets().Informer()
	l := &Loop{Controller: loop.NewController(w, "controllermanager"), kinds: kinds, budgets: budgets.GetIndexer(), pods: core.Pods().Lister(),
		controllers: core.ReplicationControllers().Lister(), sets: apps.ReplicaSets().Lister(), deployments: apps.Deployments().Lister(),
		stateful: apps.StatefulSets().Lister()}
	sources := []loop.Source{loop.OnKey(budgets), loop.On(core.Pods().Informer(), l.ofPod)}
	for _, informer := range []cache.SharedIndexInformer{core.ReplicationControllers().Informer(), apps.ReplicaSets().Informer(),
		apps.Deployments().Informer(), apps.StatefulSets().Informer()} {
		sources = append(sources, loop.On(informer, l.ofController))
	}
	return l, l.Drive(loop.Config{Name: "disruption", Sources: sources, All: l.budgets.ListKeys, Reconcile: l.reconcile})
}

// ofPod are the budgets that a pod's change concerns.
func (l *Loop) ofPod(old, new *v1.Pod) (keys []string) {
	if old != nil && new != nil && same(old, new) {
		return nil
	}
	for _, pod := range []*v1.Pod{old, new} {
		if pod != nil {
			keys = append(keys, loop.KeysWhere(l.budgets, pod.Namespace, func(b *policyv1.PodDisruptionBudget) bool {
				selector, err := metav1.LabelSelectorAsSelector(b.Spec.Selector)
				return err == nil && selector.Matches(labels.Set(pod.Labels))
			})...)
		}
	}
	return keys
}

// same tells whether a pod counts as before.
func same(old, new *v1.Pod) bool {
	was, _ := pods.Ready(old)
	is, _ := pods.Ready(new)
	return was == is && old.UID == new.UID && (old.DeletionTimestamp == nil) == (new.DeletionTimestamp == nil) &&
		equality.Semantic.DeepEqual(old.Labels, new.Labels) && equality.Semantic.DeepEqual(old.OwnerReferences, new.OwnerReferences)
}

// ofController are the budgets of its namespace that depend on what controllers want, when that changed.
func (l *Loop) ofController(old, new metav1.Object) []string {
	if old != nil && new != nil && old.GetUID() == new.GetUID() && wants(old) == wants(new) {
		return nil
	}
	if new == nil {
		new = old
	}
	return loop.KeysWhere(l.budgets, new.GetNamespace(), func(b *policyv1.PodDisruptionBudget) bool { return NeedsScale(&b.Spec) })
}

func wants(controller metav1.Object) int32 {
	switch c := controller.(type) {
	case *v1.ReplicationController:
		return pods.Value(c.Spec.Replicas, 1)
	case *appsv1.ReplicaSet:
		return pods.Value(c.Spec.Replicas, 1)
	case *appsv1.Deployment:
		return pods.Value(c.Spec.Replicas, 1)
	case *appsv1.StatefulSet:
		return pods.Value(c.Spec.Replicas, 1)
	}
	return 0
}

func (l *Loop) reconcile(ctx context.Context, key string) (time.Duration, error) {
	object, found, err := l.budgets.GetByKey(key)
	if err != nil || !found {
		return 0, err
	}
	budget, ok := object.(*policyv1.PodDisruptionBudget)
	if !ok {
		return 0, fmt.Errorf("read budget %s: unexpected type %T", key, object)
	}
	view := View{Budget: budget}
	selector, err := metav1.LabelSelectorAsSelector(budget.Spec.Selector)
	if err != nil {
		selector = labels.Nothing() // as the API reads it
	}
	if view.Pods, err = l.pods.Pods(budget.Namespace).List(selector); err != nil {
		return 0, err
	}
	if NeedsScale(&budget.Spec) {
		view.Scales, view.Failure = l.scales(ctx, view.Pods)
		if ctx.Err() != nil {
			return 0, ctx.Err()
		}
	}
	plan := Decide(view, time.Now())
	return plan.Again, l.apply(ctx, budget, plan)
}

func (l *Loop) apply(ctx context.Context, budget *policyv1.PodDisruptionBudget, plan Plan) error {
	for _, e := range plan.Events {
		l.Recorder.Event(budget, e.Type, e.Reason, e.Message)
	}
	for _, pod := range plan.Kept {
		l.Recorder.Eventf(pod, v1.EventTypeWarning, "NotDeleted", "Pod was expected by PDB %s/%s to be deleted but it wasn't", budget.Namespace, budget.Name)
	}
	if equality.Semantic.DeepEqual(budget.Status, plan.Status) {
		return nil
	}
	next := budget.DeepCopy()
	next.Status = plan.Status
	_, err := l.Client.PolicyV1().PodDisruptionBudgets(budget.Namespace).UpdateStatus(ctx, next, metav1.UpdateOptions{})
	return dependents.Gone(err)
}

// Staleness is the loop for pods. Make it with [NewStale].
type Staleness struct {
	loop.Controller
	pods listers.PodLister
}

// NewStale makes the loop that takes the condition DisruptionTarget from pods whose eviction failed.
func NewStale(w loop.Wiring) (*Staleness, error) {
	if err := w.Check("stale-pod-disruption"); err != nil {
		return nil, err
	}
	informer := w.Informers.Core().V1().Pods()
	l := &Staleness{Controller: loop.NewController(w, "controllermanager"), pods: informer.Lister()}
	return l, l.Drive(loop.Config{Name: "stale-pod-disruption", Reconcile: l.reconcile,
		Sources: []loop.Source{loop.On(informer.Informer(), func(_, new *v1.Pod) []string {
			if new == nil {
				return nil
			}
			if stale, left := Stale(new, time.Now()); !stale && left == 0 {
				return nil
			}
			return []string{loop.Key(new)}
		})}})
}

func (l *Staleness) reconcile(ctx context.Context, key string) (time.Duration, error) {
	namespace, name, err := loop.SplitKey(key)
	if err != nil {
		return 0, err
	}
	pod, err := l.pods.Pods(namespace).Get(name)
	if err != nil {
		return 0, dependents.Gone(err)
	}
	stale, left := Stale(pod, time.Now())
	if !stale {
		return left, nil
	}
	patch, err := json.Marshal(map[string]any{"metadata": map[string]any{"uid": pod.UID}, "status": map[string]any{"conditions": []any{map[string]any{
		"type": v1.DisruptionTarget, "status": v1.ConditionFalse, "lastTransitionTime": metav1.Now(), "reason": nil, "message": nil}}}})
	if err != nil {
		return 0, fmt.Errorf("encode condition of pod %s: %w", key, err)
	}
	_, err = l.Client.CoreV1().Pods(namespace).Patch(ctx, name, strategic, patch, metav1.PatchOptions{}, "status")
	return 0, dependents.Gone(err)
}
