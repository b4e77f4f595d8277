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
)

// Active tells whether the pod runs or may yet run.
func Active(pod *v1.Pod) bool {
	return pod.Status.Phase != v1.PodSucceeded && pod.Status.Phase != v1.PodFailed && pod.DeletionTimestamp == nil
}

// Terminating tells whether the pod is being deleted and has not ended.
func Terminating(pod *v1.Pod) bool {
	return pod.DeletionTimestamp != nil && pod.Status.Phase != v1.PodSucceeded && pod.Status.Phase != v1.PodFailed
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
