package pods

import (
	"context"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	kruntime "k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/intstr"
	fields "k8s.io/apimachinery/pkg/util/validation/field"
	clienttesting "k8s.io/client-go/testing"
	"k8s.io/utils/ptr"

	"github.com/podvine/podvine/agent/pods/internal/podtest"
)

// drainEvents returns the events so far.
func (n *node) drainEvents() []string {
	var out []string
	for {
		select {
		case e := <-n.events.Events:
			out = append(out, e)
		default:
			return out
		}
	}
}

// wantEvents waits until each of the events has been recorded, since the node was made.
func (n *node) wantEvents(want ...string) {
	n.t.Helper()
	podtest.Wait(n.t, "events "+strings.Join(want, "; "), func() bool {
		n.seen = append(n.seen, n.drainEvents()...)
		all := strings.Join(n.seen, "\n")
		for _, w := range want {
			if !strings.Contains(all, w) {
				return false
			}
		}
		return true
	})
}

func status(pod *corev1.Pod, name string) corev1.ContainerStatus {
	for _, list := range [][]corev1.ContainerStatus{pod.Status.InitContainerStatuses, pod.Status.ContainerStatuses} {
		for _, s := range list {
			if s.Name == name {
				return s
			}
		}
	}
	return corev1.ContainerStatus{}
}

func TestCrashLoop(t *testing.T) {
	t.Parallel()
	n := newNode(t).start()
	n.create(newPod("crash", box("main", "say", "1", "oops")))
	pod := n.until("crash", "backs off", func(p *corev1.Pod) bool {
		s := status(p, "main")
		return s.RestartCount == 1 && s.State.Waiting != nil && s.State.Waiting.Reason == "CrashLoopBackOff"
	})
	s := status(pod, "main")
	if s.LastTerminationState.Terminated == nil || s.LastTerminationState.Terminated.ExitCode != 1 || pod.Status.Phase != corev1.PodRunning {
		t.Errorf("status %+v", s)
	}
	if !strings.HasPrefix(s.State.Waiting.Message, "back-off 10s restarting failed container=main pod=crash_default(uid-crash)") {
		t.Errorf("message %q", s.State.Waiting.Message)
	}
	n.wantEvents("Normal Pulled", "Normal Created", "Normal Started", "Warning BackOff Back-off restarting failed container main in pod crash_default(uid-crash)")
	n.delete("crash", 0)
}

func TestInitContainersAndSidecar(t *testing.T) {
	t.Parallel()
	n := newNode(t).start()
	pod := newPod("batch", box("main", "cat", "/work/one", "/work/two"))
	side := box("side", "sleep")
	side.RestartPolicy = ptr.To(corev1.ContainerRestartPolicyAlways)
	pod.Spec.InitContainers = []corev1.Container{box("first", "write", "/work/one", "1"), side, box("second", "write", "/work/two", "2")}
	pod.Spec.Volumes = []corev1.Volume{{Name: "work", VolumeSource: corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{}}}}
	mount := []corev1.VolumeMount{{Name: "work", MountPath: "/work"}}
	pod.Spec.InitContainers[0].VolumeMounts, pod.Spec.InitContainers[2].VolumeMounts, pod.Spec.Containers[0].VolumeMounts = mount, mount, mount
	pod.Spec.RestartPolicy = corev1.RestartPolicyNever
	n.create(pod)
	got := n.until("batch", "succeeds", phaseOf(corev1.PodSucceeded))
	if out := n.log("batch", "main", 0); out != "12\n" {
		t.Errorf("main saw %q", out)
	}
	for _, name := range []string{"first", "second", "side", "main"} {
		if s := status(got, name); s.State.Terminated == nil || s.State.Terminated.ExitCode != 0 {
			t.Errorf("%s: %+v", name, s.State)
		}
	}
	first, second := status(got, "first").State.Terminated, status(got, "second").State.Terminated
	if second.StartedAt.Before(&first.FinishedAt) && second.StartedAt.Time != first.FinishedAt.Time {
		t.Errorf("second began %v before first ended %v", second.StartedAt, first.FinishedAt)
	}
	n.delete("batch", 0)
}

func TestFailedInitContainerFailsPod(t *testing.T) {
	t.Parallel()
	n := newNode(t).start()
	pod := newPod("noinit", box("main", "sleep"))
	pod.Spec.InitContainers = []corev1.Container{box("bad", "say", "7", "no")}
	pod.Spec.RestartPolicy = corev1.RestartPolicyNever
	n.create(pod)
	got := n.until("noinit", "fails", phaseOf(corev1.PodFailed))
	if s := status(got, "main"); s.State.Waiting == nil || s.State.Waiting.Reason != "PodInitializing" {
		t.Errorf("main %+v", s.State)
	}
}

