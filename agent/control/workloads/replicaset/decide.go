package replicaset

import (
	"cmp"
	"slices"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"

	"github.com/podvine/podvine/agent/control/workloads/pods"
)

// BurstReplicas is the most pods created or deleted for one ReplicaSet in one step, as in Kubernetes.
const BurstReplicas = 500

// View is what a decision about one ReplicaSet is made on. Nothing in it is changed.
type View struct {
	Set *appsv1.ReplicaSet
	// Pods of the namespace whose controller is the set, or that have none.
	Pods []*v1.Pod
	// Unseen is how many pods the loop created that Pods does not show yet, and Deleted those of Pods that it
	// deleted already.
	Unseen  int
	Deleted map[types.UID]bool
	// PodsOnNode is how many active pods of the same Deployment run on a node, for the order of deletion.
	PodsOnNode map[string]int
}

// Plan is what shall be done, in this order.
type Plan struct {
	Adopt, Release []*v1.Pod
	Create         int
	Delete         []*v1.Pod
	// Status that the set should report, as far as it is known before Create and Delete are done.
	Status appsv1.ReplicaSetStatus
	// Again is when the status will change by the passing of time alone (minReadySeconds); 0 is never.
	Again time.Duration
}

// Decide is pure.
func Decide(view View, now time.Time) Plan {
	var plan Plan
	set := view.Set
	selector, err := metav1.LabelSelectorAsSelector(set.Spec.Selector)
	if err != nil || selector.Empty() {
		plan.Status = *set.Status.DeepCopy() // a set that selects everything must not take everything
		plan.Status.ObservedGeneration = set.Generation
		return plan
	}
	matches := func(pod *v1.Pod) bool { return selector.Matches(labels.Set(pod.Labels)) }
	var owned []*v1.Pod
	owned, plan.Adopt, plan.Release = pods.Claim(view.Pods, set, matches, pods.Active)
	var active []*v1.Pod
	terminating := int32(0)
	for _, pod := range owned {
		switch {
		case view.Deleted[pod.UID] || pods.Terminating(pod):
			terminating++
		case pods.Active(pod):
			active = append(active, pod)
		}
	}
	if set.DeletionTimestamp == nil {
		scale(view, active, now, &plan)
	}
	plan.Status, plan.Again = status(set, active, terminating, now)
	return plan
}

func scale(view View, active []*v1.Pod, now time.Time, plan *Plan) {
	missing := int(pods.Value(view.Set.Spec.Replicas, 1)) - len(active) - view.Unseen
	switch {
	case missing > 0:
		plan.Create = min(missing, BurstReplicas)
	case missing < 0 && view.Unseen == 0: // with creations unseen, the best victims may not be known yet
		plan.Delete = victims(active, min(-missing, BurstReplicas), view.PodsOnNode, now)
	}
}

// victims are the pods whose loss costs least.
func victims(active []*v1.Pod, count int, onNode map[string]int, now time.Time) []*v1.Pod {
	if count >= len(active) {
		return active
	}
	order := slices.Clone(active)
	slices.SortStableFunc(order, func(a, b *v1.Pod) int { return compare(a, b, onNode, now) })
	return order[:count]
}

// compare puts first what to delete first: without a node before with one, pending before unknown before
// running, not ready before ready, cheaper by annotation, on a node with more of its kind, ready for a shorter
// time, restarted more, younger. Times are compared by their order of magnitude, so that age does not decide
// among pods that started together.
func compare(a, b *v1.Pod, onNode map[string]int, now time.Time) int {
	phase := func(p *v1.Pod) int {
		switch p.Status.Phase {
		case v1.PodPending:
			return 0
		case v1.PodUnknown:
			return 1
		}
		return 2
	}
	truth := func(b bool) int {
		if b {
			return 1
		}
		return 0
	}
	readyA, sinceA := pods.Ready(a)
	readyB, sinceB := pods.Ready(b)
	order := cmp.Or(
		cmp.Compare(truth(a.Spec.NodeName != ""), truth(b.Spec.NodeName != "")),
		cmp.Compare(phase(a), phase(b)),
		cmp.Compare(truth(readyA), truth(readyB)),
		cmp.Compare(pods.DeletionCost(a), pods.DeletionCost(b)),
		cmp.Compare(onNode[b.Spec.NodeName], onNode[a.Spec.NodeName]),
	)
	if order == 0 && readyA && readyB {
		order = cmp.Compare(magnitude(sinceA, now), magnitude(sinceB, now))
	}
	return cmp.Or(order,
		cmp.Compare(pods.Restarts(b), pods.Restarts(a)),
		cmp.Compare(magnitude(a.CreationTimestamp.Time, now), magnitude(b.CreationTimestamp.Time, now)),
		cmp.Compare(a.UID, b.UID))
}

// magnitude is the binary logarithm of the age in seconds.
func magnitude(at, now time.Time) int {
	if at.IsZero() {
		return -1
	}
	bits := 0
	for age := int64(now.Sub(at) / time.Second); age > 0; age >>= 1 {
		bits++
	}
	return bits
}

// status counts the pods. again is when the next ready pod becomes available.
func status(set *appsv1.ReplicaSet, active []*v1.Pod, terminating int32, now time.Time) (appsv1.ReplicaSetStatus, time.Duration) {
	s := *set.Status.DeepCopy()
	s.Replicas, s.ObservedGeneration = int32(len(active)), set.Generation
	s.FullyLabeledReplicas, s.ReadyReplicas, s.AvailableReplicas = 0, 0, 0
	s.TerminatingReplicas = &terminating
	template := labels.SelectorFromSet(set.Spec.Template.Labels)
	var again time.Duration
	for _, pod := range active {
		if template.Matches(labels.Set(pod.Labels)) {
			s.FullyLabeledReplicas++
		}
		if ready, _ := pods.Ready(pod); ready {
			s.ReadyReplicas++
		}
		available, left := pods.Available(pod, set.Spec.MinReadySeconds, now)
		if available {
			s.AvailableReplicas++
		}
		again = pods.Sooner(again, left)
	}
	return s, again
}

// Failed returns the conditions with ReplicaFailure set by what scaling came to; reason is empty when all went well.
func Failed(conditions []appsv1.ReplicaSetCondition, reason, message string, now time.Time) []appsv1.ReplicaSetCondition {
	is := func(c appsv1.ReplicaSetCondition) bool { return c.Type == appsv1.ReplicaSetReplicaFailure }
	at := slices.IndexFunc(conditions, is)
	switch {
	case reason == "" && at < 0:
		return conditions
	case reason == "":
		return slices.DeleteFunc(slices.Clone(conditions), is)
	case at >= 0:
		return conditions // the first failure stays until scaling works again
	}
	return append(slices.Clone(conditions), appsv1.ReplicaSetCondition{Type: appsv1.ReplicaSetReplicaFailure,
		Status: v1.ConditionTrue, Reason: reason, Message: message, LastTransitionTime: metav1.NewTime(now)})
}
