package lifecycle

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/utils/ptr"
)

var epoch = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC) // the tests' now; never changed

// pod makes a pod from words: "init:a", "side:b", "main:c".
func pod(policy corev1.RestartPolicy, containers ...string) *corev1.Pod {
	p := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "p", Namespace: "ns", UID: "u", Generation: 3}}
	p.Spec.RestartPolicy = policy
	for _, w := range containers {
		kind, name, _ := strings.Cut(w, ":")
		c := corev1.Container{Name: name, Image: "img"}
		switch kind {
		case "init":
			p.Spec.InitContainers = append(p.Spec.InitContainers, c)
		case "side":
			c.RestartPolicy = ptr.To(corev1.ContainerRestartPolicyAlways)
			p.Spec.InitContainers = append(p.Spec.InitContainers, c)
		default:
			p.Spec.Containers = append(p.Spec.Containers, c)
		}
	}
	return p
}

// up and down are containers that run well, or that have ended.
func up(name string) Container {
	return Container{Name: name, ID: name + "-1", Phase: Running, Attempts: 1, Started: true, Ready: true, StartedAt: epoch.Add(-time.Minute)}
}

func down(name string, code int32) Container {
	c := Container{Name: name, ID: name + "-1", Phase: Exited, Attempts: 1, ExitCode: code, Reason: "Completed", StartedAt: epoch.Add(-time.Minute), FinishedAt: epoch.Add(-time.Second)}
	if code != 0 {
		c.Reason = "Error"
	}
	return c
}

func view(p *corev1.Pod, cs ...Container) View {
	v := View{Pod: p, Now: epoch, StartTime: epoch.Add(-time.Hour), Sandbox: Sandbox{Ready: true, IPs: []string{"10.0.0.1"}}, Containers: map[string]Container{}}
	for _, c := range cs {
		v.Containers[c.Name] = c
	}
	return v
}

// words prints the actions of a plan.
func words(p Plan) string {
	var out []string
	for _, a := range p.Actions {
		w := string(a.Kind)
		if a.Container != "" {
			w += " " + a.Container
		}
		if a.Kind == Stop || a.Kind == Hurry {
			w += fmt.Sprintf(" %d", a.GraceSeconds)
		}
		out = append(out, w)
	}
	return strings.Join(out, ", ")
}

func with(c Container, change func(*Container)) Container {
	change(&c)
	return c
}

func deleted(p *corev1.Pod, grace int64) *corev1.Pod {
	p.DeletionTimestamp, p.DeletionGracePeriodSeconds = ptr.To(metav1.NewTime(epoch)), &grace
	return p
}

func debugged(p *corev1.Pod) *corev1.Pod {
	p.Spec.EphemeralContainers = []corev1.EphemeralContainer{{EphemeralContainerCommon: corev1.EphemeralContainerCommon{Name: "e", Image: "img"}}}
	return p
}

