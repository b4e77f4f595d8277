package job

import (
	"context"
	"fmt"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	metav1validation "k8s.io/apimachinery/pkg/apis/meta/v1/validation"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/utils/ptr"

	"github.com/podvine/podvine/agent/api/kinds"
	"github.com/podvine/podvine/agent/api/kinds/podspec"
	"github.com/podvine/podvine/agent/api/kinds/workload"
)

// Kubernetes' limits of jobs.
const (
	manyCompletions   = 100_000
	manyAtOnce        = 10_000
	maxParallelism    = 100_000
	maxFailedIndexes  = 100_000
	maxManagedByBytes = 63
)

func indexed(spec *batchv1.JobSpec) bool {
	return ptr.Deref(spec.CompletionMode, "") == batchv1.IndexedCompletion
}

func validate(_ context.Context, j *batchv1.Job) field.ErrorList {
	metadata := field.NewPath("metadata")
	errs := kinds.ValidateObjectMeta(&j.ObjectMeta, true, apivalidation.NameIsDNSSubdomain, metadata)
	errs = append(errs, validateGenerated(j)...)
	errs = append(errs, validateWhole(&j.Spec, podspec.Options{}, field.NewPath("spec"))...)
	if n := ptr.Deref(j.Spec.Completions, 0); indexed(&j.Spec) && n > 0 {
		if last := fmt.Sprintf("%s-%d", j.Name, n-1); len(validation.IsDNS1123Label(last)) > 0 {
			errs = append(errs, field.Invalid(metadata.Child("name"), j.Name, "will not able to create pod with invalid DNS label: "+last))
		}
	}
	return errs
}

// validateGenerated reports what is not as the server generates it.
func validateGenerated(j *batchv1.Job) field.ErrorList {
	if ptr.Deref(j.Spec.ManualSelector, false) || j.Spec.Selector == nil {
		return nil
	}
	var errs field.ErrorList
	uid := string(j.UID)
	if uid == "" {
		errs = append(errs, field.Required(field.NewPath("metadata", "uid"), ""))
	}
	at := field.NewPath("spec", "template", "metadata", "labels")
	for _, want := range []struct{ key, value string }{
		{batchv1.ControllerUidLabel, uid}, {batchv1.JobNameLabel, j.Name}, {legacyUIDLabel, uid}, {legacyNameLabel, j.Name}} {
		message := fmt.Sprintf("must be '%s'", want.value)
		if value, found := j.Spec.Template.Labels[want.key]; !found {
			errs = append(errs, field.Required(at.Key(want.key), message))
		} else if value != want.value {
			errs = append(errs, field.Invalid(at.Key(want.key), j.Spec.Template.Labels, message))
		}
	}
	if !equality.Semantic.DeepEqual(j.Spec.Selector, &metav1.LabelSelector{MatchLabels: map[string]string{batchv1.ControllerUidLabel: uid}}) {
		errs = append(errs, field.Invalid(field.NewPath("spec", "selector"), j.Spec.Selector, "`selector` not auto-generated"))
	}
	return errs
}

// validateWhole reports the errors of a job's specification with its selector.
func validateWhole(spec *batchv1.JobSpec, opts podspec.Options, at *field.Path) field.ErrorList {
	errs := ValidateSpec(spec, opts, at)
	if spec.Selector == nil {
		errs = append(errs, field.Required(at.Child("selector"), ""))
	} else {
		errs = append(errs, metav1validation.ValidateLabelSelector(spec.Selector, metav1validation.LabelSelectorValidationOptions{}, at.Child("selector"))...)
	}
	if selector, err := metav1.LabelSelectorAsSelector(spec.Selector); err == nil && !selector.Matches(labels.Set(spec.Template.Labels)) {
		errs = append(errs, field.Invalid(at.Child("template", "metadata", "labels"), spec.Template.Labels, "`selector` does not match template `labels`"))
	}
	return errs
}

// ValidateSpec reports the errors of a job's specification but for its selector.
func ValidateSpec(spec *batchv1.JobSpec, opts podspec.Options, at *field.Path) field.ErrorList {
	errs := notNegative(at, map[string]*int32{"parallelism": spec.Parallelism, "completions": spec.Completions, "backoffLimit": spec.BackoffLimit,
		"ttlSecondsAfterFinished": spec.TTLSecondsAfterFinished, "backoffLimitPerIndex": spec.BackoffLimitPerIndex, "maxFailedIndexes": spec.MaxFailedIndexes})
	errs = append(errs, workload.NotNegative(at, workload.Count{Name: "activeDeadlineSeconds", Value: ptr.Deref(spec.ActiveDeadlineSeconds, 0)})...)
	if m := spec.ManagedBy; m != nil {
		errs = append(errs, validation.IsDomainPrefixedPath(at.Child("managedBy"), *m)...)
		if len(*m) > maxManagedByBytes {
			errs = append(errs, field.TooLong(at.Child("managedBy"), *m, maxManagedByBytes))
		}
	}
	errs = append(errs, validateMode(spec, at)...)
	errs = append(errs, validateFailurePolicy(spec, at.Child("podFailurePolicy"))...)
	errs = append(errs, validateSuccessPolicy(spec, at.Child("successPolicy"))...)
	errs = append(errs, validateReplacement(spec, at.Child("podReplacementPolicy"))...)
	errs = append(errs, podspec.ValidateTemplate(&spec.Template, at.Child("template"), opts)...)
	return append(errs, validateRestart(spec, at.Child("template", "spec", "restartPolicy"))...)
}

