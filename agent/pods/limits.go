package pods

import (
	"context"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/podvine/podvine/agent/pods/lifecycle"
	"github.com/podvine/podvine/agent/pods/volumes"
)

// volumeCheckPeriod is how often volumes with a size limit are measured.
const volumeCheckPeriod = 10 * time.Second

// limitVolumes evicts pods whose emptyDirs have outgrown their limit.
func (a *Agent) limitVolumes(ctx context.Context) {
	t := time.NewTicker(volumeCheckPeriod)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-t.C:
		}
		for _, w := range a.all() {
			w.checkVolumes()
		}
	}
}

// checkVolumes ends the pod when one of its volumes holds too much.
func (w *worker) checkVolumes() {
	limited := false
	pod := w.pod()
	for i := range pod.Spec.Volumes {
		limited = limited || volumes.Limited(&pod.Spec.Volumes[i])
	}
	if !limited {
		return
	}
	name, limit := volumes.OverLimit(w.volumes())
	if name == "" {
		return
	}
	why := &lifecycle.Rejection{Reason: "Evicted", Message: fmt.Sprintf("Usage of EmptyDir volume %q exceeds the limit %q. ", name, limit)}
	w.mu.Lock()
	first := w.shutdown == nil
	w.shutdown = why
	w.mu.Unlock()
	if first {
		w.agent.event(pod, "", corev1.EventTypeWarning, why.Reason, why.Message)
		w.nudge()
	}
}
