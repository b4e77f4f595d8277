package pods

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	corev1 "k8s.io/api/core/v1"

	"github.com/podvine/podvine/agent/isolation"
	"github.com/podvine/podvine/agent/pods/environ"
	"github.com/podvine/podvine/agent/pods/images"
	"github.com/podvine/podvine/agent/pods/lifecycle"
	"github.com/podvine/podvine/agent/pods/ocispec"
	"github.com/podvine/podvine/agent/pods/runtime"
	"github.com/podvine/podvine/agent/pods/volumes"
)

// Labels of a container in the runtime, by which it is found again. Those of
// Kubernetes are what tools that look into containerd know.
const (
	labelPodUID       = "io.kubernetes.pod.uid"
	labelPodName      = "io.kubernetes.pod.name"
	labelPodNamespace = "io.kubernetes.pod.namespace"
	labelContainer    = "io.kubernetes.container.name"
	labelAttempt      = "podvine.io/attempt"
	labelQOS          = "podvine.io/qos"
)

// labels of a container; container is "" for the init of a shared PID namespace.
func labels(pod *corev1.Pod, container string, attempt int) map[string]string {
	out := map[string]string{
		labelPodUID: string(pod.UID), labelPodName: pod.Name, labelPodNamespace: pod.Namespace, labelQOS: string(lifecycle.QOS(pod)),
	}
	if container != "" {
		out[labelContainer], out[labelAttempt] = container, strconv.Itoa(attempt)
	}
	return out
}

// waitProblem is why a container cannot start yet; the start is tried again.
type waitProblem struct {
	reason string
	err    error
	// delay before the next try; 0 for a growing one.
	delay time.Duration
}

func (p *waitProblem) Error() string { return p.err.Error() }

// configRetryDelay separates tries to start a container whose configuration
// refers to what is not there.
const configRetryDelay = 10 * time.Second

// configReason is what such a container waits with.
const configReason = "CreateContainerConfigError"

func configProblem(err error) error {
	return &waitProblem{configReason, err, configRetryDelay}
}

// attempt is what one start of a container works with.
type attempt struct {
	w     *worker
	pod   *corev1.Pod
	spec  *corev1.Container
	n     int // 0 for the first
	id    string
	image runtime.ImageInfo
	user  runtime.User
}

func newID() string {
	b := make([]byte, 32)
	// crypto/rand.Read never fails on Linux.
	_, _ = rand.Read(b)
	return hex.EncodeToString(b)
}

// startContainer pulls, makes and starts a container, and records the result.
func (w *worker) startContainer(ctx context.Context, name string) {
	pod := w.pod()
	spec := findContainer(pod, name)
	w.mu.Lock()
	n := w.rec.Containers[name].Attempts
	w.mu.Unlock()
	a := &attempt{w: w, pod: pod, spec: spec, n: n, id: newID()}
	w.settle(ctx, a, a.start(ctx))
}

// settle records what became of an attempt.
func (w *worker) settle(ctx context.Context, a *attempt, err error) {
	name := a.spec.Name
	w.update(name, func(c *lifecycle.Container, r *running) {
		r.busy, r.abort = lifecycle.Idle, nil
		var wait *waitProblem
		switch {
		case err == nil:
			return
		case ctx.Err() != nil && c.Phase != lifecycle.Running:
			return
		case errors.As(err, &wait):
			c.Problem = &corev1.ContainerStateWaiting{Reason: wait.reason, Message: wait.err.Error()}
			c.RetryDelay = wait.delay
			if wait.delay == 0 {
				c.RetryDelay = lifecycle.NextRetryDelay(c.RetryDelay)
			}
			c.RetryAt = time.Now().Add(c.RetryDelay)
		default:
			a.begin(c)
			now := time.Now()
			c.Phase, c.ExitCode, c.Reason, c.Message = lifecycle.Exited, startErrorCode, "StartError", err.Error()
			c.StartedAt, c.FinishedAt = now, now
		}
	})
	if err != nil && ctx.Err() == nil {
		w.agent.event(a.pod, name, corev1.EventTypeWarning, "Failed", "Error: "+failure(err))
	}
}

