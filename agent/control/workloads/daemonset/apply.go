package daemonset

import (
	"context"
	"errors"

	appsv1 "k8s.io/api/apps/v1"
	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/podvine/podvine/agent/control/workloads/dependents"
)

// kind is that of the owners.
func kind() schema.GroupVersionKind { return appsv1.SchemeGroupVersion.WithKind("DaemonSet") }

// apply carries a plan out. Any error leaves the rest to the next decision, but for the status, which tells what is.
func (l *Loop) apply(ctx context.Context, set *appsv1.DaemonSet, plan Plan) error {
	live := func() (metav1.Object, error) {
		return l.Client.AppsV1().DaemonSets(set.Namespace).Get(ctx, set.Name, metav1.GetOptions{})
	}
	writer := dependents.Pods{Client: l.Client, Recorder: l.Recorder, Pending: l.Pending, Kind: kind()}
	if err := writer.Claim(ctx, set, plan.Adopt, plan.Release, live); err != nil {
		return err
	}
	revisions := dependents.Revisions{Client: l.Client, Kind: kind()}
	if err := revisions.Adopt(ctx, set, plan.AdoptRevisions, live); err != nil {
		return err
	}
	if plan.NewRevision != nil {
		collides, err := revisions.Create(ctx, set, plan.NewRevision)
		if err != nil || !collides {
			return err
		}
		status := *set.Status.DeepCopy()
		status.CollisionCount = dependents.Collided(status.CollisionCount)
		return l.writeStatus(ctx, set, status)
	}
	if err := revisions.Renumber(ctx, plan.Renumbered); err != nil {
		return err
	}
	l.tellEnded(set, plan.Ended)
	deleteErr := writer.Delete(ctx, set, plan.Delete)
	createErr := writer.Create(ctx, set, len(plan.Create), func(i int) *v1.Pod { return newPod(set, plan.Hash, plan.Create[i]) })
	failure := errors.Join(deleteErr, createErr)
	if err := l.writeStatus(ctx, set, plan.Status); err != nil || failure != nil {
		return errors.Join(failure, err)
	}
	return revisions.Delete(ctx, plan.DeleteRevisions)
}

// tellEnded says why pods are replaced.
func (l *Loop) tellEnded(set *appsv1.DaemonSet, ended []*v1.Pod) {
	for _, pod := range ended {
		if pod.Status.Phase == v1.PodFailed {
			l.failed(set.UID, nodeOf(pod))
			l.Recorder.Eventf(set, v1.EventTypeWarning, "FailedDaemonPod", "Found failed daemon pod %s/%s on node %s, will try to kill it", pod.Namespace, pod.Name, nodeOf(pod))
			continue
		}
		l.Recorder.Eventf(set, v1.EventTypeNormal, "SucceededDaemonPod", "Found succeeded daemon pod %s/%s on node %s, will try to delete it", pod.Namespace, pod.Name, nodeOf(pod))
	}
}

func (l *Loop) writeStatus(ctx context.Context, set *appsv1.DaemonSet, status appsv1.DaemonSetStatus) error {
	if equality.Semantic.DeepEqual(set.Status, status) {
		return nil
	}
	next := set.DeepCopy()
	next.Status = status
	_, err := l.Client.AppsV1().DaemonSets(set.Namespace).UpdateStatus(ctx, next, metav1.UpdateOptions{})
	return dependents.Gone(err)
}
