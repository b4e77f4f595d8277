package lifecycle

import (
	corev1 "k8s.io/api/core/v1"
)

// QOS is the pod's quality of service, from its requests and limits.
func QOS(pod *corev1.Pod) corev1.PodQOSClass {
	if pod.Status.QOSClass != "" {
		return pod.Status.QOSClass
	}
	if r := pod.Spec.Resources; r != nil && len(r.Requests)+len(r.Limits) > 0 {
		return classify([]corev1.ResourceRequirements{{Requests: r.Requests, Limits: r.Limits}})
	}
	all := make([]corev1.ResourceRequirements, 0, len(pod.Spec.Containers)+len(pod.Spec.InitContainers))
	for i := range pod.Spec.InitContainers {
		all = append(all, pod.Spec.InitContainers[i].Resources)
	}
	for i := range pod.Spec.Containers {
		all = append(all, pod.Spec.Containers[i].Resources)
	}
	return classify(all)
}

func classify(all []corev1.ResourceRequirements) corev1.PodQOSClass {
	asked, guaranteed := false, true
	for _, r := range all {
		for _, name := range []corev1.ResourceName{corev1.ResourceCPU, corev1.ResourceMemory} {
			lim, hasLim := r.Limits[name]
			req, hasReq := r.Requests[name]
			hasLim, hasReq = hasLim && !lim.IsZero(), hasReq && !req.IsZero()
			asked = asked || hasLim || hasReq
			if !hasLim || (hasReq && lim.Cmp(req) != 0) {
				guaranteed = false
			}
		}
	}
	switch {
	case !asked:
		return corev1.PodQOSBestEffort
	case guaranteed:
		return corev1.PodQOSGuaranteed
	}
	return corev1.PodQOSBurstable
}
