package nodes

import (
	"slices"
	"time"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

const (
	// DeadReason is the reason of the conditions of a node that is believed dead. A node's agent that sees it
	// on its own node writes its conditions anew.
	DeadReason  = "NodeStatusUnknown"
	deadMessage = "Kubelet stopped posting node status."
	neverReason = "NodeStatusNeverUpdated"
	neverText   = "Kubelet never posted node status."
)

const (
	// stormShare is the share of nodes not ready from which a cut on our side is the likelier cause, and
	// stormNodes how many they must be at least.
	stormShare = 0.55
	stormNodes = 3
	// stormSeconds is when to look again whether the storm is over.
	stormSeconds = 5
	// reviveSeconds is how long an agent that calls its node ready is believed against gossip.
	reviveSeconds = 10
	// unknownGraceSeconds is how long a node that liveness knows nothing of is left as it is: a new leader's
	// gossip may still be gathering its members, and the agent of a new node may have yet to say anything.
	unknownGraceSeconds = 40
	// leaseGraceSeconds is how long a node that another agent than Podvine's keeps is alive after it has renewed its lease, as Kubernetes'
	// node-monitor-grace-period.
	leaseGraceSeconds = 50
)

// Storm tells whether so many nodes look dead that evictions must wait.
func Storm(ready, notReady int) bool {
	return ready == 0 && notReady > 0 || notReady >= stormNodes && float64(notReady) >= stormShare*float64(ready+notReady)
}

// NodeView is what a decision about one node is made on.
type NodeView struct {
	Node *v1.Node
	// Alive and Since are what liveness says; a zero Since with Alive false is "never heard of".
	Alive bool
	Since time.Time
	// Renewed is when a node of which liveness never heard last renewed its lease; zero when it has none.
	Renewed time.Time
	// Watching is since when this loop runs.
	Watching time.Time
	Storm    bool
}

// NodePlan is what to write; nil slices are left as they are.
type NodePlan struct {
	Conditions []v1.NodeCondition
	Taints     []v1.Taint
	SetTaints  bool
	// Again is when to look again; 0 is at the next event.
	Again time.Duration
}

// DecideNode is pure.
func DecideNode(view NodeView, now time.Time) NodePlan {
	var plan NodePlan
	conditions := view.Node.Status.Conditions
	switch {
	case view.Alive:
	case around(revived(view), now, reviveSeconds*time.Second):
		// Its agent answers though gossip does not hear it; two writers must not take turns at its conditions.
		plan.Again = reviveSeconds*time.Second - now.Sub(revived(view))
		view.Alive = true
	case view.Since.IsZero() && around(view.Renewed, now, leaseGraceSeconds*time.Second):
		// Another agent keeps it: no member, and alive by its lease.
		plan.Again = leaseGraceSeconds*time.Second - now.Sub(view.Renewed)
		view.Alive = true
	case view.Since.IsZero() && now.Sub(view.unheard()) < unknownGraceSeconds*time.Second:
		plan.Again = unknownGraceSeconds*time.Second - now.Sub(view.unheard())
	default:
		if dead, changed := markDead(conditions, now); changed {
			plan.Conditions, conditions = dead, dead
		}
	}
	if view.Storm && !isReady(view.Node) {
		plan.Again = stormSeconds * time.Second
	}
	taints := wantedTaints(view, conditions, now)
	if !equality.Semantic.DeepEqual(taints, view.Node.Spec.Taints) {
		plan.Taints, plan.SetTaints = taints, true
	}
	return plan
}

// around tells whether what a node wrote, by a clock of its own, was written within the span. What seems to be farther in the future is by
// a clock that is wrong, and says nothing.
func around(written, now time.Time, span time.Duration) bool {
	ago := now.Sub(written)
	return -span < ago && ago < span
}

// unheard is since when liveness could have heard of the node.
func (v NodeView) unheard() time.Time {
	if made := v.Node.CreationTimestamp.Time; made.After(v.Watching) {
		return made
	}
	return v.Watching
}

// revived is when the node's agent said, after the death, that the node is ready; else the zero time.
func revived(view NodeView) time.Time {
	for _, c := range view.Node.Status.Conditions {
		if c.Type == v1.NodeReady && c.Status == v1.ConditionTrue && !view.Since.IsZero() && c.LastTransitionTime.After(view.Since) {
			return c.LastTransitionTime.Time
		}
	}
	return time.Time{}
}

// markDead sets what the node's agent would report to unknown.
func markDead(conditions []v1.NodeCondition, now time.Time) ([]v1.NodeCondition, bool) {
	out, changed := slices.Clone(conditions), false
	for _, kind := range []v1.NodeConditionType{v1.NodeReady, v1.NodeMemoryPressure, v1.NodeDiskPressure, v1.NodePIDPressure} {
		at := slices.IndexFunc(out, func(c v1.NodeCondition) bool { return c.Type == kind })
		if at < 0 {
			out = append(out, v1.NodeCondition{Type: kind, Status: v1.ConditionUnknown, Reason: neverReason, Message: neverText,
				LastTransitionTime: metav1.NewTime(now)})
			changed = true
		} else if out[at].Status != v1.ConditionUnknown {
			out[at].Status, out[at].Reason, out[at].Message = v1.ConditionUnknown, DeadReason, deadMessage
			out[at].LastTransitionTime = metav1.NewTime(now)
			changed = true
		}
	}
	return out, changed
}

// managed tells whether the taint is this loop's to set and take away.
func managed(t v1.Taint) bool {
	switch t.Key {
	case v1.TaintNodeNotReady, v1.TaintNodeUnreachable:
		return t.Effect == v1.TaintEffectNoSchedule || t.Effect == v1.TaintEffectNoExecute
	case v1.TaintNodeMemoryPressure, v1.TaintNodeDiskPressure, v1.TaintNodePIDPressure, v1.TaintNodeNetworkUnavailable,
		v1.TaintNodeUnschedulable:
		return t.Effect == v1.TaintEffectNoSchedule
	}
	return false
}

// wantedTaints are the foreign taints and those that the conditions ask for, with kept times.
func wantedTaints(view NodeView, conditions []v1.NodeCondition, now time.Time) []v1.Taint {
	old := view.Node.Spec.Taints
	taints := slices.DeleteFunc(slices.Clone(old), managed)
	add := func(key string, effect v1.TaintEffect, since time.Time) {
		same := func(t v1.Taint) bool { return t.Key == key && t.Effect == effect }
		if at := slices.IndexFunc(old, same); at >= 0 {
			taints = append(taints, old[at])
			return
		}
		t := v1.Taint{Key: key, Effect: effect}
		if effect == v1.TaintEffectNoExecute {
			if view.Storm {
				return
			}
			t.TimeAdded = &metav1.Time{Time: since}
		}
		taints = append(taints, t)
	}
	for _, c := range conditions {
		if c.Type == v1.NodeReady && c.Status != v1.ConditionTrue {
			key, since := v1.TaintNodeNotReady, now
			if c.Status == v1.ConditionUnknown {
				key = v1.TaintNodeUnreachable
				if !view.Alive && !view.Since.IsZero() {
					since = view.Since
				}
			}
			add(key, v1.TaintEffectNoSchedule, since)
			add(key, v1.TaintEffectNoExecute, since)
		}
		if key := pressureTaint(c.Type); key != "" && c.Status == v1.ConditionTrue {
			add(key, v1.TaintEffectNoSchedule, now)
		}
	}
	if view.Node.Spec.Unschedulable {
		add(v1.TaintNodeUnschedulable, v1.TaintEffectNoSchedule, now)
	}
	return inOldOrder(taints, old)
}

// inOldOrder avoids writes that change nothing but the order.
func inOldOrder(taints, old []v1.Taint) []v1.Taint {
	place := func(t v1.Taint) int {
		at := slices.IndexFunc(old, func(o v1.Taint) bool { return o.MatchTaint(&t) })
		if at < 0 {
			return len(old)
		}
		return at
	}
	slices.SortStableFunc(taints, func(a, b v1.Taint) int { return place(a) - place(b) })
	return taints
}

func pressureTaint(kind v1.NodeConditionType) string {
	switch kind {
	case v1.NodeMemoryPressure:
		return v1.TaintNodeMemoryPressure
	case v1.NodeDiskPressure:
		return v1.TaintNodeDiskPressure
	case v1.NodePIDPressure:
		return v1.TaintNodePIDPressure
	case v1.NodeNetworkUnavailable:
		return v1.TaintNodeNetworkUnavailable
	}
	return ""
}

// isReady tells whether the node's Ready condition is true.
func isReady(node *v1.Node) bool {
	return slices.ContainsFunc(node.Status.Conditions, func(c v1.NodeCondition) bool {
		return c.Type == v1.NodeReady && c.Status == v1.ConditionTrue
	})
}
