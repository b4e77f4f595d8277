package deployment

import (
	"fmt"
	"math"
	"slices"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/podvine/podvine/agent/control/workloads/pods"
)

// Reasons of conditions; kubectl rollout status reads some of them.
const (
	reasonCreated     = "NewReplicaSetCreated"
	reasonFound       = "FoundNewReplicaSet"
	reasonUpdated     = "ReplicaSetUpdated"
	reasonAvailable   = "NewReplicaSetAvailable"
	reasonTimedOut    = "ProgressDeadlineExceeded"
	reasonPaused      = "DeploymentPaused"
	reasonResumed     = "DeploymentResumed"
	reasonCreateError = "ReplicaSetCreateError"
	reasonEnough      = "MinimumReplicasAvailable"
	reasonNotEnough   = "MinimumReplicasUnavailable"
)

// deadline tells whether progress is watched at all.
func deadline(d *appsv1.Deployment) bool {
	return pods.Value(d.Spec.ProgressDeadlineSeconds, math.MaxInt32) != math.MaxInt32
}

func condition(conditions []appsv1.DeploymentCondition, kind appsv1.DeploymentConditionType) *appsv1.DeploymentCondition {
	for i := range conditions {
		if conditions[i].Type == kind {
			return &conditions[i]
		}
	}
	return nil
}

func without(conditions []appsv1.DeploymentCondition, kind appsv1.DeploymentConditionType) []appsv1.DeploymentCondition {
	return slices.DeleteFunc(slices.Clone(conditions), func(c appsv1.DeploymentCondition) bool { return c.Type == kind })
}

// set puts a condition unless one of the same status and reason is there.
func (r *rollout) set(kind appsv1.DeploymentConditionType, status v1.ConditionStatus, reason, message string) {
	r.status.Conditions = withCondition(r.status.Conditions, kind, status, reason, message, r.now)
}

func withCondition(conditions []appsv1.DeploymentCondition, kind appsv1.DeploymentConditionType, status v1.ConditionStatus,
	reason, message string, now time.Time) []appsv1.DeploymentCondition {
	old := condition(conditions, kind)
	if old != nil && old.Status == status && old.Reason == reason {
		return conditions
	}
	next := appsv1.DeploymentCondition{Type: kind, Status: status, Reason: reason, Message: message,
		LastUpdateTime: metav1.NewTime(now), LastTransitionTime: metav1.NewTime(now)}
	if old != nil && old.Status == status {
		next.LastTransitionTime = old.LastTransitionTime
	}
	return append(without(conditions, kind), next)
}

func (r *rollout) progress(status v1.ConditionStatus, reason, message string) {
	r.set(appsv1.DeploymentProgressing, status, reason, message)
}

// notePause stops the clock of the progress deadline while the Deployment is paused.
func (r *rollout) notePause() {
	if !deadline(r.d) {
		return
	}
	old := condition(r.status.Conditions, appsv1.DeploymentProgressing)
	if old != nil && old.Reason == reasonTimedOut {
		return
	}
	paused := old != nil && old.Reason == reasonPaused
	switch {
	case r.d.Spec.Paused && !paused:
		r.progress(v1.ConditionUnknown, reasonPaused, "Deployment is paused")
	case !r.d.Spec.Paused && paused:
		r.progress(v1.ConditionUnknown, reasonResumed, "Deployment is resumed")
	}
}

// complete: all that is wanted runs the current template and is available.
func complete(d *appsv1.Deployment, s *appsv1.DeploymentStatus) bool {
	want := wanted(d)
	return s.UpdatedReplicas == want && s.Replicas == want && s.AvailableReplicas == want && s.ObservedGeneration >= d.Generation
}

// finish counts the sets into the status; judge says whether progress is judged, which it is not while the
// Deployment is paused or resized.
func (r *rollout) finish(judge bool) {
	s := &r.status
	all := r.counted()
	s.ObservedGeneration = r.d.Generation
	s.Replicas = sum(all, func(x *appsv1.ReplicaSet) int32 { return x.Status.Replicas })
	s.ReadyReplicas = sum(all, func(x *appsv1.ReplicaSet) int32 { return x.Status.ReadyReplicas })
	s.AvailableReplicas = sum(all, available)
	s.UnavailableReplicas = max(0, sum(all, replicas)-s.AvailableReplicas)
	terminating := sum(all, func(x *appsv1.ReplicaSet) int32 { return pods.Value(x.Status.TerminatingReplicas, 0) })
	s.TerminatingReplicas = &terminating
	s.UpdatedReplicas = 0
	if r.current != nil {
		s.UpdatedReplicas = r.current.Status.Replicas
	}
	if _, unavailable := fences(r.d); s.AvailableReplicas >= wanted(r.d)-unavailable {
		r.set(appsv1.DeploymentAvailable, v1.ConditionTrue, reasonEnough, "Deployment has minimum availability.")
	} else {
		r.set(appsv1.DeploymentAvailable, v1.ConditionFalse, reasonNotEnough, "Deployment does not have minimum availability.")
	}
	if judge {
		r.judge()
		r.reportFailures()
		r.plan.Again = r.untilDeadline()
	}
	r.plan.Status = r.status
}

