package job

import (
	"cmp"
	"math"
	"slices"
	"strconv"
	"time"

	batchv1 "k8s.io/api/batch/v1"
	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/podvine/podvine/agent/control/loop"
	"github.com/podvine/podvine/agent/control/workloads/pods"
)

// Kubernetes' times and limits.
const (
	// backoffFirstSeconds is the wait after a first failure; it doubles with each.
	backoffFirstSeconds = 10
	backoffMaxSeconds   = 600
	// maxUncounted bounds the UIDs in a status; more pods are counted in further steps.
	maxUncounted = 500
	// maxCreate bounds the pods made in one step.
	maxCreate = 500
	// ManagedByUs is the value of managedBy that means this loop.
	ManagedByUs = batchv1.JobControllerName
)

// View is what a decision looks at.
type View struct {
	Job *batchv1.Job
	// Pods are the job's and, behind them, those without a controller.
	Pods []*v1.Pod
	// Unseen tells that pods were made which Pods does not show yet.
	Unseen bool
	// Deleted pods are shown although they were deleted already.
	Deleted map[types.UID]bool
}

// Creation is a pod to make: for an index, or for none.
type Creation struct {
	// Index is -1 where the job has none.
	Index int
	// Failures and Ignored are how often the index failed; they are told to the pod.
	Failures, Ignored int
}

// Plan is one step. Its parts are done in the order in which they stand here: a pod is let go only when its end stands in
// the status, so that each is counted, and once.
type Plan struct {
	Adopt, Release []*v1.Pod
	Delete         []*v1.Pod
	Create         []Creation
	Status         batchv1.JobStatus
	// Free are pods that lose the finalizer.
	Free   []*v1.Pod
	Events []loop.Event
	Again  time.Duration
}

// run is the state of one decision.
type run struct {
	View
	plan   Plan
	spec   *batchv1.JobSpec
	status *batchv1.JobStatus
	now    time.Time
	// own pods, of which active run or may run, and leaving were deleted and have not ended.
	own, active, leaving []*v1.Pod
	indexed              bool
	completed, failed    indexSet
	// perIndex is how often each index failed, by the newest of its pods.
	perIndex map[int]*attempts
	// verdict is the message of a failure policy that ends the job.
	failJob string
	// failures are those that count against the limit.
	failures int32
}

type attempts struct {
	failures, ignored int
	last              time.Time
}

// Decide plans the next step of a job. It changes nothing of the view.
func Decide(view View, now time.Time) Plan {
	r := &run{View: view, now: now, spec: &view.Job.Spec, perIndex: map[int]*attempts{}, plan: Plan{Status: *view.Job.Status.DeepCopy()}}
	r.status = &r.plan.Status
	if m := r.spec.ManagedBy; m != nil && *m != ManagedByUs {
		return Plan{Status: r.plan.Status}
	}
	r.indexed = pods.Value(r.spec.CompletionMode, "") == batchv1.IndexedCompletion
	r.sort()
	if finished(r.status) || r.Job.DeletionTimestamp != nil {
		r.freeAll()
		return r.plan
	}
	r.start()
	r.count()
	r.judgeJob()
	switch {
	case ending(r.status):
		r.deleteAll()
	case r.suspended():
		r.suspend()
	default:
		r.keep()
	}
	r.complete()
	r.free()
	r.numbers()
	r.finish()
	return r.plan
}

// sort claims pods and sorts them by what they do.
func (r *run) sort() {
	matches := func(p *v1.Pod) bool { return loop.Selects(r.spec.Selector, p) }
	r.own, r.plan.Adopt, r.plan.Release = pods.Claim(r.Pods, r.Job, matches, pods.Any)
	slices.SortFunc(r.own, func(a, b *v1.Pod) int {
		return cmp.Or(a.CreationTimestamp.Compare(b.CreationTimestamp.Time), cmp.Compare(a.Name, b.Name))
	})
	for _, p := range r.own {
		switch {
		case pods.Terminating(p) || r.Deleted[p.UID] && pods.Active(p):
			r.leaving = append(r.leaving, p)
		case pods.Active(p):
			r.active = append(r.active, p)
		}
	}
}

func tracked(p *v1.Pod) bool { return slices.Contains(p.Finalizers, batchv1.JobTrackingFinalizer) }

// freeAll lets all pods of a job go that is over: those that are ended would otherwise never be.
func (r *run) freeAll() {
	for _, p := range r.own {
		if tracked(p) {
			r.plan.Free = append(r.plan.Free, p)
		}
	}
	r.plan.Adopt = nil
}

