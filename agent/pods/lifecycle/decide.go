package lifecycle

import (
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/podvine/podvine/agent/phase"
)

// decider carries one View through the steps of a decision.
type decider struct {
	View
	plan Plan
	// ending is set when no container may start any more.
	ending bool
	// failure is why the pod is Failed regardless of its containers.
	failure *Rejection
}

// Decide says what is to happen next to a pod. It is pure.
func Decide(v View) Plan {
	d := &decider{View: v}
	switch {
	case v.Rejected != nil:
		d.failure = v.Rejected
	case v.Standing.Phase == corev1.PodFailed && v.Standing.Reason != "":
		d.failure = &Rejection{v.Standing.Reason, v.Standing.Message}
	case v.Shutdown != nil:
		d.failure = v.Shutdown
	case d.deadlinePassed():
		d.failure = &Rejection{"DeadlineExceeded", "Pod was active on the node longer than the specified deadline"}
	}
	d.ending = d.failure != nil || v.Pod.DeletionTimestamp != nil || phase.Ended(v.Standing.Phase)
	if d.ending {
		d.end()
	} else {
		d.run()
	}
	d.plan.Status = d.status()
	return d.plan
}

func (d *decider) deadlinePassed() bool {
	s := d.Pod.Spec.ActiveDeadlineSeconds
	if s == nil || d.StartTime.IsZero() || phase.Ended(d.Standing.Phase) {
		return false
	}
	at := d.StartTime.Add(time.Duration(*s) * time.Second)
	if d.Now.Before(at) {
		d.plan.wake(at)
		return false
	}
	return true
}

// end stops what runs, then releases the sandbox, then lets the API forget.
func (d *decider) end() {
	grace := d.grace()
	busy := d.stopMain(grace)
	if !busy {
		busy = d.stopSidecars(grace)
	}
	switch {
	case busy || d.Sandbox.Busy:
	case !d.Sandbox.Released:
		d.plan.do(Action{Kind: Release})
	case d.Pod.DeletionTimestamp != nil && !d.Finished:
		d.plan.do(Action{Kind: Finish})
	}
}

// grace is how long containers get to end, in seconds.
func (d *decider) grace() int64 {
	switch {
	case d.Shutdown != nil && d.ShutdownGraceSeconds != nil:
		return *d.ShutdownGraceSeconds
	case d.Pod.DeletionGracePeriodSeconds != nil && d.Pod.DeletionTimestamp != nil:
		return *d.Pod.DeletionGracePeriodSeconds
	case d.Pod.Spec.TerminationGracePeriodSeconds != nil:
		return *d.Pod.Spec.TerminationGracePeriodSeconds
	}
	return corev1.DefaultTerminationGracePeriodSeconds
}

func (d *decider) stopMain(grace int64) (busy bool) {
	busy = d.stopEphemeral(grace)
	for i := range d.Pod.Spec.Containers {
		busy = d.stop(d.Pod.Spec.Containers[i].Name, grace, "") || busy
	}
	for i := range d.Pod.Spec.InitContainers {
		if c := &d.Pod.Spec.InitContainers[i]; !Sidecar(c) {
			busy = d.stop(c.Name, grace, "") || busy
		}
	}
	return busy
}

// stopSidecars ends them one by one, the last one first.
func (d *decider) stopSidecars(grace int64) (busy bool) {
	for i := len(d.Pod.Spec.InitContainers) - 1; i >= 0; i-- {
		if c := &d.Pod.Spec.InitContainers[i]; Sidecar(c) && d.stop(c.Name, grace, "") {
			return true
		}
	}
	return false
}

// stop asks for one container's end; it reports whether it is not there yet.
func (d *decider) stop(name string, grace int64, message string) bool {
	c := d.Containers[name]
	switch {
	case c.Busy == Resizing:
		return true
	case c.Busy == Stopping, c.Busy == Starting:
		d.plan.do(Action{Kind: Hurry, Container: name, GraceSeconds: grace})
		return true
	case c.Phase != Running:
		return false
	}
	d.plan.do(Action{Kind: Stop, Container: name, GraceSeconds: grace, Message: message})
	return true
}

func (d *decider) run() {
	if !d.Sandbox.Ready {
		switch {
		case d.Sandbox.Busy:
		case d.Now.Before(d.Sandbox.RetryAt):
			d.plan.wake(d.Sandbox.RetryAt)
		default:
			d.plan.do(Action{Kind: Prepare})
		}
		return
	}
	if d.Held {
		return
	}
	d.ephemeral()
	if !d.initialize() {
		return
	}
	done := true
	for i := range d.Pod.Spec.Containers {
		done = d.keep(&d.Pod.Spec.Containers[i]) && done
	}
	if done && !d.stopEphemeral(d.grace()) && !d.stopSidecars(d.grace()) && !d.Sandbox.Busy && !d.Sandbox.Released {
		d.plan.do(Action{Kind: Release})
	}
}