// counted are the sets that exist.
func (r *rollout) counted() []*appsv1.ReplicaSet {
	return slices.DeleteFunc(r.all(), func(s *appsv1.ReplicaSet) bool { return s == nil })
}

// judge says in the Progressing condition whether the rollout is over, moves, or is stuck.
func (r *rollout) judge() {
	if !deadline(r.d) {
		r.status.Conditions = without(r.status.Conditions, appsv1.DeploymentProgressing)
		return
	}
	current := condition(r.status.Conditions, appsv1.DeploymentProgressing)
	if r.status.Replicas == r.status.UpdatedReplicas && current != nil && current.Reason == reasonAvailable {
		return // over; later scaling or failures do not reopen it
	}
	subject := fmt.Sprintf("Deployment %q", r.d.Name)
	if r.current != nil {
		subject = fmt.Sprintf("ReplicaSet %q", r.current.Name)
	}
	switch {
	case complete(r.d, &r.status):
		r.progress(v1.ConditionTrue, reasonAvailable, subject+" has successfully progressed.")
	case r.moved():
		next := appsv1.DeploymentCondition{Type: appsv1.DeploymentProgressing, Status: v1.ConditionTrue, Reason: reasonUpdated,
			Message: subject + " is progressing.", LastUpdateTime: metav1.NewTime(r.now), LastTransitionTime: metav1.NewTime(r.now)}
		if current != nil && current.Status == v1.ConditionTrue {
			next.LastTransitionTime = current.LastTransitionTime
		}
		// Every move counts anew for the deadline, so the condition is replaced even if it says the same.
		r.status.Conditions = append(without(r.status.Conditions, appsv1.DeploymentProgressing), next)
	case r.timedOut(current):
		r.progress(v1.ConditionFalse, reasonTimedOut, subject+" has timed out progressing.")
	}
}

// moved tells whether the rollout came further since the status was written last.
func (r *rollout) moved() bool {
	old, s := &r.d.Status, &r.status
	return s.UpdatedReplicas > old.UpdatedReplicas || s.Replicas-s.UpdatedReplicas < old.Replicas-old.UpdatedReplicas ||
		s.ReadyReplicas > old.ReadyReplicas || s.AvailableReplicas > old.AvailableReplicas
}

func (r *rollout) timedOut(current *appsv1.DeploymentCondition) bool {
	switch {
	case current == nil || current.Reason == reasonAvailable:
		return false
	case current.Reason == reasonTimedOut:
		return true
	}
	limit := time.Duration(*r.d.Spec.ProgressDeadlineSeconds) * time.Second
	return r.now.After(current.LastUpdateTime.Add(limit))
}

// untilDeadline is when to look again whether the rollout is stuck.
func (r *rollout) untilDeadline() time.Duration {
	current := condition(r.status.Conditions, appsv1.DeploymentProgressing)
	if !deadline(r.d) || current == nil || complete(r.d, &r.status) || current.Reason == reasonTimedOut || current.Reason == reasonAvailable {
		return 0
	}
	limit := time.Duration(*r.d.Spec.ProgressDeadlineSeconds) * time.Second
	return max(0, current.LastUpdateTime.Add(limit).Sub(r.now)) + time.Second
}

// reportFailures passes on that pods cannot be made: the current set's failure, or else any.
func (r *rollout) reportFailures() {
	r.status.Conditions = without(r.status.Conditions, appsv1.DeploymentReplicaFailure)
	for _, set := range append([]*appsv1.ReplicaSet{r.current}, r.old...) {
		if set == nil {
			continue
		}
		for _, c := range set.Status.Conditions {
			if c.Type == appsv1.ReplicaSetReplicaFailure {
				r.status.Conditions = append(r.status.Conditions, appsv1.DeploymentCondition{
					Type: appsv1.DeploymentReplicaFailure, Status: c.Status, Reason: c.Reason, Message: c.Message,
					LastTransitionTime: c.LastTransitionTime, LastUpdateTime: c.LastTransitionTime})
				return
			}
		}
	}
}
