package nodes

import (
	"time"

	v1 "k8s.io/api/core/v1"
	"k8s.io/klog/v2"

	"github.com/podvine/podvine/agent/isolation"
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

// DecidePod is pure. node is nil when there is none of the pod's node name; missing is since when. released says that the node's lease is
// over, so that it has stopped the pods that stop when it is cut off.
func DecidePod(pod *v1.Pod, node *v1.Node, missing, now time.Time, released bool) PodVerdict {
	ended := pod.Status.Phase == v1.PodSucceeded || pod.Status.Phase == v1.PodFailed
	switch {
	case pod.Spec.NodeName == "" && pod.DeletionTimestamp != nil:
		return PodVerdict{Action: Remove}
	case pod.Spec.NodeName == "":
		return PodVerdict{}
	case node == nil:
		if left := missing.Add(OrphanQuarantineSeconds * time.Second).Sub(now); left > 0 {
			return PodVerdict{Again: left}
		}
		return PodVerdict{Action: Confirm}
	case pod.DeletionTimestamp != nil:
		if !isReady(node) && hasTaint(node, v1.TaintNodeOutOfService) {
			return PodVerdict{Action: Remove}
		}
		switch stops := !isReady(node) && isolation.Stops(pod.Annotations); {
		case stops && released:
			return PodVerdict{Action: Remove}
		case stops:
			return PodVerdict{Again: releasePause}
		}
		return PodVerdict{}
	case ended:
		return PodVerdict{}
	}
	at, evict := evictAt(pod, node, now)
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

// evictAt is the earliest end of the pod's patience with any NoExecute taint, counted from the taint's time.
func evictAt(pod *v1.Pod, node *v1.Node, now time.Time) (at time.Time, evict bool) {
	for i := range node.Spec.Taints {
		taint := &node.Spec.Taints[i]
		if taint.Effect != v1.TaintEffectNoExecute {
			continue
		}
		patience, forever := patience(pod, taint)
		if forever {
			continue
		}
		end := now // a taint without a time takes effect when it is seen, as does one that is not tolerated
		if patience > 0 && taint.TimeAdded != nil {
			end = taint.TimeAdded.Add(patience)
		} else if patience > 0 {
			end = now.Add(patience)
		}
		if !evict || end.Before(at) {
			at, evict = end, true
		}
	}
	return at, evict
}

// patience is how long the pod tolerates the taint: the shortest of the tolerations that match it.
func patience(pod *v1.Pod, taint *v1.Taint) (shortest time.Duration, forever bool) {
	tolerated, bounded := false, false
	for i := range pod.Spec.Tolerations {
		t := &pod.Spec.Tolerations[i]
		if !t.ToleratesTaint(klog.Logger{}, taint, true) {
			continue
		}
		tolerated = true
		if t.TolerationSeconds == nil {
			continue
		}
		seconds := time.Duration(max(0, *t.TolerationSeconds)) * time.Second
		if !bounded || seconds < shortest {
			shortest, bounded = seconds, true
		}
	}
	return shortest, tolerated && !bounded
}
