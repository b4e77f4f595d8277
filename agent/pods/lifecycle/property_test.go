package lifecycle

import (
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"pgregory.net/rapid"

	"github.com/podvine/podvine/agent/phase"
)

// world is a small pod whose containers end when chance says so; it carries
// actions out at once.
type world struct {
	t    *rapid.T
	view View
	// started counts starts after the deletion, which must not happen.
	deleted  bool
	finished bool
}

func drawWorld(t *rapid.T) *world {
	policy := rapid.SampledFrom([]corev1.RestartPolicy{corev1.RestartPolicyAlways, corev1.RestartPolicyOnFailure, corev1.RestartPolicyNever}).Draw(t, "policy")
	var names []string
	for _, w := range []string{"init:i", "side:s", "init:j"} {
		if rapid.Bool().Draw(t, w) {
			names = append(names, w)
		}
	}
	names = append(names, "main:a")
	if rapid.Bool().Draw(t, "two") {
		names = append(names, "main:b")
	}
	p := pod(policy, names...)
	if rapid.Bool().Draw(t, "debugged") {
		p.Spec.EphemeralContainers = []corev1.EphemeralContainer{{EphemeralContainerCommon: corev1.EphemeralContainerCommon{Name: "e", Image: "img"}}}
	}
	return &world{t: t, view: View{Pod: p, Now: epoch, StartTime: epoch, Containers: map[string]Container{}}}
}

// step decides, checks, and acts.
func (w *world) step() Plan {
	before := w.view.Standing.Phase
	plan := Decide(w.view)
	if phase.Ended(before) && plan.Status.Phase != before {
		w.t.Fatalf("phase went from %s to %s", before, plan.Status.Phase)
	}
	if plan.Status.Phase == corev1.PodSucceeded || plan.Status.Phase == corev1.PodFailed {
		for _, a := range plan.Actions {
			if a.Kind == Start || a.Kind == Prepare {
				w.t.Fatalf("%s in phase %s", a.Kind, plan.Status.Phase)
			}
		}
	}
	w.view.Standing = plan.Status
	for _, a := range plan.Actions {
		w.act(a)
	}
	return plan
}

func (w *world) act(a Action) {
	c := w.view.Containers[a.Container]
	c.Name = a.Container
	switch a.Kind {
	case Prepare:
		w.view.Sandbox.Ready = true
	case Start:
		if w.deleted {
			w.t.Fatalf("started %s of a deleted pod", a.Container)
		}
		if c.Phase == Running {
			w.t.Fatalf("started %s twice", a.Container)
		}
		if a.Container == "e" && c.Attempts > 0 {
			w.t.Fatal("an ephemeral container ran twice")
		}
		if c.Attempts > 0 {
			c.Delay = NextRestartDelay(c.Delay, c.FinishedAt.Sub(c.StartedAt))
		}
		c.Attempts++
		c.Phase, c.StartedAt, c.Started, c.Ready = Running, w.view.Now, true, true
		w.view.Containers[a.Container] = c
	case Stop:
		c.Phase, c.FinishedAt, c.ExitCode = Exited, w.view.Now, 0
		w.view.Containers[a.Container] = c
	case Release:
		for _, c := range w.view.Containers {
			if c.Phase == Running {
				w.t.Fatalf("released under the running %s", c.Name)
			}
		}
		w.view.Sandbox = Sandbox{Released: true}
	case Finish:
		if !w.view.Sandbox.Released {
			w.t.Fatal("finished before it was released")
		}
		w.finished, w.view.Finished = true, true
	}
}

// TestAnyLifeEnds drives random pods through random ends: nothing starts twice
// or after deletion, a main container never before the init containers, and a
// deleted pod is always forgotten.
func TestAnyLifeEnds(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := drawWorld(t)
		steps := rapid.IntRange(1, 25).Draw(t, "steps")
		for range steps {
			w.step()
			w.checkOrder()
			for _, name := range []string{"i", "s", "j", "a", "b", "e"} {
				c, ok := w.view.Containers[name]
				if ok && c.Phase == Running && rapid.IntRange(0, 3).Draw(t, "ends") == 0 {
					c.Phase, c.FinishedAt, c.ExitCode = Exited, w.view.Now, rapid.SampledFrom([]int32{0, 1}).Draw(t, "code")
					w.view.Containers[name] = c
				}
			}
			w.view.Now = w.view.Now.Add(time.Duration(rapid.IntRange(1, 400).Draw(t, "seconds")) * time.Second)
		}
		w.deleted = true
		deleted(w.view.Pod, 30)
		for range 10 {
			w.step()
		}
		if !w.finished {
			t.Fatalf("a deleted pod is still there: %+v", w.view)
		}
	})
}

// checkOrder: a main container exists only once every init container is done.
func (w *world) checkOrder() {
	if w.view.Containers["a"].Attempts == 0 {
		return
	}
	for i := range w.view.Pod.Spec.InitContainers {
		c := &w.view.Pod.Spec.InitContainers[i]
		if got := w.view.Containers[c.Name]; got.Attempts == 0 {
			w.t.Fatalf("a began before %s", c.Name)
		}
	}
}