// failure is what an event says of a failed start: of an image its reason only,
// since the pull has had an event of its own.
func failure(err error) string {
	var wait *waitProblem
	if errors.As(err, &wait) && wait.reason != configReason {
		return wait.reason
	}
	return err.Error()
}

// startErrorCode is the exit code of a container that never ran.
const startErrorCode = 128

func findContainer(pod *corev1.Pod, name string) *corev1.Container {
	for _, list := range [][]corev1.Container{pod.Spec.InitContainers, pod.Spec.Containers} {
		for i := range list {
			if list[i].Name == name {
				return &list[i]
			}
		}
	}
	for i := range pod.Spec.EphemeralContainers {
		if e := &pod.Spec.EphemeralContainers[i]; e.Name == name {
			return lifecycle.EphemeralContainer(e)
		}
	}
	return nil
}

// pidNamespace is the path of the PID namespace that a container joins; "" gives
// it one of its own.
func (a *attempt) pidNamespace(ctx context.Context) (string, error) {
	a.w.mu.Lock()
	shared, target := a.w.rec.InitPid, lifecycle.Container{}
	for i := range a.pod.Spec.EphemeralContainers {
		if e := &a.pod.Spec.EphemeralContainers[i]; e.Name == a.spec.Name && e.TargetContainerName != "" {
			target = a.w.rec.Containers[e.TargetContainerName]
			target.Name = e.TargetContainerName
		}
	}
	a.w.mu.Unlock()
	switch {
	case shared != 0:
		return fmt.Sprintf("/proc/%d/ns/pid", shared), nil
	case target.Name == "":
		return "", nil
	case target.Phase != lifecycle.Running:
		return "", configProblem(fmt.Errorf("target container %q does not run", target.Name))
	}
	pid, err := a.w.agent.rt.Pid(ctx, target.ID)
	if err != nil {
		return "", configProblem(fmt.Errorf("find target container %q: %w", target.Name, err))
	}
	return fmt.Sprintf("/proc/%d/ns/pid", pid), nil
}

// begin turns the record of the attempt before into that of this one.
func (a *attempt) begin(c *lifecycle.Container) {
	if c.ID == a.id {
		return
	}
	if c.Attempts > 0 {
		c.Last = c.Terminated()
		if !c.Replace {
			c.Delay = lifecycle.NextRestartDelay(c.Delay, c.FinishedAt.Sub(c.StartedAt))
		}
		c.Restarts++
	}
	c.Attempts++
	c.ID, c.SpecImage, c.Image, c.ImageID = a.id, a.spec.Image, a.image.Name, imageID(a.image)
	c.Problem, c.RetryAt, c.RetryDelay, c.Unhealthy = nil, time.Time{}, 0, nil
	c.ExitCode, c.Signal, c.Reason, c.Message = 0, 0, "", ""
	c.Started, c.Ready = false, false
	c.Applied, c.ResizeError, c.ResizeAt, c.Replace = a.spec.Resources.DeepCopy(), "", time.Time{}, false
}

func imageID(i runtime.ImageInfo) string {
	if i.Name == "" {
		return ""
	}
	return i.ConfigDigest
}

