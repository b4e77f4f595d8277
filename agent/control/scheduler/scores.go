package scheduler

import (
	"math"

	v1 "k8s.io/api/core/v1"
	"k8s.io/component-helpers/scheduling/corev1"
	"k8s.io/klog/v2"
)

// Weights of the scores, as in Kubernetes' default profile. Each score is 0 to 100.
const (
	weightTaint    = 3
	weightAffinity = 2
	weightSpread   = 2
	weightInterPod = 2
	weightFit      = 1
	weightBalanced = 1
	maxScore       = 100
)

// intolerable counts the node's PreferNoSchedule taints that the pod does not tolerate.
func (c *constraints) intolerable(n *Node) int64 {
	var count int64
	for i := range n.Object.Spec.Taints {
		t := &n.Object.Spec.Taints[i]
		if t.Effect == v1.TaintEffectPreferNoSchedule &&
			!corev1.TolerationsTolerateTaint(klog.Logger{}, c.preferTolerations, t, true) {
			count++
		}
	}
	return count
}

// preference is the weight of the preferred node affinity terms that the node matches.
func (c *constraints) preference(n *Node) int64 {
	if c.preferred == nil {
		return 0
	}
	return c.preferred.Score(n.Object)
}

// room scores a node by what is left on it (the more the better) and by how evenly cpu and memory are used.
func (c *constraints) room(n *Node) int64 {
	return weightFit*c.leastAllocated(n) + weightBalanced*c.balanced(n)
}

func (c *constraints) leastAllocated(n *Node) int64 {
	var sum, parts int64
	add := func(have, used int64) {
		if have == 0 {
			return
		}
		parts++
		if used <= have {
			sum += (have - used) * maxScore / have
		}
	}
	add(n.Allocatable.MilliCPU, n.ScoredMilliCPU+c.pod.ScoredMilliCPU)
	add(n.Allocatable.MemoryBytes, n.ScoredMemoryBytes+c.pod.ScoredMemoryBytes)
	if parts == 0 {
		return 0
	}
	return sum / parts
}

// balanced scores by the distance of the used shares of cpu and memory. A pod that requests neither changes
// nothing about it and is not scored.
func (c *constraints) balanced(n *Node) int64 {
	want := &c.pod.Requests
	if want.MilliCPU == 0 && want.MemoryBytes == 0 {
		return 0
	}
	if n.Allocatable.MilliCPU == 0 || n.Allocatable.MemoryBytes == 0 {
		return maxScore
	}
	cpu := min(1, float64(n.Requested.MilliCPU+want.MilliCPU)/float64(n.Allocatable.MilliCPU))
	memory := min(1, float64(n.Requested.MemoryBytes+want.MemoryBytes)/float64(n.Allocatable.MemoryBytes))
	return int64((1 - math.Abs(cpu-memory)/2) * maxScore)
}