func TestDecide(t *testing.T) {
	const always, onFailure, never = corev1.RestartPolicyAlways, corev1.RestartPolicyOnFailure, corev1.RestartPolicyNever
	noSandbox := func(v View) View { v.Sandbox = Sandbox{}; return v }
	released := func(v View) View { v.Sandbox = Sandbox{Released: true}; return v }
	slow := func(c *Container) { c.Delay = 20 * time.Second }
	for _, c := range []struct {
		name  string
		view  View
		do    string
		phase corev1.PodPhase
	}{
		{"new pod", noSandbox(view(pod(always, "main:a"))), "Prepare", corev1.PodPending},
		{"sandbox in the making", noSandbox(view(pod(always, "main:a"))), "Prepare", corev1.PodPending},
		{"starts all", view(pod(always, "main:a", "main:b")), "Start a, Start b", corev1.PodPending},
		{"steady", view(pod(always, "main:a"), up("a")), "", corev1.PodRunning},
		{"first init first", view(pod(always, "init:i", "init:j", "main:a")), "Start i", corev1.PodPending},
		{"second init next", view(pod(always, "init:i", "init:j", "main:a"), down("i", 0)), "Start j", corev1.PodPending},
		{"init done", view(pod(always, "init:i", "main:a"), down("i", 0)), "Start a", corev1.PodPending},
		{"init failed, tried again", view(pod(always, "init:i", "main:a"), down("i", 1)), "Start i", corev1.PodPending},
		{"init failed for good", view(pod(never, "init:i", "main:a"), down("i", 1)), "", corev1.PodFailed},
		{"sidecar not started", view(pod(always, "side:s", "main:a"), with(up("s"), func(c *Container) { c.Started = false })), "", corev1.PodPending},
		{"sidecar started", view(pod(always, "side:s", "main:a"), up("s")), "Start a", corev1.PodPending},
		{"sidecar is kept", view(pod(always, "side:s", "main:a"), down("s", 0), up("a")), "Start s", corev1.PodRunning},
		{"inits are not run again", view(pod(always, "init:i", "main:a"), up("a")), "", corev1.PodRunning},
		{"restart always", view(pod(always, "main:a"), down("a", 0)), "Start a", corev1.PodRunning},
		{"restart waits", view(pod(always, "main:a"), with(down("a", 1), slow)), "", corev1.PodRunning},
		{"restart on failure", view(pod(onFailure, "main:a"), down("a", 1)), "Start a", corev1.PodRunning},
		{"no restart on success", view(pod(onFailure, "main:a", "main:b"), down("a", 0), up("b")), "", corev1.PodRunning},
		{"succeeded", view(pod(never, "main:a"), down("a", 0)), "Release", corev1.PodSucceeded},
		{"failed", view(pod(never, "main:a", "main:b"), down("a", 0), down("b", 2)), "Release", corev1.PodFailed},
		{"sidecar ends last", view(pod(never, "side:s", "main:a"), up("s"), down("a", 0)), "Stop s 30", corev1.PodRunning},
		{"unhealthy", view(pod(always, "main:a"), with(up("a"), func(c *Container) { c.Unhealthy = &Unhealthy{GraceSeconds: ptr.To(int64(7))} })), "Stop a 7", corev1.PodRunning},
		{"another image", view(pod(always, "main:a"), with(up("a"), func(c *Container) { c.SpecImage = "old" })), "Stop a 30", corev1.PodRunning},
		{"debugger starts beside a waiting init", view(debugged(pod(always, "init:i", "main:a")), with(down("i", 1), slow)), "Start e", corev1.PodPending},
		{"debugger runs once", view(debugged(pod(always, "main:a")), up("a"), down("e", 1)), "", corev1.PodRunning},
		{"debugger waits for its next pull", view(debugged(pod(always, "main:a")), up("a"), Container{Name: "e", RetryAt: epoch.Add(time.Minute)}), "", corev1.PodRunning},
		{"debugger does not outlive the pod", view(debugged(pod(never, "main:a")), down("a", 0), up("e")), "Stop e 30", corev1.PodSucceeded},
		{"no debugger for an ended pod", view(debugged(pod(never, "main:a")), down("a", 0)), "Release", corev1.PodSucceeded},
		{"deletion stops debuggers", view(deleted(debugged(pod(always, "main:a")), 9), up("a"), up("e")), "Stop e 9, Stop a 9", corev1.PodRunning},
		{"deletion stops mains", view(deleted(pod(always, "side:s", "main:a", "main:b"), 9), up("s"), up("a"), up("b")), "Stop a 9, Stop b 9", corev1.PodRunning},
		{"then sidecars", view(deleted(pod(always, "side:s", "side:r", "main:a"), 9), up("s"), up("r"), down("a", 0)), "Stop r 9", corev1.PodRunning},
		{"hurry", view(deleted(pod(always, "main:a"), 0), with(up("a"), func(c *Container) { c.Busy = Stopping })), "Hurry a 0", corev1.PodRunning},
		{"deletion gives a start up", view(deleted(pod(always, "main:a"), 9), Container{Name: "a", Busy: Starting}), "Hurry a 9", corev1.PodPending},
		{"then releases", view(deleted(pod(always, "main:a"), 9), down("a", 137)), "Release", corev1.PodFailed},
		{"then finishes", released(view(deleted(pod(always, "main:a"), 9), down("a", 137))), "Finish", corev1.PodFailed},
		{"deleted before it began", released(view(deleted(pod(always, "main:a"), 9))), "Finish", corev1.PodFailed},
	} {
		t.Run(c.name, func(t *testing.T) {
			got := Decide(c.view)
			if words(got) != c.do || got.Status.Phase != c.phase {
				t.Errorf("got %q, %s; want %q, %s", words(got), got.Status.Phase, c.do, c.phase)
			}
			if again := Decide(c.view); words(again) != words(got) {
				t.Errorf("decides %q the second time", words(again))
			}
		})
	}
}

func TestDeadline(t *testing.T) {
	p := pod(corev1.RestartPolicyAlways, "main:a")
	p.Spec.ActiveDeadlineSeconds = ptr.To(int64(3600))
	v := view(p, up("a"))
	got := Decide(v)
	if got.Status.Phase != corev1.PodFailed || got.Status.Reason != "DeadlineExceeded" || words(got) != "Stop a 30" {
		t.Errorf("at the deadline: %s %q", got.Status.Phase, words(got))
	}
	v.StartTime = epoch.Add(-time.Minute)
	if got = Decide(v); words(got) != "" || !got.WakeAt.Equal(v.StartTime.Add(time.Hour)) {
		t.Errorf("before the deadline: %q, wakes at %v", words(got), got.WakeAt)
	}
}