func (r *run) suspended() bool { return pods.Value(r.spec.Suspend, false) }

func (r *run) completions() int { return int(pods.Value(r.spec.Completions, 0)) }

// start notes when the job began, and tells of it being resumed.
func (r *run) start() {
	if r.suspended() {
		return
	}
	if hasCondition(r.status, batchv1.JobSuspended) {
		r.condition(batchv1.JobSuspended, v1.ConditionFalse, "JobResumed", "Job resumed")
		r.event(v1.EventTypeNormal, "Resumed", "Job resumed")
		r.status.StartTime = nil // the deadline runs from here
	}
	if r.status.StartTime == nil {
		r.status.StartTime = &metav1.Time{Time: r.now}
	}
}

// suspend ends all pods; what they did until then counts.
func (r *run) suspend() {
	r.deleteAll()
	if !hasCondition(r.status, batchv1.JobSuspended) {
		r.condition(batchv1.JobSuspended, v1.ConditionTrue, "JobSuspended", "Job suspended")
		r.event(v1.EventTypeNormal, "Suspended", "Job suspended")
	}
}

func (r *run) deleteAll() {
	r.plan.Delete = append(r.plan.Delete, r.active...)
}

// judgeJob looks for what ends the job, unless something did already.
func (r *run) judgeJob() {
	if ending(r.status) {
		return
	}
	fail := func(reason, message string) { r.condition(batchv1.JobFailureTarget, v1.ConditionTrue, reason, message) }
	limit := pods.Value(r.spec.BackoffLimit, math.MaxInt32)
	deadline := pods.Value(r.spec.ActiveDeadlineSeconds, 0)
	switch {
	case r.failJob != "":
		fail(batchv1.JobReasonPodFailurePolicy, r.failJob)
	case r.failures > limit || r.restarts(limit):
		fail(batchv1.JobReasonBackoffLimitExceeded, "Job has reached the specified backoff limit")
	case r.spec.ActiveDeadlineSeconds != nil && r.status.StartTime != nil && !r.suspended():
		if left := r.status.StartTime.Add(time.Duration(deadline) * time.Second).Sub(r.now); left <= 0 {
			fail(batchv1.JobReasonDeadlineExceeded, "Job was active longer than specified deadline")
		} else {
			r.again(left)
		}
	}
	if ending(r.status) || !r.indexed {
		return
	}
	if r.spec.MaxFailedIndexes != nil && len(r.failed) > int(*r.spec.MaxFailedIndexes) {
		fail(batchv1.JobReasonMaxFailedIndexesExceeded, "Job has exceeded the specified maximal number of failed indexes")
		return
	}
	if message, met := succeededEnough(r.spec.SuccessPolicy, r.completed, r.completions()); met {
		r.condition(batchv1.JobSuccessCriteriaMet, v1.ConditionTrue, batchv1.JobReasonSuccessPolicy, message)
		return
	}
	if len(r.failed) > 0 && len(r.failed)+len(r.completed) >= r.completions() {
		fail(batchv1.JobReasonFailedIndexes, "Job has failed indexes")
	}
}

// restarts tells whether containers that are started again within their pods failed too often.
func (r *run) restarts(limit int32) bool {
	if r.spec.Template.Spec.RestartPolicy != v1.RestartPolicyOnFailure {
		return false
	}
	var sum int32
	for _, p := range r.own {
		if p.Status.Phase != v1.PodRunning && p.Status.Phase != v1.PodPending {
			continue
		}
		for _, list := range [][]v1.ContainerStatus{p.Status.InitContainerStatuses, p.Status.ContainerStatuses} {
			for i := range list {
				sum += list[i].RestartCount
			}
		}
	}
	if limit == 0 {
		return sum > 0
	}
	return sum >= limit
}

// complete notes that enough pods succeeded.
func (r *run) complete() {
	if ending(r.status) || r.suspended() && r.completions() > 0 {
		return
	}
	done := r.succeeded()
	if r.spec.Completions == nil {
		if done == 0 || len(r.active) > 0 || len(r.plan.Create) > 0 {
			return
		}
	} else if done < int(*r.spec.Completions) {
		return
	}
	if r.spec.Completions != nil && done > int(*r.spec.Completions) && !r.indexed {
		r.event(v1.EventTypeWarning, "TooManySucceededPods", "Too many succeeded pods running after completion count reached")
	}
	r.condition(batchv1.JobSuccessCriteriaMet, v1.ConditionTrue, batchv1.JobReasonCompletionsReached, "Reached expected number of succeeded pods")
	r.plan.Create, r.plan.Delete = nil, nil
	r.deleteAll()
}