func notNegative(at *field.Path, counts map[string]*int32) (errs field.ErrorList) {
	for name, value := range counts {
		errs = append(errs, workload.NotNegative(at, workload.Count{Name: name, Value: int64(ptr.Deref(value, 0))})...)
	}
	return errs
}

// validateMode reports what does not go with how completions are counted.
func validateMode(spec *batchv1.JobSpec, at *field.Path) field.ErrorList {
	var errs field.ErrorList
	failed := at.Child("maxFailedIndexes")
	if mode := spec.CompletionMode; mode != nil && *mode != batchv1.NonIndexedCompletion && *mode != batchv1.IndexedCompletion {
		errs = append(errs, field.NotSupported(at.Child("completionMode"), *mode, []batchv1.CompletionMode{batchv1.NonIndexedCompletion, batchv1.IndexedCompletion}))
	}
	if indexed(spec) {
		errs = append(errs, validateIndexed(spec, at)...)
	}
	if ptr.Deref(spec.CompletionMode, batchv1.NonIndexedCompletion) == batchv1.NonIndexedCompletion {
		const text = "requires indexed completion mode"
		if spec.BackoffLimitPerIndex != nil {
			errs = append(errs, field.Invalid(at.Child("backoffLimitPerIndex"), *spec.BackoffLimitPerIndex, text))
		}
		if spec.MaxFailedIndexes != nil {
			errs = append(errs, field.Invalid(failed, *spec.MaxFailedIndexes, text))
		}
	}
	if spec.MaxFailedIndexes != nil && spec.BackoffLimitPerIndex == nil {
		errs = append(errs, field.Required(at.Child("backoffLimitPerIndex"), "when maxFailedIndexes is specified"))
	}
	return errs
}

func validateIndexed(spec *batchv1.JobSpec, at *field.Path) field.ErrorList {
	failed, parallel := at.Child("maxFailedIndexes"), at.Child("parallelism")
	var errs field.ErrorList
	if spec.Completions == nil {
		errs = append(errs, field.Required(at.Child("completions"), "when completion mode is Indexed"))
	}
	errs = append(errs, atMost(spec.Parallelism, maxParallelism, parallel, "must be less than or equal to 100000 when completion mode is Indexed")...)
	if spec.Completions != nil {
		errs = append(errs, atMost(spec.MaxFailedIndexes, *spec.Completions, failed, "must be less than or equal to completions")...)
	}
	errs = append(errs, atMost(spec.MaxFailedIndexes, maxFailedIndexes, failed, "must be less than or equal to 100000")...)
	if ptr.Deref(spec.Completions, 0) > manyCompletions && spec.BackoffLimitPerIndex != nil {
		const text = "must be less than or equal to 10000 when completions are above 100000 and used with backoff limit per index"
		if spec.MaxFailedIndexes == nil {
			errs = append(errs, field.Required(failed, "must be specified when completions is above 100000"))
		}
		errs = append(errs, atMost(spec.Parallelism, manyAtOnce, parallel, text)...)
		errs = append(errs, atMost(spec.MaxFailedIndexes, manyAtOnce, failed, text)...)
	}
	return errs
}

func atMost(value *int32, bound int32, at *field.Path, text string) field.ErrorList {
	if value == nil || *value <= bound {
		return nil
	}
	return field.ErrorList{field.Invalid(at, *value, text)}
}

func validateReplacement(spec *batchv1.JobSpec, at *field.Path) field.ErrorList {
	supported := []batchv1.PodReplacementPolicy{batchv1.Failed, batchv1.TerminatingOrFailed}
	if spec.PodFailurePolicy != nil {
		supported = supported[:1]
	}
	return oneOf(ptr.Deref(spec.PodReplacementPolicy, batchv1.Failed), at, supported)
}

func oneOf[T ~string](value T, at *field.Path, supported []T) field.ErrorList {
	for _, s := range supported {
		if value == s {
			return nil
		}
	}
	return field.ErrorList{field.NotSupported(at, value, supported)}
}

