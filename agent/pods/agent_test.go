package pods

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes/fake"
	"k8s.io/client-go/tools/record"
	"k8s.io/utils/ptr"

	"github.com/podvine/podvine/agent/pods/images"
	"github.com/podvine/podvine/agent/pods/internal/podtest"
	"github.com/podvine/podvine/agent/pods/lifecycle"
	"github.com/podvine/podvine/agent/pods/logs"
)

var programs podtest.Programs // set once by TestMain, before any test

func TestMain(m *testing.M) {
	if dir := os.Getenv(childEnv); dir != "" {
		os.Exit(runChild(dir))
	}
	var err error
	if programs, err = podtest.Build(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(m.Run())
}

type loopNet struct{ podtest.Loopback }

func (l *loopNet) Setup(_ context.Context, pod PodRef, _ string, ports []HostPort) (NetworkResult, error) {
	return NetworkResult{IPs: []net.IP{l.Note(fmt.Sprintf("setup %s %d", pod.Name, len(ports)))}}, nil
}

func (l *loopNet) Teardown(_ context.Context, pod PodRef, _ string) error {
	l.Note("teardown " + pod.Name)
	return nil
}

func (l *loopNet) Check(context.Context, PodRef, string) error { return nil }

// node is an Agent under test with a fake API.
type node struct {
	t      testing.TB
	dirs   podtest.Dirs
	cfg    Config
	client *fake.Clientset
	net    *loopNet
	events *record.FakeRecorder
	seen   []string // of events, by wantEvents
	// before, if any, changes the agent before it runs.
	before func(*Agent)
	agent  *Agent
	stop   func()
}

func nodeConfig(dirs podtest.Dirs) Config {
	at := func(s string) string { return filepath.Join(dirs.Root, s) }
	return Config{
		NodeName: "n1", DataDir: at("data"), StateDir: at("run"), KubeletDir: at("kubelet"), LogDir: at("log/pods"), ContainerLogDir: at("log/containers"),
		SocketDir: at("s"), ShimPath: programs.Shim, RuncPath: programs.Runc, CgroupParent: dirs.Cgroup, SkipNode: true,
		ClusterDNS: []string{"10.96.0.10"}, NodeIPs: []string{"127.0.0.1"},
		EvictionThresholds: notOfTheDisk(lifecycle.DefaultThresholds()), ImageGC: &images.Thresholds{HighPercent: 100, LowPercent: 99},
	}
}

// notOfTheDisk leaves out what would make tests depend on how full the machine's disk is.
func notOfTheDisk(all []lifecycle.Threshold) []lifecycle.Threshold {
	disk := []lifecycle.Signal{lifecycle.NodeFSAvailable, lifecycle.NodeFSInodesFree, lifecycle.ImageFSAvailable, lifecycle.ImageFSInodesFree}
	return slices.DeleteFunc(all, func(t lifecycle.Threshold) bool { return slices.Contains(disk, t.Signal) })
}

func newNode(t testing.TB) *node {
	t.Helper()
	n := &node{t: t, dirs: podtest.NewDirs(t), client: fake.NewSimpleClientset(), net: &loopNet{}, events: record.NewFakeRecorder(4096)}
	n.cfg = nodeConfig(n.dirs)
	n.cfg.Client, n.cfg.Network, n.cfg.Recorder = n.client, n.net, n.events
	n.cfg.Log = slog.New(slog.NewTextHandler(testWriter{t}, &slog.HandlerOptions{Level: slog.LevelWarn}))
	return n
}

type testWriter struct{ t testing.TB }

func (w testWriter) Write(p []byte) (int, error) {
	w.t.Log(strings.TrimSpace(string(p)))
	return len(p), nil
}

// start begins the agent and imports the test image.
func (n *node) start() *node {
	n.t.Helper()
	var err error
	if n.agent, err = New(n.cfg); err != nil {
		n.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	archive, err := podtest.Archive(programs.Box, podtest.Image, nil)
	if err != nil {
		n.t.Fatal(err)
	}
	if _, err := n.agent.Images().Import(ctx, archive); err != nil {
		n.t.Fatal(err)
	}
	if n.before != nil {
		n.before(n.agent)
	}
	go func() { done <- n.agent.Run(ctx) }()
	n.stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			n.t.Errorf("agent: %v", err)
		}
	})
	n.t.Cleanup(n.stop)
	return n
}

// box is a container of the test image.
func box(name string, args ...string) corev1.Container {
	return corev1.Container{Name: name, Image: podtest.Image, Args: args, ImagePullPolicy: corev1.PullIfNotPresent}
}

