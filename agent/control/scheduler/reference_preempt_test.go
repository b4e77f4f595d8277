package scheduler

import (
	"math/rand/v2"
	"slices"
	"sort"
	"time"

	v1 "k8s.io/api/core/v1"
)

// room is whom the reference evicts, and from where.
type room struct {
	node       string
	victims    []string
	displaced  []string
	violations int
	pods       []*v1.Pod
}

// preempt makes room for a pod that fits nowhere, in Kubernetes' order of preference; nil when there is none.
func (r *reference) preempt(pod *v1.Pod, rng *rand.Rand) *room {
	if *pod.Spec.PreemptionPolicy == v1.PreemptNever {
		return nil
	}
	var helpful []*v1.Node
	for _, n := range r.nodes {
		_, removable := r.judge(pod, n)
		if removable && slices.Contains(r.nominated[n.Name], pod) &&
			slices.ContainsFunc(r.on[n.Name], func(p *v1.Pod) bool { return priority(p) < priority(pod) && r.evicting[p.Name] }) {
			return nil
		}
		if removable {
			helpful = append(helpful, n)
		}
	}
	var offers []*room
	if len(helpful) > 0 {
		first := rng.IntN(len(helpful))
		for _, n := range slices.Concat(helpful[first:], helpful[:first]) {
			if o := r.evict(pod, n); o != nil {
				offers = append(offers, o)
			}
		}
	}
	if len(offers) == 0 {
		r.withdraw(pod)
		return nil
	}
	best := pick(offers)
	for _, p := range slices.Clone(r.nominated[best.node]) {
		if priority(p) < priority(pod) {
			best.displaced = append(best.displaced, p.Name)
			r.withdraw(p)
		}
	}
	r.withdraw(pod)
	r.nominated[best.node] = append(r.nominated[best.node], pod)
	return best
}

func (r *reference) withdraw(pod *v1.Pod) {
	for node, pods := range r.nominated {
		r.nominated[node] = slices.DeleteFunc(slices.Clone(pods), func(p *v1.Pod) bool { return p.Name == pod.Name })
	}
}

// evict takes all less important pods off the node and puts back what can stay, those first whose budget forbids it.
func (r *reference) evict(pod *v1.Pod, n *v1.Node) *room {
	var lower, stay []*v1.Pod
	for _, p := range r.on[n.Name] {
		if priority(p) < priority(pod) {
			lower = append(lower, p)
		} else {
			stay = append(stay, p)
		}
	}
	if len(lower) == 0 || !r.with(n.Name, stay).feasible(pod, n) {
		return nil
	}
	sort.SliceStable(lower, func(i, j int) bool { return moreImportant(lower[i], lower[j]) })
	forbidden := r.forbidden(lower)
	o := &room{node: n.Name}
	for _, first := range []bool{true, false} {
		for _, p := range lower {
			if forbidden[p] != first {
				continue
			}
			if more := slices.Concat(stay, []*v1.Pod{p}); r.with(n.Name, more).feasible(pod, n) {
				stay = more
				continue
			}
			if first {
				o.violations++
			}
		}
	}
	for _, p := range lower {
		if !slices.Contains(stay, p) {
			o.pods, o.victims = append(o.pods, p), append(o.victims, p.Name)
		}
	}
	return o
}

// forbidden are the pods that, after those before them, would go against a budget.
func (r *reference) forbidden(pods []*v1.Pod) map[*v1.Pod]bool {
	out, left := map[*v1.Pod]bool{}, map[int]int32{}
	for i, budget := range r.budgets {
		left[i] = budget.Status.DisruptionsAllowed
	}
	for _, p := range pods {
		for i, budget := range r.budgets {
			if _, going := budget.Status.DisruptedPods[p.Name]; selects(budget.Spec.Selector, p) && !going {
				left[i]--
				out[p] = out[p] || left[i] < 0
			}
		}
	}
	return out
}

func moreImportant(a, b *v1.Pod) bool {
	if priority(a) != priority(b) {
		return priority(a) > priority(b)
	}
	return a.Status.StartTime.Before(b.Status.StartTime)
}

// pick eliminates by one criterion after the other.
func pick(offers []*room) *room {
	for _, cost := range []func(*room) int64{
		func(o *room) int64 { return int64(o.violations) },
		func(o *room) int64 { return int64(priority(o.pods[0])) },
		func(o *room) (sum int64) {
			for _, p := range o.pods {
				sum += int64(priority(p)) + 1<<31
			}
			return sum
		},
		func(o *room) int64 { return int64(len(o.pods)) },
		func(o *room) int64 { return -earliest(o).UnixNano() },
	} {
		lowest := cost(offers[0])
		for _, o := range offers {
			lowest = min(lowest, cost(o))
		}
		offers = slices.DeleteFunc(slices.Clone(offers), func(o *room) bool { return cost(o) != lowest })
	}
	return offers[0]
}

func earliest(o *room) time.Time {
	first := o.pods[0].Status.StartTime.Time
	for _, p := range o.pods {
		if priority(p) == priority(o.pods[0]) && p.Status.StartTime.Time.Before(first) {
			first = p.Status.StartTime.Time
		}
	}
	return first
}
