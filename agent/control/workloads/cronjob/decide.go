package cronjob

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/robfig/cron/v3"
	batchv1 "k8s.io/api/batch/v1"
	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"

	"github.com/podvine/podvine/agent/control/loop"
	"github.com/podvine/podvine/agent/control/workloads/job"
	"github.com/podvine/podvine/agent/control/workloads/pods"
)

const (
	// maxWaitSeconds bounds the wait for the next start: when the machine's clock is set, waits go on by the old one.
	maxWaitSeconds = 300
	// afterStartMilliseconds is how long after a start's time it is looked at, so that the time has come by then.
	afterStartMilliseconds = 100
)

// View is what a decision looks at.
type View struct {
	CronJob *batchv1.CronJob
	// Jobs are those that it controls.
	Jobs []*batchv1.Job
	// Told is [Plan.Told] of the decision before.
	Told string
}

// Plan is one step.
type Plan struct {
	// Delete are old jobs, and those that the new one replaces.
	Delete []*batchv1.Job
	// Create is the job to start, nil for none. Once it is there the status notes it, and the time.
	Create *batchv1.Job
	// At is the time for which Create starts.
	At     time.Time
	Status batchv1.CronJobStatus
	Events []loop.Event
	// Told is which start was told of as one that is not made, empty for none: it is told once.
	Told  string
	Again time.Duration
}

type run struct {
	View
	plan Plan
	now  time.Time
}

// kind is that of the owners.
func kind() schema.GroupVersionKind { return batchv1.SchemeGroupVersion.WithKind("CronJob") }

// Decide plans the next step of a CronJob. It changes nothing of the view.
func Decide(view View, now time.Time) Plan {
	r := &run{View: view, now: now, plan: Plan{Status: *view.CronJob.Status.DeepCopy()}}
	r.follow()
	if r.CronJob.DeletionTimestamp != nil {
		return r.plan
	}
	r.tidy()
	if !pods.Value(r.CronJob.Spec.Suspend, false) {
		r.start()
	}
	return r.plan
}

func (r *run) event(kind, reason, message string) {
	r.plan.Events = append(r.plan.Events, loop.Event{Type: kind, Reason: reason, Message: message})
}

// follow brings the list of running jobs, and the time of the last success, up to date.
func (r *run) follow() {
	active := r.plan.Status.Active
	there := map[types.UID]*batchv1.Job{}
	for _, j := range r.Jobs {
		there[j.UID] = j
		listed := slices.ContainsFunc(active, func(ref v1.ObjectReference) bool { return ref.UID == j.UID })
		if end := job.End(&j.Status); end == nil && !listed && j.DeletionTimestamp == nil {
			r.event(v1.EventTypeWarning, "UnexpectedJob", "Saw a job that the controller did not create or forgot: "+j.Name)
		} else if end != nil && end.Type == batchv1.JobComplete && j.Status.CompletionTime != nil {
			if was := r.plan.Status.LastSuccessfulTime; was == nil || was.Before(j.Status.CompletionTime) {
				r.plan.Status.LastSuccessfulTime = j.Status.CompletionTime.DeepCopy()
			}
		}
	}
	r.plan.Status.Active = slices.DeleteFunc(active, func(ref v1.ObjectReference) bool {
		j := there[ref.UID]
		if j == nil {
			r.event(v1.EventTypeNormal, "MissingJob", "Active job went missing: "+ref.Name)
			return true
		}
		end := job.End(&j.Status)
		if end != nil {
			r.event(v1.EventTypeNormal, "SawCompletedJob", fmt.Sprintf("Saw completed job: %s, condition: %s", j.Name, end.Type))
		}
		return end != nil
	})
	if len(r.plan.Status.Active) == 0 {
		r.plan.Status.Active = nil
	}
}

// tidy deletes the oldest of the jobs that ended, beyond those that are kept.
func (r *run) tidy() {
	ended := map[batchv1.JobConditionType][]*batchv1.Job{}
	for _, j := range r.Jobs {
		if end := job.End(&j.Status); end != nil && j.DeletionTimestamp == nil {
			ended[end.Type] = append(ended[end.Type], j)
		}
	}
	for _, history := range []struct {
		jobs []*batchv1.Job
		keep *int32
	}{{ended[batchv1.JobComplete], r.CronJob.Spec.SuccessfulJobsHistoryLimit}, {ended[batchv1.JobFailed], r.CronJob.Spec.FailedJobsHistoryLimit}} {
		if history.keep == nil || len(history.jobs) <= int(*history.keep) {
			continue
		}
		slices.SortFunc(history.jobs, func(a, b *batchv1.Job) int {
			return cmp.Or(began(a).Compare(began(b)), cmp.Compare(a.Name, b.Name))
		})
		r.plan.Delete = append(r.plan.Delete, history.jobs[:len(history.jobs)-int(*history.keep)]...)
	}
}

