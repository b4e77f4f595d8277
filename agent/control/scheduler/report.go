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

// report is what a user shall be told about a pod that waits.
type report struct {
	pod     *v1.Pod
	refusal *Refusal
	at      time.Time
}

// refused puts the pod back and hands its reason to the report workers.
func (s *session) refused(ctx context.Context, d Decision, now time.Time) {
	s.mu.Lock()
	tell := s.queue.Refused(d.Pod.UID(), d.Refused, now, reportEveryMinutes*time.Minute)
	s.mu.Unlock()
	if !tell {
		return
	}
	select {
	case s.reports <- report{d.Pod.Object, d.Refused, now}:
	case <-ctx.Done():
	}
}

// report is a worker that writes conditions and events.
func (s *session) report(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case r := <-s.reports:
			if r.refusal.Reason != v1.PodReasonSchedulingGated { // a gate is its owner's business, not an event
				s.recorder.Eventf(r.pod, nil, v1.EventTypeWarning, "FailedScheduling", "Scheduling", "%s", note(r.refusal.Message))
			}
			if err := s.writeCondition(ctx, r); err != nil && ctx.Err() == nil && !apierrors.IsNotFound(err) {
				s.cfg.Logger.Warn("write condition", "pod", r.pod.Namespace+"/"+r.pod.Name, "err", err)
			}
		}
	}
}

func note(message string) string {
	if len(message) > maxEventBytes {
		return message[:maxEventBytes-4] + " ..."
	}
	return message
}

// writeCondition patches PodScheduled to False unless it says so already.
func (s *session) writeCondition(ctx context.Context, r report) error {
	condition, changed := scheduledCondition(r.pod, r.refusal, r.at)
	if !changed {
		return nil
	}
	patch, err := json.Marshal(map[string]any{
		"metadata": map[string]any{"uid": r.pod.UID},
		"status":   map[string]any{"conditions": []v1.PodCondition{condition}},
	})
	if err != nil {
		return fmt.Errorf("encode condition: %w", err)
	}
	_, err = s.cfg.Client.CoreV1().Pods(r.pod.Namespace).Patch(ctx, r.pod.Name, types.StrategicMergePatchType, patch,
		metav1.PatchOptions{}, "status")
	if err != nil {
		return fmt.Errorf("patch condition: %w", err)
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
