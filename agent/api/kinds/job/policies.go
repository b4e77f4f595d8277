package job

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	metav1validation "k8s.io/apimachinery/pkg/apis/meta/v1/validation"
	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/utils/ptr"

	"github.com/podvine/podvine/agent/api/kinds/podspec"
)

// Kubernetes' limits of policies.
const (
	maxRules         = 20
	maxPodConditions = 20
	maxExitCodes     = 255
	maxIndexesBytes  = 64 * 1024
)

func validateFailurePolicy(spec *batchv1.JobSpec, at *field.Path) field.ErrorList {
	if spec.PodFailurePolicy == nil {
		return nil
	}
	var errs field.ErrorList
	rules := at.Child("rules")
	if n := len(spec.PodFailurePolicy.Rules); n > maxRules {
		errs = append(errs, field.TooMany(rules, n, maxRules))
	}
	containers := sets.New[string]()
	for _, list := range [][]corev1.Container{spec.Template.Spec.Containers, spec.Template.Spec.InitContainers} {
		for i := range list {
			containers.Insert(list[i].Name)
		}
	}
	for i := range spec.PodFailurePolicy.Rules {
		errs = append(errs, validateFailureRule(spec, &spec.PodFailurePolicy.Rules[i], containers, rules.Index(i))...)
	}
	return errs
}

func validateFailureRule(spec *batchv1.JobSpec, rule *batchv1.PodFailurePolicyRule, containers sets.Set[string], at *field.Path) field.ErrorList {
	action := at.Child("action")
	errs := choice(rule.Action, action, batchv1.PodFailurePolicyActionCount, batchv1.PodFailurePolicyActionFailIndex,
		batchv1.PodFailurePolicyActionFailJob, batchv1.PodFailurePolicyActionIgnore)
	if rule.Action == batchv1.PodFailurePolicyActionFailIndex && spec.BackoffLimitPerIndex == nil {
		errs = append(errs, field.Invalid(action, rule.Action, "requires the backoffLimitPerIndex to be set"))
	}
	if rule.OnExitCodes != nil {
		errs = append(errs, validateExitCodes(rule.OnExitCodes, containers, at.Child("onExitCodes"))...)
	}
	conditions := at.Child("onPodConditions")
	if n := len(rule.OnPodConditions); n > maxPodConditions {
		errs = append(errs, field.TooMany(conditions, n, maxPodConditions))
	}
	for i, c := range rule.OnPodConditions {
		errs = append(errs, metav1validation.ValidateLabelName(string(c.Type), conditions.Index(i).Child("type"))...)
		errs = append(errs, choice(c.Status, conditions.Index(i).Child("status"), corev1.ConditionFalse, corev1.ConditionTrue, corev1.ConditionUnknown)...)
	}
	switch hasCodes, hasConditions := rule.OnExitCodes != nil, len(rule.OnPodConditions) > 0; {
	case hasCodes && hasConditions:
		errs = append(errs, field.Invalid(at, field.OmitValueType{}, "specifying both OnExitCodes and OnPodConditions is not supported"))
	case !hasCodes && !hasConditions:
		errs = append(errs, field.Invalid(at, field.OmitValueType{}, "specifying one of OnExitCodes and OnPodConditions is required"))
	}
	return errs
}

// choice accepts the listed values; the absence of one is an error of its own.
func choice[T ~string](value T, at *field.Path, supported ...T) field.ErrorList {
	if value == "" {
		return field.ErrorList{field.Required(at, fmt.Sprintf("valid values: %q", supported))}
	}
	return oneOf(value, at, supported)
}

func validateExitCodes(codes *batchv1.PodFailurePolicyOnExitCodesRequirement, containers sets.Set[string], at *field.Path) field.ErrorList {
	in := batchv1.PodFailurePolicyOnExitCodesOpIn
	errs := choice(codes.Operator, at.Child("operator"), in, batchv1.PodFailurePolicyOnExitCodesOpNotIn)
	if c := codes.ContainerName; c != nil && !containers.Has(*c) {
		errs = append(errs, field.Invalid(at.Child("containerName"), *c, "must be one of the container or initContainer names in the pod template"))
	}
	values := at.Child("values")
	switch n := len(codes.Values); {
	case n == 0:
		return append(errs, field.Invalid(values, codes.Values, "at least one value is required"))
	case n > maxExitCodes:
		return append(errs, field.TooMany(values, n, maxExitCodes))
	}
	for i, v := range codes.Values {
		if v == 0 && codes.Operator == in {
			errs = append(errs, field.Invalid(values.Index(i), v, "must not be 0 for the In operator"))
		}
	}
	if !slices.IsSorted(codes.Values) {
		errs = append(errs, field.Invalid(values, codes.Values, "must be ordered"))
	}
	if sets.New(codes.Values...).Len() < len(codes.Values) {
		errs = append(errs, field.Duplicate(values, codes.Values))
	}
	return errs
}