func TestProbes(t *testing.T) {
	t.Parallel()
	n := newNode(t).start()
	c := box("web", "http", ":8080", "/work/ok")
	c.VolumeMounts = []corev1.VolumeMount{{Name: "work", MountPath: "/work"}}
	c.Ports = []corev1.ContainerPort{{Name: "http", ContainerPort: 8080}}
	c.StartupProbe = &corev1.Probe{PeriodSeconds: 1, FailureThreshold: 30, ProbeHandler: corev1.ProbeHandler{TCPSocket: &corev1.TCPSocketAction{Port: intstr.FromInt32(8080)}}}
	c.ReadinessProbe = &corev1.Probe{PeriodSeconds: 1, FailureThreshold: 1, ProbeHandler: corev1.ProbeHandler{HTTPGet: &corev1.HTTPGetAction{Path: "/", Port: intstr.FromString("http")}}}
	c.LivenessProbe = &corev1.Probe{PeriodSeconds: 1, FailureThreshold: 1, InitialDelaySeconds: 1, ProbeHandler: corev1.ProbeHandler{Exec: &corev1.ExecAction{Command: []string{"/bin/box", "cat", "/work/alive"}}}}
	pod := newPod("probed", c)
	dir := filepath.Join(n.dirs.Root, "work")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	touch := func(name string) {
		if err := os.WriteFile(filepath.Join(dir, name), []byte("x"), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	touch("alive")
	pod.Spec.Volumes = []corev1.Volume{{Name: "work", VolumeSource: corev1.VolumeSource{HostPath: &corev1.HostPathVolumeSource{Path: dir, Type: ptr.To(corev1.HostPathDirectory)}}}}
	n.create(pod)
	n.until("probed", "has started but is not ready", func(p *corev1.Pod) bool {
		s := status(p, "web")
		return s.Started != nil && *s.Started && !s.Ready
	})
	n.wantEvents("Readiness probe failed: HTTP probe failed with statuscode: 503")
	touch("ok")
	n.until("probed", "is ready", ready)
	if err := os.Remove(filepath.Join(dir, "alive")); err != nil {
		t.Fatal(err)
	}
	n.until("probed", "is restarted", func(p *corev1.Pod) bool { return status(p, "web").RestartCount > 0 })
	n.wantEvents("Liveness probe failed:", "Container web failed liveness probe, will be restarted")
	n.delete("probed", 0)
}

func TestHooksAndGrace(t *testing.T) {
	t.Parallel()
	n := newNode(t).start()
	dir := filepath.Join(n.dirs.Root, "host")
	c := box("main", "stubborn")
	c.VolumeMounts = []corev1.VolumeMount{{Name: "h", MountPath: "/h"}}
	say := func(f string) *corev1.LifecycleHandler {
		return &corev1.LifecycleHandler{Exec: &corev1.ExecAction{Command: []string{"/bin/box", "write", "/h/" + f, f}}}
	}
	c.Lifecycle = &corev1.Lifecycle{PostStart: say("started"), PreStop: say("stopping")}
	pod := newPod("hooked", c)
	pod.Spec.Volumes = []corev1.Volume{{Name: "h", VolumeSource: corev1.VolumeSource{HostPath: &corev1.HostPathVolumeSource{Path: dir, Type: ptr.To(corev1.HostPathDirectoryOrCreate)}}}}
	n.create(pod)
	n.until("hooked", "is ready", ready)
	if _, err := os.Stat(filepath.Join(dir, "started")); err != nil {
		t.Error(err)
	}
	began := time.Now()
	n.delete("hooked", 2)
	if took := time.Since(began); took < 2*time.Second || took > 12*time.Second {
		t.Errorf("took %v with a grace of 2 s", took)
	}
	if _, err := os.Stat(filepath.Join(dir, "stopping")); err != nil {
		t.Error(err)
	}
	n.wantEvents("Killing Stopping container main")
}

func TestFailedPostStartRestarts(t *testing.T) {
	t.Parallel()
	n := newNode(t).start()
	c := box("main", "sleep")
	c.Lifecycle = &corev1.Lifecycle{PostStart: &corev1.LifecycleHandler{Exec: &corev1.ExecAction{Command: []string{"/bin/box", "say", "1", "no"}}}}
	n.create(newPod("post", c))
	n.until("post", "is restarted", func(p *corev1.Pod) bool { return status(p, "main").RestartCount > 0 })
	n.wantEvents("FailedPostStartHook PostStartHook failed")
	n.delete("post", 0)
}

func TestTerminationMessages(t *testing.T) {
	t.Parallel()
	n := newNode(t).start()
	file := box("file", "write", "/dev/termination-log", "all", "good")
	fallback := box("fallback", "say", "4", "last words")
	fallback.TerminationMessagePolicy = corev1.TerminationMessageFallbackToLogsOnError
	pod := newPod("term", file, fallback)
	pod.Spec.RestartPolicy = corev1.RestartPolicyNever
	n.create(pod)
	got := n.until("term", "fails", phaseOf(corev1.PodFailed))
	if m := status(got, "file").State.Terminated.Message; m != "all good" {
		t.Errorf("message of file: %q", m)
	}
	if m := status(got, "fallback").State.Terminated.Message; m != "last words\n" {
		t.Errorf("message from log: %q", m)
	}
}

func TestOutOfMemory(t *testing.T) {
	t.Parallel()
	n := newNode(t).start()
	c := box("main", "fill", "200000000")
	c.Resources.Limits = corev1.ResourceList{corev1.ResourceMemory: resource.MustParse("32Mi"), corev1.ResourceCPU: resource.MustParse("500m")}
	pod := newPod("oom", c)
	pod.Spec.RestartPolicy = corev1.RestartPolicyNever
	n.create(pod)
	got := n.until("oom", "fails", phaseOf(corev1.PodFailed))
	if s := status(got, "main").State.Terminated; s.Reason != "OOMKilled" || s.ExitCode != 137 {
		t.Errorf("state %+v", s)
	}
	if got.Status.QOSClass != corev1.PodQOSGuaranteed {
		t.Errorf("QoS %s", got.Status.QOSClass)
	}
}

func TestImageProblems(t *testing.T) {
	t.Parallel()
	n := newNode(t).start()
	never, refused, bad := box("never", "sleep"), box("refused", "sleep"), box("bad", "sleep")
	never.Image, never.ImagePullPolicy = "podvine.test/absent:1", corev1.PullNever
	refused.Image = "127.0.0.1:1/absent:1"
	bad.Image = "NOT A NAME"
	n.create(newPod("images", never, refused, bad))
	waits := func(name, reason string) func(*corev1.Pod) bool {
		return func(p *corev1.Pod) bool {
			s := status(p, name)
			return s.State.Waiting != nil && s.State.Waiting.Reason == reason
		}
	}
	n.until("images", "never pulls", waits("never", "ErrImageNeverPull"))
	n.until("images", "backs off", waits("refused", "ImagePullBackOff"))
	pod := n.until("images", "knows a bad name", waits("bad", "InvalidImageName"))
	if pod.Status.Phase != corev1.PodPending {
		t.Errorf("phase %s", pod.Status.Phase)
	}
	n.wantEvents(`Pulling image "127.0.0.1:1/absent:1"`, `Failed to pull image "127.0.0.1:1/absent:1"`, "Warning ErrImageNeverPull")
	n.delete("images", 0)
}

func TestCommandThatDoesNotExist(t *testing.T) {
	t.Parallel()
	n := newNode(t).start()
	c := box("main")
	c.Command = []string{"/bin/absent"}
	pod := newPod("nocmd", c)
	pod.Spec.RestartPolicy = corev1.RestartPolicyNever
	n.create(pod)
	got := n.until("nocmd", "fails", phaseOf(corev1.PodFailed))
	s := status(got, "main").State.Terminated
	if s == nil || s.Reason != "StartError" || s.ExitCode != 128 || !strings.Contains(s.Message, "no such file or directory") {
		t.Errorf("state %+v", s)
	}
}

func TestMissingConfigIsAwaited(t *testing.T) {
	t.Parallel()
	n := newNode(t).start()
	c := box("main", "env")
	c.Env = []corev1.EnvVar{{Name: "X", ValueFrom: &corev1.EnvVarSource{ConfigMapKeyRef: &corev1.ConfigMapKeySelector{LocalObjectReference: corev1.LocalObjectReference{Name: "late"}, Key: "k"}}}}
	pod := newPod("late", c)
	pod.Spec.RestartPolicy = corev1.RestartPolicyNever
	n.create(pod)
	n.until("late", "waits", func(p *corev1.Pod) bool {
		s := status(p, "main")
		return s.State.Waiting != nil && s.State.Waiting.Reason == "CreateContainerConfigError"
	})
	cm := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "late"}, Data: map[string]string{"k": "v"}}
	if _, err := n.client.CoreV1().ConfigMaps("default").Create(context.Background(), cm, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	n.until("late", "succeeds", phaseOf(corev1.PodSucceeded))
	if out := n.log("late", "main", 0); !strings.Contains(out, "X=v\n") {
		t.Errorf("environment:\n%s", out)
	}
}

func TestActiveDeadline(t *testing.T) {
	t.Parallel()
	n := newNode(t).start()
	pod := newPod("short", box("main", "sleep"))
	pod.Spec.ActiveDeadlineSeconds = ptr.To(int64(1))
	n.create(pod)
	got := n.until("short", "fails", func(p *corev1.Pod) bool {
		return p.Status.Phase == corev1.PodFailed && status(p, "main").State.Terminated != nil
	})
	if got.Status.Reason != "DeadlineExceeded" {
		t.Errorf("reason %q", got.Status.Reason)
	}
}

func TestSharedProcessesAndHostNetwork(t *testing.T) {
	t.Parallel()
	n := newNode(t).start()
	pod := newPod("shared", box("a", "sleep"), box("b", "id"))
	pod.Spec.ShareProcessNamespace = ptr.To(true)
	pod.Spec.RestartPolicy = corev1.RestartPolicyNever
	n.create(pod)
	n.until("shared", "has run b", func(p *corev1.Pod) bool { return status(p, "b").State.Terminated != nil })
	if out := n.log("shared", "b", 0); strings.Contains(out, "pid=1\n") || !strings.Contains(out, "host=shared ") {
		t.Errorf("b says %q", out)
	}
	host := newPod("host", box("main", "id"))
	host.Spec.HostNetwork, host.Spec.HostPID = true, true
	host.Spec.RestartPolicy = corev1.RestartPolicyNever
	n.create(host)
	got := n.until("host", "succeeds", phaseOf(corev1.PodSucceeded))
	name, err := os.Hostname()
	if err != nil {
		t.Fatal(err)
	}
	if out := n.log("host", "main", 0); !strings.Contains(out, "host="+name+" ") || strings.Contains(out, "pid=1\n") {
		t.Errorf("main says %q", out)
	}
	if got.Status.HostIP != "127.0.0.1" {
		t.Errorf("host IP %q", got.Status.HostIP)
	}
	n.delete("shared", 0)
	podtest.Wait(t, "nothing is left", func() bool { return len(n.dirs.Left()) == 0 })
}

// refuseOtherUID has the API refuse, as the real one does, the report of a pod in whose place another stands.
func refuseOtherUID(n *node) {
	n.client.PrependReactor("patch", "pods", func(action clienttesting.Action) (bool, kruntime.Object, error) {
		p := action.(clienttesting.PatchActionImpl)
		var sent corev1.Pod
		if err := json.Unmarshal(p.GetPatch(), &sent); err != nil {
			return true, nil, err
		}
		stored, err := n.client.Tracker().Get(p.GetResource(), p.GetNamespace(), p.GetName())
		if err != nil {
			return true, nil, err
		}
		if sent.UID == stored.(*corev1.Pod).UID {
			return false, nil, nil
		}
		immutable := fields.Invalid(fields.NewPath("metadata", "uid"), sent.UID, "field is immutable")
		return true, nil, apierrors.NewInvalid(corev1.SchemeGroupVersion.WithKind("Pod").GroupKind(), p.GetName(), fields.ErrorList{immutable})
	})
}

// TestNamesakeReplacesPod: a pod that went and whose namesake came while nobody watched ends before the other runs on.
func TestNamesakeReplacesPod(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	refuseOtherUID(n)
	n.client.PrependReactor("delete", "pods", func(action clienttesting.Action) (bool, kruntime.Object, error) {
		d := action.(clienttesting.DeleteActionImpl)
		stored, err := n.client.Tracker().Get(d.GetResource(), d.GetNamespace(), d.GetName())
		if err != nil {
			return true, nil, err
		}
		if p := d.DeleteOptions.Preconditions; p == nil || p.UID == nil || *p.UID != stored.(*corev1.Pod).UID {
			return true, nil, apierrors.NewConflict(d.GetResource().GroupResource(), d.GetName(), errors.New("another UID"))
		}
		return false, nil, nil
	})
	n.start()
	n.create(newPod("twin", box("main", "sleep")))
	n.until("twin", "is ready", ready)
	namesake := newPod("twin", box("main", "sleep"))
	namesake.UID = "uid-other"
	if err := n.client.Tracker().Update(corev1.SchemeGroupVersion.WithResource("pods"), namesake, "default"); err != nil {
		t.Fatal(err)
	}
	n.until("twin", "is ready as its namesake", func(p *corev1.Pod) bool { return p.UID == "uid-other" && ready(p) })
	podtest.Wait(t, "the pod of before is gone", func() bool { return n.agent.worker("uid-twin") == nil })
}
