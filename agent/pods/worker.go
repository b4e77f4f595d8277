package pods

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/podvine/podvine/agent/phase"
	"github.com/podvine/podvine/agent/pods/environ"
	"github.com/podvine/podvine/agent/pods/lifecycle"
	"github.com/podvine/podvine/agent/pods/objects"
	"github.com/podvine/podvine/agent/pods/sandbox"
	"github.com/podvine/podvine/agent/pods/shim/stream"
	"github.com/podvine/podvine/agent/pods/volumes"
)

// podKind is the vault's name for pod records.
const podKind = "pods"

// podRecord is what is kept on disk of a pod.
type podRecord struct {
	Pod        *corev1.Pod                    `json:"pod"`
	Containers map[string]lifecycle.Container `json:"containers,omitempty"`
	IPs        []string                       `json:"ips,omitempty"`
	Prepared   bool                           `json:"prepared,omitempty"`
	StartTime  time.Time                      `json:"startTime"`
	// Given is the pod with the sizes that it has, while the node has no room for
	// those that Pod asks for; Resize says why.
	Given  *corev1.Pod       `json:"given,omitempty"`
	Resize lifecycle.Verdict `json:"resize,omitzero"`
	// Status as last decided, and as last acknowledged by the API.
	Status   corev1.PodStatus  `json:"status"`
	Reported *corev1.PodStatus `json:"reported,omitempty"`
	// Services that the environment was built from.
	Services []*corev1.Service    `json:"services,omitempty"`
	Rejected *lifecycle.Rejection `json:"rejected,omitempty"`
	// Static: the pod comes from a file, and the API has a picture of it only.
	Static bool `json:"static,omitempty"`
	// InitPID holds the shared PID namespace's container.
	InitID  string `json:"initID,omitempty"`
	InitPid uint32 `json:"initPid,omitempty"`
	// FirstID begins the host's IDs of the pod's user namespace.
	FirstID uint32 `json:"firstID,omitempty"`
	// Handler is what the pod's RuntimeClass names, once that is known.
	Handler *string `json:"handler,omitempty"`
}

// worker runs one pod.
type worker struct {
	agent *Agent
	uid   types.UID
	wake  chan struct{} // capacity 1: decide again
	gone  chan struct{} // closed when the pod is finished with
	ops   sync.WaitGroup
	seen  time.Time // when this agent first saw the pod

	mu sync.Mutex
	// All below is guarded by mu.
	rec       podRecord
	paths     sandbox.Paths
	sandbox   lifecycle.Sandbox
	run       map[string]*running
	reporting bool
	reportAt  time.Time
	fails     int
	finished  bool
	shutdown  *lifecycle.Rejection
	// shutdownGrace is what containers get at a shutdown, nil for the usual.
	shutdownGrace *int64
	refreshAt     time.Time
	refreshing    bool
	saved         []byte
	// unheard: the pod comes from the disk, nothing of it runs, and nobody has said yet that it is this node's still.
	unheard bool
	// telling: the pod's stop by the node's isolation is being told.
	telling bool
	mirror  types.UID // of the picture that was last reported to
}

// running is the part of a container that lives only in this process.
type running struct {
	busy   lifecycle.Busy
	exited chan struct{} // closed when the container of this attempt ended
	probes context.CancelFunc
	// abort ends a start early; hurry brings a stop's deadline forward.
	abort context.CancelFunc
	hurry func(at time.Time)
	// backedOff is the container whose back-off users were told about.
	backedOff string
	// pullBackedOff is the next pull that users were told about.
	pullBackedOff time.Time
}

func newWorker(a *Agent, rec podRecord) *worker {
	if rec.Containers == nil {
		rec.Containers = map[string]lifecycle.Container{}
	}
	if rec.Rejected == nil {
		has := rec.Pod
		if rec.Given != nil {
			has = rec.Given
		}
		a.ledger.note(rec.Pod.UID, lifecycle.Requests(has))
	}
	return &worker{
		agent: a, uid: rec.Pod.UID, rec: rec, wake: make(chan struct{}, 1), gone: make(chan struct{}),
		run: map[string]*running{}, seen: time.Now(),
	}
}