func (a *attempt) start(ctx context.Context) error {
	if err := a.ensureImage(ctx); err != nil {
		return err
	}
	s, mounts, err := a.build(ctx)
	if err != nil {
		return err
	}
	if err := a.prepareLog(); err != nil {
		return configProblem(err)
	}
	ag := a.w.agent
	// From here to the running process nothing is given up half-way.
	whole := context.WithoutCancel(ctx)
	if _, err := ag.rt.Create(whole, runtime.Spec{
		ID: a.id, Pod: string(a.pod.UID), Image: a.image.Name, OCI: s, Terminal: a.spec.TTY, Stdin: a.spec.Stdin, StdinOnce: a.spec.StdinOnce,
		Labels:  labels(a.pod, a.spec.Name, a.n),
		LogPath: a.logPath(), MaxLogBytes: ag.cfg.MaxLogBytes, MaxLogFiles: ag.cfg.MaxLogFiles,
	}); err != nil {
		return err
	}
	ag.event(a.pod, a.spec.Name, corev1.EventTypeNormal, "Created", "Container created")
	exited := make(chan struct{})
	before := ""
	a.w.update(a.spec.Name, func(c *lifecycle.Container, r *running) {
		if c.ID != a.id {
			before = c.ID
		}
		a.begin(c)
		c.Phase, c.StartedAt, c.Mounts = lifecycle.Running, time.Now(), mounts
		c.User = &corev1.ContainerUser{Linux: &corev1.LinuxContainerUser{UID: int64(a.user.UID), GID: int64(a.user.GID), SupplementalGroups: wide(s.Process.User.AdditionalGids)}}
		r.exited = exited
	})
	if before != "" {
		a.w.effect(func() { a.w.removeContainer(before) })
	}
	return a.run(ctx, exited)
}

// run starts the container that was made and recorded.
func (a *attempt) run(ctx context.Context, exited <-chan struct{}) error {
	if err := a.w.agent.rt.Start(context.WithoutCancel(ctx), a.id); err != nil {
		a.w.removeContainer(a.id)
		a.w.update(a.spec.Name, func(c *lifecycle.Container, r *running) { r.exited = nil })
		return err
	}
	a.w.agent.metrics.containerStarted(a.pod, a.spec.Name)
	a.w.agent.event(a.pod, a.spec.Name, corev1.EventTypeNormal, "Started", "Container started")
	return a.afterStart(ctx, exited)
}

func wide(g []uint32) []int64 {
	out := make([]int64, len(g))
	for i, v := range g {
		out[i] = int64(v)
	}
	return out
}

// afterStart runs the postStart hook and begins the probes.
func (a *attempt) afterStart(ctx context.Context, exited <-chan struct{}) error {
	if l := a.spec.Lifecycle; l != nil && l.PostStart != nil {
		hctx, cancel := context.WithCancel(ctx)
		stop := make(chan struct{})
		go func() {
			defer cancel()
			select {
			case <-exited:
			case <-stop:
			}
		}()
		err := a.w.hook(hctx, a.id, a.spec, l.PostStart)
		close(stop)
		if err != nil && ctx.Err() == nil {
			a.w.agent.event(a.pod, a.spec.Name, corev1.EventTypeWarning, "FailedPostStartHook", "PostStartHook failed")
			a.w.update(a.spec.Name, func(c *lifecycle.Container, _ *running) {
				c.Unhealthy = &lifecycle.Unhealthy{Message: "FailedPostStartHook"}
			})
			return nil
		}
	}
	a.w.probe(a.spec, a.id, time.Now(), false)
	return nil
}