func validateSuccessPolicy(spec *batchv1.JobSpec, at *field.Path) field.ErrorList {
	policy := spec.SuccessPolicy
	if policy == nil {
		return nil
	}
	if !indexed(spec) {
		return field.ErrorList{field.Invalid(at, podspec.InternalView(policy), "requires indexed completion mode")}
	}
	var errs field.ErrorList
	rules := at.Child("rules")
	switch n := len(policy.Rules); {
	case n == 0:
		errs = append(errs, field.Required(rules, "at least one rules must be specified when the successPolicy is specified"))
	case n > maxRules:
		errs = append(errs, field.TooMany(rules, n, maxRules))
	}
	for i := range policy.Rules {
		errs = append(errs, validateSuccessRule(&policy.Rules[i], ptr.Deref(spec.Completions, 0), rules.Index(i))...)
	}
	return errs
}

func validateSuccessRule(rule *batchv1.SuccessPolicyRule, completions int32, at *field.Path) field.ErrorList {
	if rule.SucceededCount == nil && rule.SucceededIndexes == nil {
		return field.ErrorList{field.Required(at, "at least one of succeededCount or succeededIndexes must be specified")}
	}
	var errs field.ErrorList
	var total int32
	if s := rule.SucceededIndexes; s != nil {
		path := at.Child("succeededIndexes")
		if len(*s) > maxIndexesBytes {
			errs = append(errs, field.TooLong(path, *s, maxIndexesBytes))
		} else if n, err := countIndexes(*s, completions); err != nil {
			errs = append(errs, field.Invalid(path, *s, "error parsing succeededIndexes: "+err.Error()))
		} else {
			total = n
		}
	}
	if count := rule.SucceededCount; count != nil {
		path := at.Child("succeededCount")
		errs = append(errs, apivalidation.ValidateNonnegativeField(int64(*count), path)...)
		errs = append(errs, atMost(count, completions, path, fmt.Sprintf("must be less than or equal to %d (the number of specified completions)", completions))...)
		if rule.SucceededIndexes != nil {
			errs = append(errs, atMost(count, total, path, fmt.Sprintf("must be less than or equal to %d (the number of indexes in the specified succeededIndexes field)", total))...)
		}
	}
	return errs
}

// interval is a run of indexes, both ends included.
type interval struct{ first, last int32 }

// intervals reads a list of indexes such as "0,2-3", which rise and are all below completions.
func intervals(s string, completions int32) ([]interval, error) {
	if s == "" {
		return nil, nil
	}
	var out []interval
	for part := range strings.SplitSeq(s, ",") {
		limits := strings.Split(part, "-")
		if len(limits) > 2 {
			return nil, fmt.Errorf("the fragment %q violates the requirement that an index interval can have at most two parts separated by '-'", part)
		}
		first, err := index(limits[0], completions)
		if err != nil {
			return nil, err
		}
		if n := len(out); n > 0 && out[n-1].last >= first {
			return nil, fmt.Errorf("non-increasing order, previous: %d, current: %d", out[n-1].last, first)
		}
		run := interval{first, first}
		if len(limits) == 2 {
			if run.last, err = index(limits[1], completions); err != nil {
				return nil, err
			}
			if run.first >= run.last {
				return nil, fmt.Errorf("non-increasing order, previous: %d, current: %d", run.first, run.last)
			}
		}
		out = append(out, run)
	}
	return out, nil
}

func index(s string, completions int32) (int32, error) {
	n, err := strconv.ParseInt(s, 10, 32)
	if err != nil {
		return 0, fmt.Errorf("cannot convert string to integer for index: %q", s)
	}
	if int32(n) >= completions {
		return 0, fmt.Errorf("too large index: %q", s)
	}
	return int32(n), nil
}

func countIndexes(s string, completions int32) (total int32, err error) {
	runs, err := intervals(s, completions)
	for _, r := range runs {
		total += r.last - r.first + 1
	}
	return total, err
}
