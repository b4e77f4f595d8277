// Package job serves batch/v1 Job: pods that run until enough of them have succeeded.
//
// The loop that runs them is agent/control/workloads/job; here are the defaults, the rules and the columns, and the parts
// of those that a CronJob's template of jobs shares.
// Everything is a pure function and safe for concurrent use. Test with `go test ./agent/api/kinds/job`.
package job

import (
	"context"
	"fmt"
	"math"
	"strconv"
	"time"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/apis/meta/internalversion"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/duration"
	"k8s.io/apimachinery/pkg/util/validation/field"
	genericregistry "k8s.io/apiserver/pkg/registry/generic/registry"
	"k8s.io/apiserver/pkg/registry/rest"
	"k8s.io/apiserver/pkg/warning"
	"k8s.io/utils/ptr"

	"github.com/podvine/podvine/agent/api/kinds"
	"github.com/podvine/podvine/agent/api/kinds/podspec"
	"github.com/podvine/podvine/agent/api/kinds/workload"
)

const (
	defaultBackoffLimit = 6
	// Labels without a prefix are those of Kubernetes before 1.27; selectors of users still name them.
	legacyUIDLabel  = "controller-uid"
	legacyNameLabel = "job-name"
)

// Resource returns the kind.
func Resource() kinds.Resource {
	return &kinds.Kind[*batchv1.Job]{
		GroupVersion: batchv1.SchemeGroupVersion,
		Kind:         "Job",
		Resource:     "jobs",
		Singular:     "job",
		Categories:   []string{"all"},
		Namespaced:   true,
		New:          func() *batchv1.Job { return &batchv1.Job{} },
		NewList:      func() runtime.Object { return &batchv1.JobList{} },
		Default:      setDefaults,
		PrepareForCreate: func(_ context.Context, j *batchv1.Job) {
			j.Status = batchv1.JobStatus{}
			DropDisabled(&j.Spec)
			if !ptr.Deref(j.Spec.ManualSelector, false) {
				generateSelector(j)
			}
		},
		PrepareForUpdate: func(_ context.Context, j, _ *batchv1.Job) { DropDisabled(&j.Spec) },
		HasGeneration:    true,
		Validate:         validate,
		ValidateUpdate:   validateUpdate,
		WarningsOnCreate: func(_ context.Context, j *batchv1.Job) []string {
			return append(podspec.NameWarnings(j.Name), SpecWarnings(&j.Spec, nil, field.NewPath("spec"))...)
		},
		WarningsOnUpdate: func(_ context.Context, j, old *batchv1.Job) []string {
			if j.Generation == old.Generation {
				return nil
			}
			return SpecWarnings(&j.Spec, &old.Spec, field.NewPath("spec"))
		},
		// Clients older than the collector expect to delete the pods themselves; Kubernetes keeps that for their sake.
		DefaultGarbageCollection: rest.OrphanDependents,
		FieldLabels:              []string{"status.successful"},
		Fields: func(j *batchv1.Job) fields.Set {
			return fields.Set{"status.successful": strconv.Itoa(int(j.Status.Succeeded))}
		},
		Columns: columns(),
		Status:  &kinds.Status[*batchv1.Job]{ValidateUpdate: validateStatusUpdate},
		Extend: func(_ kinds.Env, _, _ *genericregistry.Store, storages map[string]rest.Storage) error {
			storages["jobs"] = deletions{storages["jobs"].(*kinds.REST)}
			return nil
		},
	}
}

// deletions warns whoever leaves a job's pods behind without having said so.
type deletions struct{ *kinds.REST }

// Delete implements rest.GracefulDeleter.
func (d deletions) Delete(ctx context.Context, name string, validate rest.ValidateObjectFunc, options *metav1.DeleteOptions) (runtime.Object, bool, error) {
	warnOfPods(ctx, options)
	return d.REST.Delete(ctx, name, validate, options)
}

// DeleteCollection implements rest.CollectionDeleter.
func (d deletions) DeleteCollection(ctx context.Context, validate rest.ValidateObjectFunc, options *metav1.DeleteOptions,
	listOptions *internalversion.ListOptions) (runtime.Object, error) {
	warnOfPods(ctx, options)
	return d.REST.DeleteCollection(ctx, validate, options, listOptions)
}

func warnOfPods(ctx context.Context, options *metav1.DeleteOptions) {
	//nolint:staticcheck // clients may still use the older field
	if options != nil && options.PropagationPolicy == nil && options.OrphanDependents == nil {
		warning.AddWarning(ctx, "", "child pods are preserved by default when jobs are deleted; "+
			"set propagationPolicy=Background to remove them or set propagationPolicy=Orphan to suppress this warning")
	}
}

// DropDisabled clears what belongs to features that Kubernetes has off by default.
func DropDisabled(spec *batchv1.JobSpec) {
	spec.Scheduling = nil
	podspec.DropDisabled(&spec.Template.Spec)
}

