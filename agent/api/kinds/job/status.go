package job

import (
	"context"
	"fmt"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/utils/ptr"

	"github.com/podvine/podvine/agent/api/kinds"
	"github.com/podvine/podvine/agent/api/kinds/podspec"
	"github.com/podvine/podvine/agent/api/kinds/workload"
)

func hasCondition(s *batchv1.JobStatus, t batchv1.JobConditionType) bool {
	for i := range s.Conditions {
		if s.Conditions[i].Type == t {
			return s.Conditions[i].Status == corev1.ConditionTrue
		}
	}
	return false
}

func finished(s *batchv1.JobStatus) bool {
	return hasCondition(s, batchv1.JobComplete) || hasCondition(s, batchv1.JobFailed)
}

// validateStatusUpdate reports what a status may not say. What was wrong before and is left as it was is let through, so that
// a controller can still write the rest.
func validateStatusUpdate(_ context.Context, j, old *batchv1.Job) field.ErrorList {
	s, at := &j.Status, field.NewPath("status")
	errs := kinds.ValidateObjectMetaUpdate(&j.ObjectMeta, &old.ObjectMeta, field.NewPath("metadata"))
	errs = append(errs, workload.NotNegative(at, workload.Count{Name: "active", Value: int64(s.Active)},
		workload.Count{Name: "succeeded", Value: int64(s.Succeeded)}, workload.Count{Name: "failed", Value: int64(s.Failed)},
		workload.Count{Name: "ready", Value: int64(ptr.Deref(s.Ready, 0))}, workload.Count{Name: "terminating", Value: int64(ptr.Deref(s.Terminating, 0))})...)
	if u := s.UncountedTerminatedPods; u != nil {
		seen := sets.New[types.UID]()
		errs = append(errs, validateUncounted(u.Succeeded, seen, at.Child("uncountedTerminatedPods", "succeeded"))...)
		errs = append(errs, validateUncounted(u.Failed, seen, at.Child("uncountedTerminatedPods", "failed"))...)
	}
	errs = append(errs, validateConditions(s, &old.Status, at)...)
	errs = append(errs, validateTimes(j, old, at)...)
	errs = append(errs, validateFinished(j, old, at)...)
	errs = append(errs, validateIndexes(j, old, at)...)
	return append(errs, validateCounters(j, old, at)...)
}

func validateUncounted(uids []types.UID, seen sets.Set[types.UID], at *field.Path) (errs field.ErrorList) {
	for i, uid := range uids {
		switch {
		case uid == "":
			errs = append(errs, field.Invalid(at.Index(i), uid, "must not be empty"))
		case seen.Has(uid):
			errs = append(errs, field.Duplicate(at.Index(i), uid))
		}
		seen.Insert(uid)
	}
	return errs
}

func validateConditions(s, old *batchv1.JobStatus, at *field.Path) field.ErrorList {
	var errs field.ErrorList
	path := at.Child("conditions")
	refuse := func(when bool, text string) {
		if when {
			errs = append(errs, field.Invalid(path, field.OmitValueType{}, text))
		}
	}
	was := func(t batchv1.JobConditionType) bool { return hasCondition(old, t) }
	is := func(t batchv1.JobConditionType) bool { return hasCondition(s, t) }
	changed := func(types ...batchv1.JobConditionType) bool {
		for _, t := range types {
			if was(t) != is(t) {
				return true
			}
		}
		return false
	}
	complete, failed, target, met := batchv1.JobComplete, batchv1.JobFailed, batchv1.JobFailureTarget, batchv1.JobSuccessCriteriaMet
	refuse(changed(complete, failed) && is(complete) && is(failed), "cannot set Complete=True and Failed=true conditions")
	refuse(changed(complete, target) && is(complete) && is(target), "cannot set Complete=True and FailureTarget=true conditions")
	refuse(changed(failed, target) && is(failed) && !is(target), "cannot set Failed=True condition without the FailureTarget=true condition")
	refuse(changed(complete, met) && is(complete) && !is(met), "cannot set Complete=True condition without the SuccessCriteriaMet=true condition")
	refuse(changed(met, failed) && is(met) && is(failed), "cannot set Failed=True and SuccessCriteriaMet=true conditions")
	refuse(changed(met, target) && is(met) && is(target), "cannot set FailureTarget=True and SuccessCriteriaMet=true conditions")
	for _, t := range []batchv1.JobConditionType{failed, target, complete, met} {
		refuse(was(t) && !is(t), fmt.Sprintf("cannot disable the terminal %s=True condition", t))
	}
	return errs
}

