package scheduler

import (
	"cmp"
	"math"
	"slices"

	v1 "k8s.io/api/core/v1"
)

// Of the nodes where eviction could help, at least these many, and this share, are compared before the best is
// taken, Kubernetes' defaults: looking at all would make an urgent pod wait.
const (
	candidatesMin        = 100
	candidatesMinPercent = 10
)

// Preemption is room made on a node for a more important pod.
type Preemption struct {
	Node string
	// Victims are evicted, the most important first.
	Victims []*Pod
	// Displaced are less important pods that were nominated for the node. They look for another.
	Displaced []*Pod
}

// preempt looks for a node where evicting less important pods makes room, and words why there is none.
func (d *decider) preempt(e *evaluated, pod *Pod) (made *Preemption, withdraw bool, why string) {
	if policy := pod.Object.Spec.PreemptionPolicy; policy != nil && *policy == v1.PreemptNever {
		return nil, false, "not eligible due to preemptionPolicy=Never."
	}
	if d.awaitsVictims(e, pod) {
		return nil, false, "not eligible due to a terminating pod on the nominated node."
	}
	counts := map[string]int{}
	var helpful []int
	for i, n := range d.nodes {
		if n.Object == nil {
			continue
		}
		if j := d.judge(e, i); j.removable() {
			helpful = append(helpful, i)
		} else {
			counts["Preemption is not helpful for scheduling"]++
		}
	}
	_, nominated := d.nodeOf[pod.UID()]
	best := d.cheapest(e, pod, helpful, counts)
	if best == nil {
		d.withdraw(pod.UID())
		return nil, nominated, available(d.present, counts)
	}
	made = &Preemption{Node: d.nodes[best.at].Name, Victims: best.victims}
	for _, other := range slices.Clone(d.nominated[best.at]) {
		if other.Priority < pod.Priority {
			made.Displaced = append(made.Displaced, other)
			d.withdraw(other.UID())
		}
	}
	d.nominate(pod, best.at)
	return made, false, ""
}

// awaitsVictims tells whether the pod's room is being made already.
func (d *decider) awaitsVictims(e *evaluated, pod *Pod) bool {
	at, ok := d.nodeOf[pod.UID()]
	return ok && d.judge(e, at).removable() && slices.ContainsFunc(d.nodes[at].Pods, func(p *Pod) bool {
		return p.Priority < pod.Priority && p.evicted()
	})
}

// offer is what making room on one node would cost.
type offer struct {
	at         int
	victims    []*Pod // the most important first
	violations int    // of disruption budgets
}

// cheapest compares the nodes in Kubernetes' order; nil when evicting helps nowhere, why is counted then.
func (d *decider) cheapest(e *evaluated, pod *Pod, helpful []int, counts map[string]int) (best *offer) {
	if len(helpful) == 0 {
		return nil
	}
	want := min(len(helpful), max(candidatesMin, len(helpful)*candidatesMinPercent/100))
	first := d.rng.IntN(len(helpful))
	found, harmless := 0, false
	for k := range helpful {
		o, j := d.offer(e, pod, helpful[(first+k)%len(helpful)])
		if o == nil {
			for _, text := range e.c.texts(j) {
				counts[text]++
			}
			continue
		}
		if best == nil || o.compare(best) < 0 {
			best = o
		}
		found, harmless = found+1, harmless || o.violations == 0
		if harmless && found >= want {
			break
		}
	}
	return best
}

// offer finds whom to evict from the node: all that are less important, but for those that the pod fits beside,
// where budgets and then importance decide who stays.
func (d *decider) offer(e *evaluated, pod *Pod, at int) (*offer, judgement) {
	t, others := e.try(at), d.before(pod, at)
	var victims []*Pod
	for _, p := range d.nodes[at].Pods {
		if p.Priority < pod.Priority {
			victims = append(victims, p)
			t.put(p, -1)
		}
	}
	if len(victims) == 0 {
		return nil, judgement{verdict: noVictims}
	}
	if j := t.judgeBeside(others); j.verdict != fits {
		return nil, j
	}
	slices.SortStableFunc(victims, byImportance)
	exceeds := violating(victims, d.view.Budgets)
	o := &offer{at: at}
	stay := make([]bool, len(victims))
	for _, exceeding := range []bool{true, false} {
		for i, p := range victims {
			if exceeds[i] != exceeding {
				continue
			}
			t.put(p, 1)
			if stay[i] = t.judgeBeside(others).verdict == fits; stay[i] {
				continue
			}
			t.put(p, -1)
			if exceeding {
				o.violations++
			}
		}
	}
	for i, p := range victims {
		if !stay[i] {
			o.victims = append(o.victims, p)
		}
	}
	return o, judgement{}
}

// judgeBeside judges with the others on the node too, and without: they may never come.
func (t *trial) judgeBeside(others []*Pod) judgement {
	if len(others) > 0 {
		for _, p := range others {
			t.put(p, 1)
		}
		j := t.judge()
		for _, p := range others {
			t.put(p, -1)
		}
		if j.verdict != fits {
			return j
		}
	}
	return t.judge()
}

// compare orders offers: fewer violated budgets, a less important highest victim, less importance in sum, fewer
// victims, and then the one whose highest victims started last.
func (o *offer) compare(other *offer) int {
	if o.violations != other.violations {
		return cmp.Compare(o.violations, other.violations)
	}
	if len(o.victims) == 0 || len(other.victims) == 0 {
		return cmp.Compare(len(o.victims), len(other.victims))
	}
	return cmp.Or(
		cmp.Compare(o.victims[0].Priority, other.victims[0].Priority),
		cmp.Compare(o.importance(), other.importance()),
		cmp.Compare(len(o.victims), len(other.victims)),
		-cmp.Compare(o.started(), other.started()),
	)
}

// importance sums the priorities, each made positive: two victims are never better than one of them.
func (o *offer) importance() (sum int64) {
	for _, p := range o.victims {
		sum += int64(p.Priority) + math.MaxInt32 + 1
	}
	return sum
}

// started is when the first of the most important victims started.
func (o *offer) started() int64 {
	first := int64(math.MaxInt64)
	for _, p := range o.victims {
		if p.Priority == o.victims[0].Priority {
			first = min(first, p.started())
		}
	}
	return first
}

func byImportance(a, b *Pod) int {
	return cmp.Or(-cmp.Compare(a.Priority, b.Priority), cmp.Compare(a.started(), b.started()))
}

// started is when the pod started, in Unix nanoseconds; one that has not yet started is the last.
func (p *Pod) started() int64 {
	if p.Object.Status.StartTime == nil {
		return math.MaxInt64
	}
	return p.Object.Status.StartTime.UnixNano()
}

// evicted tells whether the pod goes, or is about to go, because a more important one needs its room.
func (p *Pod) evicted() bool {
	if p.Evicting {
		return true
	}
	return p.Object.DeletionTimestamp != nil && slices.ContainsFunc(p.Object.Status.Conditions, func(c v1.PodCondition) bool {
		return c.Type == v1.DisruptionTarget && c.Status == v1.ConditionTrue && c.Reason == v1.PodReasonPreemptionByScheduler
	})
}
