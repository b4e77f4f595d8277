package pods

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	kruntime "k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/kubernetes/scheme"
	typedcorev1 "k8s.io/client-go/kubernetes/typed/core/v1"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/tools/record"
	"k8s.io/utils/ptr"

	"github.com/podvine/podvine/agent/pods/lifecycle"
	"github.com/podvine/podvine/agent/pods/ocispec"
	"github.com/podvine/podvine/agent/pods/probes"
	"github.com/podvine/podvine/agent/pods/runtime"
	"github.com/podvine/podvine/agent/pods/sandbox"
	"github.com/podvine/podvine/agent/pods/shim/stream"
)

func (a *Agent) startRecorder() {
	a.stopRec = func() {}
	if a.recorder = a.cfg.Recorder; a.recorder != nil {
		return
	}
	b := record.NewBroadcaster()
	b.StartRecordingToSink(&typedcorev1.EventSinkImpl{Interface: a.cfg.Client.CoreV1().Events("")})
	a.recorder = b.NewRecorder(scheme.Scheme, corev1.EventSource{Component: "kubelet", Host: a.cfg.NodeName})
	a.stopRec = b.Shutdown
}

// event tells users something about a pod, or about one of its containers.
func (a *Agent) event(pod *corev1.Pod, container, kind, reason, text string) {
	ref := &corev1.ObjectReference{APIVersion: "v1", Kind: "Pod", Namespace: pod.Namespace, Name: pod.Name, UID: pod.UID, ResourceVersion: pod.ResourceVersion}
	if container != "" {
		field := "spec.containers{" + container + "}"
		for i := range pod.Spec.InitContainers {
			if pod.Spec.InitContainers[i].Name == container {
				field = "spec.initContainers{" + container + "}"
			}
		}
		for i := range pod.Spec.EphemeralContainers {
			if pod.Spec.EphemeralContainers[i].Name == container {
				field = "spec.ephemeralContainers{" + container + "}"
			}
		}
		ref.FieldPath = field
	}
	a.recorder.Event(ref, kind, reason, text)
}

func (a *Agent) backOffEvent(pod *corev1.Pod, c lifecycle.Container) {
	a.event(pod, c.Name, corev1.EventTypeWarning, "BackOff",
		fmt.Sprintf("Back-off restarting failed container %s in pod %s_%s(%s)", c.Name, pod.Name, pod.Namespace, pod.UID))
}

func (a *Agent) watchServices() {
	lw := a.cfg.Services
	if lw == nil {
		lw = cache.ToListWatcherWithWatchListSemantics(&cache.ListWatch{
			ListWithContextFunc: func(ctx context.Context, o metav1.ListOptions) (kruntime.Object, error) {
				return a.cfg.Client.CoreV1().Services("").List(ctx, o)
			},
			WatchFuncWithContext: func(ctx context.Context, o metav1.ListOptions) (watch.Interface, error) {
				return a.cfg.Client.CoreV1().Services("").Watch(ctx, o)
			},
		}, a.cfg.Client)
	}
	a.services, a.svcCtl = cache.NewInformerWithOptions(cache.InformerOptions{
		ListerWatcher: lw, ObjectType: &corev1.Service{}, Handler: cache.ResourceEventHandlerFuncs{}, Transform: slimService,
	})
}

// slimService keeps of a service what environments are made of.
func slimService(o any) (any, error) {
	s, ok := o.(*corev1.Service)
	if !ok {
		return o, nil
	}
	return &corev1.Service{
		ObjectMeta: metav1.ObjectMeta{Namespace: s.Namespace, Name: s.Name, ResourceVersion: s.ResourceVersion},
		Spec:       corev1.ServiceSpec{ClusterIP: s.Spec.ClusterIP, Ports: s.Spec.Ports},
	}, nil
}

// serviceWait bounds how long the first pod after a start waits for services.
const serviceWait = 2 * time.Second