func validateTimes(j, old *batchv1.Job, at *field.Path) field.ErrorList {
	var errs field.ErrorList
	s, was := &j.Status, &old.Status
	complete := hasCondition(s, batchv1.JobComplete)
	startChanged, endChanged := !ptr.Equal(s.StartTime, was.StartTime), !ptr.Equal(s.CompletionTime, was.CompletionTime)
	completion, start := at.Child("completionTime"), at.Child("startTime")
	if endChanged || complete != hasCondition(was, batchv1.JobComplete) {
		if s.CompletionTime != nil && !complete {
			errs = append(errs, field.Invalid(completion, s.CompletionTime, "cannot set completionTime when there is no Complete=True condition"))
		}
		if s.CompletionTime == nil && complete {
			errs = append(errs, field.Required(completion, "completionTime is required for Complete jobs"))
		}
	}
	if (startChanged || endChanged) && s.CompletionTime != nil && s.StartTime != nil && s.CompletionTime.Before(s.StartTime) {
		errs = append(errs, field.Invalid(completion, s.CompletionTime, "completionTime cannot be set before startTime"))
	}
	if was.CompletionTime != nil && s.CompletionTime != nil && endChanged {
		errs = append(errs, field.Invalid(completion, s.CompletionTime, "completionTime cannot be mutated"))
	}
	if was.StartTime != nil && startChanged && !ptr.Deref(j.Spec.Suspend, false) {
		if s.StartTime == nil {
			errs = append(errs, field.Required(start, "startTime cannot be removed for unsuspended job"))
		} else {
			errs = append(errs, field.Required(start, "startTime cannot be modified for unsuspended job"))
		}
	}
	nothingToDo := ptr.Deref(j.Spec.Suspend, false) && ptr.Deref(j.Spec.Completions, 1) == 0
	if finished(s) && s.StartTime == nil && !nothingToDo && (startChanged || !finished(was)) {
		errs = append(errs, field.Required(start, "startTime is required for finished job"))
	}
	return errs
}

// validateFinished: nothing is left to a job that is over.
func validateFinished(j, old *batchv1.Job, at *field.Path) field.ErrorList {
	var errs field.ErrorList
	s, was := &j.Status, &old.Status
	if ready := ptr.Deref(s.Ready, 0); ready > max(0, s.Active) && (s.Active != was.Active || !ptr.Equal(s.Ready, was.Ready)) {
		errs = append(errs, field.Invalid(at.Child("ready"), ready, "cannot set more ready pods than active"))
	}
	if !finished(s) {
		return errs
	}
	now := !finished(was)
	if s.Active > 0 && (now || s.Active != was.Active) {
		errs = append(errs, field.Invalid(at.Child("active"), s.Active, "active>0 is invalid for finished job"))
	}
	if n := ptr.Deref(s.Terminating, 0); n > 0 && (now || !ptr.Equal(s.Terminating, was.Terminating)) {
		errs = append(errs, field.Invalid(at.Child("terminating"), n, "terminating>0 is invalid for finished job"))
	}
	if u := s.UncountedTerminatedPods; u != nil && len(u.Succeeded)+len(u.Failed) > 0 && (now || !equality.Semantic.DeepEqual(u, was.UncountedTerminatedPods)) {
		errs = append(errs, field.Invalid(at.Child("uncountedTerminatedPods"), podspec.InternalView(u), "must be empty for finished job"))
	}
	return errs
}

func validateIndexes(j, old *batchv1.Job, at *field.Path) field.ErrorList {
	var errs field.ErrorList
	s, was := &j.Status, &old.Status
	completedChanged, failedChanged := s.CompletedIndexes != was.CompletedIndexes, !ptr.Equal(s.FailedIndexes, was.FailedIndexes)
	completed, failed := at.Child("completedIndexes"), at.Child("failedIndexes")
	bound := ptr.Deref(j.Spec.Completions, 0)
	good, goodErr := intervals(s.CompletedIndexes, bound)
	bad, badErr := intervals(ptr.Deref(s.FailedIndexes, ""), bound)
	if completedChanged && !indexed(&j.Spec) && s.CompletedIndexes != "" {
		errs = append(errs, field.Invalid(completed, s.CompletedIndexes, "cannot set non-empty completedIndexes when non-indexed completion mode"))
	}
	if completedChanged && goodErr != nil && j.Spec.Completions != nil {
		errs = append(errs, field.Invalid(completed, s.CompletedIndexes, "error parsing completedIndexes: "+goodErr.Error()))
	}
	if s.FailedIndexes == nil {
		return errs
	}
	if failedChanged && j.Spec.BackoffLimitPerIndex == nil {
		errs = append(errs, field.Invalid(failed, *s.FailedIndexes, "cannot set non-null failedIndexes when backoffLimitPerIndex is null"))
	}
	if failedChanged && badErr != nil && j.Spec.Completions != nil {
		errs = append(errs, field.Invalid(failed, *s.FailedIndexes, "error parsing failedIndexes: "+badErr.Error()))
	}
	if (completedChanged || failedChanged) && goodErr == nil && badErr == nil && overlap(good, bad) {
		errs = append(errs, field.Invalid(failed, *s.FailedIndexes, "failedIndexes and completedIndexes overlap"))
	}
	return errs
}

// overlap tells whether two rising lists have an index in common.
func overlap(a, b []interval) bool {
	for len(a) > 0 && len(b) > 0 {
		switch {
		case a[0].last < b[0].first:
			a = a[1:]
		case b[0].last < a[0].first:
			b = b[1:]
		default:
			return true
		}
	}
	return false
}

// validateCounters: what was counted stays counted, but for an indexed job that shrank.
func validateCounters(j, old *batchv1.Job, at *field.Path) field.ErrorList {
	var errs field.ErrorList
	elastic := indexed(&j.Spec) && ptr.Equal(j.Spec.Completions, j.Spec.Parallelism)
	if j.Status.Succeeded < old.Status.Succeeded && !elastic {
		errs = append(errs, field.Invalid(at.Child("succeeded"), j.Status.Succeeded, "cannot decrease the succeeded counter"))
	}
	if j.Status.Failed < old.Status.Failed {
		errs = append(errs, field.Invalid(at.Child("failed"), j.Status.Failed, "cannot decrease the failed counter"))
	}
	return errs
}
