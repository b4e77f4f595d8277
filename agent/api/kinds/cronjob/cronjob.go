// Package cronjob serves batch/v1 CronJob: jobs that are started by a schedule.
//
// The loop that starts them is agent/control/workloads/cronjob; here are the defaults, the rules and the columns.
// Everything is a pure function and safe for concurrent use. Test with `go test ./agent/api/kinds/cronjob`.
package cronjob

import (
	"context"
	"strings"
	"time"
	_ "time/tzdata" // zones are checked, and mean the same, on machines without a database of their own

	"github.com/robfig/cron/v3"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/utils/ptr"

	"github.com/podvine/podvine/agent/api/kinds"
	"github.com/podvine/podvine/agent/api/kinds/job"
	"github.com/podvine/podvine/agent/api/kinds/podspec"
	"github.com/podvine/podvine/agent/api/kinds/workload"
)

const (
	defaultSuccessful = 3
	defaultFailed     = 1
	// maxNameLength leaves the jobs' names room for the minute of their start.
	maxNameLength = 52
)

// Resource returns the kind.
func Resource() kinds.Resource {
	return &kinds.Kind[*batchv1.CronJob]{
		GroupVersion: batchv1.SchemeGroupVersion,
		Kind:         "CronJob",
		Resource:     "cronjobs",
		Singular:     "cronjob",
		ShortNames:   []string{"cj"},
		Categories:   []string{"all"},
		Namespaced:   true,
		New:          func() *batchv1.CronJob { return &batchv1.CronJob{} },
		NewList:      func() runtime.Object { return &batchv1.CronJobList{} },
		Default:      setDefaults,
		PrepareForCreate: func(_ context.Context, c *batchv1.CronJob) {
			c.Status = batchv1.CronJobStatus{}
			job.DropDisabled(&c.Spec.JobTemplate.Spec)
		},
		PrepareForUpdate: func(_ context.Context, c, _ *batchv1.CronJob) {
			job.DropDisabled(&c.Spec.JobTemplate.Spec)
		},
		HasGeneration:  true,
		Validate:       validate,
		ValidateUpdate: validateUpdate,
		WarningsOnCreate: func(_ context.Context, c *batchv1.CronJob) []string {
			return append(podspec.NameWarnings(c.Name), warnings(c, nil)...)
		},
		WarningsOnUpdate: func(_ context.Context, c, old *batchv1.CronJob) []string {
			if c.Generation == old.Generation {
				return nil
			}
			return warnings(c, &old.Spec.JobTemplate.Spec)
		},
		Columns: columns(),
		Status: &kinds.Status[*batchv1.CronJob]{ValidateUpdate: func(_ context.Context, c, old *batchv1.CronJob) field.ErrorList {
			return kinds.ValidateObjectMetaUpdate(&c.ObjectMeta, &old.ObjectMeta, field.NewPath("metadata"))
		}},
	}
}

func setDefaults(c *batchv1.CronJob) {
	spec := &c.Spec
	podspec.DefaultTemplate(&spec.JobTemplate.Spec.Template)
	job.DefaultFailurePolicy(spec.JobTemplate.Spec.PodFailurePolicy)
	if spec.ConcurrencyPolicy == "" {
		spec.ConcurrencyPolicy = batchv1.AllowConcurrent
	}
	if spec.Suspend == nil {
		spec.Suspend = ptr.To(false)
	}
	if spec.SuccessfulJobsHistoryLimit == nil {
		spec.SuccessfulJobsHistoryLimit = ptr.To[int32](defaultSuccessful)
	}
	if spec.FailedJobsHistoryLimit == nil {
		spec.FailedJobsHistoryLimit = ptr.To[int32](defaultFailed)
	}
}

func warnings(c *batchv1.CronJob, old *batchv1.JobSpec) []string {
	var out []string
	if strings.Contains(c.Spec.Schedule, "TZ") {
		out = append(out, "CRON_TZ or TZ used in spec.schedule is not officially supported, see https://kubernetes.io/docs/concepts/workloads/controllers/cron-jobs/ for more details")
	}
	return append(out, job.SpecWarnings(&c.Spec.JobTemplate.Spec, old, field.NewPath("spec", "jobTemplate", "spec"))...)
}

func validate(_ context.Context, c *batchv1.CronJob) field.ErrorList {
	metadata := field.NewPath("metadata")
	errs := kinds.ValidateObjectMeta(&c.ObjectMeta, true, apivalidation.NameIsDNSSubdomain, metadata)
	errs = append(errs, validateSpec(&c.Spec, nil, podspec.Options{})...)
	if len(c.Name) > maxNameLength {
		errs = append(errs, field.Invalid(metadata.Child("name"), c.Name, "must be no more than 52 characters"))
	}
	return errs
}

func validateUpdate(_ context.Context, c, old *batchv1.CronJob) field.ErrorList {
	errs := kinds.ValidateObjectMetaUpdate(&c.ObjectMeta, &old.ObjectMeta, field.NewPath("metadata"))
	template := &old.Spec.JobTemplate.Spec.Template
	return append(errs, validateSpec(&c.Spec, &old.Spec, podspec.OptionsFor(&template.Spec, &template.ObjectMeta))...)
}

