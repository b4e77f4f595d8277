package podspec

import (
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// MergeLabelKeys writes the pod's own values of the keys named in matchLabelKeys and mismatchLabelKeys into the
// selectors beside them. Keys that the pod has no label of do nothing.
func MergeLabelKeys(labels map[string]string, spec *corev1.PodSpec) {
	if a := spec.Affinity; a != nil {
		if a.PodAffinity != nil {
			mergeTerms(labels, a.PodAffinity.RequiredDuringSchedulingIgnoredDuringExecution, a.PodAffinity.PreferredDuringSchedulingIgnoredDuringExecution)
		}
		if a.PodAntiAffinity != nil {
			mergeTerms(labels, a.PodAntiAffinity.RequiredDuringSchedulingIgnoredDuringExecution, a.PodAntiAffinity.PreferredDuringSchedulingIgnoredDuringExecution)
		}
	}
	for i := range spec.TopologySpreadConstraints {
		t := &spec.TopologySpreadConstraints[i]
		mergeKeys(labels, t.MatchLabelKeys, metav1.LabelSelectorOpIn, t.LabelSelector)
	}
}

func mergeTerms(labels map[string]string, required []corev1.PodAffinityTerm, preferred []corev1.WeightedPodAffinityTerm) {
	merge := func(t *corev1.PodAffinityTerm) {
		mergeKeys(labels, t.MatchLabelKeys, metav1.LabelSelectorOpIn, t.LabelSelector)
		mergeKeys(labels, t.MismatchLabelKeys, metav1.LabelSelectorOpNotIn, t.LabelSelector)
	}
	for i := range required {
		merge(&required[i])
	}
	for i := range preferred {
		merge(&preferred[i].PodAffinityTerm)
	}
}

func mergeKeys(labels map[string]string, keys []string, op metav1.LabelSelectorOperator, selector *metav1.LabelSelector) {
	if selector == nil {
		return
	}
	for _, key := range keys {
		if value, ok := labels[key]; ok {
			selector.MatchExpressions = append(selector.MatchExpressions, metav1.LabelSelectorRequirement{Key: key, Operator: op, Values: []string{value}})
		}
	}
}
