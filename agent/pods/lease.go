package pods

import (
	"k8s.io/apimachinery/pkg/types"

	"github.com/podvine/podvine/agent/isolation"
)

// Lease is what lets pods run that stop when their node is cut off; see package isolation. It is safe for concurrent use and answers
// at once.
type Lease interface {
	// Holds tells whether the node holds a lease under which the pod may be started.
	Holds(pod types.UID) bool
	// File has the lease's end.
	File() string
}

// leasedLocked tells whether the pod runs under a lease. Pods of files exist on their node only.
func (w *worker) leasedLocked() bool { return !w.rec.Static && isolation.Stops(w.rec.Pod.Annotations) }

// heldLocked tells whether no container may start now.
func (w *worker) heldLocked() bool {
	return w.unheard || w.leasedLocked() && (w.agent.cfg.Lease == nil || !w.agent.cfg.Lease.Holds(w.uid))
}

// Leased are the pods here that run under a lease.
func (a *Agent) Leased() (pods []PodRef) {
	for _, w := range a.all() {
		w.mu.Lock()
		leased := w.leasedLocked()
		w.mu.Unlock()
		if leased {
			pods = append(pods, w.ref())
		}
	}
	return pods
}

// LeaseChanged has the pods that run under a lease be decided on anew.
func (a *Agent) LeaseChanged() {
	for _, w := range a.all() {
		w.mu.Lock()
		leased := w.leasedLocked()
		w.mu.Unlock()
		if leased {
			w.nudge()
		}
	}
}
