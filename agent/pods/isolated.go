package pods

import (
	"context"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/podvine/podvine/agent/isolation"
	"github.com/podvine/podvine/agent/pods/lifecycle"
)

const (
	// isolatedReason is why a container ended whose node was cut off, and of the event that says so.
	isolatedReason  = "NodeIsolated"
	isolatedMessage = "the node had not heard from the cluster's leader for %v, and the pod has the annotation " + isolation.Annotation + ": " + isolation.Stop
	// isolatedRetry is between two questions whether the node is heard again.
	isolatedRetry = time.Second
)

// tellIsolatedLocked says why a container of the pod ended, if its shim ended it because the node was cut off: in its status, and once a pod by
// an event, when the node is heard again.
func (w *worker) tellIsolatedLocked(c *lifecycle.Container) {
	if c.Reason != isolatedReason {
		return
	}
	message := fmt.Sprintf(isolatedMessage, isolation.Lease)
	if c.Message == "" {
		c.Message = message
	}
	if w.telling || w.agent.ctx == nil {
		return
	}
	w.telling = true
	w.agent.group.Go(func() {
		if w.agent.heardAgain(w.agent.ctx, w.ref()) {
			w.agent.event(w.pod(), "", corev1.EventTypeWarning, isolatedReason, message)
		}
		w.mu.Lock()
		w.telling = false
		w.mu.Unlock()
	})
}

// heardAgain waits until the API answers; false is that the agent ends before.
func (a *Agent) heardAgain(ctx context.Context, ref PodRef) bool {
	if a.cfg.Confirm == nil {
		return true
	}
	ticker := time.NewTicker(isolatedRetry)
	defer ticker.Stop()
	for {
		if heard, err := a.confirm(ctx, ref); err == nil && (heard == Confirmed || heard == Gone) {
			return true
		}
		select {
		case <-ctx.Done():
			return false
		case <-ticker.C:
		}
	}
}
