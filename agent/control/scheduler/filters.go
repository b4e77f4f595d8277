package scheduler

import (
	"maps"
	"slices"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/component-helpers/scheduling/corev1"
	"k8s.io/component-helpers/scheduling/corev1/nodeaffinity"
	"k8s.io/klog/v2"
)

// verdict is the first filter that refuses a node, in the order in which they run.
type verdict uint8

const (
	fits verdict = iota
	nodeGone
	notPinned
	nodeUnschedulable
	nodeName
	taint
	affinity
	ports
	resources
	spreadLabel
	spread
	podAffinity
	podAntiAffinity
	existingAntiAffinity
	noVictims // of evicting, not of a filter
)

// Plugin names, as the scheduler's configuration, metrics and events know them.
const (
	pluginUnschedulable = "NodeUnschedulable"
	pluginName          = "NodeName"
	pluginTaint         = "TaintToleration"
	pluginAffinity      = "NodeAffinity"
	pluginPorts         = "NodePorts"
	pluginFit           = "NodeResourcesFit"
	pluginSpread        = "PodTopologySpread"
	pluginInterPod      = "InterPodAffinity"
	pluginGates         = "SchedulingGates"
	pluginVolumes       = "VolumeBinding"
	pluginClaims        = "DynamicResources"
)

// refusal says how a verdict is worded, which plugin gave it, and whether removing pods could change it.
type refusal struct {
	text, plugin string
	removable    bool
}

func (v verdict) refusal() refusal {
	switch v {
	case notPinned:
		return refusal{"node(s) didn't satisfy plugin(s) [NodeAffinity]", pluginAffinity, false}
	case nodeUnschedulable:
		return refusal{"node(s) were unschedulable", pluginUnschedulable, false}
	case nodeName:
		return refusal{"node(s) didn't match the requested node name", pluginName, false}
	case taint:
		return refusal{"node(s) had untolerated taint(s)", pluginTaint, false}
	case affinity:
		return refusal{"node(s) didn't match Pod's node affinity/selector", pluginAffinity, false}
	case ports:
		return refusal{"node(s) didn't have free ports for the requested pod ports", pluginPorts, true}
	case spreadLabel:
		return refusal{"node(s) didn't match pod topology spread constraints (missing required label)", pluginSpread, false}
	case spread:
		return refusal{"node(s) didn't match pod topology spread constraints", pluginSpread, true}
	case podAffinity:
		return refusal{"node(s) didn't match pod affinity rules", pluginInterPod, false}
	case podAntiAffinity:
		return refusal{"node(s) didn't match pod anti-affinity rules", pluginInterPod, true}
	case existingAntiAffinity:
		return refusal{"node(s) didn't satisfy existing pods anti-affinity rules", pluginInterPod, true}
	case noVictims:
		return refusal{"No preemption victims found for incoming pod", "", false}
	default: // resources are worded one by one
		return refusal{"", pluginFit, true}
	}
}

// Bits of a shortage mask; a class's extended resources follow from scalarBit on, in the order of their names.
const (
	podsBit = iota
	cpuBit
	memoryBit
	ephemeralBit
	scalarBit
	maxScalars = 64 - scalarBit
)

// constraints is a class of equal pods, compiled.
type constraints struct {
	pod       *Pod
	affinity  nodeaffinity.RequiredNodeAffinity
	preferred *nodeaffinity.PreferredSchedulingTerms
	scalars   []v1.ResourceName
	// preferTolerations are those that excuse a PreferNoSchedule taint.
	preferTolerations []v1.Toleration
	tolerateCordon    bool
	relations         relations
	// servedBy are the labels by which services select the class, when it is spread by them.
	servedBy labels.Set
	images   []string
	// pinnedTo is the only node that can match, when pinned.
	pinned   bool
	pinnedTo string
}

