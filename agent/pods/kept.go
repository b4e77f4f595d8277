package pods

import (
	"context"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/podvine/podvine/agent/pods/lifecycle"
)

const (
	// keptWait is how long the pods that are to start from this machine's disk wait for the API to say that they are the node's still;
	// exclusiveWait is for those whose identity another may have taken. Then they start all the same: a pod needs nobody.
	keptWait      = 5 * time.Second
	exclusiveWait = 30 * time.Second
	// keptRetry is between two questions, keptTimeout bounds one, and maxKeptQuestions those at a time.
	keptRetry        = 250 * time.Millisecond
	keptTimeout      = 3 * time.Second
	maxKeptQuestions = 8
)

// Confirmation is what the API says of a pod of this machine's disk.
type Confirmation int

const (
	// Unconfirmed: nobody could be asked, or nobody who must know.
	Unconfirmed Confirmation = iota
	// Stale: a copy of the records that may be out of date has the pod.
	Stale
	// Confirmed: the pod is this node's.
	Confirmed
	// Gone: it is not, or is about to go. The watch of pods ends it.
	Gone
)

// exclusive tells whether another pod may have the identity of this one, which must not exist twice.
func exclusive(pod *corev1.Pod) bool {
	owner := metav1.GetControllerOf(pod)
	return owner != nil && owner.Kind == "StatefulSet"
}

// mayStart decides on a pod that was kept on disk, from what was heard of it and how long it waits. Pure.
func mayStart(exclusive bool, heard Confirmation, waited time.Duration) bool {
	switch {
	case heard == Confirmed, heard == Stale && !exclusive:
		return true
	case heard == Gone:
		return false
	case exclusive:
		return waited >= exclusiveWait
	}
	return waited >= keptWait
}

// runsLocked tells whether any container of the pod runs.
func (w *worker) runsLocked() bool {
	for _, c := range w.rec.Containers {
		if c.Phase == lifecycle.Running {
			return true
		}
	}
	return false
}

// askForKept asks, for each pod that waits, whether it is this node's still, until all have been answered.
func (a *Agent) askForKept(ctx context.Context) {
	begun := time.Now()
	var group sync.WaitGroup
	defer group.Wait()
	slots := make(chan struct{}, maxKeptQuestions)
	for _, w := range a.all() {
		w.mu.Lock()
		unheard := w.unheard
		w.mu.Unlock()
		if unheard {
			group.Go(func() { a.askFor(ctx, w, begun, slots) })
		}
	}
}

func (a *Agent) askFor(ctx context.Context, w *worker, begun time.Time, slots chan struct{}) {
	ticker := time.NewTicker(keptRetry)
	defer ticker.Stop()
	ref := w.ref()
	for {
		slots <- struct{}{}
		heard, err := a.confirm(ctx, ref)
		<-slots
		if mayStart(exclusive(w.pod()), heard, time.Since(begun)) {
			if heard == Unconfirmed {
				a.log.Warn("start a pod from this machine's disk: nobody could be asked whether it is this node's still", "pod", ref.Namespace+"/"+ref.Name, "error", err)
			}
			w.heard()
			return
		}
		if heard == Gone {
			a.log.Info("do not start a pod from this machine's disk: it is this node's no more", "pod", ref.Namespace+"/"+ref.Name)
			return
		}
		select {
		case <-ctx.Done():
			return
		case <-w.gone:
			return
		case <-ticker.C:
		}
	}
}

func (a *Agent) confirm(ctx context.Context, ref PodRef) (Confirmation, error) {
	ctx, cancel := context.WithTimeout(ctx, keptTimeout)
	defer cancel()
	return a.cfg.Confirm(ctx, ref)
}

func (w *worker) heard() {
	w.mu.Lock()
	w.unheard = false
	w.mu.Unlock()
	w.nudge()
}

// Answer makes a Confirmation of the node's pod of that name, as the API answered it; nil is none.
func Answer(ref PodRef, pod *corev1.Pod, stale bool) Confirmation {
	var same types.UID
	if pod != nil {
		same = pod.UID
	}
	switch is := same == ref.UID && pod.DeletionTimestamp == nil; {
	case is && stale:
		return Stale
	case is:
		return Confirmed
	case stale:
		return Unconfirmed // what is newer than the copy may be what is here
	}
	return Gone
}
