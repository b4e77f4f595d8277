package pods

import (
	"context"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/podvine/podvine/agent/pods/internal/podtest"
	"github.com/podvine/podvine/agent/pods/lifecycle"
	"github.com/podvine/podvine/agent/pods/runtime"
)

// spoil makes every pod record unreadable, as a bad disk would.
func (n *node) spoil() {
	n.t.Helper()
	files, err := filepath.Glob(filepath.Join(n.cfg.DataDir, "vault", podKind, "*"))
	if err != nil || len(files) == 0 {
		n.t.Fatalf("no records, %v", err)
	}
	for _, f := range files {
		if err := os.Truncate(f, 30); err != nil {
			n.t.Fatal(err)
		}
	}
}

// again starts another agent in the folders of the one that has stopped.
func (n *node) again() {
	n.t.Helper()
	var err error
	if n.agent, err = New(n.cfg); err != nil {
		n.t.Fatal(err)
	}
	if n.before != nil {
		n.before(n.agent)
	}
	run(n.t, n.agent)
}

func TestUnreadableRecordCostsNoContainer(t *testing.T) {
	t.Parallel()
	n := newNode(t).start()
	pod := newPod("kept", box("main", "sleep"), box("other", "sleep"))
	n.create(pod)
	before := n.until("kept", "is ready", ready)
	n.create(newPod("gone", box("main", "sleep")))
	n.until("gone", "is ready", ready)
	n.stop()
	n.spoil()
	if err := n.client.CoreV1().Pods("default").Delete(context.Background(), "gone", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	n.again()
	podtest.Wait(t, "the pod has its containers again", func() bool {
		w := n.agent.worker("uid-kept")
		return w != nil && w.allRunning(2)
	})
	after := n.until("kept", "is still ready", ready)
	for _, name := range []string{"main", "other"} {
		was, is := status(before, name), status(after, name)
		if was.ContainerID != is.ContainerID || is.RestartCount != 0 || is.State.Running == nil || !is.State.Running.StartedAt.Equal(&was.State.Running.StartedAt) {
			t.Errorf("%s: %+v, before %+v", name, is, was)
		}
	}
	podtest.Wait(t, "what the API has forgotten ends", func() bool {
		for _, l := range n.dirs.Left() {
			if strings.Contains(l, "uid-gone") {
				return false
			}
		}
		return n.agent.worker("uid-gone") == nil
	})
	n.delete("kept", 0)
	if left := n.dirs.Left(); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
}

// An agent that is killed right after a start has not written it down.
func TestAbsorbTakesWhatTheRecordDoesNotKnowYet(t *testing.T) {
	found := func(id, name, attempt string, state runtime.State) runtime.Found {
		return runtime.Found{ID: id, State: state, Pid: 7, Labels: map[string]string{labelContainer: name, labelAttempt: attempt}}
	}
	rec := podRecord{Pod: newPod("p", box("known", "sleep"), box("new", "sleep"), box("again", "sleep"), box("half", "sleep")), Containers: map[string]lifecycle.Container{
		"known": {Name: "known", ID: "k", Phase: lifecycle.Running, Attempts: 1},
		"again": {Name: "again", ID: "a0", Phase: lifecycle.Exited, Attempts: 1, ExitCode: 3, Restarts: 4},
	}}
	stale := absorb(&rec, []runtime.Found{
		found("k", "known", "0", runtime.StateRunning), found("n", "new", "0", runtime.StateRunning), found("a1", "again", "1", runtime.StateRunning),
		found("a0", "again", "0", runtime.StateExited), found("h", "half", "0", runtime.StateCreated), found("x", "removed", "0", runtime.StateRunning),
		{ID: "init", State: runtime.StateRunning, Pid: 9},
	})
	slices.Sort(stale)
	if stale = slices.Compact(stale); !slices.Equal(stale, []string{"a0", "h", "x"}) {
		t.Errorf("removes %v", stale)
	}
	if rec.Containers["known"].ID != "k" || rec.Containers["new"].ID != "n" || rec.Containers["new"].Phase != lifecycle.Running || rec.InitID != "init" || rec.InitPid != 9 {
		t.Errorf("record %+v", rec)
	}
	if c := rec.Containers["again"]; c.ID != "a1" || c.Attempts != 2 || c.Restarts != 5 || c.Last == nil || c.Last.ExitCode != 3 {
		t.Errorf("restarted: %+v", c)
	}
	if _, ok := rec.Containers["half"]; ok {
		t.Error("what never started counts as a container")
	}
}

func TestRebuildRecordTakesTheLastAttempt(t *testing.T) {
	pod := newPod("p", box("main", "sleep"))
	pod.Status.PodIPs = []corev1.PodIP{{IP: "10.0.0.7"}}
	pod.Status.ContainerStatuses = []corev1.ContainerStatus{{Name: "main", RestartCount: 5}}
	found := func(id, attempt string) runtime.Found {
		return runtime.Found{ID: id, State: runtime.StateRunning, Labels: map[string]string{labelPodUID: "uid-p", labelContainer: "main", labelAttempt: attempt}}
	}
	rec := rebuildRecord(pod, []runtime.Found{found("b", "3"), found("a", "2"), {ID: "init", Pid: 9, Labels: map[string]string{labelPodUID: "uid-p"}}})
	c := rec.Containers["main"]
	if c.ID != "b" || c.Attempts != 4 || c.Restarts != 5 || c.Phase != lifecycle.Running || rec.InitID != "init" || rec.InitPid != 9 || rec.IPs[0] != "10.0.0.7" {
		t.Errorf("record %+v, container %+v", rec, c)
	}
}