// servicesFor returns the services that a pod of a namespace sees; synced is
// false while the API has not been heard.
func (a *Agent) servicesFor(namespace string) (list []*corev1.Service, synced bool) {
	if !a.svcCtl.HasSynced() {
		stop := make(chan struct{})
		t := time.AfterFunc(serviceWait, func() { close(stop) })
		defer t.Stop()
		if !cache.WaitForCacheSync(stop, a.svcCtl.HasSynced) {
			return nil, false
		}
	}
	for _, o := range a.services.List() {
		s, ok := o.(*corev1.Service)
		if ok && (s.Namespace == namespace || s.Namespace == metav1.NamespaceDefault && s.Name == "kubernetes") {
			list = append(list, s)
		}
	}
	return list, true
}

// adopt takes over the containers that are still there; byID loses what was
// claimed.
func (w *worker) adopt(byID map[string]runtime.Found) {
	w.mu.Lock()
	defer w.mu.Unlock()
	paths, fresh, err := sandbox.Paths{}, true, error(nil)
	if w.rec.FirstID != 0 {
		// No other pod has it: the records of all are read before any new pod comes.
		w.rec.FirstID, err = w.agent.ids.claim(w.uid, w.rec.FirstID)
	}
	opts := w.sandboxOptions(w.rec.Pod, filepath.Join(w.stateDir(), "ns"), ocispec.Hostname(w.rec.Pod), w.rec.FirstID)
	if err == nil && w.rec.Prepared && sandbox.Exists(opts) {
		paths, fresh, err = sandbox.Make(opts)
	}
	if err == nil && !fresh {
		w.paths, w.sandbox.Ready, w.refreshAt = paths, true, time.Now()
	}
	if f, ok := byID[w.rec.InitID]; ok && f.State == runtime.StateRunning {
		delete(byID, w.rec.InitID)
	} else {
		w.rec.InitID, w.rec.InitPid = "", 0
	}
	for name, c := range w.rec.Containers {
		f, ok := byID[c.ID]
		delete(byID, c.ID)
		if c.Phase != lifecycle.Running {
			continue
		}
		if ok && f.State == runtime.StateRunning {
			w.resumeLocked(name, c)
			continue
		}
		if spec := findContainer(w.podLocked(), name); ok && f.State == runtime.StateCreated && spec != nil {
			w.finishStartLocked(spec, c)
			continue
		}
		w.lostLocked(&c, f, ok)
		w.rec.Containers[name] = c
	}
}

// resumeLocked goes on with a container that never noticed that the agent was
// away.
func (w *worker) resumeLocked(name string, c lifecycle.Container) {
	w.live(name).exited = make(chan struct{})
	spec := findContainer(w.podLocked(), name)
	if c.Applied == nil && spec != nil {
		c.Applied = spec.Resources.DeepCopy()
		w.rec.Containers[name] = c
	}
	w.effect(func() {
		w.track()
		if spec != nil {
			w.probe(spec, c.ID, c.StartedAt, true)
		}
	})
}

// finishStartLocked starts a container that the agent had recorded when it was killed, and not yet started.
func (w *worker) finishStartLocked(spec *corev1.Container, c lifecycle.Container) {
	exited := make(chan struct{})
	live := w.live(spec.Name)
	ctx, abort := context.WithCancel(w.agent.ctx)
	live.exited, live.busy, live.abort = exited, lifecycle.Starting, abort
	a := &attempt{w: w, pod: w.podLocked(), spec: spec, n: c.Attempts - 1, id: c.ID}
	w.effect(func() {
		defer abort()
		w.track()
		w.settle(ctx, a, a.run(ctx, exited))
	})
}

// unknownExitCode is given to a container whose end nobody recorded.
const unknownExitCode = 255