func setDefaults(j *batchv1.Job) {
	spec := &j.Spec
	podspec.DefaultTemplate(&spec.Template)
	if spec.Completions == nil && spec.Parallelism == nil {
		spec.Completions = ptr.To[int32](1)
	}
	if spec.Parallelism == nil {
		spec.Parallelism = ptr.To[int32](1)
	}
	if spec.BackoffLimit == nil {
		spec.BackoffLimit = ptr.To[int32](defaultBackoffLimit)
		if spec.BackoffLimitPerIndex != nil {
			spec.BackoffLimit = ptr.To[int32](math.MaxInt32)
		}
	}
	if len(j.Labels) == 0 {
		j.Labels = spec.Template.Labels
	}
	if spec.CompletionMode == nil {
		spec.CompletionMode = ptr.To(batchv1.NonIndexedCompletion)
	}
	if spec.Suspend == nil {
		spec.Suspend = ptr.To(false)
	}
	if spec.ManualSelector == nil {
		spec.ManualSelector = ptr.To(false)
	}
	if spec.PodReplacementPolicy == nil {
		spec.PodReplacementPolicy = ptr.To(batchv1.TerminatingOrFailed)
		if spec.PodFailurePolicy != nil {
			spec.PodReplacementPolicy = ptr.To(batchv1.Failed)
		}
	}
	DefaultFailurePolicy(spec.PodFailurePolicy)
}

// DefaultFailurePolicy fills what the rules of a failure policy leave open.
func DefaultFailurePolicy(policy *batchv1.PodFailurePolicy) {
	if policy == nil {
		return
	}
	for i := range policy.Rules {
		for k := range policy.Rules[i].OnPodConditions {
			if c := &policy.Rules[i].OnPodConditions[k]; c.Status == "" {
				c.Status = corev1.ConditionTrue
			}
		}
	}
}

// generateSelector makes the selector one of the job's UID, and gives the template the labels that tell whose pods are.
// What a user set by hand is kept, and refused by validation.
func generateSelector(j *batchv1.Job) {
	uid := string(j.UID)
	if j.Spec.Template.Labels == nil {
		j.Spec.Template.Labels = map[string]string{}
	}
	labels := j.Spec.Template.Labels
	if _, found := labels[legacyNameLabel]; !found {
		labels[legacyNameLabel], labels[batchv1.JobNameLabel] = j.Name, j.Name
	}
	if _, found := labels[legacyUIDLabel]; !found {
		labels[legacyUIDLabel], labels[batchv1.ControllerUidLabel] = uid, uid
	}
	if j.Spec.Selector == nil {
		j.Spec.Selector = &metav1.LabelSelector{}
	}
	if j.Spec.Selector.MatchLabels == nil {
		j.Spec.Selector.MatchLabels = map[string]string{}
	}
	if _, found := j.Spec.Selector.MatchLabels[batchv1.ControllerUidLabel]; !found {
		j.Spec.Selector.MatchLabels[batchv1.ControllerUidLabel] = uid
	}
}

// SpecWarnings are those about a job's specification at a path; old is nil for a new one.
func SpecWarnings(spec, old *batchv1.JobSpec, at *field.Path) []string {
	var out []string
	if indexed(spec) && ptr.Deref(spec.Completions, 0) > manyCompletions && ptr.Deref(spec.Parallelism, 0) > manyAtOnce {
		out = append(out, fmt.Sprintf("%s: In Indexed Jobs with a number of completions higher than %d and a parallelism higher than %d, "+
			"Kubernetes might not be able to track completedIndexes when a big number of indexes fail", at, manyCompletions, manyAtOnce))
	}
	var was *corev1.PodTemplateSpec
	if old != nil {
		was = &old.Template
	}
	return append(out, podspec.TemplateWarnings(&spec.Template, was, at.Child("template"))...)
}

func columns() []kinds.Column[*batchv1.Job] {
	status := batchv1.JobStatus{}.SwaggerDoc()
	columns := []kinds.Column[*batchv1.Job]{
		kinds.NameColumn[*batchv1.Job](),
		{Name: "Status", Description: "Status of the job.", Cell: func(j *batchv1.Job) any { return state(j) }},
		{Name: "Completions", Description: status["succeeded"], Cell: func(j *batchv1.Job) any { return completions(j) }},
		{Name: "Duration", Description: "Time required to complete the job.", Cell: func(j *batchv1.Job) any { return took(&j.Status) }},
		kinds.AgeColumn[*batchv1.Job](),
	}
	columns = append(columns, workload.TemplateColumns(func(j *batchv1.Job) *corev1.PodTemplateSpec { return &j.Spec.Template })...)
	return append(columns, workload.SelectorColumn(batchv1.JobSpec{}.SwaggerDoc()["selector"],
		func(j *batchv1.Job) *metav1.LabelSelector { return j.Spec.Selector }))
}

// state is the job's state in a word: the first of its conditions that holds, as people care for them.
func state(j *batchv1.Job) string {
	for _, c := range []batchv1.JobConditionType{batchv1.JobComplete, batchv1.JobFailed} {
		if hasCondition(&j.Status, c) {
			return string(c)
		}
	}
	if j.DeletionTimestamp != nil {
		return "Terminating"
	}
	for _, c := range []batchv1.JobConditionType{batchv1.JobSuspended, batchv1.JobFailureTarget, batchv1.JobSuccessCriteriaMet} {
		if hasCondition(&j.Status, c) {
			return string(c)
		}
	}
	return "Running"
}

func completions(j *batchv1.Job) string {
	if j.Spec.Completions != nil {
		return fmt.Sprintf("%d/%d", j.Status.Succeeded, *j.Spec.Completions)
	}
	if n := ptr.Deref(j.Spec.Parallelism, 0); n > 1 {
		return fmt.Sprintf("%d/1 of %d", j.Status.Succeeded, n)
	}
	return fmt.Sprintf("%d/1", j.Status.Succeeded)
}

func took(s *batchv1.JobStatus) string {
	switch {
	case s.StartTime == nil:
		return ""
	case s.CompletionTime == nil:
		return duration.HumanDuration(time.Since(s.StartTime.Time))
	}
	return duration.HumanDuration(s.CompletionTime.Sub(s.StartTime.Time))
}
