package statefulset

import (
	"maps"
	"slices"
	"strconv"
	"strings"

	appsv1 "k8s.io/api/apps/v1"
	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"

	"github.com/podvine/podvine/agent/control/workloads/pods"
)

// kind is that of the owners.
func kind() schema.GroupVersionKind { return appsv1.SchemeGroupVersion.WithKind("StatefulSet") }

// ordinal is the pod's number in the set, from its name; ok is false for a name that is none of the set's.
func ordinal(set *appsv1.StatefulSet, pod string) (n int, ok bool) {
	digits, ok := strings.CutPrefix(pod, set.Name+"-")
	if !ok || digits == "" || strings.TrimLeft(digits, "0123456789") != "" {
		return 0, false
	}
	n, err := strconv.Atoi(digits)
	return n, err == nil && podName(set, n) == pod // no zeros before
}

func podName(set *appsv1.StatefulSet, ordinal int) string {
	return set.Name + "-" + strconv.Itoa(ordinal)
}

// claimName is the name of the claim that a pod has from a template.
func claimName(set *appsv1.StatefulSet, template string, ordinal int) string {
	return template + "-" + podName(set, ordinal)
}

// claimNames are the names of all claims of a pod.
func claimNames(set *appsv1.StatefulSet, ordinal int) []string {
	names := make([]string, len(set.Spec.VolumeClaimTemplates))
	for i := range set.Spec.VolumeClaimTemplates {
		names[i] = claimName(set, set.Spec.VolumeClaimTemplates[i].Name, ordinal)
	}
	return names
}

// podOfClaim is the name of the pod that a claim is for, or "" when it is for none of the set's.
func podOfClaim(set *appsv1.StatefulSet, claim string) string {
	for i := range set.Spec.VolumeClaimTemplates {
		pod, ok := strings.CutPrefix(claim, set.Spec.VolumeClaimTemplates[i].Name+"-")
		if _, named := ordinal(set, pod); ok && named {
			return pod
		}
	}
	return ""
}

func first(set *appsv1.StatefulSet) int {
	if set.Spec.Ordinals == nil {
		return 0
	}
	return int(set.Spec.Ordinals.Start)
}

func size(set *appsv1.StatefulSet) int { return int(pods.Value(set.Spec.Replicas, 1)) }

// newPod makes the pod of an ordinal.
func newPod(set *appsv1.StatefulSet, template *v1.PodTemplateSpec, revision string, ordinal int) *v1.Pod {
	pod := pods.FromTemplate(template, set, kind())
	pod.GenerateName, pod.Name = "", podName(set, ordinal)
	pod.Labels = identityLabels(pod.Labels, pod.Name, ordinal)
	pod.Labels[appsv1.StatefulSetRevisionLabel] = revision
	pod.Spec.Hostname, pod.Spec.Subdomain = pod.Name, set.Spec.ServiceName
	own := make([]v1.Volume, 0, len(set.Spec.VolumeClaimTemplates)+len(pod.Spec.Volumes))
	for i := range set.Spec.VolumeClaimTemplates {
		name := set.Spec.VolumeClaimTemplates[i].Name
		own = append(own, v1.Volume{Name: name, VolumeSource: v1.VolumeSource{
			PersistentVolumeClaim: &v1.PersistentVolumeClaimVolumeSource{ClaimName: claimName(set, name, ordinal)}}})
	}
	for _, v := range pod.Spec.Volumes { // a claim template takes the place of a volume of its name
		if !slices.ContainsFunc(own, func(o v1.Volume) bool { return o.Name == v.Name }) {
			own = append(own, v)
		}
	}
	pod.Spec.Volumes = own
	return pod
}

// identityLabels adds to labels those by which a pod is known.
func identityLabels(labels map[string]string, name string, ordinal int) map[string]string {
	labels = maps.Clone(labels)
	if labels == nil {
		labels = map[string]string{}
	}
	labels[appsv1.StatefulSetPodNameLabel] = name
	labels[appsv1.PodIndexLabel] = strconv.Itoa(ordinal)
	return labels
}

// identified is a copy of the pod with the labels of its identity, or nil when it has them.
func identified(pod *v1.Pod, ordinal int) *v1.Pod {
	labels := identityLabels(pod.Labels, pod.Name, ordinal)
	if maps.Equal(labels, pod.Labels) {
		return nil
	}
	next := pod.DeepCopy()
	next.Labels = labels
	return next
}

// newClaim makes a pod's claim from a template.
func newClaim(set *appsv1.StatefulSet, template *v1.PersistentVolumeClaim, ordinal int) *v1.PersistentVolumeClaim {
	labels := maps.Clone(template.Labels)
	if labels == nil {
		labels = map[string]string{}
	}
	if set.Spec.Selector != nil {
		maps.Copy(labels, set.Spec.Selector.MatchLabels)
	}
	claim := &v1.PersistentVolumeClaim{
		ObjectMeta: metav1.ObjectMeta{Namespace: set.Namespace, Name: claimName(set, template.Name, ordinal),
			Labels: labels, Annotations: maps.Clone(template.Annotations)},
		Spec: *template.Spec.DeepCopy(),
	}
	claim.OwnerReferences = claimOwners(set, nil, true, nil)
	return claim
}

// claimOwners are the owner references of a claim under the set's retention policy: the set's own, so that the claim ends
// with it, or the pod's that is scaled away, so that the claim ends with that. Others' references stay; with another
// controller among them nothing is changed.
func claimOwners(set *appsv1.StatefulSet, pod *v1.Pod, inRange bool, refs []metav1.OwnerReference) []metav1.OwnerReference {
	ours := func(r metav1.OwnerReference) bool {
		return r.Kind == kind().Kind && r.Name == set.Name || pod != nil && r.Kind == "Pod" && r.Name == pod.Name
	}
	var kept []metav1.OwnerReference
	for _, r := range refs {
		switch {
		case ours(r):
		case r.Controller != nil && *r.Controller:
			return refs
		default:
			kept = append(kept, r)
		}
	}
	yes := true
	reference := func(version, kind, name string, uid types.UID) metav1.OwnerReference {
		return metav1.OwnerReference{APIVersion: version, Kind: kind, Name: name, UID: uid, Controller: &yes}
	}
	policy := pods.Value(set.Spec.PersistentVolumeClaimRetentionPolicy, appsv1.StatefulSetPersistentVolumeClaimRetentionPolicy{})
	switch remove := appsv1.DeletePersistentVolumeClaimRetentionPolicyType; {
	case policy.WhenScaled == remove && !inRange && pod != nil:
		return append(kept, reference("v1", "Pod", pod.Name, pod.UID))
	case policy.WhenDeleted == remove && (inRange || policy.WhenScaled != remove):
		return append(kept, reference(kind().GroupVersion().String(), kind().Kind, set.Name, set.UID))
	}
	return kept
}

// stale tells whether a claim is about to go, and why it must not be used for a new pod: it is being deleted, or it
// belongs to an earlier pod of the name and goes after it.
func stale(claim *v1.PersistentVolumeClaim, pod string) bool {
	return claim.DeletionTimestamp != nil || slices.ContainsFunc(claim.OwnerReferences, func(r metav1.OwnerReference) bool {
		return r.Kind == "Pod" && r.APIVersion == "v1" && r.Name == pod
	})
}