func validateSpec(spec, old *batchv1.CronJobSpec, opts podspec.Options) field.ErrorList {
	at := field.NewPath("spec")
	errs := validateSchedule(spec, old, at.Child("schedule"))
	if old == nil || !ptr.Equal(old.TimeZone, spec.TimeZone) {
		errs = append(errs, validateZone(spec.TimeZone, at.Child("timeZone"))...)
	}
	errs = append(errs, workload.NotNegative(at,
		workload.Count{Name: "startingDeadlineSeconds", Value: ptr.Deref(spec.StartingDeadlineSeconds, 0)},
		workload.Count{Name: "successfulJobsHistoryLimit", Value: int64(ptr.Deref(spec.SuccessfulJobsHistoryLimit, 0))},
		workload.Count{Name: "failedJobsHistoryLimit", Value: int64(ptr.Deref(spec.FailedJobsHistoryLimit, 0))})...)
	switch spec.ConcurrencyPolicy {
	case batchv1.AllowConcurrent, batchv1.ForbidConcurrent, batchv1.ReplaceConcurrent:
	default:
		errs = append(errs, field.NotSupported(at.Child("concurrencyPolicy"), spec.ConcurrencyPolicy,
			[]batchv1.ConcurrencyPolicy{batchv1.AllowConcurrent, batchv1.ForbidConcurrent, batchv1.ReplaceConcurrent}))
	}
	return append(errs, validateTemplate(&spec.JobTemplate.Spec, opts, at.Child("jobTemplate", "spec"))...)
}

// validateTemplate: the selector of each job is its own.
func validateTemplate(spec *batchv1.JobSpec, opts podspec.Options, at *field.Path) field.ErrorList {
	errs := job.ValidateSpec(spec, opts, at)
	if spec.Selector != nil {
		errs = append(errs, field.Invalid(at.Child("selector"), spec.Selector, "`selector` will be auto-generated"))
	}
	if m := spec.ManualSelector; m != nil && *m {
		errs = append(errs, field.NotSupported(at.Child("manualSelector"), *m, []string{"nil", "false"}))
	}
	return errs
}

// validateSchedule: a zone within the schedule is kept where it was before the field for it, and refused anew.
func validateSchedule(spec, old *batchv1.CronJobSpec, at *field.Path) field.ErrorList {
	if spec.Schedule == "" {
		return field.ErrorList{field.Required(at, "")}
	}
	var errs field.ErrorList
	if _, err := cron.ParseStandard(spec.Schedule); err != nil {
		errs = append(errs, field.Invalid(at, spec.Schedule, err.Error()))
	}
	hadZone := old != nil && strings.Contains(old.Schedule, "TZ")
	switch hasZone := strings.Contains(spec.Schedule, "TZ"); {
	case hasZone && !hadZone:
		errs = append(errs, field.Invalid(at, spec.Schedule, "cannot use TZ or CRON_TZ in schedule, use timeZone field instead"))
	case hasZone && spec.TimeZone != nil:
		errs = append(errs, field.Invalid(at, spec.Schedule, "cannot use both timeZone field and TZ or CRON_TZ in schedule"))
	}
	return errs
}

func validateZone(zone *string, at *field.Path) field.ErrorList {
	switch {
	case zone == nil:
		return nil
	case *zone == "":
		return field.ErrorList{field.Invalid(at, *zone, "timeZone must be nil or non-empty string")}
	case strings.EqualFold(*zone, "Local"):
		return field.ErrorList{field.Invalid(at, *zone, "timeZone must be an explicit time zone as defined in https://www.iana.org/time-zones")}
	}
	if _, err := time.LoadLocation(*zone); err != nil {
		return field.ErrorList{field.Invalid(at, *zone, "unknown time zone "+*zone)}
	}
	return nil
}

func columns() []kinds.Column[*batchv1.CronJob] {
	spec, status := batchv1.CronJobSpec{}.SwaggerDoc(), batchv1.CronJobStatus{}.SwaggerDoc()
	const none = "<none>"
	columns := []kinds.Column[*batchv1.CronJob]{
		kinds.NameColumn[*batchv1.CronJob](),
		{Name: "Schedule", Description: spec["schedule"], Cell: func(c *batchv1.CronJob) any { return c.Spec.Schedule }},
		{Name: "Timezone", Description: spec["timeZone"], Cell: func(c *batchv1.CronJob) any { return ptr.Deref(c.Spec.TimeZone, none) }},
		{Name: "Suspend", Type: "boolean", Description: spec["suspend"], Cell: func(c *batchv1.CronJob) any {
			switch s := c.Spec.Suspend; {
			case s == nil:
				return "<unset>"
			case *s:
				return "True"
			}
			return "False"
		}},
		{Name: "Active", Type: "integer", Description: status["active"], Cell: func(c *batchv1.CronJob) any { return int64(len(c.Status.Active)) }},
		{Name: "Last Schedule", Description: status["lastScheduleTime"], Cell: func(c *batchv1.CronJob) any {
			if c.Status.LastScheduleTime == nil {
				return none
			}
			return kinds.Age(*c.Status.LastScheduleTime)
		}},
		kinds.AgeColumn[*batchv1.CronJob](),
	}
	columns = append(columns, workload.TemplateColumns(func(c *batchv1.CronJob) *corev1.PodTemplateSpec { return &c.Spec.JobTemplate.Spec.Template })...)
	return append(columns, workload.SelectorColumn(batchv1.JobSpec{}.SwaggerDoc()["selector"],
		func(c *batchv1.CronJob) *metav1.LabelSelector { return c.Spec.JobTemplate.Spec.Selector }))
}
