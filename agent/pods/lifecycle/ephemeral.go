package lifecycle

import (
	corev1 "k8s.io/api/core/v1"

	"github.com/podvine/podvine/agent/phase"
)

// EphemeralContainer shows an ephemeral container as an ordinary one; the two
// have the same fields.
func EphemeralContainer(e *corev1.EphemeralContainer) *corev1.Container {
	return (*corev1.Container)(&e.EphemeralContainerCommon)
}

// ephemeral starts what was added for debugging, whatever state the others are
// in. An ephemeral container runs once.
func (d *decider) ephemeral() {
	if len(d.Pod.Spec.EphemeralContainers) == 0 || phase.Ended(d.phase()) || d.mainDone() {
		return
	}
	for i := range d.Pod.Spec.EphemeralContainers {
		name := d.Pod.Spec.EphemeralContainers[i].Name
		got := d.Containers[name]
		switch {
		case got.Busy != Idle || got.Attempts > 0:
		case d.Now.Before(got.RetryAt):
			d.plan.wake(got.RetryAt)
		default:
			d.plan.do(Action{Kind: Start, Container: name})
		}
	}
}

// stopEphemeral ends all of them; it reports whether one is still there.
func (d *decider) stopEphemeral(grace int64) (busy bool) {
	for i := range d.Pod.Spec.EphemeralContainers {
		busy = d.stop(d.Pod.Spec.EphemeralContainers[i].Name, grace, "") || busy
	}
	return busy
}

func (d *decider) ephemeralStatuses() []corev1.ContainerStatus {
	list := d.Pod.Spec.EphemeralContainers
	specs := make([]corev1.Container, 0, len(list))
	for i := range list {
		specs = append(specs, *EphemeralContainer(&list[i]))
	}
	return d.containerStatuses(specs, d.Standing.EphemeralContainerStatuses)
}

func (d *decider) isEphemeral(name string) bool {
	for i := range d.Pod.Spec.EphemeralContainers {
		if d.Pod.Spec.EphemeralContainers[i].Name == name {
			return true
		}
	}
	return false
}
