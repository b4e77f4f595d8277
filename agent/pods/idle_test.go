package pods

import (
	"fmt"
	"os"
	"testing"
	"time"

	"github.com/podvine/podvine/agent/pods/internal/podtest"
)

// TestIdlePodsCostNothing watches a hundred pods that do nothing for a minute:
// nobody asks containerd and nobody writes to the API.
func TestIdlePodsCostNothing(t *testing.T) {
	// The client's watch keeps a hundred events that nobody has read yet, and a pod has some four until it is ready.
	const burst = 10
	const pods, quiet = 10 * burst, time.Minute
	n := newNode(t).start()
	for first := 0; first < pods; first += burst {
		for i := range burst {
			n.create(newPod(fmt.Sprintf("idle%d", first+i), box("main", "sleep")))
		}
		for i := range burst {
			n.until(fmt.Sprintf("idle%d", first+i), "is ready", ready)
		}
	}
	settled := n.agent.RuntimeCalls()
	podtest.Wait(t, "the last effects end", func() bool {
		before := settled
		<-time.After(200 * time.Millisecond)
		settled = n.agent.RuntimeCalls()
		return before == settled
	})
	n.client.ClearActions()
	<-time.After(quiet)
	if now := n.agent.RuntimeCalls(); now != settled {
		t.Errorf("%d uses of containerd in %v of idleness", now-settled, quiet)
	}
	for _, a := range n.client.Actions() {
		t.Errorf("API call while idle: %s %s", a.GetVerb(), a.GetResource().Resource)
	}
	for i := range pods {
		n.delete(fmt.Sprintf("idle%d", i), 0)
	}
}

// TestPodsStartAgainWithoutAPI reboots a node that is cut off: everything that
// a reboot takes is gone, nobody answers, and the pod runs again.
func TestPodsStartAgainWithoutAPI(t *testing.T) {
	n := newNode(t).start()
	n.create(newPod("kept", box("main", "sleep")))
	n.until("kept", "is ready", ready)
	n.stop()
	n.dirs.Reboot(t)
	if err := os.RemoveAll(n.cfg.StateDir); err != nil {
		t.Fatal(err)
	}
	n.cfg.Client = unreachable(n.client)
	a, err := New(n.cfg)
	if err != nil {
		t.Fatal(err)
	}
	n.agent = a
	run(t, a)
	podtest.Wait(t, "the pod runs again", func() bool {
		w := a.worker("uid-kept")
		if w == nil {
			return false
		}
		w.mu.Lock()
		defer w.mu.Unlock()
		c := w.rec.Containers["main"]
		return c.Restarts == 1 && c.Ready
	})
}

// BenchmarkWarmPodStart measures a pod of one container from its creation to
// Running in the API, its image being there.
func BenchmarkWarmPodStart(b *testing.B) {
	n := newNode(b).start()
	n.create(newPod("warm", box("main", "sleep")))
	n.until("warm", "is ready", ready)
	var took []time.Duration
	for i := 0; b.Loop(); i++ {
		name := fmt.Sprintf("b%d", i)
		began := time.Now()
		n.create(newPod(name, box("main", "sleep")))
		n.until(name, "is ready", ready)
		took = append(took, time.Since(began))
		b.StopTimer()
		n.delete(name, 0)
		b.StartTimer()
	}
	reportQuantiles(b, took)
}
