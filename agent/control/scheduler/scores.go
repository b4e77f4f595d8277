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
	weightImages   = 1
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

// maxRemembered bounds the table of a [scale].
const maxRemembered = 1024

// scale normalises the raw scores of one plugin over the feasible nodes by a table: there are few values, and nodes are
// many.
type scale struct {
	low, high int64
	seen      bool
	weigh     func(low, high, raw int64) int64
	table     []int64 // by raw - low
}

func (s *scale) reset() { s.low, s.high, s.seen, s.table = 0, 0, false, s.table[:0] }

func (s *scale) observe(raw int64) {
	if !s.seen {
		s.low, s.high, s.seen = raw, raw, true
		return
	}
	s.low, s.high = min(s.low, raw), max(s.high, raw)
}

// prepare weighs the values between the extremes, unless these are far apart.
func (s *scale) prepare() {
	if s.seen && s.high-s.low < maxRemembered {
		for raw := s.low; raw <= s.high; raw++ {
			s.table = append(s.table, s.weigh(s.low, s.high, raw))
		}
	}
}

func (s *scale) of(raw int64) int64 {
	if at := raw - s.low; uint64(at) < uint64(len(s.table)) {
		return s.table[at]
	}
	return s.weigh(s.low, s.high, raw)
}

func weighTaints(_, high, raw int64) int64 {
	if high == 0 {
		return weightTaint * maxScore
	}
	return weightTaint * (maxScore - maxScore*raw/high)
}

func weighPreference(_, high, raw int64) int64 {
	if high == 0 {
		return 0
	}
	return weightAffinity * (maxScore * raw / high)
}

func weighAttraction(low, high, raw int64) int64 {
	if high == low {
		return 0
	}
	return weightInterPod * int64(maxScore*(float64(raw-low)/float64(high-low)))
}

func weighCrowd(low, high, raw int64) int64 {
	if high == 0 {
		return weightSpread * maxScore
	}
	return weightSpread * (maxScore * (high + low - raw) / high)
}