func (w *worker) lostLocked(c *lifecycle.Container, f runtime.Found, found bool) {
	exit := stream.Exit{Code: unknownExitCode, At: time.Now()}
	known := found && f.State == runtime.StateExited
	if known {
		exit = f.Exit
	}
	c.Phase, c.ExitCode, c.FinishedAt = lifecycle.Exited, int32(exit.Code), exit.At
	c.Ready, c.Started, c.Unhealthy = false, false, nil
	switch {
	case !known:
		c.Reason = "Unknown"
	case exit.Isolated && exit.Code != 0:
		c.Reason = isolatedReason
	case exit.OOM:
		c.Reason = "OOMKilled"
	case exit.Code != 0:
		c.Reason = "Error"
	default:
		c.Reason = "Completed"
	}
	c.Message = w.terminationMessage(w.rec.Pod, c)
	w.tellIsolatedLocked(c)
}

// target is how a container is asked for its health.
func (w *worker) target(spec *corev1.Container, id string) probes.Target {
	w.mu.Lock()
	defer w.mu.Unlock()
	t := probes.Target{Container: spec, Netns: w.paths.Net}
	switch {
	case w.rec.Pod.Spec.HostNetwork && len(w.agent.cfg.NodeIPs) > 0:
		t.IP = w.agent.cfg.NodeIPs[0]
	case len(w.rec.IPs) > 0:
		t.IP = w.rec.IPs[0]
	default:
		t.IP = "127.0.0.1"
	}
	t.Exec = func(ctx context.Context, command []string) (int, string, error) {
		var out limited
		code, err := w.agent.rt.Exec(ctx, runtime.ExecSpec{ContainerID: id, ExecID: newID(), Args: command, Streams: runtime.Streams{Stdout: &out, Stderr: &out}})
		return int(code), out.String(), err
	}
	return t
}

// maxProbeOutputBytes is how much of a command's output is kept.
const maxProbeOutputBytes = 10 << 10

// limited keeps the beginning of what is written to it.
type limited struct{ bytes.Buffer }

func (l *limited) Write(p []byte) (int, error) {
	if room := maxProbeOutputBytes - l.Len(); room > 0 {
		l.Buffer.Write(p[:min(room, len(p))])
	}
	return len(p), nil
}

// probe begins a running container's probes: startup first, then the others.
func (w *worker) probe(spec *corev1.Container, id string, startedAt time.Time, resumed bool) {
	ctx, cancel := context.WithCancel(w.agent.ctx)
	mine, started := false, false
	w.update(spec.Name, func(c *lifecycle.Container, r *running) {
		if c.ID != id || c.Phase != lifecycle.Running {
			return
		}
		mine = true
		r.probes = cancel
		if spec.StartupProbe == nil {
			c.Started = true
			c.Ready = c.Ready && resumed || spec.ReadinessProbe == nil
		}
		started = c.Started
	})
	if !mine {
		cancel()
		return
	}
	p := &prober{w: w, spec: spec, id: id, target: w.target(spec, id), startedAt: startedAt, resumed: resumed}
	w.ops.Go(func() {
		if !started && !p.startup(ctx) {
			return
		}
		p.rest(ctx)
	})
}

type prober struct {
	w         *worker
	spec      *corev1.Container
	id        string
	target    probes.Target
	startedAt time.Time
	resumed   bool
}

// tried counts a try, and reports one that failed.
func (p *prober) tried(name string, ok bool, out string) {
	pod := p.w.pod()
	p.w.agent.metrics.count(name, pod, p.spec.Name, ok)
	if !ok {
		p.w.agent.event(pod, p.spec.Name, corev1.EventTypeWarning, "Unhealthy", fmt.Sprintf("%s probe failed: %s", name, out))
	}
}

// set changes the record, if the container is still the one that was probed.
func (p *prober) set(f func(c *lifecycle.Container)) {
	p.w.update(p.spec.Name, func(c *lifecycle.Container, _ *running) {
		if c.ID == p.id && c.Phase == lifecycle.Running {
			f(c)
		}
	})
}

func (p *prober) restart(name string, probe *corev1.Probe) {
	p.set(func(c *lifecycle.Container) {
		c.Unhealthy = &lifecycle.Unhealthy{
			Message:      fmt.Sprintf("Container %s failed %s probe, will be restarted", p.spec.Name, name),
			GraceSeconds: probe.TerminationGracePeriodSeconds,
		}
	})
}

