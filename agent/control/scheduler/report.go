package scheduler

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	v1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

// maxEventBytes is the longest note that an event may have.
const maxEventBytes = 1024

// report is what a user shall be told about a pod that waits, and what is done for it.
type report struct {
	pod     *v1.Pod
	refusal *Refusal
	at      time.Time
	// tell: the reason is new, or was told long ago.
	tell bool
}

// refused puts the pod back and hands its reason to the report workers.
func (s *session) refused(ctx context.Context, d Decision, now time.Time) {
	uid, r := d.Pod.UID(), d.Refused
	if r.Withdraw {
		s.cache.Withdraw(uid)
	}
	if p := r.Preemption; p != nil {
		s.metrics.preempted(len(p.Victims))
		s.cache.Nominate(d.Pod, p.Node)
		for _, victim := range p.Victims {
			s.cache.SetEvicting(victim.UID(), true)
		}
		for _, other := range p.Displaced {
			s.cache.Withdraw(other.UID())
		}
	}
	s.mu.Lock()
	tell := s.queue.Refused(uid, r, now, reportEveryMinutes*time.Minute)
	s.mu.Unlock()
	if !tell && r.Preemption == nil && !r.Withdraw {
		return
	}
	select {
	case s.reports <- report{d.Pod.Object, r, now, tell}:
	case <-ctx.Done():
	}
}

// report is a worker that writes conditions and events, and evicts.
func (s *session) report(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case r := <-s.reports:
			// A gate is its owner's business, not an event.
			if r.tell && r.refusal.Reason != v1.PodReasonSchedulingGated {
				s.recorder.Eventf(r.pod, nil, v1.EventTypeWarning, "FailedScheduling", "Scheduling", "%s", note(r.refusal.Message))
			}
			if err := s.writeStatus(ctx, r); err != nil && ctx.Err() == nil && !apierrors.IsNotFound(err) {
				s.cfg.Logger.Warn("write condition", "pod", r.pod.Namespace+"/"+r.pod.Name, "err", err)
			}
			if p := r.refusal.Preemption; p != nil {
				s.preempt(ctx, r.pod, p)
			}
		}
	}
}

// preempt evicts the victims. When one cannot be evicted, the pod is tried again after its back-off.
func (s *session) preempt(ctx context.Context, pod *v1.Pod, p *Preemption) {
	for _, victim := range p.Victims {
		err := s.evict(ctx, pod, victim.Object, p.Node)
		if err == nil || ctx.Err() != nil {
			continue
		}
		s.cfg.Logger.Warn("preempt", "pod", pod.Namespace+"/"+pod.Name, "node", p.Node, "err", err)
		s.cache.SetEvicting(victim.UID(), false)
		s.change(func(time.Time) { s.queue.Retry(pod.UID) })
	}
	for _, other := range p.Displaced {
		err := s.patchStatus(ctx, other.Object, map[string]any{"nominatedNodeName": nil})
		if err != nil && ctx.Err() == nil && !apierrors.IsNotFound(err) {
			s.cfg.Logger.Warn("withdraw nomination", "pod", other.Object.Namespace+"/"+other.Object.Name, "err", err)
		}
		s.change(func(time.Time) { s.queue.Retry(other.UID()) })
	}
}

// evict says why on the victim and deletes it. A victim that is gone, or goes already, is one evicted.
func (s *session) evict(ctx context.Context, preemptor, victim *v1.Pod, node string) error {
	if victim.DeletionTimestamp != nil {
		return nil
	}
	condition := v1.PodCondition{Type: v1.DisruptionTarget, Status: v1.ConditionTrue, Reason: v1.PodReasonPreemptionByScheduler,
		Message:            s.cfg.Name + ": preempting to accommodate a higher priority pod",
		LastTransitionTime: metav1.Now(), ObservedGeneration: victim.Generation}
	err := s.patchStatus(ctx, victim, map[string]any{"conditions": []v1.PodCondition{condition}})
	if err == nil {
		err = s.cfg.Client.CoreV1().Pods(victim.Namespace).Delete(ctx, victim.Name, metav1.DeleteOptions{
			Preconditions: &metav1.Preconditions{UID: &victim.UID}})
	}
	switch {
	case apierrors.IsNotFound(err) || apierrors.IsConflict(err):
		return nil
	case err != nil:
		return fmt.Errorf("evict pod %s/%s: %w", victim.Namespace, victim.Name, err)
	}
	s.recorder.Eventf(victim, preemptor, v1.EventTypeNormal, "Preempted", "Preempting", "Preempted by pod %v on node %v", preemptor.UID, node)
	return nil
}

func note(message string) string {
	if len(message) > maxEventBytes {
		return message[:maxEventBytes-4] + " ..."
	}
	return message
}

// writeStatus patches PodScheduled to False unless it says so already, and the node that the pod is nominated for.
func (s *session) writeStatus(ctx context.Context, r report) error {
	status := map[string]any{}
	if condition, changed := scheduledCondition(r.pod, r.refusal, r.at); changed {
		status["conditions"] = []v1.PodCondition{condition}
	}
	switch {
	case r.refusal.Preemption != nil:
		status["nominatedNodeName"] = r.refusal.Preemption.Node
	case r.refusal.Withdraw:
		status["nominatedNodeName"] = nil
	}
	if len(status) == 0 {
		return nil
	}
	return s.patchStatus(ctx, r.pod, status)
}

func (s *session) patchStatus(ctx context.Context, pod *v1.Pod, status map[string]any) error {
	patch, err := json.Marshal(map[string]any{"metadata": map[string]any{"uid": pod.UID}, "status": status})
	if err != nil {
		return fmt.Errorf("encode status: %w", err)
	}
	_, err = s.cfg.Client.CoreV1().Pods(pod.Namespace).Patch(ctx, pod.Name, types.StrategicMergePatchType, patch,
		metav1.PatchOptions{}, "status")
	if err != nil {
		return fmt.Errorf("patch status of pod %s/%s: %w", pod.Namespace, pod.Name, err)
	}
	return nil
}

// scheduledCondition is the pod's PodScheduled condition after the refusal, and whether it differs from now.
func scheduledCondition(pod *v1.Pod, refusal *Refusal, now time.Time) (v1.PodCondition, bool) {
	condition := v1.PodCondition{Type: v1.PodScheduled, Status: v1.ConditionFalse, Reason: refusal.Reason,
		Message: refusal.Message, LastTransitionTime: metav1.NewTime(now)}
	if pod.Generation > 0 {
		condition.ObservedGeneration = pod.Generation
	}
	for _, old := range pod.Status.Conditions {
		if old.Type != v1.PodScheduled {
			continue
		}
		if old.Status == condition.Status {
			condition.LastTransitionTime = old.LastTransitionTime
			return condition, old.Reason != condition.Reason || old.Message != condition.Message ||
				old.ObservedGeneration != condition.ObservedGeneration
		}
	}
	return condition, true
}