func TestRestartDelays(t *testing.T) {
	var got []time.Duration
	d := time.Duration(0)
	for range 7 {
		d = NextRestartDelay(d, time.Second)
		got = append(got, d/time.Second)
	}
	if want := []time.Duration{10, 20, 40, 80, 160, 300, 300}; !slices.Equal(got, want) {
		t.Errorf("delays %v, want %v", got, want)
	}
	if d := NextRestartDelay(300*time.Second, RestartDelayReset); d != FirstRestartDelay {
		t.Errorf("after a long run %v", d)
	}
}

func TestConditions(t *testing.T) {
	p := pod(corev1.RestartPolicyAlways, "init:i", "main:a", "main:b")
	p.Spec.ReadinessGates = []corev1.PodReadinessGate{{ConditionType: "ext/lb"}}
	said := func(v View) string {
		var out []string
		for _, c := range Decide(v).Status.Conditions {
			out = append(out, strings.TrimSpace(fmt.Sprintf("%s=%s %s %s", c.Type, c.Status, c.Reason, c.Message)))
		}
		return strings.Join(out, "; ")
	}
	if got, want := said(view(p)), "PodReadyToStartContainers=True; Initialized=False ContainersNotInitialized containers with incomplete status: [i]; "+
		"ContainersReady=False ContainersNotReady containers with unready status: [a b]; Ready=False ContainersNotReady containers with unready status: [a b]; PodScheduled=True"; got != want {
		t.Errorf("got %s\nwant %s", got, want)
	}
	v := view(p, down("i", 0), up("a"), up("b"))
	if got := said(v); !strings.Contains(got, `ContainersReady=True; Ready=False ReadinessGatesNotReady corresponding condition of pod readiness gate "ext/lb" does not exist.`) {
		t.Errorf("without the gate's condition: %s", got)
	}
	p.Status.Conditions = []corev1.PodCondition{{Type: "ext/lb", Status: corev1.ConditionTrue}}
	if got := said(v); !strings.Contains(got, "; Ready=True;") {
		t.Errorf("with the gate's condition: %s", got)
	}
}

func TestConditionTimesMoveOnlyOnChange(t *testing.T) {
	v := view(pod(corev1.RestartPolicyAlways, "main:a"), up("a"))
	v.Standing = Decide(v).Status
	v.Now = epoch.Add(time.Hour)
	next := Decide(v).Status
	for i, c := range next.Conditions {
		if !c.LastTransitionTime.Equal(&v.Standing.Conditions[i].LastTransitionTime) {
			t.Errorf("%s moved although nothing changed", c.Type)
		}
	}
}

func TestPullBackOff(t *testing.T) {
	c := Container{Name: "a", Problem: &corev1.ContainerStateWaiting{Reason: "ErrImagePull", Message: "no"}, RetryDelay: 10 * time.Second, RetryAt: epoch.Add(10 * time.Second)}
	v := view(pod(corev1.RestartPolicyAlways, "main:a"), c)
	if w := Decide(v).Status.ContainerStatuses[0].State.Waiting; w.Reason != "ErrImagePull" {
		t.Errorf("at first %+v", w)
	}
	v.Now = epoch.Add(2 * time.Second)
	if w := Decide(v).Status.ContainerStatuses[0].State.Waiting; w.Reason != "ImagePullBackOff" || w.Message != `Back-off pulling image "img": ErrImagePull: no` {
		t.Errorf("then %+v", w)
	}
	v.Now = epoch.Add(10 * time.Second)
	if got := words(Decide(v)); got != "Start a" {
		t.Errorf("at last %q", got)
	}
}

func TestRestartRules(t *testing.T) {
	p := pod(corev1.RestartPolicyNever, "main:a")
	p.Spec.Containers[0].RestartPolicy = ptr.To(corev1.ContainerRestartPolicyNever)
	p.Spec.Containers[0].RestartPolicyRules = []corev1.ContainerRestartRule{{
		Action:    corev1.ContainerRestartRuleActionRestart,
		ExitCodes: &corev1.ContainerRestartRuleOnExitCodes{Operator: corev1.ContainerRestartRuleOnExitCodesOpIn, Values: []int32{42}},
	}}
	if got := words(Decide(view(p, down("a", 42)))); got != "Start a" {
		t.Errorf("exit 42: %q", got)
	}
	if got := Decide(view(p, down("a", 1))).Status.Phase; got != corev1.PodFailed {
		t.Errorf("exit 1: %s", got)
	}
}

func TestQOS(t *testing.T) {
	seen := sets.New[corev1.PodQOSClass]()
	seen.Insert(QOS(pod(corev1.RestartPolicyAlways, "main:a")))
	if !seen.Equal(sets.New(corev1.PodQOSBestEffort)) {
		t.Errorf("no resources: %v", seen.UnsortedList())
	}
}