// nudge asks for a new decision; it never blocks.
func (w *worker) nudge() {
	select {
	case w.wake <- struct{}{}:
	default:
	}
}

// setPod takes a newer version of the pod.
func (w *worker) setPod(pod *corev1.Pod) {
	w.mu.Lock()
	more := len(pod.Spec.EphemeralContainers) != len(w.rec.Pod.Spec.EphemeralContainers)
	w.sizeLocked(pod)
	w.rec.Pod = pod
	w.refreshAt = time.Now()
	w.mu.Unlock()
	if more {
		w.track()
	}
	w.nudge()
}

func (w *worker) pod() *corev1.Pod {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.podLocked()
}

// ended tells whether the pod takes up no place any more, though the API keeps it.
func (w *worker) ended() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.rec.Rejected != nil || phase.Ended(w.rec.Status.Phase)
}

func (w *worker) live(name string) *running {
	r := w.run[name]
	if r == nil {
		r = &running{}
		w.run[name] = r
	}
	return r
}

// loop decides whenever something happened, until the pod is gone or ctx ends.
func (w *worker) loop(ctx context.Context) {
	defer w.ops.Wait()
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	for {
		at, done := w.step(ctx)
		if done {
			return
		}
		if at.IsZero() {
			timer.Stop()
		} else {
			timer.Reset(max(time.Until(at), 0))
		}
		select {
		case <-ctx.Done():
			return
		case <-w.wake:
		case <-timer.C:
		}
	}
}

// step makes one decision and begins what it asks for.
func (w *worker) step(ctx context.Context) (wakeAt time.Time, done bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	plan := lifecycle.Decide(w.viewLocked(time.Now()))
	for _, name := range plan.BackingOff {
		c := w.rec.Containers[name]
		if r := w.live(name); r.backedOff != c.ID {
			r.backedOff = c.ID
			w.agent.backOffEvent(w.rec.Pod, c)
		}
	}
	for _, name := range plan.PullBackingOff {
		if r := w.live(name); r.pullBackedOff != w.rec.Containers[name].RetryAt {
			r.pullBackedOff = w.rec.Containers[name].RetryAt
			w.agent.event(w.rec.Pod, name, corev1.EventTypeNormal, "BackOff", fmt.Sprintf("Back-off pulling image %q", findContainer(w.rec.Pod, name).Image))
			w.agent.event(w.rec.Pod, name, corev1.EventTypeWarning, "Failed", "Error: ImagePullBackOff")
		}
	}
	if w.rec.Status.Phase == corev1.PodPending && plan.Status.Phase == corev1.PodRunning {
		w.agent.metrics.podStarted(w.seen)
	}
	w.rec.Status = plan.Status
	if phase.Ended(plan.Status.Phase) && w.agent.ledger.drop(w.uid) {
		w.ops.Go(w.agent.retryResizes)
	}
	for _, act := range plan.Actions {
		w.doLocked(ctx, act)
	}
	w.saveLocked()
	if w.finished {
		return time.Time{}, true
	}
	next := plan.WakeAt
	earliest := func(t time.Time) {
		if !t.IsZero() && (next.IsZero() || t.Before(next)) {
			next = t
		}
	}
	earliest(w.reportLocked(ctx))
	earliest(w.refreshLocked(ctx))
	return next, false
}

