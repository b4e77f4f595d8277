package pod

import (
	"fmt"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/duration"

	"github.com/podvine/podvine/agent/api/kinds"
	"github.com/podvine/podvine/agent/phase"
)

const none = "<none>"

func columns() []kinds.Column[*corev1.Pod] {
	spec, status := corev1.PodSpec{}.SwaggerDoc(), corev1.PodStatus{}.SwaggerDoc()
	return []kinds.Column[*corev1.Pod]{
		kinds.NameColumn[*corev1.Pod](),
		{Name: "Ready", Description: "The aggregate readiness state of this pod for accepting traffic.", Cell: func(p *corev1.Pod) any { return summarize(p).ready }},
		{Name: "Status", Description: "The aggregate status of the containers in this pod.", Cell: func(p *corev1.Pod) any { return summarize(p).reason }},
		{Name: "Restarts", Description: "The number of times the containers in this pod have been restarted and when the last container in this pod has restarted.",
			Cell: func(p *corev1.Pod) any { return summarize(p).restarts }},
		kinds.AgeColumn[*corev1.Pod](),
		{Name: "IP", Priority: 1, Description: status["podIP"], Cell: func(p *corev1.Pod) any {
			if len(p.Status.PodIPs) > 0 {
				return orNone(p.Status.PodIPs[0].IP)
			}
			return orNone(p.Status.PodIP)
		}},
		{Name: "Node", Priority: 1, Description: spec["nodeName"], Cell: func(p *corev1.Pod) any { return orNone(p.Spec.NodeName) }},
		{Name: "Nominated Node", Priority: 1, Description: status["nominatedNodeName"], Cell: func(p *corev1.Pod) any { return orNone(p.Status.NominatedNodeName) }},
		{Name: "Readiness Gates", Priority: 1, Description: spec["readinessGates"], Cell: readinessGates},
	}
}

func orNone(s string) string {
	if s == "" {
		return none
	}
	return s
}

func readinessGates(p *corev1.Pod) any {
	if len(p.Spec.ReadinessGates) == 0 {
		return none
	}
	passed := 0
	for _, g := range p.Spec.ReadinessGates {
		if hasCondition(p, g.ConditionType) {
			passed++
		}
	}
	return fmt.Sprintf("%d/%d", passed, len(p.Spec.ReadinessGates))
}

// rowConditions marks pods that have ended, so that clients can tell them from the ones that run.
func rowConditions(p *corev1.Pod) []metav1.TableRowCondition {
	switch p.Status.Phase {
	case corev1.PodSucceeded:
		return []metav1.TableRowCondition{{Type: metav1.RowCompleted, Status: metav1.ConditionTrue, Reason: string(corev1.PodSucceeded), Message: "The pod has completed successfully."}}
	case corev1.PodFailed:
		return []metav1.TableRowCondition{{Type: metav1.RowCompleted, Status: metav1.ConditionTrue, Reason: string(corev1.PodFailed), Message: "The pod failed."}}
	}
	return nil
}

func hasCondition(p *corev1.Pod, kind corev1.PodConditionType) bool {
	for _, c := range p.Status.Conditions {
		if c.Type == kind {
			return c.Status == corev1.ConditionTrue
		}
	}
	return false
}

// summary is a pod in three words.
type summary struct{ ready, reason, restarts string }

// counter adds up restarts, and remembers when the last one was.
type counter struct {
	restarts int
	last     metav1.Time
}

func (c *counter) add(s *corev1.ContainerStatus) {
	c.restarts += int(s.RestartCount)
	if t := s.LastTerminationState.Terminated; t != nil && c.last.Before(&t.FinishedAt) {
		c.last = t.FinishedAt
	}
}

func (c *counter) String() string {
	if c.restarts == 0 || c.last.IsZero() {
		return fmt.Sprint(c.restarts)
	}
	return fmt.Sprintf("%d (%s ago)", c.restarts, duration.HumanDuration(time.Since(c.last.Time)))
}

