package pods

import (
	"context"
	"fmt"
	"maps"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/podvine/podvine/agent/pods/lifecycle"
	"github.com/podvine/podvine/agent/pods/ocispec"
	"github.com/podvine/podvine/agent/pods/sandbox"
)

// ledger knows what each pod of the node was given, so that two that grow at
// once cannot take the same room.
type ledger struct {
	mu    sync.Mutex
	given map[types.UID]corev1.ResourceList // guarded by mu
}

// note writes down what a pod has.
func (l *ledger) note(uid types.UID, has corev1.ResourceList) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.given == nil {
		l.given = map[types.UID]corev1.ResourceList{}
	}
	l.given[uid] = has
}

// room is what is left for a pod.
func (l *ledger) room(uid types.UID, allocatable corev1.ResourceList) lifecycle.Room {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.roomLocked(uid, allocatable)
}

func (l *ledger) roomLocked(uid types.UID, allocatable corev1.ResourceList) lifecycle.Room {
	others := corev1.ResourceList{}
	for other, has := range l.given {
		if other == uid {
			continue
		}
		for name, q := range has {
			sum := others[name]
			sum.Add(q)
			others[name] = sum
		}
	}
	return lifecycle.Room{Allocatable: allocatable, Others: others}
}

// reserve gives a pod as much as it wants, or says why not.
func (l *ledger) reserve(uid types.UID, want, allocatable corev1.ResourceList) lifecycle.Verdict {
	l.mu.Lock()
	defer l.mu.Unlock()
	v := lifecycle.Fits(want, l.roomLocked(uid, allocatable))
	if v.Reason == "" {
		given := maps.Clone(l.given)
		if given == nil {
			given = map[types.UID]corev1.ResourceList{}
		}
		given[uid] = want
		l.given = given
	}
	return v
}

// drop forgets a pod; it reports whether the pod had anything.
func (l *ledger) drop(uid types.UID) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	_, had := l.given[uid]
	delete(l.given, uid)
	return had
}

// podLocked is the pod with the sizes that it was given.
func (w *worker) podLocked() *corev1.Pod {
	if w.rec.Given != nil {
		return w.rec.Given
	}
	return w.rec.Pod
}

// sizeLocked decides whether a newer version of the pod gets the size that it
// asks for.
func (w *worker) sizeLocked(pod *corev1.Pod) {
	before := w.rec.Resize
	had := w.podLocked()
	if !lifecycle.Resized(pod, had) {
		w.rec.Given, w.rec.Resize = nil, lifecycle.Verdict{}
		return
	}
	w.rec.Resize = w.agent.ledger.reserve(w.uid, lifecycle.Requests(pod), w.agent.allocatable())
	if w.rec.Resize.Reason == "" {
		w.rec.Given = nil
		return
	}
	w.rec.Given = lifecycle.WithSizes(pod, had)
	if before.Reason != w.rec.Resize.Reason {
		w.agent.event(pod, "", corev1.EventTypeWarning, "Resize"+w.rec.Resize.Reason, w.rec.Resize.Message)
	}
}

// retryResizes asks again for the pods that waited for room.
func (a *Agent) retryResizes() {
	for _, w := range a.all() {
		w.mu.Lock()
		waits := w.rec.Resize.Reason != ""
		if waits {
			w.sizeLocked(w.rec.Pod)
		}
		w.mu.Unlock()
		if waits {
			w.nudge()
		}
	}
}

// loosest are limits within which both sizes work. A pod's limits can change,
// but never go away.
func loosest(a, b sandbox.Limits) sandbox.Limits {
	bound := func(a, b int64) int64 {
		if a == 0 || b == 0 {
			return 0
		}
		return max(a, b)
	}
	return sandbox.Limits{
		MemoryBytes: bound(a.MemoryBytes, b.MemoryBytes), CPUQuotaMicros: bound(a.CPUQuotaMicros, b.CPUQuotaMicros),
		CPUShares: max(a.CPUShares, b.CPUShares), Pids: a.Pids,
	}
}

// resizeContainer gives a running container the size that the pod was given:
// the pod's cgroup is widened first and narrowed last.
func (w *worker) resizeContainer(ctx context.Context, name string) {
	pod := w.pod()
	spec := findContainer(pod, name)
	w.mu.Lock()
	id := w.rec.Containers[name].ID
	w.mu.Unlock()
	err := w.applySize(ctx, pod, spec, id)
	w.update(name, func(c *lifecycle.Container, r *running) {
		r.busy = lifecycle.Idle
		switch {
		case c.ID != id || ctx.Err() != nil:
		case err != nil:
			c.ResizeError, c.ResizeAt = err.Error(), time.Now().Add(lifecycle.ResizeRetryDelay)
		default:
			c.Applied, c.ResizeError, c.ResizeAt = spec.Resources.DeepCopy(), "", time.Time{}
		}
	})
	if ctx.Err() != nil {
		return
	}
	if err != nil {
		w.agent.event(pod, name, corev1.EventTypeWarning, "ResizeError", "Container resize failed: "+err.Error())
		return
	}
	if err := w.agent.cgroups.Make(w.cgroup(), ocispec.PodLimits(w.actualSize(), w.agent.cfg.PodPidsLimit)); err != nil {
		w.agent.log.Error("narrow pod after resize", "pod", pod.Namespace+"/"+pod.Name, "err", err)
	}
	w.agent.event(pod, name, corev1.EventTypeNormal, "ResizeCompleted", "Container resized")
}

func (w *worker) applySize(ctx context.Context, pod *corev1.Pod, spec *corev1.Container, id string) error {
	pids := w.agent.cfg.PodPidsLimit
	if err := w.agent.cgroups.Make(w.cgroup(), loosest(ocispec.PodLimits(w.actualSize(), pids), ocispec.PodLimits(pod, pids))); err != nil {
		return fmt.Errorf("widen pod: %w", err)
	}
	return w.agent.rt.Update(ctx, id, ocispec.Resources(spec, w.agent.host))
}

// actualSize is the pod with the sizes that its running containers have.
func (w *worker) actualSize() *corev1.Pod {
	w.mu.Lock()
	defer w.mu.Unlock()
	out := w.podLocked().DeepCopy()
	for _, list := range [][]corev1.Container{out.Spec.InitContainers, out.Spec.Containers} {
		for i := range list {
			if c := w.rec.Containers[list[i].Name]; c.Phase == lifecycle.Running && c.Applied != nil {
				list[i].Resources = *c.Applied.DeepCopy()
			}
		}
	}
	return out
}