// validateRestart: a pod that is always restarted never ends.
func validateRestart(spec *batchv1.JobSpec, at *field.Path) field.ErrorList {
	var errs field.ErrorList
	policy := spec.Template.Spec.RestartPolicy
	if policy == "" || policy == corev1.RestartPolicyAlways {
		errs = append(errs, field.Required(at, `valid values: "OnFailure", "Never"`))
	} else {
		errs = append(errs, oneOf(policy, at, []corev1.RestartPolicy{corev1.RestartPolicyOnFailure, corev1.RestartPolicyNever})...)
	}
	if spec.PodFailurePolicy != nil && policy != corev1.RestartPolicyNever {
		errs = append(errs, field.Invalid(at, policy, fmt.Sprintf("only %q is supported when podFailurePolicy is specified", corev1.RestartPolicyNever)))
	}
	return errs
}

func validateUpdate(_ context.Context, j, old *batchv1.Job) field.ErrorList {
	at := field.NewPath("spec")
	errs := kinds.ValidateObjectMetaUpdate(&j.ObjectMeta, &old.ObjectMeta, field.NewPath("metadata"))
	errs = append(errs, validateWhole(&j.Spec, podspec.OptionsFor(&old.Spec.Template.Spec, &old.Spec.Template.ObjectMeta), at)...)
	errs = append(errs, validateCompletionsUpdate(&j.Spec, &old.Spec, at.Child("completions"))...)
	errs = append(errs, apivalidation.ValidateImmutableField(j.Spec.Selector, old.Spec.Selector, at.Child("selector"))...)
	errs = append(errs, validateTemplateUpdate(j, old, at.Child("template"))...)
	errs = append(errs, apivalidation.ValidateImmutableField(j.Spec.CompletionMode, old.Spec.CompletionMode, at.Child("completionMode"))...)
	errs = append(errs, immutable(j.Spec.PodFailurePolicy, old.Spec.PodFailurePolicy, at.Child("podFailurePolicy"))...)
	errs = append(errs, apivalidation.ValidateImmutableField(j.Spec.BackoffLimitPerIndex, old.Spec.BackoffLimitPerIndex, at.Child("backoffLimitPerIndex"))...)
	errs = append(errs, apivalidation.ValidateImmutableField(j.Spec.ManagedBy, old.Spec.ManagedBy, at.Child("managedBy"))...)
	return append(errs, immutable(j.Spec.SuccessPolicy, old.Spec.SuccessPolicy, at.Child("successPolicy"))...)
}

// immutable shows a changed value as Kubernetes has it inside.
func immutable(now, was any, at *field.Path) field.ErrorList {
	if equality.Semantic.DeepEqual(now, was) {
		return nil
	}
	return field.ErrorList{field.Invalid(at, podspec.InternalView(now), apivalidation.FieldImmutableErrorMsg)}
}

// validateCompletionsUpdate: an indexed job grows and shrinks as a whole.
func validateCompletionsUpdate(spec, old *batchv1.JobSpec, at *field.Path) field.ErrorList {
	switch {
	case !indexed(spec):
		return apivalidation.ValidateImmutableField(spec.Completions, old.Completions, at)
	case spec.Completions == nil || ptr.Equal(spec.Completions, old.Completions) || ptr.Equal(spec.Completions, spec.Parallelism):
		return nil
	}
	return field.ErrorList{field.Invalid(at, spec.Completions, "can only be modified in tandem with spec.parallelism")}
}

// validateTemplateUpdate: where pods may run, and what they ask for, can be changed while a suspended job has none.
func validateTemplateUpdate(j, old *batchv1.Job, at *field.Path) field.ErrorList {
	was, now := old.Spec.Template.DeepCopy(), &j.Spec.Template
	idle := ptr.Deref(old.Spec.Suspend, false) && (old.Status.StartTime == nil || hasCondition(&old.Status, batchv1.JobSuspended))
	if !idle {
		errs := immutable(&now.Spec, &was.Spec, at.Child("spec"))
		return append(errs, apivalidation.ValidateImmutableField(&now.ObjectMeta, &was.ObjectMeta, at.Child("metadata"))...)
	}
	was.Spec.NodeSelector, was.Spec.Tolerations, was.Spec.SchedulingGates = now.Spec.NodeSelector, now.Spec.Tolerations, now.Spec.SchedulingGates
	was.Spec.Affinity = affinityWithNodesOf(was.Spec.Affinity, now.Spec.Affinity)
	takeResources(was.Spec.Containers, now.Spec.Containers)
	takeResources(was.Spec.InitContainers, now.Spec.InitContainers)
	return immutable(&now.Spec, &was.Spec, at.Child("spec"))
}

// affinityWithNodesOf is an affinity with the node part of another; nil for none at all.
func affinityWithNodesOf(was, now *corev1.Affinity) *corev1.Affinity {
	var out corev1.Affinity
	if was != nil {
		out = *was
	}
	out.NodeAffinity = nil
	if now != nil {
		out.NodeAffinity = now.NodeAffinity
	}
	if out == (corev1.Affinity{}) && (now == nil || was == nil && *now != out) {
		return nil
	}
	return &out
}

func takeResources(was, now []corev1.Container) {
	for i := range min(len(was), len(now)) {
		if was[i].Name == now[i].Name {
			was[i].Resources = now[i].Resources
		}
	}
}