func newPod(name string, cs ...corev1.Container) *corev1.Pod {
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: "default", UID: types.UID("uid-" + name), Generation: 1},
		Spec: corev1.PodSpec{
			NodeName: "n1", Containers: cs, RestartPolicy: corev1.RestartPolicyAlways, DNSPolicy: corev1.DNSClusterFirst,
			TerminationGracePeriodSeconds: ptr.To(int64(5)),
		},
	}
}

func (n *node) create(pod *corev1.Pod) *corev1.Pod {
	n.t.Helper()
	got, err := n.client.CoreV1().Pods(pod.Namespace).Create(context.Background(), pod, metav1.CreateOptions{})
	if err != nil {
		n.t.Fatal(err)
	}
	return got
}

func (n *node) get(name string) *corev1.Pod {
	n.t.Helper()
	got, err := n.client.CoreV1().Pods("default").Get(context.Background(), name, metav1.GetOptions{})
	if err != nil {
		n.t.Fatal(err)
	}
	return got
}

// until waits until the pod's reported state satisfies ok.
func (n *node) until(name, what string, ok func(*corev1.Pod) bool) *corev1.Pod {
	n.t.Helper()
	var last *corev1.Pod
	defer func() {
		if n.t.Failed() && last != nil {
			n.t.Logf("pod %s: %s %+v", name, last.Status.Phase, last.Status.ContainerStatuses)
		}
	}()
	podtest.Wait(n.t, name+" "+what, func() bool {
		last = n.get(name)
		return ok(last)
	})
	return last
}

func phaseOf(p corev1.PodPhase) func(*corev1.Pod) bool {
	return func(pod *corev1.Pod) bool { return pod.Status.Phase == p }
}

func ready(pod *corev1.Pod) bool {
	for _, c := range pod.Status.Conditions {
		if c.Type == corev1.PodReady {
			return c.Status == corev1.ConditionTrue
		}
	}
	return false
}

// delete asks for the pod's end as the API does, and waits for it.
func (n *node) delete(name string, grace int64) {
	n.t.Helper()
	pod := n.get(name)
	now := metav1.Now()
	pod.DeletionTimestamp, pod.DeletionGracePeriodSeconds = &now, &grace
	if _, err := n.client.CoreV1().Pods("default").Update(context.Background(), pod, metav1.UpdateOptions{}); err != nil {
		n.t.Fatal(err)
	}
	podtest.Wait(n.t, name+" is gone", func() bool {
		_, err := n.client.CoreV1().Pods("default").Get(context.Background(), name, metav1.GetOptions{})
		return err != nil
	})
}

func (n *node) log(pod, container string, attempt int) string {
	n.t.Helper()
	w := n.agent.find("default", pod, "")
	if w == nil {
		n.t.Fatalf("no pod %s", pod)
	}
	var b bytes.Buffer
	if err := logs.Read(context.Background(), w.logPath(container, attempt), logs.Options{Tail: -1}, &b, nil); err != nil {
		n.t.Fatal(err)
	}
	return b.String()
}

func TestOneContainerRuns(t *testing.T) {
	n := newNode(t).start()
	n.create(newPod("web", box("main", "sleep")))
	pod := n.until("web", "is ready", ready)
	if pod.Status.Phase != corev1.PodRunning || pod.Status.PodIP != "127.0.0.1" || pod.Status.QOSClass != corev1.PodQOSBestEffort {
		t.Errorf("status %+v", pod.Status)
	}
	c := pod.Status.ContainerStatuses[0]
	if !c.Ready || c.State.Running == nil || !strings.HasPrefix(c.ContainerID, "containerd://") || !strings.HasPrefix(c.ImageID, "sha256:") {
		t.Errorf("container status %+v", c)
	}
	n.delete("web", 5)
	if left := n.dirs.Left(); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
}

func TestLogOfFinishedContainer(t *testing.T) {
	n := newNode(t).start()
	pod := newPod("job", box("main", "say", "3", "hello", "there"))
	pod.Spec.RestartPolicy = corev1.RestartPolicyNever
	n.create(pod)
	got := n.until("job", "failed", phaseOf(corev1.PodFailed))
	term := got.Status.ContainerStatuses[0].State.Terminated
	if term == nil || term.ExitCode != 3 || term.Reason != "Error" {
		t.Errorf("state %+v", got.Status.ContainerStatuses[0].State)
	}
	if out := n.log("job", "main", 0); out != "hello there\n" {
		t.Errorf("log %q", out)
	}
}
