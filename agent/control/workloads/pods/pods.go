// Package pods holds what the workload loops have to know of pods: whether one counts, is ready and since when,
// and how one is made from a template.
//
// Role: pure functions over API objects, shared by all workload loops. It owns no state and starts nothing.
//
// Concurrency: all functions are safe; none changes its arguments.
package pods

import (
	"fmt"
	"strconv"
	"time"

	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/validation"

	"github.com/podvine/podvine/agent/phase"
)

// Active tells whether the pod runs or may yet run.
func Active(pod *v1.Pod) bool {
	return !phase.Ended(pod.Status.Phase) && pod.DeletionTimestamp == nil
}

// Terminating tells whether the pod is being deleted and has not ended.
func Terminating(pod *v1.Pod) bool {
	return !phase.Ended(pod.Status.Phase) && pod.DeletionTimestamp != nil
}

// Ready tells whether the pod is ready, and since when.
func Ready(pod *v1.Pod) (ready bool, since time.Time) {
	for i := range pod.Status.Conditions {
		if c := &pod.Status.Conditions[i]; c.Type == v1.PodReady && c.Status == v1.ConditionTrue {
			return true, c.LastTransitionTime.Time
		}
	}
	return false, time.Time{}
}

// DeletionCost is the pod's annotated cost; 0 when there is none that can be read.
func DeletionCost(pod *v1.Pod) int32 {
	cost, err := strconv.ParseInt(pod.Annotations[v1.PodDeletionCost], 10, 32)
	if err != nil {
		return 0
	}
	return int32(cost)
}

// Restarts is the highest restart count of the pod's containers.
func Restarts(pod *v1.Pod) (most int32) {
	for i := range pod.Status.ContainerStatuses {
		most = max(most, pod.Status.ContainerStatuses[i].RestartCount)
	}
	return most
}

// Value is the pointed-to value, or the default.
func Value[T any](p *T, unset T) T {
	if p == nil {
		return unset
	}
	return *p
}

// FromTemplate makes a pod for its controller, to be named by the API.
func FromTemplate(template *v1.PodTemplateSpec, owner metav1.Object, kind schema.GroupVersionKind) *v1.Pod {
	pod := &v1.Pod{ObjectMeta: *template.ObjectMeta.DeepCopy(), Spec: *template.Spec.DeepCopy()}
	pod.ObjectMeta = metav1.ObjectMeta{
		Namespace:       owner.GetNamespace(),
		GenerateName:    prefix(owner.GetName()),
		Labels:          pod.Labels,
		Annotations:     pod.Annotations,
		Finalizers:      pod.Finalizers,
		OwnerReferences: []metav1.OwnerReference{*metav1.NewControllerRef(owner, kind)},
	}
	return pod
}

// prefix is the owner's name and a dash where that can still start a name.
func prefix(name string) string {
	dashed := fmt.Sprintf("%s-", name)
	if len(validation.IsDNS1123Subdomain(dashed+"x")) > 0 {
		return name
	}
	return dashed
}

// Available tells whether the pod has been ready for minReadySeconds, and, where only time is missing, how much.
func Available(pod *v1.Pod, minReadySeconds int32, now time.Time) (available bool, left time.Duration) {
	ready, since := Ready(pod)
	if !ready {
		return false, 0
	}
	left = since.Add(time.Duration(minReadySeconds) * time.Second).Sub(now)
	if minReadySeconds == 0 || left <= 0 {
		return true, 0
	}
	return false, left
}

// Claim sorts pods into those of the owner, those to adopt and those to release. matches says whether a pod looks like the
// owner's, and adoptable whether one that looks so, and has no controller, is worth having. An owner that ends takes no pod
// on and lets none go.
func Claim(all []*v1.Pod, owner metav1.Object, matches, adoptable func(*v1.Pod) bool) (own, adopt, release []*v1.Pod) {
	alive := owner.GetDeletionTimestamp() == nil
	for _, pod := range all {
		controller := metav1.GetControllerOfNoCopy(pod)
		switch {
		case controller != nil && controller.UID != owner.GetUID():
		case controller != nil && matches(pod):
			own = append(own, pod)
		case controller != nil && alive:
			release = append(release, pod)
		case controller == nil && alive && pod.DeletionTimestamp == nil && matches(pod) && adoptable(pod):
			adopt = append(adopt, pod)
			own = append(own, pod)
		}
	}
	return own, adopt, release
}

// Any is true of every pod.
func Any(*v1.Pod) bool { return true }

// Sooner is the shorter of two delays, of which 0 is none.
func Sooner(a, b time.Duration) time.Duration {
	if a == 0 || b != 0 && b < a {
		return b
	}
	return a
}
