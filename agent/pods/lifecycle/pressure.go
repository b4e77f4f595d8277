package lifecycle

import (
	"fmt"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/apimachinery/pkg/types"

	"github.com/podvine/podvine/agent/phase"
)

// Signal is something that a node can run short of.
type Signal string

// The signals, in the order in which they are dealt with.
const (
	MemoryAvailable   Signal = "memory.available"
	NodeFSAvailable   Signal = "nodefs.available"
	NodeFSInodesFree  Signal = "nodefs.inodesFree"
	ImageFSAvailable  Signal = "imagefs.available"
	ImageFSInodesFree Signal = "imagefs.inodesFree"
	PIDAvailable      Signal = "pid.available"
)

// Threshold is how little of something may be left.
type Threshold struct {
	Signal Signal
	// Quantity is absolute; Percent of the capacity counts when it is 0.
	Quantity, Percent int64
}

// DefaultThresholds are Kubernetes', with one for processes.
func DefaultThresholds() []Threshold {
	return []Threshold{
		{Signal: MemoryAvailable, Quantity: 100 << 20}, {Signal: NodeFSAvailable, Percent: 10}, {Signal: NodeFSInodesFree, Percent: 5},
		{Signal: ImageFSAvailable, Percent: 15}, {Signal: ImageFSInodesFree, Percent: 5}, {Signal: PIDAvailable, Percent: 10},
	}
}

const (
	// PressureHold is how long a condition stays after its threshold was last met.
	PressureHold = 5 * time.Minute
	// ReclaimPeriod separates tries to free disk without ending a pod.
	ReclaimPeriod = time.Minute
	// EvictionGraceSeconds is what an evicted pod gets to end.
	EvictionGraceSeconds = 1
	// systemCritical is the lowest priority of pods that are never evicted.
	systemCritical = 2_000_000_000
)

// Measure of a signal.
type Measure struct{ Available, Capacity int64 }

// PodUsage is what a pod uses. It matters only while something is short.
type PodUsage struct {
	Pod *corev1.Pod
	// Static pods are never evicted.
	Static                            bool
	MemoryBytes, DiskBytes, Processes int64
	ContainerMemory                   map[string]int64
}

// PressureView is everything Relieve looks at.
type PressureView struct {
	Now        time.Time
	Thresholds []Threshold
	Measures   map[Signal]Measure
	// LastMet is when each threshold was last met, as the plan before said.
	LastMet map[Signal]time.Time
	Pods    []PodUsage
	// Evicting: a pod that was evicted has not ended yet.
	Evicting bool
	// ReclaimedAt is when disk was last freed.
	ReclaimedAt time.Time
}

// Pressure is what a node is short of, as its conditions say.
type Pressure struct{ Memory, Disk, PID bool }

// PressurePlan is what Relieve wants.
type PressurePlan struct {
	LastMet  map[Signal]time.Time
	Pressure Pressure
	// Met are the thresholds that are met now.
	Met []Threshold
	// Reclaim asks to free disk of unused images.
	Reclaim bool
	// Evict is the pod to end, "" for none, with its message.
	Evict   types.UID
	Message string
}

// Met are the thresholds that a node's measures have reached. It is pure.
func Met(thresholds []Threshold, measures map[Signal]Measure) []Threshold {
	var out []Threshold
	for _, t := range thresholds {
		m, ok := measures[t.Signal]
		if ok && m.Capacity > 0 && m.Available < t.amount(m) {
			out = append(out, t)
		}
	}
	return out
}

func (t Threshold) amount(m Measure) int64 {
	if t.Quantity > 0 {
		return t.Quantity
	}
	return m.Capacity / 100 * t.Percent
}

// Relieve decides what a node does about what it is short of: it frees disk,
// and then ends one pod at a time. It is pure.
func Relieve(v PressureView) PressurePlan {
	p := PressurePlan{LastMet: map[Signal]time.Time{}, Met: Met(v.Thresholds, v.Measures)}
	for s, at := range v.LastMet {
		if v.Now.Sub(at) < PressureHold {
			p.LastMet[s] = at
		}
	}
	for _, t := range p.Met {
		p.LastMet[t.Signal] = v.Now
	}
	for s := range p.LastMet {
		switch s {
		case MemoryAvailable:
			p.Pressure.Memory = true
		case PIDAvailable:
			p.Pressure.PID = true
		default:
			p.Pressure.Disk = true
		}
	}
	if len(p.Met) == 0 || v.Evicting {
		return p
	}
	t := p.Met[0]
	if t.disk() && v.Now.Sub(v.ReclaimedAt) >= ReclaimPeriod {
		p.Reclaim = true
		return p
	}
	order := Rank(t.Signal, v.Pods)
	if len(order) == 0 {
		return p
	}
	p.Evict, p.Message = order[0].Pod.UID, evictionMessage(t, v.Measures[t.Signal], order[0])
	return p
}

