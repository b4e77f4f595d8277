package job

import (
	"cmp"
	"slices"

	v1 "k8s.io/api/core/v1"

	"github.com/podvine/podvine/agent/control/workloads/pods"
)

// keep brings the number of pods to what the job wants now.
func (r *run) keep() {
	if r.indexed {
		r.dropIndexes()
	}
	kept := len(r.active) - len(r.plan.Delete)
	wanted := r.wanted(kept)
	if kept > wanted {
		r.surplus(kept - wanted)
		return
	}
	missing := wanted - kept
	if r.replacesFailedOnly() {
		missing -= len(r.leaving) + len(r.plan.Delete)
	}
	if missing <= 0 || r.Unseen {
		return
	}
	missing = min(missing, maxCreate)
	if r.indexed && r.spec.BackoffLimitPerIndex != nil {
		r.createIndexes(missing, true)
		return
	}
	if left := r.wait(); left > 0 {
		r.again(left)
		return
	}
	if r.indexed {
		r.createIndexes(missing, false)
		return
	}
	for range missing {
		r.plan.Create = append(r.plan.Create, Creation{Index: noIndex})
	}
}

// wanted is how many pods shall run at once.
func (r *run) wanted(active int) int {
	parallel := int(pods.Value(r.spec.Parallelism, 1))
	if r.spec.Completions == nil {
		// A work queue: once one succeeded the queue is empty, and the others come to their end.
		if r.succeeded() > 0 {
			return min(active, parallel)
		}
		return parallel
	}
	return min(parallel, max(0, r.completions()-r.succeeded()-len(r.failed)))
}

// dropIndexes ends pods of indexes that need none: done, given up, out of range, or with another pod.
func (r *run) dropIndexes() {
	taken := indexSet{}
	for _, p := range r.active {
		n := indexOf(p)
		if n == noIndex || n >= r.completions() || r.completed[n] || r.failed[n] || taken[n] {
			r.plan.Delete = append(r.plan.Delete, p)
			continue
		}
		taken[n] = true
	}
}

// createIndexes makes pods for the lowest indexes that have none; with own back-off each waits for itself.
func (r *run) createIndexes(missing int, ownBackoff bool) {
	taken := indexSet{}
	for _, p := range r.active {
		taken[indexOf(p)] = true
	}
	for _, p := range r.leaving {
		if r.replacesFailedOnly() || p.DeletionTimestamp == nil {
			taken[indexOf(p)] = true
		}
	}
	for n := 0; n < r.completions() && missing > 0; n++ {
		if taken[n] || r.completed[n] || r.failed[n] {
			continue
		}
		c := Creation{Index: n}
		if a := r.perIndex[n]; a != nil && ownBackoff {
			if left := r.left(a.failures, a.last); left > 0 {
				r.again(left)
				continue
			}
			c.Failures, c.Ignored = a.failures, a.ignored
		}
		r.plan.Create = append(r.plan.Create, c)
		missing--
	}
}

// surplus ends pods, those first that lose least: not placed, not ready, youngest.
func (r *run) surplus(count int) {
	left := slices.DeleteFunc(slices.Clone(r.active), func(p *v1.Pod) bool { return slices.Contains(r.plan.Delete, p) })
	slices.SortStableFunc(left, func(a, b *v1.Pod) int {
		return cmp.Or(cmp.Compare(progress(a), progress(b)), b.CreationTimestamp.Compare(a.CreationTimestamp.Time), -cmp.Compare(indexOf(a), indexOf(b)))
	})
	r.plan.Delete = append(r.plan.Delete, left[:min(count, len(left))]...)
}

// progress is how far a pod has come.
func progress(p *v1.Pod) int {
	ready, _ := pods.Ready(p)
	switch {
	case p.Spec.NodeName == "":
		return 0
	case p.Status.Phase == v1.PodPending:
		return 1
	case !ready:
		return 2
	}
	return 3
}
