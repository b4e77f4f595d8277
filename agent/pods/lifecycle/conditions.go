package lifecycle

import (
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

func (d *decider) conditions(s *corev1.PodStatus) {
	set := func(t corev1.PodConditionType, ok bool, reason, message string) {
		c := corev1.PodCondition{Type: t, Status: corev1.ConditionFalse, Reason: reason, Message: message, ObservedGeneration: d.Pod.Generation}
		if ok {
			c.Status = corev1.ConditionTrue
		}
		d.setCondition(s, c)
	}
	set(corev1.PodReadyToStartContainers, d.Sandbox.Ready && !d.Sandbox.Released, "", "")
	ok, reason, message := d.initialized(s)
	set(corev1.PodInitialized, ok, reason, message)
	ok, reason, message = d.containersReady(s)
	set(corev1.ContainersReady, ok, reason, message)
	if ok {
		reason, message = d.gates()
		ok = reason == ""
	}
	set(corev1.PodReady, ok, reason, message)
	d.resizeConditions(s)
	if d.Shutdown != nil && d.failure == d.Shutdown {
		set(corev1.DisruptionTarget, true, corev1.PodReasonTerminationByKubelet, d.Shutdown.Message)
	}
	if !hasCondition(s.Conditions, corev1.PodScheduled) {
		set(corev1.PodScheduled, true, "", "")
	}
}

func hasCondition(cs []corev1.PodCondition, t corev1.PodConditionType) bool {
	return slices.ContainsFunc(cs, func(c corev1.PodCondition) bool { return c.Type == t })
}

func (d *decider) setCondition(s *corev1.PodStatus, c corev1.PodCondition) {
	for i := range s.Conditions {
		old := &s.Conditions[i]
		if old.Type != c.Type {
			continue
		}
		c.LastTransitionTime = old.LastTransitionTime
		if old.Status != c.Status {
			c.LastTransitionTime = metav1.NewTime(d.Now.Truncate(1e9))
		}
		*old = c
		return
	}
	c.LastTransitionTime = metav1.NewTime(d.Now.Truncate(1e9))
	s.Conditions = append(s.Conditions, c)
}

const podCompleted = "PodCompleted"

func (d *decider) initialized(s *corev1.PodStatus) (bool, string, string) {
	if s.Phase == corev1.PodSucceeded {
		return true, podCompleted, ""
	}
	var incomplete []string
	begun := d.mainBegun()
	for i := range d.Pod.Spec.InitContainers {
		c := &d.Pod.Spec.InitContainers[i]
		got := d.Containers[c.Name]
		done := got.Phase == Exited && got.ExitCode == 0
		if Sidecar(c) {
			done = got.Phase == Running && got.Started
		}
		if !begun && !done {
			incomplete = append(incomplete, c.Name)
		}
	}
	if len(incomplete) > 0 {
		return false, "ContainersNotInitialized", fmt.Sprintf("containers with incomplete status: %s", incomplete)
	}
	return true, "", ""
}

func (d *decider) containersReady(s *corev1.PodStatus) (bool, string, string) {
	switch s.Phase {
	case corev1.PodSucceeded:
		return false, podCompleted, ""
	case corev1.PodFailed:
		return false, "PodFailed", ""
	}
	var unready []string
	for i := range d.Pod.Spec.InitContainers {
		c := &d.Pod.Spec.InitContainers[i]
		if got := d.Containers[c.Name]; Sidecar(c) && !(got.Phase == Running && got.Started && got.Ready) {
			unready = append(unready, c.Name)
		}
	}
	for i := range d.Pod.Spec.Containers {
		name := d.Pod.Spec.Containers[i].Name
		if got := d.Containers[name]; !(got.Phase == Running && got.Started && got.Ready) {
			unready = append(unready, name)
		}
	}
	if len(unready) > 0 {
		return false, "ContainersNotReady", fmt.Sprintf("containers with unready status: %s", unready)
	}
	return true, "", ""
}

// gates checks conditions that others set and that the pod waits for.
func (d *decider) gates() (reason, message string) {
	var problems []string
	for _, g := range d.Pod.Spec.ReadinessGates {
		i := slices.IndexFunc(d.Pod.Status.Conditions, func(c corev1.PodCondition) bool { return c.Type == g.ConditionType })
		switch {
		case i < 0:
			problems = append(problems, fmt.Sprintf("corresponding condition of pod readiness gate %q does not exist.", g.ConditionType))
		case d.Pod.Status.Conditions[i].Status != corev1.ConditionTrue:
			problems = append(problems, fmt.Sprintf("the status of pod readiness gate %q is not \"True\", but %v", g.ConditionType, d.Pod.Status.Conditions[i].Status))
		}
	}
	if len(problems) == 0 {
		return "", ""
	}
	return "ReadinessGatesNotReady", strings.Join(problems, ", ")
}
