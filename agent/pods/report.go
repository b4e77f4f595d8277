package pods

import (
	"context"
	"time"

	"k8s.io/apimachinery/pkg/api/equality"

	"github.com/podvine/podvine/agent/pods/nodeclient"
)

const (
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
		err := nodeclient.Report(ctx, w.agent.cfg.Client, pod, base, status)
		w.mu.Lock()
		defer w.mu.Unlock()
		w.reporting = false
		switch {
		case err == nil, nodeclient.Gone(err):
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
