package nodes

import (
	"time"

	v1 "k8s.io/api/core/v1"
	"k8s.io/klog/v2"

	"github.com/podvine/podvine/agent/isolation"
	"github.com/podvine/podvine/agent/phase"
)

// OrphanQuarantineSeconds is how long a pod's node must have been missing before the pod goes: a node object
// may be made anew, and informers of pods and nodes do not run in step.
const OrphanQuarantineSeconds = 40

// PodAction is what shall become of a pod.
type PodAction uint8

// Actions.
const (
	Keep PodAction = iota
	// Evict deletes with the pod's grace period.
	Evict
	// Confirm asks the API whether the pod's node is really gone, and then fails and removes the pod.
	Confirm
	// Remove deletes at once: nobody is there to end the pod.
	Remove
)

// PodVerdict is a decision about one pod.
type PodVerdict struct {
	Action PodAction
	// Again is when to decide anew; 0 is at the next event.
	Again time.Duration
	// Pending: an eviction is due at Again.
	Pending bool
}

// releasePause is between two looks at whether a node that is cut off has stopped a pod.
const releasePause = 500 * time.Millisecond

// PodView is what a decision about one pod is made on.
type PodView struct {
	Pod *v1.Pod
	// Node of the pod; nil when there is none of its name. Missing is since when.
	Node    *v1.Node
	Missing time.Time
	// Pending is since when an eviction has been due; zero when none was. Patience with taints that have no time counts from there.
	Pending time.Time
	// Released says that the node's lease is over, so that it has stopped the pods that stop when it is cut off.
	Released bool
}

// DecidePod is pure.
func DecidePod(view PodView, now time.Time) PodVerdict {
	pod, node := view.Pod, view.Node
	switch {
	case pod.Spec.NodeName == "" && pod.DeletionTimestamp != nil:
		return PodVerdict{Action: Remove}
	case pod.Spec.NodeName == "":
		return PodVerdict{}
	case node == nil:
		if left := view.Missing.Add(OrphanQuarantineSeconds * time.Second).Sub(now); left > 0 {
			return PodVerdict{Again: left}
		}
		return PodVerdict{Action: Confirm}
	case pod.DeletionTimestamp != nil:
		if !isReady(node) && hasTaint(node, v1.TaintNodeOutOfService) {
			return PodVerdict{Action: Remove}
		}
		switch stops := !isReady(node) && isolation.Stops(pod.Annotations); {
		case stops && view.Released:
			return PodVerdict{Action: Remove}
		case stops:
			return PodVerdict{Again: releasePause}
		}
		return PodVerdict{}
	case phase.Ended(pod.Status.Phase):
		return PodVerdict{}
	}
	at, evict := evictAt(view, now)
	switch {
	case !evict:
		return PodVerdict{}
	case !now.Before(at):
		return PodVerdict{Action: Evict}
	}
	return PodVerdict{Again: at.Sub(now), Pending: true}
}

func hasTaint(node *v1.Node, key string) bool {
	for i := range node.Spec.Taints {
		if node.Spec.Taints[i].Key == key {
			return true
		}
	}
	return false
}

// evictAt is the earliest end of the pod's patience with any NoExecute taint, counted from the taint's time. Users' taints have none.
func evictAt(view PodView, now time.Time) (at time.Time, evict bool) {
	seen := now
	if !view.Pending.IsZero() {
		seen = view.Pending
	}
	for i := range view.Node.Spec.Taints {
		taint := &view.Node.Spec.Taints[i]
		if taint.Effect != v1.TaintEffectNoExecute {
			continue
		}
		patience, forever := patience(view.Pod, taint)
		if forever {
			continue
		}
		end := now // what is not tolerated takes effect at once
		switch {
		case patience == 0:
		case taint.TimeAdded == nil, taint.TimeAdded.After(now): // by a leader whose clock was ahead
			end = seen.Add(patience)
		default:
			end = taint.TimeAdded.Add(patience)
		}
		if !evict || end.Before(at) {
			at, evict = end, true
		}
	}
	return at, evict
}

// patience is how long the pod tolerates the taint, by the first of its tolerations that matches.
func patience(pod *v1.Pod, taint *v1.Taint) (patience time.Duration, forever bool) {
	for i := range pod.Spec.Tolerations {
		t := &pod.Spec.Tolerations[i]
		if !t.ToleratesTaint(klog.Logger{}, taint, true) {
			continue
		}
		if t.TolerationSeconds == nil {
			return 0, true
		}
		return time.Duration(max(0, *t.TolerationSeconds)) * time.Second, false
	}
	return 0, false
}
