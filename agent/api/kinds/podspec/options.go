package podspec

import (
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	metav1validation "k8s.io/apimachinery/pkg/apis/meta/v1/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// OptionsFor returns the options for a change of an existing specification: a rule that it breaks already, because it
// was stored when the rule was not there yet, does not stop other changes. meta is the pod's or the template's.
func OptionsFor(old *corev1.PodSpec, meta *metav1.ObjectMeta) Options {
	path := field.NewPath("spec")
	strict := &checker{spec: old, hostUsers: true}
	opts := Options{
		AllowInvalidLabelValueInSelector: hasOddSelectorValues(old),
		AllowInvalidDeletionCost:         meta != nil && meta.Annotations[deletionCostAnnotation] != "" && !isInt32(meta.Annotations[deletionCostAnnotation]),
		AllowHostPortMismatch:            len(strict.hostNetwork(path)) > 0,
		AllowLegacyIPs:                   len(hostAliases(old.HostAliases, path, Options{})) > 0,
	}
	if a := old.Affinity; a != nil && a.NodeAffinity != nil && a.NodeAffinity.RequiredDuringSchedulingIgnoredDuringExecution != nil {
		terms := a.NodeAffinity.RequiredDuringSchedulingIgnoredDuringExecution
		opts.AllowInvalidLabelValueInNodeAffinity = len(ValidateNodeSelector(terms, false, path)) > len(ValidateNodeSelector(terms, true, path))
	}
	if old.SecurityContext != nil {
		for _, s := range old.SecurityContext.Sysctls {
			opts.AllowHostNamespaceSysctls = opts.AllowHostNamespaceSysctls || len(strict.hostSysctl(s.Name, path)) > 0
		}
	}
	for _, list := range [][]corev1.Container{old.Containers, old.InitContainers} {
		for _, ctr := range list {
			for name, amount := range ctr.Resources.Requests {
				opts.AllowIndivisibleHugePages = opts.AllowIndivisibleHugePages || len(strict.hugePages(name, amount, path)) > 0
			}
		}
	}
	for _, v := range old.Volumes {
		if v.Projected == nil {
			continue
		}
		for _, s := range v.Projected.Sources {
			opts.AllowOddTokenPath = opts.AllowOddTokenPath || (s.ServiceAccountToken != nil && strings.Contains(s.ServiceAccountToken.Path, ".."))
		}
	}
	return opts
}

// hasOddSelectorValues says whether a selector of the specification has values that no label can have.
func hasOddSelectorValues(spec *corev1.PodSpec) bool {
	odd := false
	see := func(s *metav1.LabelSelector) { odd = odd || metav1validation.LabelSelectorHasInvalidLabelValue(s) }
	terms := func(required []corev1.PodAffinityTerm, preferred []corev1.WeightedPodAffinityTerm) {
		for i := range required {
			see(required[i].LabelSelector)
			see(required[i].NamespaceSelector)
		}
		for i := range preferred {
			see(preferred[i].PodAffinityTerm.LabelSelector)
			see(preferred[i].PodAffinityTerm.NamespaceSelector)
		}
	}
	if a := spec.Affinity; a != nil && a.PodAffinity != nil {
		terms(a.PodAffinity.RequiredDuringSchedulingIgnoredDuringExecution, a.PodAffinity.PreferredDuringSchedulingIgnoredDuringExecution)
	}
	if a := spec.Affinity; a != nil && a.PodAntiAffinity != nil {
		terms(a.PodAntiAffinity.RequiredDuringSchedulingIgnoredDuringExecution, a.PodAntiAffinity.PreferredDuringSchedulingIgnoredDuringExecution)
	}
	for i := range spec.TopologySpreadConstraints {
		see(spec.TopologySpreadConstraints[i].LabelSelector)
	}
	return odd
}
