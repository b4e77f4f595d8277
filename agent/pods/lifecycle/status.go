package lifecycle

import (
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/podvine/podvine/agent/phase"
)

func (d *decider) status() corev1.PodStatus {
	s := *d.Standing.DeepCopy()
	s.ObservedGeneration = d.Pod.Generation
	s.QOSClass = QOS(d.Pod)
	if !d.StartTime.IsZero() {
		t := metav1.NewTime(d.StartTime.Truncate(time.Second))
		s.StartTime = &t
	}
	d.addresses(&s)
	s.InitContainerStatuses = d.containerStatuses(d.Pod.Spec.InitContainers, d.Standing.InitContainerStatuses)
	s.ContainerStatuses = d.containerStatuses(d.Pod.Spec.Containers, d.Standing.ContainerStatuses)
	s.EphemeralContainerStatuses = d.ephemeralStatuses()
	if d.Rejected != nil {
		s.InitContainerStatuses, s.ContainerStatuses, s.EphemeralContainerStatuses = nil, nil, nil
	}
	s.Phase = d.phase()
	s.Reason, s.Message = "", ""
	if d.failure != nil {
		s.Reason, s.Message = d.failure.Reason, d.failure.Message
	}
	d.conditions(&s)
	return s
}

func (d *decider) addresses(s *corev1.PodStatus) {
	if len(d.HostIPs) > 0 {
		s.HostIP, s.HostIPs = d.HostIPs[0], nil
		for _, ip := range d.HostIPs {
			s.HostIPs = append(s.HostIPs, corev1.HostIP{IP: ip})
		}
	}
	ips := d.Sandbox.IPs
	if d.Pod.Spec.HostNetwork && d.Sandbox.Ready {
		ips = d.HostIPs
	}
	if len(ips) == 0 {
		return
	}
	s.PodIP, s.PodIPs = ips[0], nil
	for _, ip := range ips {
		s.PodIPs = append(s.PodIPs, corev1.PodIP{IP: ip})
	}
}

// phase is the pod's summary. It never leaves Succeeded or Failed.
func (d *decider) phase() corev1.PodPhase {
	if phase.Ended(d.Standing.Phase) {
		return d.Standing.Phase
	}
	if d.failure != nil {
		return corev1.PodFailed
	}
	var waiting, running, failed, succeeded int
	begun := d.mainBegun()
	for i := range d.Pod.Spec.InitContainers {
		c := &d.Pod.Spec.InitContainers[i]
		got := d.Containers[c.Name]
		switch {
		case Sidecar(c) && !begun && !(got.Phase == Running && got.Started):
			return corev1.PodPending
		case Sidecar(c) || begun:
		case got.Phase == Exited && got.ExitCode == 0:
		case got.Phase == Exited && got.Busy == Idle && !d.restarts(c, got):
			return corev1.PodFailed
		default:
			return d.pendingUnlessDeleted()
		}
	}
	for i := range d.Pod.Spec.Containers {
		c := &d.Pod.Spec.Containers[i]
		got := d.Containers[c.Name]
		switch {
		case got.Attempts == 0 && got.Phase == Absent:
			waiting++
		case got.Phase == Exited && got.Busy == Idle && !d.restarts(c, got) && got.ExitCode == 0:
			succeeded++
		case got.Phase == Exited && got.Busy == Idle && !d.restarts(c, got):
			failed++
		default:
			running++
		}
	}
	switch {
	case d.Pod.DeletionTimestamp != nil && d.allEnded():
		return d.endedPhase()
	case waiting > 0:
		return d.pendingUnlessDeleted()
	case running > 0 || !d.sidecarsEnded():
		return corev1.PodRunning
	case failed > 0:
		return corev1.PodFailed
	}
	return corev1.PodSucceeded
}

func (d *decider) pendingUnlessDeleted() corev1.PodPhase {
	if d.Pod.DeletionTimestamp != nil && d.Sandbox.Released {
		return corev1.PodFailed
	}
	return corev1.PodPending
}

// allEnded: no container of a pod that is being deleted runs any more.
func (d *decider) allEnded() bool {
	for _, c := range d.Containers {
		if c.Phase == Running || c.Busy != Idle {
			return false
		}
	}
	return d.mainBegun()
}

func (d *decider) endedPhase() corev1.PodPhase {
	for i := range d.Pod.Spec.Containers {
		if c := d.Containers[d.Pod.Spec.Containers[i].Name]; c.Phase != Exited || c.ExitCode != 0 {
			return corev1.PodFailed
		}
	}
	return corev1.PodSucceeded
}

func (d *decider) sidecarsEnded() bool {
	for i := range d.Pod.Spec.InitContainers {
		c := &d.Pod.Spec.InitContainers[i]
		if got := d.Containers[c.Name]; Sidecar(c) && (got.Phase == Running || got.Busy != Idle) {
			return false
		}
	}
	return true
}

