package podspec

import (
	"fmt"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	metav1validation "k8s.io/apimachinery/pkg/apis/meta/v1/validation"
	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

const (
	minWeight = 1
	maxWeight = 100
)

func (c *checker) affinity(path *field.Path) field.ErrorList {
	a := c.spec.Affinity
	if a == nil {
		return nil
	}
	var errs field.ErrorList
	if n, at := a.NodeAffinity, path.Child("nodeAffinity"); n != nil {
		if n.RequiredDuringSchedulingIgnoredDuringExecution != nil {
			errs = append(errs, ValidateNodeSelector(n.RequiredDuringSchedulingIgnoredDuringExecution, c.opts.AllowInvalidLabelValueInNodeAffinity,
				at.Child("requiredDuringSchedulingIgnoredDuringExecution"))...)
		}
		errs = append(errs, preferredNodes(n.PreferredDuringSchedulingIgnoredDuringExecution, at.Child("preferredDuringSchedulingIgnoredDuringExecution"))...)
	}
	if p, at := a.PodAffinity, path.Child("podAffinity"); p != nil {
		errs = append(errs, c.podTerms(p.RequiredDuringSchedulingIgnoredDuringExecution, at.Child("requiredDuringSchedulingIgnoredDuringExecution"))...)
		errs = append(errs, c.weightedPodTerms(p.PreferredDuringSchedulingIgnoredDuringExecution, at.Child("preferredDuringSchedulingIgnoredDuringExecution"))...)
	}
	if p, at := a.PodAntiAffinity, path.Child("podAntiAffinity"); p != nil {
		errs = append(errs, c.podTerms(p.RequiredDuringSchedulingIgnoredDuringExecution, at.Child("requiredDuringSchedulingIgnoredDuringExecution"))...)
		errs = append(errs, c.weightedPodTerms(p.PreferredDuringSchedulingIgnoredDuringExecution, at.Child("preferredDuringSchedulingIgnoredDuringExecution"))...)
	}
	return errs
}

// ValidateNodeSelector reports the errors of a node selector; volumes have one too.
func ValidateNodeSelector(selector *corev1.NodeSelector, allowInvalidValues bool, path *field.Path) field.ErrorList {
	terms := path.Child("nodeSelectorTerms")
	if len(selector.NodeSelectorTerms) == 0 {
		return field.ErrorList{field.Required(terms, "must have at least one node selector term")}
	}
	var errs field.ErrorList
	for i := range selector.NodeSelectorTerms {
		errs = append(errs, nodeTerm(&selector.NodeSelectorTerms[i], allowInvalidValues, terms.Index(i))...)
	}
	return errs
}

func nodeTerm(term *corev1.NodeSelectorTerm, allowInvalidValues bool, path *field.Path) field.ErrorList {
	var errs field.ErrorList
	for i := range term.MatchExpressions {
		errs = append(errs, nodeRequirement(&term.MatchExpressions[i], allowInvalidValues, path.Child("matchExpressions").Index(i))...)
	}
	for i := range term.MatchFields {
		errs = append(errs, nodeField(&term.MatchFields[i], path.Child("matchFields").Index(i))...)
	}
	return errs
}

func nodeRequirement(r *corev1.NodeSelectorRequirement, allowInvalidValues bool, path *field.Path) field.ErrorList {
	var errs field.ErrorList
	switch r.Operator {
	case corev1.NodeSelectorOpIn, corev1.NodeSelectorOpNotIn:
		if len(r.Values) == 0 {
			errs = append(errs, field.Required(path.Child("values"), "must be specified when `operator` is 'In' or 'NotIn'"))
		}
	case corev1.NodeSelectorOpExists, corev1.NodeSelectorOpDoesNotExist:
		if len(r.Values) > 0 {
			errs = append(errs, field.Forbidden(path.Child("values"), "may not be specified when `operator` is 'Exists' or 'DoesNotExist'"))
		}
	case corev1.NodeSelectorOpGt, corev1.NodeSelectorOpLt:
		if len(r.Values) != 1 {
			errs = append(errs, field.Required(path.Child("values"), "must be specified single value when `operator` is 'Lt' or 'Gt'"))
		}
	default:
		errs = append(errs, field.Invalid(path.Child("operator"), r.Operator, "not a valid selector operator"))
	}
	errs = append(errs, metav1validation.ValidateLabelName(r.Key, path.Child("key"))...)
	if !allowInvalidValues {
		for i, v := range r.Values {
			errs = append(errs, invalid(path.Child("values").Index(i), v, validation.IsValidLabelValue(v))...)
		}
	}
	return errs
}

// nodeField checks a requirement on a field of the node, of which the name is the only one.
func nodeField(r *corev1.NodeSelectorRequirement, path *field.Path) field.ErrorList {
	var errs field.ErrorList
	switch r.Operator {
	case corev1.NodeSelectorOpIn, corev1.NodeSelectorOpNotIn:
		if len(r.Values) != 1 {
			errs = append(errs, field.Required(path.Child("values"), "must be only one value when `operator` is 'In' or 'NotIn' for node field selector"))
		}
	default:
		errs = append(errs, field.Invalid(path.Child("operator"), r.Operator, "not a valid selector operator"))
	}
	if r.Key != metav1.ObjectNameField {
		return append(errs, field.Invalid(path.Child("key"), r.Key, "not a valid field selector key"))
	}
	for i, v := range r.Values {
		errs = append(errs, objectName(v, path.Child("values").Index(i))...)
	}
	return errs
}

func weight(w int32, path *field.Path) field.ErrorList {
	if w < minWeight || w > maxWeight {
		return field.ErrorList{field.Invalid(path.Child("weight"), w, fmt.Sprintf("must be in the range %d-%d", minWeight, maxWeight))}
	}
	return nil
}

// preferredNodes leaves values alone: they were never checked, and get a warning instead.
func preferredNodes(terms []corev1.PreferredSchedulingTerm, path *field.Path) field.ErrorList {
	var errs field.ErrorList
	for i := range terms {
		errs = append(errs, weight(terms[i].Weight, path.Index(i))...)
		errs = append(errs, nodeTerm(&terms[i].Preference, true, path.Index(i).Child("preference"))...)
	}
	return errs
}

func (c *checker) weightedPodTerms(terms []corev1.WeightedPodAffinityTerm, path *field.Path) field.ErrorList {
	var errs field.ErrorList
	for i := range terms {
		errs = append(errs, weight(terms[i].Weight, path.Index(i))...)
		errs = append(errs, c.podTerm(&terms[i].PodAffinityTerm, path.Index(i).Child("podAffinityTerm"))...)
	}
	return errs
}

func (c *checker) podTerms(terms []corev1.PodAffinityTerm, path *field.Path) field.ErrorList {
	var errs field.ErrorList
	for i := range terms {
		errs = append(errs, c.podTerm(&terms[i], path.Index(i))...)
	}
	return errs
}

func (c *checker) selectorOptions() metav1validation.LabelSelectorValidationOptions {
	return metav1validation.LabelSelectorValidationOptions{AllowInvalidLabelValueInSelector: c.opts.AllowInvalidLabelValueInSelector}
}

func (c *checker) podTerm(term *corev1.PodAffinityTerm, path *field.Path) field.ErrorList {
	errs := metav1validation.ValidateLabelSelector(term.LabelSelector, c.selectorOptions(), path.Child("labelSelector"))
	errs = append(errs, metav1validation.ValidateLabelSelector(term.NamespaceSelector, c.selectorOptions(), path.Child("namespaceSelector"))...)
	for _, name := range term.Namespaces {
		errs = append(errs, dnsLabel(name, path.Child("namespace"))...)
	}
	errs = append(errs, labelKeys(term.MatchLabelKeys, term.LabelSelector, path.Child("matchLabelKeys"))...)
	errs = append(errs, labelKeys(term.MismatchLabelKeys, term.LabelSelector, path.Child("mismatchLabelKeys"))...)
	both := sets.New(term.MismatchLabelKeys...)
	for i, key := range term.MatchLabelKeys {
		if both.Has(key) {
			errs = append(errs, field.Invalid(path.Child("matchLabelKeys").Index(i), key, "exists in both matchLabelKeys and mismatchLabelKeys"))
		}
	}
	if term.TopologyKey == "" {
		errs = append(errs, field.Required(path.Child("topologyKey"), "can not be empty"))
	}
	return append(errs, metav1validation.ValidateLabelName(term.TopologyKey, path.Child("topologyKey"))...)
}

// labelKeys checks the keys whose values a pod's own labels give. A key that the selector has already is refused
// as long as the merge did not put it there.
func labelKeys(keys []string, selector *metav1.LabelSelector, path *field.Path) field.ErrorList {
	if len(keys) == 0 {
		return nil
	}
	var errs field.ErrorList
	if selector == nil {
		errs = append(errs, field.Forbidden(path, "must not be specified when labelSelector is not set"))
	}
	for i, key := range keys {
		errs = append(errs, metav1validation.ValidateLabelName(key, path.Index(i))...)
	}
	return errs
}
