package replicaset

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"sync"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/podvine/podvine/agent/control/workloads/pods"
)

const (
	// firstBatch is how many pods are created before the first success is seen; batches double from there.
	firstBatch = 1
	// parallelWrites bounds one set's requests under way.
	parallelWrites = 32
)

// claim adopts and releases pods.
func (l *Loop) claim(ctx context.Context, set *appsv1.ReplicaSet, plan Plan) error {
	if len(plan.Adopt) > 0 {
		// The informer may show a set that is gone or being deleted; a wrong adoption would be deleted with it.
		live, err := l.cfg.Client.AppsV1().ReplicaSets(set.Namespace).Get(ctx, set.Name, metav1.GetOptions{})
		if err != nil {
			return fmt.Errorf("confirm adopter %s/%s: %w", set.Namespace, set.Name, err)
		}
		if live.UID != set.UID || live.DeletionTimestamp != nil {
			return fmt.Errorf("adopt pods: %s/%s is not what it was (uid %s)", set.Namespace, set.Name, set.UID)
		}
	}
	var errs []error
	for _, pod := range plan.Adopt {
		reference := metav1.NewControllerRef(set, appsv1.SchemeGroupVersion.WithKind("ReplicaSet"))
		errs = append(errs, l.patchOwner(ctx, pod, reference))
	}
	for _, pod := range plan.Release {
		err := l.patchOwner(ctx, pod, map[string]any{"$patch": "delete", "uid": set.UID})
		if !apierrors.IsNotFound(err) && !apierrors.IsInvalid(err) { // gone, or someone else's by now
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

func (l *Loop) patchOwner(ctx context.Context, pod *v1.Pod, reference any) error {
	patch, err := json.Marshal(map[string]any{"metadata": map[string]any{
		"uid": pod.UID, "ownerReferences": []any{reference}}})
	if err != nil {
		return fmt.Errorf("encode owner of pod %s: %w", pod.Name, err)
	}
	_, err = l.cfg.Client.CoreV1().Pods(pod.Namespace).Patch(ctx, pod.Name, types.StrategicMergePatchType, patch, metav1.PatchOptions{})
	return err
}

// scale creates or deletes. reason is that of the ReplicaFailure condition, empty when all went well.
func (l *Loop) scale(ctx context.Context, set *appsv1.ReplicaSet, plan Plan) (reason string, err error) {
	if plan.Create > 0 {
		if err := l.create(ctx, set, plan.Create); err != nil {
			return "FailedCreate", err
		}
	}
	errs := make([]error, len(plan.Delete))
	parallel(len(plan.Delete), func(i int) { errs[i] = l.delete(ctx, set, plan.Delete[i]) })
	if err := errors.Join(errs...); err != nil {
		return "FailedDelete", err
	}
	return "", nil
}

// create makes pods in doubling batches and stops at the first batch with a failure.
func (l *Loop) create(ctx context.Context, set *appsv1.ReplicaSet, count int) error {
	for batch := min(count, firstBatch); count > 0; batch = min(2*batch, count) {
		errs := make([]error, batch)
		parallel(batch, func(i int) { errs[i] = l.createOne(ctx, set) })
		for _, err := range errs {
			if err != nil {
				return err // one is like the others; all would only repeat it
			}
		}
		count -= batch
	}
	return nil
}

func (l *Loop) createOne(ctx context.Context, set *appsv1.ReplicaSet) error {
	pod := pods.FromTemplate(&set.Spec.Template, set, appsv1.SchemeGroupVersion.WithKind("ReplicaSet"))
	made, err := l.cfg.Client.CoreV1().Pods(set.Namespace).Create(ctx, pod, metav1.CreateOptions{})
	switch {
	case apierrors.HasStatusCause(err, v1.NamespaceTerminatingCause):
		return nil // nothing can be made there any more, and the set goes too
	case err != nil:
		l.recorder.Eventf(set, v1.EventTypeWarning, "FailedCreate", "Error creating: %v", err)
		return err
	}
	l.pending.Created(set.UID, made.UID, time.Now())
	l.recorder.Eventf(set, v1.EventTypeNormal, "SuccessfulCreate", "Created pod: %s", made.Name)
	return nil
}

func (l *Loop) delete(ctx context.Context, set *appsv1.ReplicaSet, pod *v1.Pod) error {
	options := metav1.DeleteOptions{Preconditions: metav1.NewUIDPreconditions(string(pod.UID))}
	err := l.cfg.Client.CoreV1().Pods(pod.Namespace).Delete(ctx, pod.Name, options)
	switch {
	case apierrors.IsNotFound(err):
		return nil
	case err != nil:
		l.recorder.Eventf(set, v1.EventTypeWarning, "FailedDelete", "Error deleting: %v", err)
		return err
	}
	l.pending.Deleted(set.UID, pod.UID, time.Now())
	l.recorder.Eventf(set, v1.EventTypeNormal, "SuccessfulDelete", "Deleted pod: %s", pod.Name)
	return nil
}

func (l *Loop) writeStatus(ctx context.Context, set *appsv1.ReplicaSet, status appsv1.ReplicaSetStatus) error {
	if equality.Semantic.DeepEqual(set.Status, status) {
		return nil
	}
	next := set.DeepCopy()
	next.Status = status
	_, err := l.cfg.Client.AppsV1().ReplicaSets(set.Namespace).UpdateStatus(ctx, next, metav1.UpdateOptions{})
	if apierrors.IsNotFound(err) {
		return nil
	}
	return err
}

// parallel calls f for 0 to count-1, parallelWrites at a time.
func parallel(count int, f func(int)) {
	var group sync.WaitGroup
	slots := make(chan struct{}, parallelWrites)
	for i := range count {
		slots <- struct{}{}
		group.Go(func() {
			defer func() { <-slots }()
			f(i)
		})
	}
	group.Wait()
}