func (t Threshold) disk() bool { return t.Signal != MemoryAvailable && t.Signal != PIDAvailable }

// Critical pods are not evicted.
func Critical(pod *corev1.Pod) bool {
	return pod.Spec.Priority != nil && *pod.Spec.Priority >= systemCritical
}

// Rank orders the pods that may be evicted, the first to go first: those that
// use more than they asked for, then by priority, then by how much more. It is
// pure.
func Rank(s Signal, pods []PodUsage) []PodUsage {
	var out []PodUsage
	for _, p := range pods {
		if !p.Static && !Critical(p.Pod) && p.Pod.DeletionTimestamp == nil && !phase.Ended(p.Pod.Status.Phase) {
			out = append(out, p)
		}
	}
	over := func(p PodUsage) int64 { return p.used(s) - p.asked(s) }
	slices.SortStableFunc(out, func(a, b PodUsage) int {
		if x, y := over(a) > 0, over(b) > 0; x != y && s != PIDAvailable {
			if x {
				return -1
			}
			return 1
		}
		if x, y := priority(a.Pod), priority(b.Pod); x != y {
			return int(min(max(x-y, -1), 1))
		}
		switch d := over(b) - over(a); {
		case d > 0:
			return 1
		case d < 0:
			return -1
		}
		return strings.Compare(string(a.Pod.UID), string(b.Pod.UID))
	})
	return out
}

func priority(p *corev1.Pod) int64 {
	if p.Spec.Priority == nil {
		return 0
	}
	return int64(*p.Spec.Priority)
}

func (p PodUsage) used(s Signal) int64 {
	switch s {
	case MemoryAvailable:
		return p.MemoryBytes
	case PIDAvailable:
		return p.Processes
	}
	return p.DiskBytes
}

// asked is what the pod's requests entitle it to.
func (p PodUsage) asked(s Signal) int64 {
	switch s {
	case MemoryAvailable:
		q := Requests(p.Pod)[corev1.ResourceMemory]
		return q.Value()
	case PIDAvailable:
		return 0
	}
	var sum int64
	for i := range p.Pod.Spec.Containers {
		q := p.Pod.Spec.Containers[i].Resources.Requests[corev1.ResourceEphemeralStorage]
		sum += q.Value()
	}
	return sum
}

// resourceOf names what a signal is about, in the words of messages.
func resourceOf(s Signal) string {
	switch s {
	case MemoryAvailable:
		return "memory"
	case PIDAvailable:
		return "pids"
	case NodeFSInodesFree, ImageFSInodesFree:
		return "inodes"
	}
	return "ephemeral-storage"
}

func evictionMessage(t Threshold, m Measure, p PodUsage) string {
	words := func(n int64) string {
		if t.Signal == PIDAvailable || strings.HasSuffix(string(t.Signal), "inodesFree") {
			return fmt.Sprint(n)
		}
		return resource.NewQuantity(n, resource.BinarySI).String()
	}
	out := fmt.Sprintf("The node was low on resource: %s. Threshold quantity: %s, available: %s. ", resourceOf(t.Signal), words(t.amount(m)), words(m.Available))
	if t.Signal != MemoryAvailable {
		return out
	}
	for i := range p.Pod.Spec.Containers {
		c := &p.Pod.Spec.Containers[i]
		asked := c.Resources.Requests[corev1.ResourceMemory]
		if used := p.ContainerMemory[c.Name]; used > asked.Value() {
			out += fmt.Sprintf("Container %s was using %s, request is %s, has larger consumption of memory. ", c.Name, words(used), asked.String())
		}
	}
	return out
}

// AdmitUnder refuses pods that a node short of something should not begin. It
// is pure.
func AdmitUnder(p Pressure, pod *corev1.Pod) *Rejection {
	if Critical(pod) {
		return nil
	}
	tolerates := func(key string) bool {
		return slices.ContainsFunc(pod.Spec.Tolerations, func(t corev1.Toleration) bool {
			return (t.Key == key || t.Key == "" && t.Operator == corev1.TolerationOpExists) && (t.Effect == "" || t.Effect == corev1.TaintEffectNoSchedule)
		})
	}
	var why []string
	if p.Memory && QOS(pod) == corev1.PodQOSBestEffort && !tolerates(corev1.TaintNodeMemoryPressure) {
		why = append(why, string(corev1.NodeMemoryPressure))
	}
	if p.Disk && !tolerates(corev1.TaintNodeDiskPressure) {
		why = append(why, string(corev1.NodeDiskPressure))
	}
	if p.PID && !tolerates(corev1.TaintNodePIDPressure) {
		why = append(why, string(corev1.NodePIDPressure))
	}
	if len(why) == 0 {
		return nil
	}
	return &Rejection{"Evicted", fmt.Sprintf(RejectedPrefix+"The node had condition: %v. ", why)}
}
