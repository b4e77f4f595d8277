package lifecycle

import (
	"fmt"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/api/resource"
)

// Verdict says whether a node has room for a pod's new size.
type Verdict struct {
	// Reason is "" when there is room, or why there is none: for now (Deferred)
	// or ever (Infeasible).
	Reason, Message string
}

// Room is what a node can give and what its other pods have.
type Room struct{ Allocatable, Others corev1.ResourceList }

// Fits tells whether a pod that wants so much has room beside the others. It is
// pure.
func Fits(want corev1.ResourceList, room Room) Verdict {
	var never, notNow []string
	for _, name := range []corev1.ResourceName{corev1.ResourceCPU, corev1.ResourceMemory} {
		asked, has, taken := want[name], room.Allocatable[name], room.Others[name]
		if has.IsZero() {
			return Verdict{corev1.PodReasonDeferred, "What the node has is not known yet"}
		}
		free := has.DeepCopy()
		free.Sub(taken)
		switch {
		case asked.Cmp(has) > 0:
			never = append(never, fmt.Sprintf("%s, requested: %s, capacity: %s", name, amount(name, asked), amount(name, has)))
		case asked.Cmp(free) > 0:
			notNow = append(notNow, fmt.Sprintf("%s, requested: %s, used: %s, capacity: %s", name, amount(name, asked), amount(name, taken), amount(name, has)))
		}
	}
	switch {
	case len(never) > 0:
		return Verdict{corev1.PodReasonInfeasible, "Node didn't have enough capacity: " + strings.Join(never, "; ")}
	case len(notNow) > 0:
		return Verdict{corev1.PodReasonDeferred, "Node didn't have enough resource: " + strings.Join(notNow, "; ")}
	}
	return Verdict{}
}

// AdmitSize refuses a pod that asks for more than the node has left, whoever put it here: the scheduler may have been told too much, or
// not been asked. Of what the node has none known, and critical pods, it lets in. It is pure.
func AdmitSize(pod *corev1.Pod, room Room) *Rejection {
	if Critical(pod) {
		return nil
	}
	want := Requests(pod)
	for _, name := range []corev1.ResourceName{corev1.ResourceCPU, corev1.ResourceMemory, corev1.ResourceEphemeralStorage} {
		asked, has, taken := want[name], room.Allocatable[name], room.Others[name]
		if asked.IsZero() || has.IsZero() {
			continue
		}
		free := has.DeepCopy()
		free.Sub(taken)
		if asked.Cmp(free) > 0 {
			return &Rejection{"OutOf" + string(name), fmt.Sprintf("%sNode didn't have enough resource: %s, requested: %s, used: %s, capacity: %s", RejectedPrefix,
				name, amount(name, asked), amount(name, taken), amount(name, has))}
		}
	}
	return nil
}

// amount is a quantity as such messages have it: milli-CPUs, or bytes.
func amount(name corev1.ResourceName, q resource.Quantity) string {
	if name == corev1.ResourceCPU {
		return fmt.Sprint(q.MilliValue())
	}
	return fmt.Sprint(q.Value())
}

// Requests is what a pod takes of a node: the sum of its containers', or what
// init containers need before them, with overhead. It is pure.
func Requests(pod *corev1.Pod) corev1.ResourceList {
	out := corev1.ResourceList{}
	for _, name := range []corev1.ResourceName{corev1.ResourceCPU, corev1.ResourceMemory, corev1.ResourceEphemeralStorage} {
		var sum, sidecars, peak resource.Quantity
		for i := range pod.Spec.InitContainers {
			c := &pod.Spec.InitContainers[i]
			need := c.Resources.Requests[name]
			if Sidecar(c) {
				sidecars.Add(need)
				need = sidecars
			} else {
				need = need.DeepCopy()
				need.Add(sidecars)
			}
			if need.Cmp(peak) > 0 {
				peak = need.DeepCopy()
			}
		}
		sum = sidecars.DeepCopy()
		for i := range pod.Spec.Containers {
			sum.Add(pod.Spec.Containers[i].Resources.Requests[name])
		}
		if peak.Cmp(sum) > 0 {
			sum = peak
		}
		if r := pod.Spec.Resources; r != nil {
			if q, ok := r.Requests[name]; ok {
				sum = q.DeepCopy()
			}
		}
		sum.Add(pod.Spec.Overhead[name])
		out[name] = sum
	}
	return out
}

