package pods

import (
	"context"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/ptr"

	"github.com/podvine/podvine/agent/pods/internal/podtest"
)

func TestWhatMayStartFromDisk(t *testing.T) {
	for _, c := range []struct {
		name      string
		exclusive bool
		heard     Confirmation
		waited    time.Duration
		want      bool
	}{
		{"confirmed", true, Confirmed, 0, true},
		{"gone", false, Gone, time.Hour, false},
		{"gone, exclusive", true, Gone, time.Hour, false},
		{"a stale copy has it", false, Stale, 0, true},
		{"a stale copy has it, exclusive", true, Stale, exclusiveWait - 1, false},
		{"a stale copy has it, exclusive, for long", true, Stale, exclusiveWait, true},
		{"nobody answers yet", false, Unconfirmed, keptWait - 1, false},
		{"nobody answers", false, Unconfirmed, keptWait, true},
		{"nobody answers, exclusive", true, Unconfirmed, exclusiveWait - 1, false},
		{"nobody answers for long, exclusive", true, Unconfirmed, exclusiveWait, true},
	} {
		if got := mayStart(c.exclusive, c.heard, c.waited); got != c.want {
			t.Errorf("%s: %v", c.name, got)
		}
	}
}

func TestAnswer(t *testing.T) {
	ref := PodRef{Namespace: "default", Name: "a", UID: "1"}
	pod := func(uid types.UID, deleted bool) *corev1.Pod {
		p := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "a", UID: uid}}
		if deleted {
			p.DeletionTimestamp = &metav1.Time{Time: time.Now()}
		}
		return p
	}
	for _, c := range []struct {
		name  string
		pod   *corev1.Pod
		stale bool
		want  Confirmation
	}{
		{"it is there", pod("1", false), false, Confirmed},
		{"a copy has it", pod("1", false), true, Stale},
		{"none", nil, false, Gone},
		{"a copy has none", nil, true, Unconfirmed},
		{"a namesake", pod("2", false), false, Gone},
		{"about to go", pod("1", true), false, Gone},
	} {
		if got := Answer(ref, c.pod, c.stale); got != c.want {
			t.Errorf("%s: %v", c.name, got)
		}
	}
}

// After a boot, a StatefulSet's pod does not start from the disk before the API has said that it is this node's still.
func TestExclusivePodAsksBeforeItStarts(t *testing.T) {
	n := newNode(t)
	var mu sync.Mutex
	answers, asked := map[string]Confirmation{}, 0
	n.cfg.Confirm = func(_ context.Context, pod PodRef) (Confirmation, error) {
		mu.Lock()
		defer mu.Unlock()
		asked++
		return answers[pod.Name], nil
	}
	questions := func() int {
		mu.Lock()
		defer mu.Unlock()
		return asked
	}
	n.start()
	for _, name := range []string{"mine", "taken"} {
		pod := newPod(name, box("main", "sleep"))
		pod.OwnerReferences = []metav1.OwnerReference{{APIVersion: "apps/v1", Kind: "StatefulSet", Name: "set", UID: "set", Controller: ptr.To(true)}}
		n.create(pod)
		n.until(name, "is ready", ready)
	}
	if questions() > 0 {
		t.Error("new pods are asked for")
	}
	n.stop()
	n.dirs.Reboot(t)
	n.start()
	runs := func(name string) bool {
		w := n.agent.find("default", name, "")
		w.mu.Lock()
		defer w.mu.Unlock()
		return w.runsLocked()
	}
	podtest.Wait(t, "the API is asked", func() bool { return questions() > 4 })
	if runs("mine") || runs("taken") {
		t.Error("a pod runs before anybody has said that it is this node's")
	}
	mu.Lock()
	answers["mine"], answers["taken"] = Confirmed, Gone
	mu.Unlock()
	podtest.Wait(t, "what is confirmed runs", func() bool { return runs("mine") })
	if runs("taken") {
		t.Error("what is gone runs")
	}
}
