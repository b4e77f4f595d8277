package deployment

import (
	"context"
	"errors"
	"fmt"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/podvine/podvine/agent/control/workloads/dependents"
)

// apply carries a plan out. Any error leaves the rest to the next decision.
func (l *Loop) apply(ctx context.Context, d *appsv1.Deployment, plan Plan) error {
	if err := l.claim(ctx, d, plan); err != nil {
		return err
	}
	if plan.Revision != "" {
		next := d.DeepCopy()
		metav1.SetMetaDataAnnotation(&next.ObjectMeta, annotationRevision, plan.Revision)
		updated, err := l.Client.AppsV1().Deployments(d.Namespace).Update(ctx, next, metav1.UpdateOptions{})
		if err != nil {
			return dependents.Gone(err)
		}
		d = updated
	}
	if plan.Create != nil {
		if done, err := l.create(ctx, d, plan); err != nil || !done {
			return err
		}
	}
	sets := l.Client.AppsV1().ReplicaSets(d.Namespace)
	for _, set := range plan.Update {
		if _, err := sets.Update(ctx, set, metav1.UpdateOptions{}); err != nil {
			return fmt.Errorf("update replica set %s: %w", set.Name, err)
		}
	}
	for _, message := range plan.Events {
		l.Recorder.Event(d, v1.EventTypeNormal, "ScalingReplicaSet", message)
	}
	for _, set := range plan.Delete {
		options := metav1.DeleteOptions{Preconditions: metav1.NewUIDPreconditions(string(set.UID))}
		if err := sets.Delete(ctx, set.Name, options); err != nil && !apierrors.IsNotFound(err) {
			return fmt.Errorf("delete replica set %s: %w", set.Name, err)
		}
	}
	return l.writeStatus(ctx, d, plan.Status)
}

// claim adopts and releases sets.
func (l *Loop) claim(ctx context.Context, d *appsv1.Deployment, plan Plan) error {
	if len(plan.Adopt) > 0 {
		live, err := l.Client.AppsV1().Deployments(d.Namespace).Get(ctx, d.Name, metav1.GetOptions{})
		if err := dependents.Confirm(d, live, err); err != nil {
			return err
		}
	}
	var errs []error
	for _, set := range plan.Adopt {
		patch, err := dependents.Adoption(set, d, appsv1.SchemeGroupVersion.WithKind("Deployment"))
		if err == nil {
			err = l.patch(ctx, set, patch)
		}
		errs = append(errs, err)
	}
	for _, set := range plan.Release {
		patch, err := dependents.Release(set, d)
		if err == nil {
			err = dependents.Released(l.patch(ctx, set, patch))
		}
		errs = append(errs, err)
	}
	if err := errors.Join(errs...); err != nil {
		return err
	}
	if len(plan.Adopt) > 0 {
		// The copies in the plan are older than the adoption; decide again on what it made.
		return apierrors.NewConflict(appsv1.Resource("replicasets"), plan.Adopt[0].Name, errors.New("adopted just now"))
	}
	return nil
}

func (l *Loop) patch(ctx context.Context, set *appsv1.ReplicaSet, patch []byte) error {
	_, err := l.Client.AppsV1().ReplicaSets(set.Namespace).Patch(ctx, set.Name, types.StrategicMergePatchType, patch, metav1.PatchOptions{})
	return err
}

// create makes the planned set. done is false when the rest of the plan rests on a wrong picture.
func (l *Loop) create(ctx context.Context, d *appsv1.Deployment, plan Plan) (done bool, err error) {
	sets := l.Client.AppsV1().ReplicaSets(d.Namespace)
	_, err = sets.Create(ctx, plan.Create, metav1.CreateOptions{})
	switch {
	case err == nil:
		return true, nil
	case apierrors.HasStatusCause(err, v1.NamespaceTerminatingCause):
		return false, nil
	case apierrors.IsAlreadyExists(err):
		there, getErr := sets.Get(ctx, plan.Create.Name, metav1.GetOptions{})
		if getErr != nil {
			return false, getErr
		}
		if metav1.IsControlledBy(there, d) && templateEqual(&there.Spec.Template, &d.Spec.Template) {
			return false, nil // our own, not shown yet: its event decides again
		}
		next := *d.Status.DeepCopy()
		collisions := int32(1)
		if next.CollisionCount != nil {
			collisions += *next.CollisionCount
		}
		next.CollisionCount = &collisions
		return false, l.writeStatus(ctx, d, next)
	}
	message := fmt.Sprintf("Failed to create new replica set %q: %v", plan.Create.Name, err)
	l.Recorder.Event(d, v1.EventTypeWarning, reasonCreateError, message)
	next := *d.Status.DeepCopy()
	next.Conditions = withCondition(next.Conditions, appsv1.DeploymentProgressing, v1.ConditionFalse, reasonCreateError, message, time.Now())
	return false, errors.Join(err, l.writeStatus(ctx, d, next))
}

func (l *Loop) writeStatus(ctx context.Context, d *appsv1.Deployment, status appsv1.DeploymentStatus) error {
	if equality.Semantic.DeepEqual(d.Status, status) {
		return nil
	}
	next := d.DeepCopy()
	next.Status = status
	_, err := l.Client.AppsV1().Deployments(d.Namespace).UpdateStatus(ctx, next, metav1.UpdateOptions{})
	return dependents.Gone(err)
}