// Resized tells whether a pod asks for another size than it was given.
func Resized(want, given *corev1.Pod) bool {
	lists := func(p *corev1.Pod) [][]corev1.Container {
		return [][]corev1.Container{p.Spec.InitContainers, p.Spec.Containers}
	}
	for i, list := range lists(want) {
		for j := range list {
			other := lists(given)[i]
			if j < len(other) && !equality.Semantic.DeepEqual(list[j].Resources, other[j].Resources) {
				return true
			}
		}
	}
	return !equality.Semantic.DeepEqual(want.Spec.Resources, given.Spec.Resources)
}

// WithSizes is pod with the sizes of another version of it. It is pure.
func WithSizes(pod, sizes *corev1.Pod) *corev1.Pod {
	if !Resized(pod, sizes) {
		return pod
	}
	out := pod.DeepCopy()
	for i := range out.Spec.InitContainers {
		out.Spec.InitContainers[i].Resources = *sizes.Spec.InitContainers[i].Resources.DeepCopy()
	}
	for i := range out.Spec.Containers {
		out.Spec.Containers[i].Resources = *sizes.Spec.Containers[i].Resources.DeepCopy()
	}
	out.Spec.Resources = sizes.Spec.Resources.DeepCopy()
	return out
}

// given is a container as the pod's room allows it.
func (d *decider) given(c *corev1.Container) *corev1.Container {
	if d.Given == nil {
		return c
	}
	for _, list := range [][]corev1.Container{d.Given.Spec.InitContainers, d.Given.Spec.Containers} {
		for i := range list {
			if list[i].Name == c.Name {
				return &list[i]
			}
		}
	}
	return c
}

// resize brings a running container to the size that it was given, in the way
// that its policy says; it reports whether something is to be done.
func (d *decider) resize(c *corev1.Container, got Container) bool {
	want := d.given(c)
	if got.Applied == nil || equality.Semantic.DeepEqual(*got.Applied, want.Resources) {
		return false
	}
	if restartsOnResize(c, *got.Applied, want.Resources) {
		d.plan.do(Action{Kind: Stop, Container: c.Name, GraceSeconds: d.grace(), Replace: true, Message: fmt.Sprintf("Container %s resize requires restart", c.Name)})
		return true
	}
	if d.Now.Before(got.ResizeAt) {
		d.plan.wake(got.ResizeAt)
		return true
	}
	d.plan.do(Action{Kind: Resize, Container: c.Name})
	return true
}

// restartsOnResize tells whether a resource that changes needs a new process.
func restartsOnResize(c *corev1.Container, was, now corev1.ResourceRequirements) bool {
	for _, p := range c.ResizePolicy {
		if p.RestartPolicy != corev1.RestartContainer {
			continue
		}
		oldLim, newLim, oldReq, newReq := was.Limits[p.ResourceName], now.Limits[p.ResourceName], was.Requests[p.ResourceName], now.Requests[p.ResourceName]
		if oldLim.Cmp(newLim) != 0 || oldReq.Cmp(newReq) != 0 {
			return true
		}
	}
	return false
}

// resizeConditions tell how far a new size has come.
func (d *decider) resizeConditions(s *corev1.PodStatus) {
	if v := d.Resize; v.Reason != "" && !d.ending {
		d.setCondition(s, corev1.PodCondition{Type: corev1.PodResizePending, Status: corev1.ConditionTrue, Reason: v.Reason, Message: v.Message, ObservedGeneration: d.Pod.Generation})
	} else {
		dropCondition(s, corev1.PodResizePending)
	}
	under, message := false, ""
	for _, list := range [][]corev1.Container{d.Pod.Spec.InitContainers, d.Pod.Spec.Containers} {
		for i := range list {
			got := d.Containers[list[i].Name]
			if got.Phase != Running || got.Applied == nil || equality.Semantic.DeepEqual(*got.Applied, d.given(&list[i]).Resources) {
				continue
			}
			under = true
			if got.ResizeError != "" {
				message = got.ResizeError
			}
		}
	}
	if !under || d.ending {
		dropCondition(s, corev1.PodResizeInProgress)
		return
	}
	c := corev1.PodCondition{Type: corev1.PodResizeInProgress, Status: corev1.ConditionTrue, Message: message, ObservedGeneration: d.Pod.Generation}
	if message != "" {
		c.Reason = corev1.PodReasonError
	}
	d.setCondition(s, c)
}

func dropCondition(s *corev1.PodStatus, t corev1.PodConditionType) {
	for i := range s.Conditions {
		if s.Conditions[i].Type == t {
			s.Conditions = append(s.Conditions[:i], s.Conditions[i+1:]...)
			return
		}
	}
}