func (w *worker) viewLocked(now time.Time) lifecycle.View {
	cs := make(map[string]lifecycle.Container, len(w.rec.Containers))
	for name, c := range w.rec.Containers {
		cs[name] = c
	}
	for name, r := range w.run {
		if r.busy != lifecycle.Idle {
			c := cs[name]
			c.Name, c.Busy = name, r.busy
			cs[name] = c
		}
	}
	standing := w.rec.Status
	if standing.Phase == "" {
		standing = w.rec.Pod.Status
	}
	sb := w.sandbox
	sb.IPs = w.rec.IPs
	return lifecycle.View{
		Pod: w.rec.Pod, Given: w.rec.Given, Resize: w.rec.Resize, Now: now, Sandbox: sb, Containers: cs, Rejected: w.rec.Rejected, Standing: standing,
		StartTime: w.rec.StartTime, HostIPs: w.agent.cfg.NodeIPs, Held: w.heldLocked(), Shutdown: w.shutdown, ShutdownGraceSeconds: w.shutdownGrace, Finished: w.finished,
	}
}

func (w *worker) doLocked(ctx context.Context, act lifecycle.Action) {
	switch act.Kind {
	case lifecycle.Prepare:
		w.sandbox.Busy = true
		w.effect(func() { w.prepare(ctx) })
	case lifecycle.Start:
		r := w.live(act.Container)
		r.busy = lifecycle.Starting
		sctx, abort := context.WithCancel(ctx)
		r.abort = abort
		w.effect(func() {
			defer abort()
			w.startContainer(sctx, act.Container)
		})
	case lifecycle.Stop:
		r := w.live(act.Container)
		r.busy = lifecycle.Stopping
		deadline := newDeadline(time.Duration(act.GraceSeconds) * time.Second)
		r.hurry = deadline.shorten
		if r.probes != nil {
			r.probes()
		}
		if c := w.rec.Containers[act.Container]; act.Replace {
			c.Replace = true
			w.rec.Containers[act.Container] = c
		}
		w.effect(func() { w.stopContainer(ctx, act, deadline) })
	case lifecycle.Resize:
		w.live(act.Container).busy = lifecycle.Resizing
		w.effect(func() { w.resizeContainer(ctx, act.Container) })
	case lifecycle.Hurry:
		r := w.live(act.Container)
		if r.busy == lifecycle.Starting && r.abort != nil {
			r.abort()
		}
		if r.hurry != nil {
			r.hurry(time.Now().Add(time.Duration(act.GraceSeconds) * time.Second))
		}
	case lifecycle.Release:
		if w.refreshing {
			return // its end asks for a new decision
		}
		w.sandbox.Busy = true
		w.effect(func() { w.release(ctx) })
	case lifecycle.Finish:
		w.finishLocked(ctx)
	}
}

// effect runs f beside the decisions; they go on when it ends.
func (w *worker) effect(f func()) {
	w.ops.Go(func() {
		f()
		w.nudge()
	})
}

// update changes a container's record and asks for a new decision.
func (w *worker) update(name string, f func(c *lifecycle.Container, r *running)) {
	w.mu.Lock()
	c := w.rec.Containers[name]
	c.Name = name
	f(&c, w.live(name))
	w.rec.Containers[name] = c
	w.mu.Unlock()
	w.nudge()
}

func (w *worker) dir() string { return w.agent.podDir(w.uid) }

func (w *worker) stateDir() string {
	return filepath.Join(w.agent.cfg.StateDir, "pods", string(w.uid))
}

func (w *worker) cgroup() string {
	return podCgroup(w.agent.cfg.CgroupParent, w.pod())
}

// podCgroup is relative to the cgroup root.
func podCgroup(parent string, pod *corev1.Pod) string {
	switch lifecycle.QOS(pod) {
	case corev1.PodQOSBestEffort:
		return filepath.Join(parent, "besteffort", "pod"+string(pod.UID))
	case corev1.PodQOSBurstable:
		return filepath.Join(parent, "burstable", "pod"+string(pod.UID))
	}
	return filepath.Join(parent, "pod"+string(pod.UID))
}

func (w *worker) ref() PodRef {
	p := w.pod()
	return PodRef{Namespace: p.Namespace, Name: p.Name, UID: p.UID, Labels: p.Labels, Annotations: p.Annotations}
}