// Sidecar tells whether an init container runs for as long as the pod.
func Sidecar(c *corev1.Container) bool {
	return c.RestartPolicy != nil && *c.RestartPolicy == corev1.ContainerRestartPolicyAlways
}

// initialize brings the init containers to where the main ones may start.
func (d *decider) initialize() bool {
	begun := d.mainBegun()
	for i := range d.Pod.Spec.InitContainers {
		c := &d.Pod.Spec.InitContainers[i]
		if Sidecar(c) {
			if !d.mainDone() {
				d.keep(c)
			}
			if got := d.Containers[c.Name]; !begun && !(got.Phase == Running && got.Started) {
				return false
			}
			continue
		}
		if begun {
			continue
		}
		got := d.Containers[c.Name]
		if got.Phase == Exited && got.ExitCode == 0 && got.Busy == Idle {
			continue
		}
		d.keep(c)
		return false
	}
	return true
}

// mainDone: all main containers have ended for good, so the sidecars are next.
func (d *decider) mainDone() bool {
	for i := range d.Pod.Spec.Containers {
		c := &d.Pod.Spec.Containers[i]
		if got := d.Containers[c.Name]; got.Phase != Exited || got.Busy != Idle || d.restarts(c, got) {
			return false
		}
	}
	return true
}

func (d *decider) mainBegun() bool {
	for i := range d.Pod.Spec.Containers {
		if c := d.Containers[d.Pod.Spec.Containers[i].Name]; c.Attempts > 0 {
			return true
		}
	}
	return false
}

// keep brings one container to where it should be; it reports whether the
// container has ended for good.
func (d *decider) keep(c *corev1.Container) bool {
	got := d.Containers[c.Name]
	switch {
	case got.Busy != Idle:
		return false
	case got.Phase == Running:
		if got.Unhealthy != nil {
			grace := d.grace()
			if got.Unhealthy.GraceSeconds != nil {
				grace = *got.Unhealthy.GraceSeconds
			}
			d.stop(c.Name, grace, got.Unhealthy.Message)
		} else if got.SpecImage != "" && got.SpecImage != c.Image {
			d.plan.do(Action{Kind: Stop, Container: c.Name, GraceSeconds: d.grace(), Replace: true, Message: fmt.Sprintf("Container %s definition changed, will be restarted", c.Name)})
		} else {
			d.resize(c, got)
		}
		return false
	case got.Phase == Exited && !d.restarts(c, got):
		return true
	}
	at := got.RetryAt
	if got.Phase == Exited && got.RestartAt().After(at) {
		at = got.RestartAt()
	}
	if d.Now.Before(at) {
		d.plan.wake(at)
		if got.Phase == Exited {
			d.plan.BackingOff = append(d.plan.BackingOff, c.Name)
		}
		return false
	}
	d.plan.do(Action{Kind: Start, Container: c.Name})
	return false
}

// restarts applies the restart rules to an ended container.
func (d *decider) restarts(c *corev1.Container, got Container) bool {
	if got.Replace {
		return true
	}
	for _, r := range c.RestartPolicyRules {
		if e := r.ExitCodes; e != nil && r.Action == corev1.ContainerRestartRuleActionRestart && matches(e, got.ExitCode) {
			return true
		}
	}
	policy := corev1.ContainerRestartPolicy(d.Pod.Spec.RestartPolicy)
	if c.RestartPolicy != nil {
		policy = *c.RestartPolicy
	}
	switch policy {
	case corev1.ContainerRestartPolicyNever:
		return false
	case corev1.ContainerRestartPolicyOnFailure:
		return got.ExitCode != 0
	}
	// An ordinary init container that succeeded is not run again.
	return !(d.isInit(c.Name) && !Sidecar(c) && got.ExitCode == 0)
}

func matches(e *corev1.ContainerRestartRuleOnExitCodes, code int32) bool {
	found := false
	for _, v := range e.Values {
		found = found || v == code
	}
	if e.Operator == corev1.ContainerRestartRuleOnExitCodesOpNotIn {
		return !found
	}
	return found
}

func (d *decider) isInit(name string) bool {
	for i := range d.Pod.Spec.InitContainers {
		if d.Pod.Spec.InitContainers[i].Name == name {
			return true
		}
	}
	return false
}

// BackOffMessage is the text of a CrashLoopBackOff.
func BackOffMessage(pod *corev1.Pod, c Container) string {
	return fmt.Sprintf("back-off %s restarting failed container=%s pod=%s_%s(%s)", c.Delay, c.Name, pod.Name, pod.Namespace, pod.UID)
}