// compile prepares a pod's class.
func compile(pod *Pod, view *View) *constraints {
	spec := &pod.Object.Spec
	c := &constraints{
		pod:      pod,
		affinity: nodeaffinity.GetRequiredNodeAffinity(pod.Object),
		scalars:  scalarNames(pod),
	}
	c.tolerateCordon = toleratesCordon(spec.Tolerations)
	for _, t := range spec.Tolerations {
		if t.Effect == "" || t.Effect == v1.TaintEffectPreferNoSchedule {
			c.preferTolerations = append(c.preferTolerations, t)
		}
	}
	if a := spec.Affinity; a != nil && a.NodeAffinity != nil {
		// A term that does not parse scores nothing, on every node alike; validation keeps them out.
		if terms, err := nodeaffinity.NewPreferredSchedulingTerms(
			a.NodeAffinity.PreferredDuringSchedulingIgnoredDuringExecution); err == nil {
			c.preferred = terms
		}
	}
	c.servedBy = view.Services.servedBy(pod)
	c.relations = newRelations(pod, view.Namespaces.labels(), c.servedBy)
	c.images = wantedImages(spec)
	c.pinnedTo, c.pinned = pinned(pod.Object)
	return c
}

func scalarNames(pod *Pod) []v1.ResourceName { return slices.Sorted(maps.Keys(pod.Requests.Scalars)) }

// static judges by the node's object alone: valid as long as that object is the same.
func (c *constraints) static(n *Node) verdict {
	spec := &c.pod.Object.Spec
	switch {
	case n.Object == nil:
		return nodeGone
	case c.pinned && c.pinnedTo != n.Name:
		return notPinned
	case n.Object.Spec.Unschedulable && !c.tolerateCordon:
		return nodeUnschedulable
	case spec.NodeName != "" && spec.NodeName != n.Name:
		return nodeName
	case !c.tolerates(n.Object.Spec.Taints):
		return taint
	}
	if ok, err := c.affinity.Match(n.Object); err != nil || !ok {
		return affinity
	}
	return fits
}

func (c *constraints) tolerates(taints []v1.Taint) bool {
	for i := range taints {
		if taints[i].Effect == v1.TaintEffectPreferNoSchedule {
			continue
		}
		if !corev1.TolerationsTolerateTaint(klog.Logger{}, c.pod.Object.Spec.Tolerations, &taints[i], true) {
			return false
		}
	}
	return true
}

// dynamic judges by the pods on the node.
func (c *constraints) dynamic(n *Node) judgement {
	for _, port := range c.pod.Ports {
		if slices.ContainsFunc(n.ports, port.conflicts) {
			return judgement{verdict: ports}
		}
	}
	if short, never := c.shortages(n); short != 0 {
		return judgement{resources, short, never}
	}
	return judgement{}
}

func (c *constraints) shortages(n *Node) (short, never uint64) {
	check := func(bit int, want, have, used int64) {
		if want > 0 && want > have-used {
			short |= 1 << bit
			if want > have {
				never |= 1 << bit
			}
		}
	}
	want, have, used := &c.pod.Requests, &n.Allocatable, &n.Requested
	check(podsBit, 1, have.Pods, used.Pods)
	check(cpuBit, want.MilliCPU, have.MilliCPU, used.MilliCPU)
	check(memoryBit, want.MemoryBytes, have.MemoryBytes, used.MemoryBytes)
	check(ephemeralBit, want.EphemeralBytes, have.EphemeralBytes, used.EphemeralBytes)
	for i, name := range c.scalars {
		check(min(scalarBit+i, 63), want.Scalars[name], have.Scalars[name], used.Scalars[name])
	}
	return short, never
}

// shortageTexts words a mask.
func (c *constraints) shortageTexts(short uint64) []string {
	var texts []string
	name := func(bit int, text string) {
		if short&(1<<bit) != 0 {
			texts = append(texts, text)
		}
	}
	name(podsBit, "Too many pods")
	name(cpuBit, "Insufficient cpu")
	name(memoryBit, "Insufficient memory")
	name(ephemeralBit, "Insufficient ephemeral-storage")
	for i, scalar := range c.scalars {
		if i < maxScalars {
			name(scalarBit+i, "Insufficient "+string(scalar))
		}
	}
	return texts
}
