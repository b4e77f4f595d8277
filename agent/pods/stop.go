package pods

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/moby/sys/signal"
	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"

	"github.com/podvine/podvine/agent/pods/lifecycle"
	"github.com/podvine/podvine/agent/pods/logs"
)

// deadline is a moment that may be brought forward.
type deadline struct {
	mu    sync.Mutex
	at    time.Time // guarded by mu
	timer *time.Timer
}

func newDeadline(in time.Duration) *deadline {
	return &deadline{at: time.Now().Add(in), timer: time.NewTimer(in)}
}

// shorten brings the deadline forward to at; it never puts it back.
func (d *deadline) shorten(at time.Time) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if at.Before(d.at) {
		d.at = at
		d.timer.Reset(max(time.Until(at), 0))
	}
}

// minKillGrace is what a container gets between its stop signal and the kill,
// even when its preStop hook has used up the grace period.
const minKillGrace = 2 * time.Second

// stopContainer ends a container as kindly as its grace period allows.
func (w *worker) stopContainer(ctx context.Context, act lifecycle.Action, d *deadline) {
	defer d.timer.Stop()
	name := act.Container
	w.mu.Lock()
	c := w.rec.Containers[name]
	exited := w.live(name).exited
	pod := w.rec.Pod
	w.mu.Unlock()
	defer w.update(name, func(_ *lifecycle.Container, r *running) { r.busy, r.hurry = lifecycle.Idle, nil })
	if exited == nil {
		return
	}
	message := act.Message
	if message == "" {
		message = "Stopping container " + name
	}
	w.agent.event(pod, name, corev1.EventTypeNormal, "Killing", message)
	spec := findContainer(pod, name)
	if act.GraceSeconds > 0 {
		w.preStop(ctx, c.ID, spec, exited, d)
		if err := w.agent.rt.Kill(ctx, c.ID, w.stopSignal(ctx, spec, c)); err != nil && ctx.Err() == nil {
			w.agent.log.Warn("signal container", "pod", pod.Name, "container", name, "err", err)
		}
		d.mu.Lock()
		if rest := time.Until(d.at); rest < minKillGrace && rest > -minKillGrace && spec.Lifecycle != nil && spec.Lifecycle.PreStop != nil {
			d.at = time.Now().Add(minKillGrace)
			d.timer.Reset(minKillGrace)
		}
		d.mu.Unlock()
		select {
		case <-exited:
			return
		case <-d.timer.C:
		case <-ctx.Done():
			return
		}
	}
	if err := w.agent.rt.Kill(ctx, c.ID, unix.SIGKILL); err != nil && ctx.Err() == nil {
		w.agent.log.Warn("kill container", "pod", pod.Name, "container", name, "err", err)
	}
	t := time.NewTimer(killWait)
	defer t.Stop()
	select {
	case <-exited:
	case <-t.C:
		w.agent.log.Error("container does not end although it was killed", "pod", pod.Name, "container", name)
	case <-ctx.Done():
	}
}

// killWait is how long the end of a killed container is awaited before it is
// killed again.
const killWait = 10 * time.Second

func (w *worker) preStop(ctx context.Context, id string, spec *corev1.Container, exited <-chan struct{}, d *deadline) {
	if spec.Lifecycle == nil || spec.Lifecycle.PreStop == nil {
		return
	}
	hctx, cancel := context.WithCancel(ctx)
	defer cancel()
	done := make(chan error, 1)
	go func() { done <- w.hook(hctx, id, spec, spec.Lifecycle.PreStop) }()
	select {
	case err := <-done:
		if err != nil && ctx.Err() == nil {
			w.agent.event(w.pod(), spec.Name, corev1.EventTypeWarning, "FailedPreStopHook", "PreStopHook failed")
		}
	case <-exited:
	case <-d.timer.C:
		d.timer.Reset(0)
	case <-ctx.Done():
	}
}

func (w *worker) stopSignal(ctx context.Context, spec *corev1.Container, c lifecycle.Container) unix.Signal {
	name := ""
	if spec.Lifecycle != nil && spec.Lifecycle.StopSignal != nil {
		name = string(*spec.Lifecycle.StopSignal)
	} else if info, ok, err := w.agent.images.Find(ctx, c.Image); err == nil && ok {
		name = info.Config.StopSignal
	}
	if name == "" {
		return unix.SIGTERM
	}
	s, err := signal.ParseSignal(name)
	if err != nil {
		return unix.SIGTERM
	}
	return s
}

// hook runs one lifecycle handler.
func (w *worker) hook(ctx context.Context, id string, spec *corev1.Container, h *corev1.LifecycleHandler) error {
	t := w.target(spec, id)
	switch {
	case h.Exec != nil:
		code, out, err := t.Exec(ctx, h.Exec.Command)
		if err == nil && code != 0 {
			err = fmt.Errorf("command '%s' exited with %d: %s", strings.Join(h.Exec.Command, " "), code, out)
		}
		return err
	case h.HTTPGet != nil:
		code, _, err := t.HTTPGet(ctx, h.HTTPGet)
		if err == nil && code >= http.StatusBadRequest {
			err = fmt.Errorf("HTTP hook answered %d", code)
		}
		return err
	case h.Sleep != nil:
		timer := time.NewTimer(time.Duration(h.Sleep.Seconds) * time.Second)
		defer timer.Stop()
		select {
		case <-timer.C:
		case <-ctx.Done():
		}
	}
	return nil
}

const (
	// maxTerminationBytes bounds a message from the container's own file.
	maxTerminationBytes = 4096
	// maxTerminationLogBytes and Lines bound one taken from the log.
	maxTerminationLogBytes = 2048
	maxTerminationLogLines = 80
)

// terminationMessage is the container's last words.
func (w *worker) terminationMessage(pod *corev1.Pod, c *lifecycle.Container) string {
	spec := findContainer(pod, c.Name)
	if spec == nil {
		return ""
	}
	dir := w.agent.podDir(w.uid)
	f, err := os.Open(terminationPath(dir, c.Name, c.Attempts-1))
	text := ""
	if err == nil {
		b, rerr := io.ReadAll(io.LimitReader(f, maxTerminationBytes))
		f.Close()
		if rerr == nil {
			text = string(b)
		}
	}
	if text != "" || spec.TerminationMessagePolicy != corev1.TerminationMessageFallbackToLogsOnError || c.ExitCode == 0 {
		return text
	}
	path := logPath(w.agent.podLogDir(pod), c.Name, c.Attempts-1)
	tail, err := logs.Tail(path, maxTerminationLogLines, maxTerminationLogBytes)
	if err != nil {
		return ""
	}
	return tail
}
