package pods

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"path/filepath"
	"strconv"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/podvine/podvine/agent/pods/kubeletapi"
	"github.com/podvine/podvine/agent/pods/lifecycle"
	"github.com/podvine/podvine/agent/pods/logs"
	"github.com/podvine/podvine/agent/pods/runtime"
	"github.com/podvine/podvine/agent/pods/sandbox"
)

func (a *Agent) serveAPI(ctx context.Context) error {
	ln, err := (&net.ListenConfig{}).Listen(ctx, "tcp", a.cfg.APIListen)
	if err != nil {
		return fmt.Errorf("listen for node API: %w", err)
	}
	security := a.cfg.Server
	security.Routes = a.metrics.addTo(security.Routes)
	return kubeletapi.New(a.cfg.NodeName, apiNode{a}, security, a.log).Serve(ctx, ln)
}

// apiNode shows an Agent to the kubelet API.
type apiNode struct{ a *Agent }

// Pods implements kubeletapi.Node.
func (n apiNode) Pods() []corev1.Pod {
	var out []corev1.Pod
	for _, w := range n.a.all() {
		w.mu.Lock()
		p := *w.rec.Pod
		p.Status = *w.rec.Status.DeepCopy()
		w.mu.Unlock()
		out = append(out, p)
	}
	return out
}

// container finds a container by name.
func (n apiNode) container(t kubeletapi.Target) (*worker, lifecycle.Container, *corev1.Container, error) {
	w := n.a.find(t.Namespace, t.Pod, types.UID(t.UID))
	if w == nil {
		return nil, lifecycle.Container{}, nil, fmt.Errorf("pod %q %w", t.Pod, kubeletapi.ErrNotFound)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	spec := findContainer(w.rec.Pod, t.Container)
	if spec == nil {
		return nil, lifecycle.Container{}, nil, fmt.Errorf("container %q in pod %q %w", t.Container, t.Pod, kubeletapi.ErrNotFound)
	}
	return w, w.rec.Containers[t.Container], spec, nil
}

func (n apiNode) running(t kubeletapi.Target) (*worker, lifecycle.Container, *corev1.Container, error) {
	w, c, spec, err := n.container(t)
	if err == nil && c.Phase != lifecycle.Running {
		err = fmt.Errorf("container %q in pod %q is not running: %w", t.Container, t.Pod, kubeletapi.ErrNotFound)
	}
	return w, c, spec, err
}

// Logs implements kubeletapi.Node.
func (n apiNode) Logs(ctx context.Context, t kubeletapi.Target, previous bool, o logs.Options, out io.Writer, flush func()) error {
	w, c, _, err := n.container(t)
	if err != nil {
		return err
	}
	attempt := c.Attempts - 1
	if previous {
		if attempt < 1 {
			return fmt.Errorf("previous terminated container %q in pod %q %w", t.Container, t.Pod, kubeletapi.ErrNotFound)
		}
		attempt--
	}
	if attempt < 0 {
		reason := "ContainerCreating"
		if c.Problem != nil {
			reason = c.Problem.Reason
		}
		return fmt.Errorf("container %q in pod %q is waiting to start: %s: %w", t.Container, t.Pod, reason, kubeletapi.ErrUnavailable)
	}
	o.Ended = func() bool {
		_, now, _, err := n.container(t)
		return err != nil || now.ID != c.ID || now.Phase != lifecycle.Running
	}
	err = logs.Read(ctx, w.logPath(t.Container, attempt), o, out, flush)
	if errors.Is(err, fs.ErrNotExist) {
		return nil // it never ran, so it said nothing
	}
	return err
}

// Exec implements kubeletapi.Node.
func (n apiNode) Exec(ctx context.Context, t kubeletapi.Target, command []string, s kubeletapi.Streams) (int, error) {
	_, c, _, err := n.running(t)
	if err != nil {
		return 0, err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	code, err := n.a.rt.Exec(ctx, runtime.ExecSpec{ContainerID: c.ID, ExecID: newID(), Args: command, Terminal: s.TTY, Streams: runtimeStreams(ctx, s)})
	return int(code), err
}

func runtimeStreams(ctx context.Context, s kubeletapi.Streams) runtime.Streams {
	out := runtime.Streams{Stdin: s.Stdin, Stdout: s.Stdout, Stderr: s.Stderr}
	if s.Resize == nil || !s.TTY {
		return out
	}
	sizes := make(chan runtime.Size)
	out.Resize = sizes
	go func() {
		defer close(sizes)
		for {
			select {
			case size, ok := <-s.Resize:
				if !ok {
					return
				}
				select {
				case sizes <- runtime.Size{Cols: size.Width, Rows: size.Height}:
				case <-ctx.Done():
					return
				}
			case <-ctx.Done():
				return
			}
		}
	}()
	return out
}

// Attach implements kubeletapi.Node.
func (n apiNode) Attach(ctx context.Context, t kubeletapi.Target, s kubeletapi.Streams) error {
	_, c, spec, err := n.running(t)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	s.TTY = spec.TTY
	if !spec.Stdin {
		s.Stdin = nil
	}
	return n.a.rt.Attach(ctx, c.ID, runtimeStreams(ctx, s))
}

// Dial implements kubeletapi.Node: it reaches what listens on the pod's own
// loopback, of either family.
func (n apiNode) Dial(ctx context.Context, t kubeletapi.Target, port int32) (net.Conn, error) {
	w := n.a.find(t.Namespace, t.Pod, types.UID(t.UID))
	if w == nil {
		return nil, fmt.Errorf("pod %q %w", t.Pod, kubeletapi.ErrNotFound)
	}
	w.mu.Lock()
	netns := w.paths.Net
	host := w.rec.Pod.Spec.HostNetwork
	w.mu.Unlock()
	if netns == "" && !host {
		return nil, fmt.Errorf("pod %q has no network yet: %w", t.Pod, kubeletapi.ErrUnavailable)
	}
	var conn net.Conn
	err := sandbox.Enter(netns, func() error {
		var err error
		for _, ip := range []string{"127.0.0.1", "::1"} {
			if conn, err = (&net.Dialer{}).DialContext(ctx, "tcp", net.JoinHostPort(ip, strconv.Itoa(int(port)))); err == nil {
				return nil
			}
		}
		return fmt.Errorf("failed to connect to localhost:%d inside pod %q: %w", port, t.Pod, err)
	})
	return conn, err
}

// cgroupPath is where a container's or, with id "", a pod's cgroup is.
func (w *worker) cgroupPath(id string) string { return filepath.Join(w.cgroup(), id) }