// ensureImage applies the pull policy.
func (a *attempt) ensureImage(ctx context.Context) error {
	ag, name := a.w.agent, a.spec.Image
	policy := a.spec.ImagePullPolicy
	say := func(kind, reason, text string) { ag.event(a.pod, a.spec.Name, kind, reason, text) }
	info, have, err := ag.images.Find(ctx, name)
	if errors.Is(err, images.ErrInvalidName) {
		say(corev1.EventTypeWarning, "InspectFailed", fmt.Sprintf("Failed to apply default image tag %q: %v", name, err))
		return &waitProblem{reason: "InvalidImageName", err: fmt.Errorf("Failed to apply default image tag %q: %w", name, err)} //nolint:staticcheck // users know these words
	}
	if err != nil {
		return &waitProblem{reason: "ImageInspectError", err: err}
	}
	// A container that ran before keeps its image: it must start again when nobody can be asked.
	outdated := policy == corev1.PullIfNotPresent && a.n == 0 && ag.images.Outdated(info)
	if have && policy != corev1.PullAlways && !outdated {
		say(corev1.EventTypeNormal, "Pulled", fmt.Sprintf("Container image %q already present on machine and can be accessed by the pod", name))
		a.image = info
		return nil
	}
	if policy == corev1.PullNever {
		err := fmt.Errorf("Container image %q is not present with pull policy of Never", name) //nolint:staticcheck // users know these words
		say(corev1.EventTypeWarning, "ErrImageNeverPull", err.Error())
		return &waitProblem{reason: "ErrImageNeverPull", err: err}
	}
	say(corev1.EventTypeNormal, "Pulling", fmt.Sprintf("Pulling image %q", name))
	began := time.Now()
	a.image, err = ag.images.Pull(ctx, name, images.Credentials(a.pullSecrets()))
	if err != nil {
		if ctx.Err() == nil {
			say(corev1.EventTypeWarning, "Failed", fmt.Sprintf("Failed to pull image %q: %v", name, err))
		}
		return &waitProblem{reason: "ErrImagePull", err: err}
	}
	took := time.Since(began).Truncate(time.Millisecond)
	say(corev1.EventTypeNormal, "Pulled", fmt.Sprintf("Successfully pulled image %q in %s (%s including waiting). Image size: %d bytes.", name, took, took, a.image.SizeBytes))
	return nil
}

func (a *attempt) pullSecrets() []*corev1.Secret {
	var out []*corev1.Secret
	for _, ref := range a.pod.Spec.ImagePullSecrets {
		s, err := a.w.agent.objects.Secret(a.pod.Namespace, ref.Name)
		if err != nil {
			a.w.agent.event(a.pod, "", corev1.EventTypeWarning, "FailedToRetrieveImagePullSecret",
				fmt.Sprintf("Unable to retrieve some image pull secrets (%s); attempting to pull the image may not succeed.", ref.Name))
			continue
		}
		out = append(out, s)
	}
	return out
}

// build makes the OCI spec from everything that the container refers to.
func (a *attempt) build(ctx context.Context) (*specs.Spec, []corev1.VolumeMountStatus, error) {
	w, ag := a.w, a.w.agent
	if lack := lacking(a.spec); lack != "" { // an ephemeral one: others keep the pod from its sandbox
		return nil, nil, configProblem(errors.New(lack))
	}
	w.noteServices()
	facts := w.facts()
	vars, err := environ.Build(a.spec, facts, ag.objects)
	if err != nil {
		return nil, nil, configProblem(err)
	}
	get := environ.Lookup(vars)
	mounts, status, err := volumes.Mounts(w.volumes(), a.spec, get)
	if err != nil {
		return nil, nil, configProblem(err)
	}
	if a.user, err = a.resolveUser(ctx); err != nil {
		return nil, nil, err
	}
	files, err := a.fileMounts(mounts)
	if err != nil {
		return nil, nil, configProblem(err)
	}
	in := ocispec.Input{
		Pod: a.pod, Container: a.spec, QOS: lifecycle.QOS(a.pod), Image: a.image, User: a.user, Host: ag.host,
		Mounts: append(files, mounts...), CgroupPath: "/" + filepath.Join(w.cgroup(), a.id), Groups: podGroups(a.pod),
	}
	for _, v := range vars {
		in.Env = append(in.Env, v.Name+"="+v.Value)
	}
	for _, s := range a.spec.Command {
		in.Command = append(in.Command, environ.Expand(s, get))
	}
	for _, s := range a.spec.Args {
		in.Args = append(in.Args, environ.Expand(s, get))
	}
	w.mu.Lock()
	in.Sandbox = w.paths
	w.mu.Unlock()
	if in.PIDPath, err = a.pidNamespace(ctx); err != nil {
		return nil, nil, err
	}
	s, notices, err := ocispec.Build(in)
	if err != nil {
		return nil, nil, configProblem(err)
	}
	if ag.cfg.Lease != nil && isolation.Stops(a.pod.Annotations) && !w.static() {
		s.Annotations[isolation.LeaseAnnotation] = ag.cfg.Lease.File()
	}
	if len(notices) > 0 && a.n == 0 {
		for _, n := range notices {
			ag.log.Debug("host cannot give what a container asked for", "pod", a.pod.Name, "container", a.spec.Name, "what", n)
		}
		w.reportClamped(a.spec, notices)
	}
	return s, status, nil
}

