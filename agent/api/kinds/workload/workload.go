// Package workload holds the rules and columns that the kinds of workloads share: what selects their pods, how many
// they may be, and what their templates look like in a table.
//
// Everything is a pure function and safe for concurrent use. It is tested by the tables of the kinds that use it.
package workload

import (
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"
	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	metav1validation "k8s.io/apimachinery/pkg/apis/meta/v1/validation"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/podvine/podvine/agent/api/kinds"
	"github.com/podvine/podvine/agent/api/kinds/podspec"
)

// ValidateSelector reports the errors of what selects a workload's pods. empty is the text for one that selects all,
// and broken that for one that cannot be used; of such a one, no selector is returned.
func ValidateSelector(s *metav1.LabelSelector, opts podspec.Options, empty, broken string, at *field.Path) (labels.Selector, field.ErrorList) {
	var errs field.ErrorList
	if s == nil {
		errs = append(errs, field.Required(at, ""))
	} else {
		errs = append(errs, metav1validation.ValidateLabelSelector(s, metav1validation.LabelSelectorValidationOptions{
			AllowInvalidLabelValueInSelector: opts.AllowInvalidLabelValueInSelector}, at)...)
		if len(s.MatchLabels)+len(s.MatchExpressions) == 0 {
			errs = append(errs, field.Invalid(at, s, empty))
		}
	}
	selector, err := metav1.LabelSelectorAsSelector(s)
	if err != nil {
		return nil, append(errs, field.Invalid(at, s, broken))
	}
	return selector, errs
}

// Count is a number of a status, and the name of its field.
type Count struct {
	Name  string
	Value int64
}

// NotNegative reports counts below zero.
func NotNegative(at *field.Path, counts ...Count) (errs field.ErrorList) {
	for _, c := range counts {
		errs = append(errs, apivalidation.ValidateNonnegativeField(c.Value, at.Child(c.Name))...)
	}
	return errs
}

// AtMost reports a count above a bound, which the text calls by name.
func AtMost(count, bound int32, at *field.Path, name string) field.ErrorList {
	if count <= bound {
		return nil
	}
	return field.ErrorList{field.Invalid(at, count, "cannot be greater than "+name)}
}

// ReplicaStatus reports the errors of what a controller of equal pods counts.
func ReplicaStatus(replicas, labelled, ready, available int32, generation int64, at *field.Path) field.ErrorList {
	errs := NotNegative(at, Count{"replicas", int64(replicas)}, Count{"fullyLabeledReplicas", int64(labelled)}, Count{"readyReplicas", int64(ready)},
		Count{"availableReplicas", int64(available)}, Count{"observedGeneration", generation})
	errs = append(errs, AtMost(labelled, replicas, at.Child("fullyLabeledReplicas"), "status.replicas")...)
	errs = append(errs, AtMost(ready, replicas, at.Child("readyReplicas"), "status.replicas")...)
	errs = append(errs, AtMost(available, replicas, at.Child("availableReplicas"), "status.replicas")...)
	return append(errs, AtMost(available, ready, at.Child("availableReplicas"), "readyReplicas")...)
}

// ValidateCollisions reports a collision count that is below zero or went back.
func ValidateCollisions(now, was *int32, at *field.Path) field.ErrorList {
	var errs field.ErrorList
	value := int32(0)
	if now != nil {
		value = *now
		errs = apivalidation.ValidateNonnegativeField(int64(value), at)
	}
	if was != nil && (now == nil || value < *was) {
		errs = append(errs, field.Invalid(at, value, "cannot be decremented"))
	}
	return errs
}

// CountOrPercent reports what is neither a count of zero or more nor a percentage.
func CountOrPercent(v intstr.IntOrString, at *field.Path) field.ErrorList {
	if v.Type == intstr.Int {
		return apivalidation.ValidateNonnegativeField(int64(v.IntValue()), at)
	}
	var errs field.ErrorList
	for _, m := range validation.IsValidPercent(v.StrVal) {
		errs = append(errs, field.Invalid(at, v, m))
	}
	return errs
}

// AtMostAll reports a percentage above 100.
func AtMostAll(v intstr.IntOrString, at *field.Path) field.ErrorList {
	if percent, ok := percentOf(v); ok && percent > 100 {
		return field.ErrorList{field.Invalid(at, v, "must not be greater than 100%")}
	}
	return nil
}

func percentOf(v intstr.IntOrString) (int, bool) {
	if v.Type != intstr.String || len(validation.IsValidPercent(v.StrVal)) > 0 {
		return 0, false
	}
	n, err := strconv.Atoi(strings.TrimSuffix(v.StrVal, "%"))
	return n, err == nil
}

// Amount is the number in a count or percentage.
func Amount(v intstr.IntOrString) int {
	if percent, ok := percentOf(v); ok {
		return percent
	}
	return v.IntValue()
}

// Warnings are those about the name and the template of a new workload.
func Warnings(name string, template *corev1.PodTemplateSpec) []string {
	return append(podspec.NameWarnings(name), podspec.TemplateWarnings(template, nil, field.NewPath("spec", "template"))...)
}

// WarningsOnUpdate are those about a changed template.
func WarningsOnUpdate(now, was metav1.Object, template, old *corev1.PodTemplateSpec) []string {
	if now.GetGeneration() == was.GetGeneration() {
		return nil
	}
	return podspec.TemplateWarnings(template, old, field.NewPath("spec", "template"))
}

// TemplateColumns are the columns of wide tables that tell the template's containers and images.
func TemplateColumns[T kinds.Object](template func(T) *corev1.PodTemplateSpec) []kinds.Column[T] {
	return []kinds.Column[T]{
		{Name: "Containers", Priority: 1, Description: "Names of each container in the template.", Cell: func(o T) any {
			names, _ := podspec.ContainerColumns(&template(o).Spec)
			return names
		}},
		{Name: "Images", Priority: 1, Description: "Images referenced by each container in the template.", Cell: func(o T) any {
			_, images := podspec.ContainerColumns(&template(o).Spec)
			return images
		}},
	}
}

// SelectorColumn is the column of wide tables that tells the selector.
func SelectorColumn[T kinds.Object](description string, selector func(T) *metav1.LabelSelector) kinds.Column[T] {
	return kinds.Column[T]{Name: "Selector", Priority: 1, Description: description, Cell: func(o T) any { return metav1.FormatLabelSelector(selector(o)) }}
}

// Scale is the /scale sub-resource of a workload with a label selector.
func Scale[T kinds.Object](replicas func(T) **int32, observed func(T) int32, selector func(T) *metav1.LabelSelector) *kinds.Scale[T] {
	return &kinds.Scale[T]{
		Get: func(o T) (int32, int32, string, error) {
			s, err := metav1.LabelSelectorAsSelector(selector(o))
			if err != nil {
				return 0, 0, "", err
			}
			wanted := int32(1)
			if r := *replicas(o); r != nil {
				wanted = *r
			}
			return wanted, observed(o), s.String(), nil
		},
		Set: func(o T, count int32) { *replicas(o) = &count },
	}
}
