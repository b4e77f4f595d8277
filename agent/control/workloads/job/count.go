package job

import (
	"slices"
	"time"

	batchv1 "k8s.io/api/batch/v1"
	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/podvine/podvine/agent/control/workloads/pods"
)

// ended tells whether a pod is over, and whether well. Where pods are replaced as soon as they are being deleted, that is
// a failure too.
func (r *run) ended(p *v1.Pod) (over, well bool) {
	switch {
	case p.Status.Phase == v1.PodSucceeded:
		return true, true
	case p.Status.Phase == v1.PodFailed:
		return true, false
	}
	return p.DeletionTimestamp != nil && !r.replacesFailedOnly(), false
}

func (r *run) replacesFailedOnly() bool {
	return pods.Value(r.spec.PodReplacementPolicy, batchv1.TerminatingOrFailed) == batchv1.Failed
}

// count takes the ends of pods into the status, in two steps: a UID in the list of the uncounted, and, once the pod has
// lost its finalizer, one more in the number.
func (r *run) count() {
	limit := r.completions()
	r.completed, r.failed = indexSet{}, indexSet{}
	if r.indexed {
		r.completed = parseIndexes(r.status.CompletedIndexes, limit)
		r.failed = parseIndexes(pods.Value(r.status.FailedIndexes, ""), limit)
	}
	u := r.settle()
	r.attempts()
	for _, p := range r.own {
		over, well := r.ended(p)
		if !over || !tracked(p) || slices.Contains(u.Succeeded, p.UID) || slices.Contains(u.Failed, p.UID) {
			continue
		}
		if len(u.Succeeded)+len(u.Failed) >= maxUncounted {
			r.again(time.Second)
			break
		}
		r.take(p, well, u)
	}
	r.failures = r.status.Failed + int32(len(u.Failed))
	r.failIndexes()
	r.status.UncountedTerminatedPods = u
}

// free lets the pods go whose ends stand in the status. The last failure of an index that shall be tried again stays until the
// next attempt is there: it alone knows how many there were.
func (r *run) free() {
	latest := map[int]int{}
	if r.spec.BackoffLimitPerIndex != nil && r.indexed {
		for _, p := range r.own {
			n := indexOf(p)
			latest[n] = max(latest[n], attemptsBefore(p))
		}
	}
	for _, p := range r.own {
		over, well := r.ended(p)
		if !over || !tracked(p) {
			continue
		}
		n := indexOf(p)
		tell := r.spec.BackoffLimitPerIndex != nil && !well && n != noIndex && n < r.completions() && !r.completed[n] && !r.failed[n]
		if tell && !ending(r.status) && attemptsBefore(p) == latest[n] {
			continue
		}
		r.plan.Free = append(r.plan.Free, p)
	}
}

// attemptsBefore is how many attempts at its index a pod knows of.
func attemptsBefore(p *v1.Pod) int {
	return countOf(p, batchv1.JobIndexFailureCountAnnotation) + countOf(p, batchv1.JobIndexIgnoredFailureCountAnnotation)
}

// settle counts the uncounted whose pods were let go or are gone, and returns the others.
func (r *run) settle() *batchv1.UncountedTerminatedPods {
	held := map[types.UID]bool{}
	for _, p := range r.own {
		held[p.UID] = tracked(p)
	}
	u := r.status.UncountedTerminatedPods
	if u == nil {
		return &batchv1.UncountedTerminatedPods{}
	}
	rest := &batchv1.UncountedTerminatedPods{}
	for _, uid := range u.Succeeded {
		if held[uid] {
			rest.Succeeded = append(rest.Succeeded, uid)
		} else {
			r.status.Succeeded++
		}
	}
	for _, uid := range u.Failed {
		if held[uid] {
			rest.Failed = append(rest.Failed, uid)
		} else {
			r.status.Failed++
		}
	}
	return rest
}

// take notes the end of one pod.
func (r *run) take(p *v1.Pod, well bool, u *batchv1.UncountedTerminatedPods) {
	n := indexOf(p)
	switch {
	case r.indexed && (n == noIndex || n >= r.completions()):
		// of an index that is no more: let go, and not counted
	case well && r.indexed:
		r.completed[n] = true
	case well:
		u.Succeeded = append(u.Succeeded, p.UID)
	default:
		v := judge(r.spec.PodFailurePolicy, p)
		if v.action == batchv1.PodFailurePolicyActionFailJob && r.failJob == "" {
			r.failJob = v.message
		}
		if v.action != batchv1.PodFailurePolicyActionIgnore {
			u.Failed = append(u.Failed, p.UID)
		}
	}
}

// attempts finds how often each index failed: a pod carries the number of those before it.
func (r *run) attempts() {
	if !r.indexed || r.spec.BackoffLimitPerIndex == nil {
		return
	}
	for _, p := range r.own {
		n := indexOf(p)
		over, well := r.ended(p)
		if n == noIndex || !over || well {
			continue
		}
		a := &attempts{failures: countOf(p, batchv1.JobIndexFailureCountAnnotation), ignored: countOf(p, batchv1.JobIndexIgnoredFailureCountAnnotation), last: endOf(p)}
		if judge(r.spec.PodFailurePolicy, p).action == batchv1.PodFailurePolicyActionIgnore {
			a.ignored++
		} else {
			a.failures++
		}
		if was := r.perIndex[n]; was == nil || a.failures+a.ignored > was.failures+was.ignored {
			r.perIndex[n] = a
		}
	}
}

// failIndexes gives up on indexes that failed too often, or in a way that shall not be tried again.
func (r *run) failIndexes() {
	if !r.indexed || r.spec.BackoffLimitPerIndex == nil {
		return
	}
	for _, p := range r.own {
		n := indexOf(p)
		over, well := r.ended(p)
		if n == noIndex || n >= r.completions() || !over || well || r.completed[n] {
			continue
		}
		action := judge(r.spec.PodFailurePolicy, p).action
		if action == batchv1.PodFailurePolicyActionFailIndex || r.perIndex[n].failures > int(*r.spec.BackoffLimitPerIndex) {
			r.failed[n] = true
		}
	}
}

// endOf is when a pod's last container ended, or when it was deleted or made, where that is not known.
func endOf(p *v1.Pod) time.Time {
	var last time.Time
	for i := range p.Status.ContainerStatuses {
		if t := p.Status.ContainerStatuses[i].State.Terminated; t != nil && t.FinishedAt.After(last) {
			last = t.FinishedAt.Time
		}
	}
	switch {
	case !last.IsZero():
		return last
	case p.DeletionTimestamp != nil:
		return p.DeletionTimestamp.Time
	}
	return p.CreationTimestamp.Time
}

// wait is how much longer the job has to wait after the failures since its last success.
func (r *run) wait() time.Duration {
	var success, failure time.Time
	for _, p := range r.own {
		if over, well := r.ended(p); over && well && endOf(p).After(success) {
			success = endOf(p)
		}
	}
	failures := 0
	for _, p := range r.own {
		if over, well := r.ended(p); over && !well && !endOf(p).Before(success) {
			failures++
			if endOf(p).After(failure) {
				failure = endOf(p)
			}
		}
	}
	return r.left(failures, failure)
}

func (r *run) left(failures int, last time.Time) time.Duration {
	if failures == 0 {
		return 0
	}
	seconds := backoffMaxSeconds
	if shift := failures - 1; shift < 6 { // ten seconds doubled six times are above the maximum
		seconds = backoffFirstSeconds << shift
	}
	return max(0, last.Add(time.Duration(seconds)*time.Second).Sub(r.now))
}