// reportClamped tells users about capabilities and huge pages that they asked
// for by name and did not get.
func (w *worker) reportClamped(c *corev1.Container, notices []string) {
	sc := c.SecurityContext
	byName := sc != nil && sc.Capabilities != nil && len(sc.Capabilities.Add) > 0
	for r := range c.Resources.Limits {
		byName = byName || strings.HasPrefix(string(r), corev1.ResourceHugePagesPrefix)
	}
	if !byName {
		return
	}
	for _, n := range notices {
		w.agent.event(w.pod(), c.Name, corev1.EventTypeWarning, "HostLimited", n)
	}
}

func podGroups(pod *corev1.Pod) []uint32 {
	var out []uint32
	sc := pod.Spec.SecurityContext
	if sc == nil {
		return nil
	}
	for _, g := range sc.SupplementalGroups {
		out = append(out, uint32(g))
	}
	if sc.FSGroup != nil {
		out = append(out, uint32(*sc.FSGroup))
	}
	return out
}

// resolveUser works out who the container runs as, and refuses root where the
// pod forbids it.
func (a *attempt) resolveUser(ctx context.Context) (runtime.User, error) {
	var uid, gid *int64
	var nonRoot *bool
	if sc := a.pod.Spec.SecurityContext; sc != nil {
		uid, gid, nonRoot = sc.RunAsUser, sc.RunAsGroup, sc.RunAsNonRoot
	}
	if sc := a.spec.SecurityContext; sc != nil {
		if sc.RunAsUser != nil {
			uid = sc.RunAsUser
		}
		if sc.RunAsGroup != nil {
			gid = sc.RunAsGroup
		}
		if sc.RunAsNonRoot != nil {
			nonRoot = sc.RunAsNonRoot
		}
	}
	name := a.image.Config.User
	if uid != nil {
		name = strconv.FormatInt(*uid, 10)
	}
	if nonRoot != nil && *nonRoot {
		where := fmt.Sprintf("(pod: %q, container: %s)", a.pod.Name+"_"+a.pod.Namespace+"("+string(a.pod.UID)+")", a.spec.Name)
		user := hostUser(name)
		switch _, numErr := strconv.ParseInt(user, 10, 64); {
		case uid != nil && *uid == 0:
			return runtime.User{}, configProblem(fmt.Errorf("container's runAsUser breaks non-root policy %s", where))
		case user == "" || user == "0":
			return runtime.User{}, configProblem(fmt.Errorf("container has runAsNonRoot and image will run as root %s", where))
		case numErr != nil:
			return runtime.User{}, configProblem(fmt.Errorf("container has runAsNonRoot and image has non-numeric user (%s), cannot verify user is non-root %s", user, where))
		}
	}
	u, err := a.w.agent.rt.LookupUser(ctx, a.image.Name, name)
	if err != nil {
		return runtime.User{}, err
	}
	// The words above are for users; this is the guarantee, however the image spells zero.
	if nonRoot != nil && *nonRoot && u.UID == 0 {
		return runtime.User{}, configProblem(fmt.Errorf("container has runAsNonRoot and image will run as root (pod: %q, container: %s)", a.pod.Name+"_"+a.pod.Namespace+"("+string(a.pod.UID)+")", a.spec.Name))
	}
	if gid != nil {
		u.GID = uint32(*gid)
	}
	return u, nil
}

func hostUser(name string) string {
	for i := range name {
		if name[i] == ':' {
			return name[:i]
		}
	}
	return name
}

