// Package replicationcontroller keeps as many pods running as each ReplicationController asks for.
//
// Role: a ReplicationController is a ReplicaSet with a plain selector, so the loop shows it as one to
// [replicaset.Decide], and carries the plan out under its own kind and identity.
//
// Ownership: the loop writes the controller's status, creates and deletes its pods, and writes the controller reference
// of pods that it adopts or releases.
//
// Reading behind its own writes: as the loop of ReplicaSets.
//
// Concurrency: as [loop.Driver]; a controller is worked on by one goroutine at a time.
package replicationcontroller

import (
	"context"
	"errors"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/tools/cache"

	"github.com/podvine/podvine/agent/control/loop"
	"github.com/podvine/podvine/agent/control/workloads/dependents"
	"github.com/podvine/podvine/agent/control/workloads/pods"
	"github.com/podvine/podvine/agent/control/workloads/replicaset"
)

// Loop is the ReplicationController loop. Make it with [New].
type Loop struct {
	loop.Controller
	podIndex cache.Indexer
}

// kind is that of the owners.
func kind() schema.GroupVersionKind { return v1.SchemeGroupVersion.WithKind("ReplicationController") }

// New checks the configuration and asks the factory for its informers.
func New(w loop.Wiring) (*Loop, error) {
	if err := w.Check("replicationcontroller"); err != nil {
		return nil, err
	}
	core := w.Informers.Core().V1()
	controllers, podInformer := core.ReplicationControllers().Informer(), core.Pods().Informer()
	l := &Loop{Controller: loop.NewController(w, "replication-controller"), podIndex: podInformer.GetIndexer()}
	return l, loop.DriveOwners(&l.Controller, loop.Owners[*v1.ReplicationController]{
		Name: "replicationmanager", Kind: kind().Kind, Informer: controllers, Dependents: []cache.SharedIndexInformer{podInformer},
		Selector: func(rc *v1.ReplicationController) *metav1.LabelSelector {
			return &metav1.LabelSelector{MatchLabels: rc.Spec.Selector}
		},
		Reconcile: l.reconcile,
	})
}

// AsSet shows a controller as the ReplicaSet that it would be. The two share memory.
func AsSet(rc *v1.ReplicationController) *appsv1.ReplicaSet {
	set := &appsv1.ReplicaSet{ObjectMeta: rc.ObjectMeta, Spec: appsv1.ReplicaSetSpec{
		Replicas: rc.Spec.Replicas, MinReadySeconds: rc.Spec.MinReadySeconds, Selector: &metav1.LabelSelector{MatchLabels: rc.Spec.Selector}}}
	if rc.Spec.Template != nil {
		set.Spec.Template = *rc.Spec.Template
	}
	set.Status = appsv1.ReplicaSetStatus{Replicas: rc.Status.Replicas, FullyLabeledReplicas: rc.Status.FullyLabeledReplicas,
		ReadyReplicas: rc.Status.ReadyReplicas, AvailableReplicas: rc.Status.AvailableReplicas, ObservedGeneration: rc.Status.ObservedGeneration}
	for _, c := range rc.Status.Conditions {
		set.Status.Conditions = append(set.Status.Conditions, appsv1.ReplicaSetCondition{Type: appsv1.ReplicaSetConditionType(c.Type),
			Status: c.Status, LastTransitionTime: c.LastTransitionTime, Reason: c.Reason, Message: c.Message})
	}
	return set
}

// statusFrom is the way back.
func statusFrom(s appsv1.ReplicaSetStatus) v1.ReplicationControllerStatus {
	out := v1.ReplicationControllerStatus{Replicas: s.Replicas, FullyLabeledReplicas: s.FullyLabeledReplicas,
		ReadyReplicas: s.ReadyReplicas, AvailableReplicas: s.AvailableReplicas, ObservedGeneration: s.ObservedGeneration}
	for _, c := range s.Conditions {
		out.Conditions = append(out.Conditions, v1.ReplicationControllerCondition{Type: v1.ReplicationControllerConditionType(c.Type),
			Status: c.Status, LastTransitionTime: c.LastTransitionTime, Reason: c.Reason, Message: c.Message})
	}
	return out
}

func (l *Loop) reconcile(ctx context.Context, rc *v1.ReplicationController, now time.Time) (time.Duration, error) {
	view, err := l.view(rc, now)
	if err != nil {
		return 0, err
	}
	plan := replicaset.Decide(view, now)
	reason, failure := l.carryOut(ctx, rc, plan)
	message := ""
	if failure != nil {
		message = failure.Error()
	}
	if reason != "" || failure == nil {
		plan.Status.Conditions = replicaset.Failed(plan.Status.Conditions, reason, message, now)
	}
	return plan.Again, errors.Join(failure, l.writeStatus(ctx, rc, statusFrom(plan.Status)))
}

// view reads what a decision needs.
func (l *Loop) view(rc *v1.ReplicationController, now time.Time) (replicaset.View, error) {
	all, owned, err := loop.Dependents[*v1.Pod](l.podIndex, rc)
	if err != nil {
		return replicaset.View{}, err
	}
	view := replicaset.View{Set: AsSet(rc), Pods: all, PodsOnNode: map[string]int{}}
	for _, pod := range all[:owned] {
		if pods.Active(pod) && pod.Spec.NodeName != "" {
			view.PodsOnNode[pod.Spec.NodeName]++
		}
	}
	view.Unseen, view.Deleted = loop.UnseenOf(l.Pending, rc.UID, all[:owned], now)
	return view, nil
}

// carryOut writes pods. reason is that of the ReplicaFailure condition, empty when scaling went well.
func (l *Loop) carryOut(ctx context.Context, rc *v1.ReplicationController, plan replicaset.Plan) (reason string, err error) {
	writer := dependents.Pods{Client: l.Client, Recorder: l.Recorder, Pending: l.Pending, Kind: kind()}
	err = writer.Claim(ctx, rc, plan.Adopt, plan.Release, func() (metav1.Object, error) {
		return l.Client.CoreV1().ReplicationControllers(rc.Namespace).Get(ctx, rc.Name, metav1.GetOptions{})
	})
	if err != nil {
		return "", err
	}
	if err := writer.Create(ctx, rc, plan.Create, func(int) *v1.Pod { return pods.FromTemplate(rc.Spec.Template, rc, kind()) }); err != nil {
		return "FailedCreate", err
	}
	if err := writer.Delete(ctx, rc, plan.Delete); err != nil {
		return "FailedDelete", err
	}
	return "", nil
}

func (l *Loop) writeStatus(ctx context.Context, rc *v1.ReplicationController, status v1.ReplicationControllerStatus) error {
	if equality.Semantic.DeepEqual(rc.Status, status) {
		return nil
	}
	next := rc.DeepCopy()
	next.Status = status
	_, err := l.Client.CoreV1().ReplicationControllers(rc.Namespace).UpdateStatus(ctx, next, metav1.UpdateOptions{})
	return dependents.Gone(err)
}
