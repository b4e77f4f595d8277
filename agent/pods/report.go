package pods

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/strategicpatch"
)

const (
	// apiTimeout bounds one call of the API.
	apiTimeout = 10 * time.Second
	// maxReportDelay is the longest wait between tries to report a status.
	maxReportDelay   = 10 * time.Second
	firstReportDelay = 250 * time.Millisecond
)

func (w *worker) reportedLocked() bool {
	return w.rec.Reported != nil && equality.Semantic.DeepEqual(*w.rec.Reported, w.rec.Status)
}

func (w *worker) failedLocked() {
	w.fails++
	delay := firstReportDelay << min(w.fails, 8)
	w.reportAt = time.Now().Add(min(delay, maxReportDelay))
}

// reportLocked sends the status to the API when it changed; one report is under
// way at a time, and the newest status wins. It returns when to try again.
func (w *worker) reportLocked(ctx context.Context) time.Time {
	if w.reporting {
		return time.Time{}
	}
	pod := w.audienceLocked()
	if pod == nil || w.reportedLocked() {
		return time.Time{}
	}
	if time.Now().Before(w.reportAt) {
		return w.reportAt
	}
	w.reporting = true
	status := *w.rec.Status.DeepCopy()
	base := pod.Status
	if w.rec.Reported != nil {
		base = *w.rec.Reported
	}
	w.effect(func() {
		err := w.agent.patchStatus(ctx, pod, base, status)
		w.mu.Lock()
		defer w.mu.Unlock()
		w.reporting = false
		switch {
		case err == nil, nobody(err):
			w.fails, w.reportAt, w.rec.Reported = 0, time.Time{}, &status
		case ctx.Err() == nil:
			w.failedLocked()
			if w.fails == 1 {
				w.agent.log.Warn("report pod status", "pod", pod.Namespace+"/"+pod.Name, "err", err)
			}
		}
	})
	return time.Time{}
}

// nobody tells whether a report found its pod gone, be it that a namesake stands in its place: the API says of that only
// that the UID in the report is not to be changed.
func nobody(err error) bool {
	if apierrors.IsNotFound(err) {
		return true
	}
	var status apierrors.APIStatus
	if !apierrors.IsInvalid(err) || !errors.As(err, &status) || status.Status().Details == nil {
		return false
	}
	return slices.ContainsFunc(status.Status().Details.Causes, func(c metav1.StatusCause) bool { return c.Field == "metadata.uid" })
}

func (a *Agent) patchStatus(ctx context.Context, pod *corev1.Pod, base, status corev1.PodStatus) error {
	body := func(s corev1.PodStatus) ([]byte, error) {
		return json.Marshal(&corev1.Pod{ObjectMeta: metav1.ObjectMeta{UID: pod.UID}, Status: s})
	}
	was, err := body(base)
	if err != nil {
		return fmt.Errorf("encode status: %w", err)
	}
	now, err := body(status)
	if err != nil {
		return fmt.Errorf("encode status: %w", err)
	}
	patch, err := strategicpatch.CreateTwoWayMergePatch(was, now, &corev1.Pod{})
	if err != nil {
		return fmt.Errorf("compare statuses: %w", err)
	}
	if string(patch) == "{}" {
		return nil
	}
	var m map[string]any
	if err := json.Unmarshal(patch, &m); err != nil {
		return fmt.Errorf("compare statuses: %w", err)
	}
	// The UID makes the API refuse to touch a namesake.
	m["metadata"] = map[string]any{"uid": string(pod.UID)}
	if patch, err = json.Marshal(m); err != nil {
		return fmt.Errorf("encode status: %w", err)
	}
	pctx, cancel := context.WithTimeout(ctx, apiTimeout)
	defer cancel()
	_, err = a.cfg.Client.CoreV1().Pods(pod.Namespace).Patch(pctx, pod.Name, types.StrategicMergePatchType, patch, metav1.PatchOptions{}, "status")
	return err
}