// startup reports whether the container has started.
func (p *prober) startup(ctx context.Context) bool {
	started := false
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	probes.Run(ctx, p.target, p.spec.StartupProbe, p.startedAt, p.resumed, func(v probes.Verdict, ok bool, out string) {
		p.tried("Startup", ok, out)
		switch v {
		case probes.Passed:
			started = true
			p.set(func(c *lifecycle.Container) { c.Started, c.Ready = true, p.spec.ReadinessProbe == nil })
			cancel()
		case probes.Failed:
			p.restart("startup", p.spec.StartupProbe)
			cancel()
		}
	})
	return started
}

// rest runs the liveness and readiness probes until the container ends.
func (p *prober) rest(ctx context.Context) {
	if probe := p.spec.LivenessProbe; probe != nil {
		p.w.ops.Go(func() {
			ctx, cancel := context.WithCancel(ctx)
			defer cancel()
			probes.Run(ctx, p.target, probe, p.startedAt, p.resumed, func(v probes.Verdict, ok bool, out string) {
				p.tried("Liveness", ok, out)
				if v == probes.Failed {
					p.restart("liveness", probe)
					cancel()
				}
			})
		})
	}
	if probe := p.spec.ReadinessProbe; probe != nil {
		var last ptrBool
		probes.Run(ctx, p.target, probe, p.startedAt, p.resumed, func(v probes.Verdict, ok bool, out string) {
			p.tried("Readiness", ok, out)
			if v == probes.Undecided || last.is(v == probes.Passed) {
				return
			}
			p.set(func(c *lifecycle.Container) { c.Ready = v == probes.Passed })
		})
	}
}

// ptrBool remembers the last value, if any.
type ptrBool struct{ v *bool }

// is tells whether b was the last value, and remembers it.
func (p *ptrBool) is(b bool) bool {
	same := p.v != nil && *p.v == b
	p.v = ptr.To(b)
	return same
}

// sharePIDs starts the minimal init of a pod whose containers share one PID
// namespace.
func (w *worker) sharePIDs(ctx context.Context, paths sandbox.Paths) error {
	pod := w.pod()
	w.mu.Lock()
	have := w.rec.InitPid != 0
	w.mu.Unlock()
	if have || pod.Spec.HostPID || !ptr.Deref(pod.Spec.ShareProcessNamespace, false) {
		return nil
	}
	root := filepath.Join(w.stateDir(), "init")
	if err := os.MkdirAll(root, 0o755); err != nil {
		return fmt.Errorf("make init's root: %w", err)
	}
	if u := paths.Users; u != nil {
		// Its root makes mount points here.
		if err := os.Chown(root, int(u.FirstID), int(u.FirstID)); err != nil {
			return fmt.Errorf("own init's root: %w", err)
		}
	}
	c := &corev1.Container{Name: "init"}
	s, _, err := ocispec.Build(ocispec.Input{
		Pod: pod, Container: c, QOS: lifecycle.QOS(pod), Host: w.agent.host, Sandbox: paths, Command: []string{"/init", "pause"},
		Mounts:     []specs.Mount{{Destination: "/init", Type: "bind", Source: w.agent.cfg.ShimPath, Options: []string{"bind", "ro"}}},
		CgroupPath: "/" + filepath.Join(w.cgroup(), "init"),
	})
	if err != nil {
		return fmt.Errorf("describe init: %w", err)
	}
	s.Root.Readonly = false
	id := newID()
	pid, err := w.agent.rt.Create(ctx, runtime.Spec{ID: id, Pod: string(w.uid), RootDir: root, OCI: s, Labels: labels(pod, "", 0)})
	if err != nil {
		return fmt.Errorf("make init: %w", err)
	}
	if err := w.agent.rt.Start(ctx, id); err != nil {
		w.removeContainer(id)
		return fmt.Errorf("start init: %w", err)
	}
	w.mu.Lock()
	w.rec.InitID, w.rec.InitPid = id, pid
	w.mu.Unlock()
	return nil
}