// facts gathers what the downward API may tell.
func (w *worker) facts() environ.Facts {
	w.mu.Lock()
	defer w.mu.Unlock()
	f := environ.Facts{Pod: w.podLocked(), HostIPs: w.agent.cfg.NodeIPs, PodIPs: w.rec.IPs, Allocatable: w.agent.allocatable(), Services: w.rec.Services}
	if w.rec.Pod.Spec.HostNetwork {
		f.PodIPs = w.agent.cfg.NodeIPs
	}
	return f
}

func (w *worker) volumes() volumes.Pod {
	return volumes.Pod{Dir: w.dir(), Facts: w.facts(), Source: w.agent.objects, Tokens: w.agent.objects}
}

// exit takes note of a container's end. The ended container stays until the
// next one of its kind is made, so that the pod's shim lives on.
func (w *worker) exit(id string, e stream.Exit) {
	w.mu.Lock()
	name := ""
	for n, c := range w.rec.Containers {
		if c.ID == id && c.Phase == lifecycle.Running {
			name = n
		}
	}
	w.mu.Unlock()
	if name == "" {
		return
	}
	oom := e.OOM || w.agent.oomKilled(filepath.Join(w.cgroup(), id))
	w.update(name, func(c *lifecycle.Container, r *running) {
		c.Phase, c.ExitCode, c.FinishedAt = lifecycle.Exited, int32(e.Code), e.At
		c.Ready, c.Started, c.Unhealthy = false, false, nil
		c.Reason = "Completed"
		switch {
		case e.Isolated && e.Code != 0:
			c.Reason = isolatedReason
		case oom:
			c.Reason = "OOMKilled"
		case e.Code != 0:
			c.Reason = "Error"
		}
		c.Message = w.terminationMessage(w.rec.Pod, c)
		w.tellIsolatedLocked(c)
		if r.probes != nil {
			r.probes()
			r.probes = nil
		}
		if r.exited != nil {
			close(r.exited)
			r.exited = nil
		}
	})
}

func (w *worker) removeContainer(id string) {
	ctx, cancel := context.WithTimeout(context.Background(), removeTimeout)
	defer cancel()
	if err := w.agent.rt.Remove(ctx, id); err != nil {
		w.agent.log.Warn("remove ended container", "container", id, "err", err)
	}
}

// removeTimeout bounds the removal of one ended container.
const removeTimeout = 30 * time.Second

func (w *worker) saveLocked() {
	if w.finished {
		return
	}
	if err := w.agent.savePod(w); err != nil {
		w.agent.log.Error("keep pod record", "pod", w.uid, "err", err)
	}
}

// refreshLocked keeps volumes and tokens up to date; it returns when to look
// again.
func (w *worker) refreshLocked(ctx context.Context) time.Time {
	if !w.sandbox.Ready || w.sandbox.Busy || w.refreshing || w.refreshAt.IsZero() {
		return time.Time{}
	}
	if time.Now().Before(w.refreshAt) {
		return w.refreshAt
	}
	w.refreshing, w.refreshAt = true, time.Time{}
	w.effect(func() {
		at, err := volumes.Setup(ctx, w.volumes())
		if err != nil && !errors.Is(err, context.Canceled) {
			w.agent.event(w.pod(), "", corev1.EventTypeWarning, "FailedMount", err.Error())
			at = time.Now().Add(volumeRetryDelay)
		}
		w.mu.Lock()
		w.refreshing = false
		if w.refreshAt.IsZero() {
			w.refreshAt = at
		}
		w.mu.Unlock()
	})
	return time.Time{}
}

// volumeRetryDelay separates tries to bring a running pod's volumes up to date.
const volumeRetryDelay = 30 * time.Second

// track watches the objects that the pod refers to.
func (w *worker) track() { w.agent.objects.Track(w.uid, objects.Refs(w.pod())) }