func summarize(p *corev1.Pod) summary {
	reason := string(p.Status.Phase)
	if p.Status.Reason != "" {
		reason = p.Status.Reason
	}
	for _, c := range p.Status.Conditions {
		if c.Type == corev1.PodScheduled && c.Reason == corev1.PodReasonSchedulingGated {
			reason = corev1.PodReasonSchedulingGated
		}
	}
	sidecars := map[string]bool{}
	total := len(p.Spec.Containers)
	for i := range p.Spec.InitContainers {
		if isSidecar(&p.Spec.InitContainers[i]) {
			sidecars[p.Spec.InitContainers[i].Name] = true
			total++
		}
	}
	var all, running counter
	ready := 0
	initReason, initializing := initState(p, sidecars, &all, &running, &ready)
	if initializing {
		reason = initReason
	}
	if !initializing || hasCondition(p, corev1.PodInitialized) {
		all = running
		reason = containerState(p, reason, &all, &ready)
	}
	if p.DeletionTimestamp != nil {
		reason = deletedReason(p)
	}
	return summary{ready: fmt.Sprintf("%d/%d", ready, total), reason: reason, restarts: all.String()}
}

func isSidecar(c *corev1.Container) bool {
	return c.RestartPolicy != nil && *c.RestartPolicy == corev1.ContainerRestartPolicyAlways
}

// deletedReason is what a pod shows that waits for its end.
func deletedReason(p *corev1.Pod) string {
	switch {
	case p.Status.Reason == "NodeLost":
		return "Unknown"
	case !phase.Ended(p.Status.Phase):
		return "Terminating"
	}
	return summarizeAlive(p)
}

// summarizeAlive is the reason as it would be without the deletion.
func summarizeAlive(p *corev1.Pod) string {
	alive := *p
	alive.DeletionTimestamp = nil
	return summarize(&alive).reason
}

// initState looks for the first init container that is not done. running collects the restarts of sidecars, which
// count for as long as the pod lives; all also has those of the others.
func initState(p *corev1.Pod, sidecars map[string]bool, all, running *counter, ready *int) (reason string, initializing bool) {
	for i := range p.Status.InitContainerStatuses {
		s := &p.Status.InitContainerStatuses[i]
		all.add(s)
		sidecar := sidecars[s.Name]
		if sidecar {
			running.add(s)
		}
		switch t, w := s.State.Terminated, s.State.Waiting; {
		case t != nil && t.ExitCode == 0:
			continue
		case sidecar && s.Started != nil && *s.Started:
			if s.Ready {
				*ready++
			}
			continue
		case t != nil && t.Reason != "":
			return "Init:" + t.Reason, true
		case t != nil && t.Signal != 0:
			return fmt.Sprintf("Init:Signal:%d", t.Signal), true
		case t != nil:
			return fmt.Sprintf("Init:ExitCode:%d", t.ExitCode), true
		case w != nil && w.Reason != "" && w.Reason != "PodInitializing":
			return "Init:" + w.Reason, true
		}
		return fmt.Sprintf("Init:%d/%d", i, len(p.Spec.InitContainers)), true
	}
	return "", false
}

// containerState takes the reason from the first container that has one.
func containerState(p *corev1.Pod, reason string, restarts *counter, ready *int) string {
	someRun := false
	for i := len(p.Status.ContainerStatuses) - 1; i >= 0; i-- {
		s := &p.Status.ContainerStatuses[i]
		restarts.add(s)
		switch t, w := s.State.Terminated, s.State.Waiting; {
		case w != nil && w.Reason != "":
			reason = w.Reason
		case t != nil && t.Reason != "":
			reason = t.Reason
		case t != nil && t.Signal != 0:
			reason = fmt.Sprintf("Signal:%d", t.Signal)
		case t != nil:
			reason = fmt.Sprintf("ExitCode:%d", t.ExitCode)
		case s.Ready && s.State.Running != nil:
			someRun = true
			*ready++
		}
	}
	if reason == "Completed" && someRun {
		if hasCondition(p, corev1.PodReady) {
			return string(corev1.PodRunning)
		}
		return "NotReady"
	}
	return strings.TrimSpace(reason)
}