// fileMounts are the files that the agent gives to every container.
func (a *attempt) fileMounts(volumeMounts []specs.Mount) ([]specs.Mount, error) {
	taken := map[string]bool{}
	for _, m := range volumeMounts {
		taken[m.Destination] = true
	}
	var out []specs.Mount
	mode := "rw"
	if sc := a.spec.SecurityContext; sc != nil && sc.ReadOnlyRootFilesystem != nil && *sc.ReadOnlyRootFilesystem {
		mode = "ro"
	}
	bind := func(to, from, mode string) {
		if !taken[to] {
			out = append(out, specs.Mount{Destination: to, Type: "bind", Source: from, Options: []string{"rbind", "rprivate", mode}})
		}
	}
	bind("/etc/hosts", filepath.Join(a.w.dir(), "etc-hosts"), mode)
	bind("/etc/hostname", filepath.Join(a.w.dir(), "hostname"), mode)
	bind("/etc/resolv.conf", filepath.Join(a.w.dir(), "resolv.conf"), mode)
	path := a.spec.TerminationMessagePath
	if path == "" {
		path = corev1.TerminationMessagePathDefault
	}
	file := a.w.terminationFile(a.spec.Name, a.n)
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		return nil, fmt.Errorf("make termination folder: %w", err)
	}
	if err := os.WriteFile(file, nil, 0o666); err != nil {
		return nil, fmt.Errorf("make termination file: %w", err)
	}
	if err := os.Chmod(file, 0o666); err != nil {
		return nil, fmt.Errorf("open termination file: %w", err)
	}
	bind(path, file, "rw")
	return out, nil
}

func (w *worker) terminationFile(container string, n int) string {
	return terminationPath(w.dir(), container, n)
}

func terminationPath(dir, container string, n int) string {
	return filepath.Join(dir, "containers", container, strconv.Itoa(n))
}

func (w *worker) logPath(container string, n int) string { return logPath(w.logDir(), container, n) }

func logPath(dir, container string, n int) string {
	return filepath.Join(dir, container, strconv.Itoa(n)+".log")
}

func (a *attempt) logPath() string { return a.w.logPath(a.spec.Name, a.n) }

// prepareLog makes the log's place, links it where collectors look, and drops
// the log of the attempt before the last.
func (a *attempt) prepareLog() error {
	if err := os.MkdirAll(filepath.Dir(a.logPath()), 0o755); err != nil {
		return fmt.Errorf("make log folder: %w", err)
	}
	stem := filepath.Join(a.w.agent.cfg.ContainerLogDir, fmt.Sprintf("%s_%s_%s-", a.pod.Name, a.pod.Namespace, a.spec.Name))
	link := stem + a.id + ".log"
	old, err := logLinks(stem)
	if err != nil {
		return fmt.Errorf("list log links: %w", err)
	}
	for _, l := range old {
		if err := os.Remove(l); err != nil {
			return fmt.Errorf("remove old log link: %w", err)
		}
	}
	if err := os.Symlink(a.logPath(), link); err != nil {
		return fmt.Errorf("link log: %w", err)
	}
	if a.n < 2 {
		return nil
	}
	stale, err := filepath.Glob(a.w.logPath(a.spec.Name, a.n-2) + "*")
	if err != nil {
		return fmt.Errorf("list old logs: %w", err)
	}
	for _, f := range append(stale, a.w.terminationFile(a.spec.Name, a.n-2)) {
		if err := os.Remove(f); err != nil && !os.IsNotExist(err) {
			return fmt.Errorf("remove old log: %w", err)
		}
	}
	return nil
}

// logLinks finds the links of one container. Another one's name may go on where this one's ends; an ID has no hyphen.
func logLinks(stem string) ([]string, error) {
	found, err := filepath.Glob(stem + "*.log")
	return slices.DeleteFunc(found, func(l string) bool { return strings.Contains(l[len(stem):], "-") }), err
}