func (d *decider) containerStatuses(specs []corev1.Container, standing []corev1.ContainerStatus) []corev1.ContainerStatus {
	if len(specs) == 0 {
		return nil
	}
	out := make([]corev1.ContainerStatus, 0, len(specs))
	for i := range specs {
		c := &specs[i]
		got, known := d.Containers[c.Name]
		if !known && phase.Ended(d.Standing.Phase) {
			for _, s := range standing {
				if s.Name == c.Name {
					out = append(out, s)
				}
			}
			continue
		}
		out = append(out, d.containerStatus(c, got))
	}
	return out
}

func (d *decider) containerStatus(c *corev1.Container, got Container) corev1.ContainerStatus {
	s := corev1.ContainerStatus{Name: c.Name, Image: c.Image, ImageID: got.ImageID, RestartCount: got.Restarts, User: got.User}
	if got.Image != "" && got.ID != "" {
		s.Image = got.Image
	}
	if got.ID != "" {
		s.ContainerID = ContainerIDPrefix + got.ID
	}
	if got.Last != nil {
		s.LastTerminationState.Terminated = got.Last.DeepCopy()
	}
	started := got.Phase == Running && got.Started
	s.Started = &started
	s.Ready = started && got.Ready
	once := d.isEphemeral(c.Name)
	if once {
		s.Started, s.Ready = nil, false
	}
	if d.isInit(c.Name) && !Sidecar(c) {
		s.Ready = got.Phase == Exited && got.ExitCode == 0
	}
	switch {
	case got.Phase == Running:
		s.State.Running = &corev1.ContainerStateRunning{StartedAt: metav1.NewTime(got.StartedAt.Truncate(time.Second))}
		given := d.given(c)
		s.AllocatedResources = given.Resources.DeepCopy().Requests
		if s.Resources = got.Applied.DeepCopy(); s.Resources == nil {
			s.Resources = given.Resources.DeepCopy()
		}
		s.VolumeMounts = got.Mounts
	case got.Problem != nil && !d.ending:
		s.State.Waiting = d.problem(got)
		if got.Phase == Exited {
			s.LastTerminationState.Terminated = got.Terminated()
		}
	case got.Phase == Exited && !once && !d.ending && d.restarts(c, got) && got.Delay > 0:
		s.State.Waiting = &corev1.ContainerStateWaiting{Reason: "CrashLoopBackOff", Message: BackOffMessage(d.Pod, got)}
		s.LastTerminationState.Terminated = got.Terminated()
	case got.Phase == Exited:
		s.State.Terminated = got.Terminated()
	default:
		s.State.Waiting = &corev1.ContainerStateWaiting{Reason: d.waitingReason(c)}
	}
	return s
}

// pullErrorShown is how long a failed pull shows its error before it shows the
// back-off.
const pullErrorShown = time.Second

// problem is what keeps a container from starting, as users see it.
func (d *decider) problem(got Container) *corev1.ContainerStateWaiting {
	p := got.Problem.DeepCopy()
	if p.Reason != "ErrImagePull" {
		return p
	}
	if turn := got.RetryAt.Add(pullErrorShown - got.RetryDelay); d.Now.Before(turn) {
		d.plan.wake(turn)
		return p
	}
	p.Reason, p.Message = "ImagePullBackOff", fmt.Sprintf("Back-off pulling image %q: ErrImagePull: %s", d.imageOf(got.Name), p.Message)
	d.plan.PullBackingOff = append(d.plan.PullBackingOff, got.Name)
	return p
}

func (d *decider) imageOf(name string) string {
	for _, list := range [][]corev1.Container{d.Pod.Spec.InitContainers, d.Pod.Spec.Containers} {
		for i := range list {
			if list[i].Name == name {
				return list[i].Image
			}
		}
	}
	for i := range d.Pod.Spec.EphemeralContainers {
		if e := &d.Pod.Spec.EphemeralContainers[i]; e.Name == name {
			return e.Image
		}
	}
	return ""
}

// ContainerIDPrefix says which runtime a container ID belongs to.
const ContainerIDPrefix = "containerd://"

func (d *decider) waitingReason(c *corev1.Container) string {
	if d.isEphemeral(c.Name) {
		return "ContainerCreating"
	}
	if len(d.Pod.Spec.InitContainers) > 0 && (!d.isInit(c.Name) || d.Pod.Spec.InitContainers[0].Name != c.Name) {
		return "PodInitializing"
	}
	if len(d.Pod.Spec.InitContainers) > 0 {
		return "PodInitializing"
	}
	return "ContainerCreating"
}

// Terminated is the end of the container as statuses show it.
func (c Container) Terminated() *corev1.ContainerStateTerminated {
	return &corev1.ContainerStateTerminated{
		ExitCode: c.ExitCode, Signal: c.Signal, Reason: c.Reason, Message: c.Message, ContainerID: ContainerIDPrefix + c.ID,
		StartedAt: metav1.NewTime(c.StartedAt.Truncate(time.Second)), FinishedAt: metav1.NewTime(c.FinishedAt.Truncate(time.Second)),
	}
}
