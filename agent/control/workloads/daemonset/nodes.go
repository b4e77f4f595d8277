package daemonset

import (
	appsv1 "k8s.io/api/apps/v1"
	v1 "k8s.io/api/core/v1"
	"k8s.io/component-helpers/scheduling/corev1/nodeaffinity"
	"k8s.io/klog/v2"

	"github.com/podvine/podvine/agent/control/workloads/pods"
)

// nodeField is the field of nodes by which a pod is bound to one.
const nodeField = "metadata.name"

// tolerations are those of every daemon pod: troubles of a node that daemons are there for, or must outlive.
func tolerations(template *v1.PodSpec) []v1.Toleration {
	out := []v1.Toleration{
		{Key: v1.TaintNodeNotReady, Operator: v1.TolerationOpExists, Effect: v1.TaintEffectNoExecute},
		{Key: v1.TaintNodeUnreachable, Operator: v1.TolerationOpExists, Effect: v1.TaintEffectNoExecute},
		{Key: v1.TaintNodeDiskPressure, Operator: v1.TolerationOpExists, Effect: v1.TaintEffectNoSchedule},
		{Key: v1.TaintNodeMemoryPressure, Operator: v1.TolerationOpExists, Effect: v1.TaintEffectNoSchedule},
		{Key: v1.TaintNodePIDPressure, Operator: v1.TolerationOpExists, Effect: v1.TaintEffectNoSchedule},
		{Key: v1.TaintNodeUnschedulable, Operator: v1.TolerationOpExists, Effect: v1.TaintEffectNoSchedule},
	}
	if template.HostNetwork {
		out = append(out, v1.Toleration{Key: v1.TaintNodeNetworkUnavailable, Operator: v1.TolerationOpExists, Effect: v1.TaintEffectNoSchedule})
	}
	return out
}

// withTolerations adds those that are missing.
func withTolerations(own, more []v1.Toleration) []v1.Toleration {
	for _, t := range more {
		known := false
		for i := range own {
			known = known || own[i].MatchToleration(&t)
		}
		if !known {
			own = append(own, t)
		}
	}
	return own
}

// newPod makes the pod of a node: bound to it by an affinity, placed by the scheduler like any other.
func newPod(set *appsv1.DaemonSet, hash, node string) *v1.Pod {
	pod := pods.FromTemplate(&set.Spec.Template, set, kind())
	if pod.Labels == nil {
		pod.Labels = map[string]string{}
	}
	pod.Labels[appsv1.DefaultDaemonSetUniqueLabelKey] = hash
	if generation := set.Annotations[appsv1.DeprecatedTemplateGeneration]; generation != "" {
		pod.Labels["pod-template-generation"] = generation
	}
	pod.Spec.Tolerations = withTolerations(pod.Spec.Tolerations, tolerations(&pod.Spec))
	if pod.Spec.Affinity == nil {
		pod.Spec.Affinity = &v1.Affinity{}
	}
	if pod.Spec.Affinity.NodeAffinity == nil {
		pod.Spec.Affinity.NodeAffinity = &v1.NodeAffinity{}
	}
	// The template's own terms were asked when the node was chosen.
	pod.Spec.Affinity.NodeAffinity.RequiredDuringSchedulingIgnoredDuringExecution = &v1.NodeSelector{NodeSelectorTerms: []v1.NodeSelectorTerm{{
		MatchFields: []v1.NodeSelectorRequirement{{Key: nodeField, Operator: v1.NodeSelectorOpIn, Values: []string{node}}}}}}
	return pod
}

// nodeOf is the node that a pod is on or for; "" when it is for none in particular.
func nodeOf(pod *v1.Pod) string {
	if pod.Spec.NodeName != "" {
		return pod.Spec.NodeName
	}
	if a := pod.Spec.Affinity; a != nil && a.NodeAffinity != nil && a.NodeAffinity.RequiredDuringSchedulingIgnoredDuringExecution != nil {
		for _, term := range a.NodeAffinity.RequiredDuringSchedulingIgnoredDuringExecution.NodeSelectorTerms {
			for _, r := range term.MatchFields {
				if r.Key == nodeField && r.Operator == v1.NodeSelectorOpIn && len(r.Values) == 1 {
					return r.Values[0]
				}
			}
		}
	}
	return ""
}

// fits tells whether a pod of the set belongs on the node, and whether one that is there may stay.
func fits(set *appsv1.DaemonSet, node *v1.Node) (run, stay bool) {
	spec := &set.Spec.Template.Spec
	if spec.NodeName != "" && spec.NodeName != node.Name {
		return false, false
	}
	matches, err := nodeaffinity.GetRequiredNodeAffinity(&v1.Pod{Spec: *spec}).Match(node)
	if err != nil || !matches {
		return false, false
	}
	own := withTolerations(append([]v1.Toleration(nil), spec.Tolerations...), tolerations(spec))
	run, stay = true, true
	for i := range node.Spec.Taints {
		taint := &node.Spec.Taints[i]
		if taint.Effect == v1.TaintEffectPreferNoSchedule || tolerated(own, taint) {
			continue
		}
		run = false
		stay = stay && taint.Effect != v1.TaintEffectNoExecute
	}
	return run, stay
}

func tolerated(tolerations []v1.Toleration, taint *v1.Taint) bool {
	for i := range tolerations {
		if tolerations[i].ToleratesTaint(klog.Logger{}, taint, true) {
			return true
		}
	}
	return false
}
