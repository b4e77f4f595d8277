package replicaset

import (
	"context"

	appsv1 "k8s.io/api/apps/v1"
	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/podvine/podvine/agent/control/workloads/dependents"
	"github.com/podvine/podvine/agent/control/workloads/pods"
)

func (l *Loop) pods() dependents.Pods {
	return dependents.Pods{Client: l.Client, Recorder: l.Recorder, Pending: l.Pending, Kind: appsv1.SchemeGroupVersion.WithKind("ReplicaSet")}
}

// claim adopts and releases pods.
func (l *Loop) claim(ctx context.Context, set *appsv1.ReplicaSet, plan Plan) error {
	return l.pods().Claim(ctx, set, plan.Adopt, plan.Release, func() (metav1.Object, error) {
		return l.Client.AppsV1().ReplicaSets(set.Namespace).Get(ctx, set.Name, metav1.GetOptions{})
	})
}

// scale creates or deletes. reason is that of the ReplicaFailure condition, empty when all went well.
func (l *Loop) scale(ctx context.Context, set *appsv1.ReplicaSet, plan Plan) (reason string, err error) {
	writer := l.pods()
	err = writer.Create(ctx, set, plan.Create, func(int) *v1.Pod { return pods.FromTemplate(&set.Spec.Template, set, writer.Kind) })
	if err != nil {
		return "FailedCreate", err
	}
	if err := writer.Delete(ctx, set, plan.Delete); err != nil {
		return "FailedDelete", err
	}
	return "", nil
}

func (l *Loop) writeStatus(ctx context.Context, set *appsv1.ReplicaSet, status appsv1.ReplicaSetStatus) error {
	if equality.Semantic.DeepEqual(set.Status, status) {
		return nil
	}
	next := set.DeepCopy()
	next.Status = status
	_, err := l.Client.AppsV1().ReplicaSets(set.Namespace).UpdateStatus(ctx, next, metav1.UpdateOptions{})
	return dependents.Gone(err)
}
