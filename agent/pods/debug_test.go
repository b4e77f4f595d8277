package pods

import (
	"bytes"
	"context"
	"encoding/json"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/podvine/podvine/agent/pods/internal/podtest"
	"github.com/podvine/podvine/agent/pods/kubeletapi"
)

// patch changes a part of a pod, so that a status that is reported meanwhile
// stays.
func (n *node) patch(pod string, change any) {
	n.t.Helper()
	body, err := json.Marshal(change)
	if err != nil {
		n.t.Fatal(err)
	}
	if _, err := n.client.CoreV1().Pods("default").Patch(context.Background(), pod, types.StrategicMergePatchType, body, metav1.PatchOptions{}); err != nil {
		n.t.Fatal(err)
	}
}

// debug adds an ephemeral container to a pod, as kubectl debug does.
func (n *node) debug(pod string, c corev1.Container, target string) {
	n.t.Helper()
	n.patch(pod, map[string]any{"spec": map[string]any{"ephemeralContainers": []corev1.EphemeralContainer{{
		EphemeralContainerCommon: corev1.EphemeralContainerCommon(c), TargetContainerName: target,
	}}}})
}

func ephemeralStatus(p *corev1.Pod, name string) corev1.ContainerStatus {
	for _, s := range p.Status.EphemeralContainerStatuses {
		if s.Name == name {
			return s
		}
	}
	return corev1.ContainerStatus{}
}

func TestEphemeralContainers(t *testing.T) {
	t.Parallel()
	n := newNode(t).start()
	n.create(newPod("sick", box("main", "sleep"), box("stuck", "sleep")))
	before := n.until("sick", "is ready", ready)
	n.debug("sick", box("look", "cat", "/proc/1/cmdline"), "main")
	got := n.until("sick", "was looked at", func(p *corev1.Pod) bool { return ephemeralStatus(p, "look").State.Terminated != nil })
	if out := n.log("sick", "look", 0); !strings.Contains(out, "sleep") {
		t.Errorf("the process with the number 1 is %q, not the target's", out)
	}
	if s := ephemeralStatus(got, "look"); s.State.Terminated.ExitCode != 0 || s.RestartCount != 0 || s.Ready {
		t.Errorf("status %+v", s)
	}
	shell := box("shell", "tee")
	shell.Stdin, shell.StdinOnce = true, true
	n.debug("sick", shell, "")
	n.until("sick", "has a shell", func(p *corev1.Pod) bool { return ephemeralStatus(p, "shell").State.Running != nil })
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	var out bytes.Buffer
	err := apiNode{n.agent}.Attach(ctx, kubeletapi.Target{Namespace: "default", Pod: "sick", Container: "shell"},
		kubeletapi.Streams{Stdin: strings.NewReader("hello\n"), Stdout: &out})
	if err != nil || out.String() != "got: hello\nend of input\n" {
		t.Errorf("attached: %q, %v", out.String(), err)
	}
	last := box("last", "sleep")
	n.debug("sick", last, "")
	after := n.until("sick", "runs the last one", func(p *corev1.Pod) bool { return ephemeralStatus(p, "last").State.Running != nil })
	if !ready(after) || status(after, "main").ContainerID != status(before, "main").ContainerID {
		t.Errorf("debugging disturbed the pod: %+v", after.Status)
	}
	n.delete("sick", 5)
	podtest.Wait(t, "nothing is left", func() bool { return len(n.dirs.Left()) == 0 })
}

// What cannot start is just when somebody wants to look.
func TestEphemeralContainerBesideAFailedInit(t *testing.T) {
	t.Parallel()
	n := newNode(t).start()
	pod := newPod("noinit", box("main", "sleep"))
	pod.Spec.InitContainers = []corev1.Container{box("bad", "say", "1", "no")}
	n.create(pod)
	n.until("noinit", "fails to begin", func(p *corev1.Pod) bool { return status(p, "bad").RestartCount > 0 })
	n.debug("noinit", box("look", "say", "0", "hello"), "")
	n.until("noinit", "was looked at", func(p *corev1.Pod) bool { return ephemeralStatus(p, "look").State.Terminated != nil })
	if out := n.log("noinit", "look", 0); out != "hello\n" {
		t.Errorf("log %q", out)
	}
	n.delete("noinit", 0)
}
