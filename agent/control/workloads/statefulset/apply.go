package statefulset

import (
	"context"
	"errors"
	"strings"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/podvine/podvine/agent/control/workloads/dependents"
)

// apply carries a plan out. Any error leaves the rest to the next decision, but for the status, which tells what is.
func (l *Loop) apply(ctx context.Context, set *appsv1.StatefulSet, plan Plan) error {
	live := func() (metav1.Object, error) {
		return l.Client.AppsV1().StatefulSets(set.Namespace).Get(ctx, set.Name, metav1.GetOptions{})
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
	failure := l.change(ctx, set, plan)
	if err := l.writeStatus(ctx, set, plan.Status); err != nil || failure != nil {
		return errors.Join(failure, err)
	}
	return revisions.Delete(ctx, plan.DeleteRevisions)
}

// change writes claims and pods. A claim is brought under its owner before the pod goes that it shall end with.
func (l *Loop) change(ctx context.Context, set *appsv1.StatefulSet, plan Plan) error {
	claims := l.Client.CoreV1().PersistentVolumeClaims(set.Namespace)
	for _, claim := range plan.UpdateClaims {
		if _, err := claims.Update(ctx, claim, metav1.UpdateOptions{}); dependents.Gone(err) != nil {
			l.tellClaim(set, "Update", claim.Name, err)
			return err
		}
	}
	err := dependents.InBatches(len(plan.CreateClaims), func(i int) error { return l.createClaim(ctx, set, plan.CreateClaims[i]) })
	if err != nil {
		return err
	}
	for _, pod := range plan.Update {
		_, err := l.Client.CoreV1().Pods(pod.Namespace).Update(ctx, pod, metav1.UpdateOptions{})
		l.tell(set, "Update", "Pod "+pod.Name, err)
		if dependents.Gone(err) != nil {
			return err
		}
	}
	errs := make([]error, len(plan.Delete))
	dependents.Parallel(len(plan.Delete), func(i int) { errs[i] = l.deletePod(ctx, set, plan.Delete[i]) })
	createErr := dependents.InBatches(len(plan.Create), func(i int) error { return l.createPod(ctx, set, plan.Create[i]) })
	return errors.Join(append(errs, createErr)...)
}

// tell records what was done, in Kubernetes' words.
func (l *Loop) tell(set *appsv1.StatefulSet, verb, object string, err error) {
	lower := strings.ToLower(verb)
	if err != nil {
		l.Recorder.Eventf(set, v1.EventTypeWarning, "Failed"+verb, "%s %s in StatefulSet %s failed error: %s", lower, object, set.Name, err)
		return
	}
	l.Recorder.Eventf(set, v1.EventTypeNormal, "Successful"+verb, "%s %s in StatefulSet %s successful", lower, object, set.Name)
}

// tellClaim is tell for a claim.
func (l *Loop) tellClaim(set *appsv1.StatefulSet, verb, claim string, err error) {
	lower, pod := strings.ToLower(verb), podOfClaim(set, claim)
	if err != nil {
		l.Recorder.Eventf(set, v1.EventTypeWarning, "Failed"+verb, "%s Claim %s for Pod %s in StatefulSet %s failed error: %s", lower, claim, pod, set.Name, err)
		return
	}
	l.Recorder.Eventf(set, v1.EventTypeNormal, "Successful"+verb, "%s Claim %s Pod %s in StatefulSet %s success", lower, claim, pod, set.Name)
}

// made is the error of a creation under a fixed name, nil where the object is there already or its namespace ends.
func made(err error) error {
	if apierrors.IsAlreadyExists(err) || apierrors.HasStatusCause(err, v1.NamespaceTerminatingCause) {
		return nil
	}
	return err
}

func (l *Loop) createClaim(ctx context.Context, set *appsv1.StatefulSet, claim *v1.PersistentVolumeClaim) error {
	_, err := l.Client.CoreV1().PersistentVolumeClaims(claim.Namespace).Create(ctx, claim, metav1.CreateOptions{})
	if err == nil || made(err) != nil {
		l.tellClaim(set, "Create", claim.Name, err)
	}
	return made(err)
}

func (l *Loop) createPod(ctx context.Context, set *appsv1.StatefulSet, pod *v1.Pod) error {
	_, err := l.Client.CoreV1().Pods(pod.Namespace).Create(ctx, pod, metav1.CreateOptions{})
	if err == nil || made(err) != nil {
		l.tell(set, "Create", "Pod "+pod.Name, err)
	}
	return made(err)
}

func (l *Loop) deletePod(ctx context.Context, set *appsv1.StatefulSet, r Removal) error {
	switch r.Reason {
	case "RecreatingFailedPod":
		l.Recorder.Eventf(set, v1.EventTypeWarning, r.Reason, "StatefulSet %s/%s is recreating failed Pod %s", set.Namespace, set.Name, r.Pod.Name)
	case "RecreatingTerminatedPod":
		l.Recorder.Eventf(set, v1.EventTypeNormal, r.Reason, "StatefulSet %s/%s is recreating terminated Pod %s", set.Namespace, set.Name, r.Pod.Name)
	}
	options := metav1.DeleteOptions{Preconditions: metav1.NewUIDPreconditions(string(r.Pod.UID))}
	if r.Exact {
		options.Preconditions.ResourceVersion = &r.Pod.ResourceVersion
	}
	err := l.Client.CoreV1().Pods(r.Pod.Namespace).Delete(ctx, r.Pod.Name, options)
	switch {
	case apierrors.IsNotFound(err):
		return nil
	case apierrors.IsConflict(err):
		return err // it changed; what to do with it is decided anew
	}
	l.tell(set, "Delete", "Pod "+r.Pod.Name, err)
	if err == nil {
		l.Pending.Deleted(set.UID, r.Pod.UID, time.Now())
	}
	return err
}

func (l *Loop) writeStatus(ctx context.Context, set *appsv1.StatefulSet, status appsv1.StatefulSetStatus) error {
	if equality.Semantic.DeepEqual(set.Status, status) {
		return nil
	}
	next := set.DeepCopy()
	next.Status = status
	_, err := l.Client.AppsV1().StatefulSets(set.Namespace).UpdateStatus(ctx, next, metav1.UpdateOptions{})
	return dependents.Gone(err)
}