func began(j *batchv1.Job) time.Time {
	if j.Status.StartTime != nil {
		return j.Status.StartTime.Time
	}
	return j.CreationTimestamp.Time
}

// start makes the job whose time has come, if it may.
func (r *run) start() {
	schedule := r.schedule()
	if schedule == nil {
		return
	}
	spec, since := &r.CronJob.Spec, last(r.CronJob)
	from := since
	if spec.StartingDeadlineSeconds != nil {
		if earliest := r.now.Add(-time.Duration(*spec.StartingDeadlineSeconds) * time.Second); earliest.After(from) {
			from = earliest
		}
	}
	at, missed, err := due(schedule, from, r.now)
	if err != nil {
		r.event(v1.EventTypeWarning, "InvalidSchedule", fmt.Sprintf("invalid schedule: %s : %s", spec.Schedule, err))
		return
	}
	r.wait(schedule, from, at)
	if missed == 0 {
		if late, count, err := due(schedule, since, from); err == nil && count > 0 {
			r.once(late, v1.EventTypeWarning, "MissSchedule", "Missed scheduled time to start a job: "+late.UTC().Format(time.RFC1123Z))
		}
		return
	}
	if missed > tooManyMissed {
		r.event(v1.EventTypeWarning, "TooManyMissedTimes", "too many missed start times. Set or decrease .spec.startingDeadlineSeconds or check clock skew")
	}
	j := r.job(at)
	if slices.ContainsFunc(r.plan.Status.Active, func(ref v1.ObjectReference) bool { return ref.Name == j.Name }) {
		return
	}
	if r.replace(at) {
		r.plan.Create, r.plan.At = j, at
	}
}

// wait says when the start after the one that is due, or after from where none is, comes.
func (r *run) wait(schedule cron.Schedule, from, at time.Time) {
	if !at.IsZero() {
		from = at
	}
	if next := schedule.Next(from); !next.IsZero() {
		r.plan.Again = min(max(next.Sub(r.now), 0)+afterStartMilliseconds*time.Millisecond, maxWaitSeconds*time.Second)
	}
}

// once tells why the start is not made, unless it was told before.
func (r *run) once(at time.Time, kind, reason, message string) {
	r.plan.Told = reason + " " + at.UTC().Format(time.RFC3339)
	if r.plan.Told != r.Told {
		r.event(kind, reason, message)
	}
}

// replace tells whether a job may be started beside those that run, and ends them where it shall take their place.
func (r *run) replace(at time.Time) bool {
	active := r.plan.Status.Active
	switch r.CronJob.Spec.ConcurrencyPolicy {
	case batchv1.ForbidConcurrent:
		if len(active) > 0 {
			r.once(at, v1.EventTypeNormal, "JobAlreadyActive", "Not starting job because prior execution is running and concurrency policy is Forbid")
			return false
		}
	case batchv1.ReplaceConcurrent:
		for _, j := range r.Jobs {
			if slices.ContainsFunc(active, func(ref v1.ObjectReference) bool { return ref.UID == j.UID }) {
				r.plan.Delete = append(r.plan.Delete, j)
			}
		}
		r.plan.Status.Active = nil
	}
	return true
}

// job is the job of a start. Its name is that of the start's minute, so that none is made twice.
func (r *run) job(at time.Time) *batchv1.Job {
	template := r.CronJob.Spec.JobTemplate.DeepCopy()
	annotations := maps.Clone(template.Annotations)
	if annotations == nil {
		annotations = map[string]string{}
	}
	zone := time.UTC
	if name := r.CronJob.Spec.TimeZone; name != nil {
		if loaded, err := time.LoadLocation(*name); err == nil { // it was looked at before
			zone = loaded
		}
	}
	annotations[batchv1.CronJobScheduledTimestampAnnotation] = at.In(zone).Format(time.RFC3339)
	return &batchv1.Job{
		ObjectMeta: metav1.ObjectMeta{Namespace: r.CronJob.Namespace, Name: fmt.Sprintf("%s-%d", r.CronJob.Name, at.Unix()/60),
			Labels: template.Labels, Annotations: annotations, CreationTimestamp: metav1.Time{Time: at},
			OwnerReferences: []metav1.OwnerReference{*metav1.NewControllerRef(r.CronJob, kind())}},
		Spec: template.Spec,
	}
}
