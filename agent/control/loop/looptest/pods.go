package looptest

import (
	"fmt"
	"time"

	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

// Put brings a pod into the states that words tell, as of now: "ready", "leaving", "failed". A word that it does not
// know is the caller's own. "deleted" is one that the loop deleted and the informer still shows: it is added to deleted.
func Put(pod *v1.Pod, states []string, deleted map[types.UID]bool, now time.Time) {
	for _, state := range states {
		switch state {
		case "ready":
			pod.Status.Conditions = []v1.PodCondition{{Type: v1.PodReady, Status: v1.ConditionTrue, LastTransitionTime: metav1.NewTime(now)}}
		case "leaving":
			pod.DeletionTimestamp = &metav1.Time{Time: now}
		case "deleted":
			deleted[pod.UID] = true
		case "failed":
			pod.Status.Phase = v1.PodFailed
		case "ended":
			pod.Status.Phase = v1.PodSucceeded
		case "pending":
			pod.Status.Phase = v1.PodPending
		case "waiting":
			pod.Spec.NodeName = ""
		case "orphan":
			pod.OwnerReferences = nil
		case "relabelled":
			pod.Labels = map[string]string{"app": "other"}
		}
	}
}

// Said is what is done to objects, in words: "adopt a", "adopt b".
func Said[T metav1.Object](verb string, objects []T) []string {
	out := make([]string, 0, len(objects))
	for _, object := range objects {
		out = append(out, fmt.Sprint(verb, " ", object.GetName()))
	}
	return out
}