// succeeded is how many pods, or indexes, have succeeded, also those whose pods are yet to be let go.
func (r *run) succeeded() int {
	if r.indexed {
		return len(r.completed)
	}
	n := int(r.status.Succeeded)
	if u := r.status.UncountedTerminatedPods; u != nil {
		n += len(u.Succeeded)
	}
	return n
}

// numbers fills the counts of the status.
func (r *run) numbers() {
	gone := map[types.UID]bool{}
	for _, p := range r.plan.Delete {
		gone[p.UID] = true
	}
	var active, ready, leaving int32
	for _, p := range r.active {
		if gone[p.UID] {
			leaving++
			continue
		}
		active++
		if ok, _ := pods.Ready(p); ok {
			ready++
		}
	}
	leaving += int32(len(r.leaving))
	r.status.Active, r.status.Ready, r.status.Terminating = active+int32(len(r.plan.Create)), &ready, &leaving
	if !r.indexed {
		return
	}
	r.status.CompletedIndexes, r.status.Succeeded = r.completed.String(), int32(len(r.completed))
	r.status.FailedIndexes = nil
	if r.spec.BackoffLimitPerIndex != nil {
		text := r.failed.String()
		r.status.FailedIndexes = &text
	}
}

// finish makes the end final once no pod is left that runs, or whose end is not counted.
func (r *run) finish() {
	u := r.status.UncountedTerminatedPods
	if !ending(r.status) || r.Unseen || r.status.Active > 0 || *r.status.Terminating > 0 || u != nil && len(u.Succeeded)+len(u.Failed) > 0 {
		return
	}
	if c := find(r.status, batchv1.JobFailureTarget); c != nil && c.Status == v1.ConditionTrue {
		r.condition(batchv1.JobFailed, v1.ConditionTrue, c.Reason, c.Message)
		r.event(v1.EventTypeWarning, c.Reason, c.Message)
		return
	}
	c := find(r.status, batchv1.JobSuccessCriteriaMet)
	r.condition(batchv1.JobComplete, v1.ConditionTrue, c.Reason, c.Message)
	r.status.CompletionTime = &metav1.Time{Time: r.now}
	r.event(v1.EventTypeNormal, "Completed", "Job completed")
}

func (r *run) again(after time.Duration) {
	if after > 0 {
		r.plan.Again = pods.Sooner(r.plan.Again, after)
	}
}

func (r *run) event(kind, reason, message string) {
	r.plan.Events = append(r.plan.Events, loop.Event{Type: kind, Reason: reason, Message: message})
}

func (r *run) condition(t batchv1.JobConditionType, status v1.ConditionStatus, reason, message string) {
	now := metav1.NewTime(r.now)
	next := batchv1.JobCondition{Type: t, Status: status, Reason: reason, Message: message, LastProbeTime: now, LastTransitionTime: now}
	if c := find(r.status, t); c != nil {
		*c = next
		return
	}
	r.status.Conditions = append(r.status.Conditions, next)
}

func find(s *batchv1.JobStatus, t batchv1.JobConditionType) *batchv1.JobCondition {
	for i := range s.Conditions {
		if s.Conditions[i].Type == t {
			return &s.Conditions[i]
		}
	}
	return nil
}

func hasCondition(s *batchv1.JobStatus, t batchv1.JobConditionType) bool {
	c := find(s, t)
	return c != nil && c.Status == v1.ConditionTrue
}

func finished(s *batchv1.JobStatus) bool { return End(s) != nil }

// End is the condition that says how a job ended, nil while it has not.
func End(s *batchv1.JobStatus) *batchv1.JobCondition {
	for i := range s.Conditions {
		if c := &s.Conditions[i]; c.Status == v1.ConditionTrue && (c.Type == batchv1.JobComplete || c.Type == batchv1.JobFailed) {
			return c
		}
	}
	return nil
}

// ending tells whether it is decided how the job ends.
func ending(s *batchv1.JobStatus) bool {
	return hasCondition(s, batchv1.JobFailureTarget) || hasCondition(s, batchv1.JobSuccessCriteriaMet)
}

// countOf reads a number that an earlier pod of an index handed on.
func countOf(p *v1.Pod, annotation string) int {
	n, err := strconv.Atoi(p.Annotations[annotation])
	if err != nil || n < 0 {
		return 0
	}
	return n
}
