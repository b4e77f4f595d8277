package pod

import (
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
)

// QOSClass returns how well a pod is protected when its node runs short: Guaranteed when CPU and memory of every
// container are limited to what they request, BestEffort when nothing is asked for, and Burstable in between.
// Resources of the pod as a whole count instead of its containers'.
func QOSClass(p *corev1.Pod) corev1.PodQOSClass {
	if p.Status.QOSClass != "" {
		return p.Status.QOSClass
	}
	var all []corev1.ResourceRequirements
	if r := p.Spec.Resources; r != nil && (len(r.Limits) > 0 || len(r.Requests) > 0) {
		all = append(all, *r)
	} else {
		for _, c := range p.Spec.Containers {
			all = append(all, c.Resources)
		}
		for _, c := range p.Spec.InitContainers {
			all = append(all, c.Resources)
		}
	}
	any, guaranteed := false, true
	for _, r := range all {
		for _, name := range []corev1.ResourceName{corev1.ResourceCPU, corev1.ResourceMemory} {
			request, limit := positive(r.Requests, name), positive(r.Limits, name)
			any = any || request != nil || limit != nil
			if limit == nil || (request != nil && request.Cmp(*limit) != 0) {
				guaranteed = false
			}
		}
	}
	switch {
	case !any:
		return corev1.PodQOSBestEffort
	case guaranteed:
		return corev1.PodQOSGuaranteed
	}
	return corev1.PodQOSBurstable
}

func positive(list corev1.ResourceList, name corev1.ResourceName) *resource.Quantity {
	if q, ok := list[name]; ok && q.Sign() > 0 {
		return &q
	}
	return nil
}
