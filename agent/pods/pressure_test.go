package pods

import (
	"strings"
	"sync/atomic"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"

	"github.com/podvine/podvine/agent/pods/internal/podtest"
	"github.com/podvine/podvine/agent/pods/lifecycle"
)

func nodeCondition(n *corev1.Node, t corev1.NodeConditionType) corev1.ConditionStatus {
	if n != nil {
		for _, c := range n.Status.Conditions {
			if c.Type == t {
				return c.Status
			}
		}
	}
	return ""
}

// TestEviction lets the machine look short of memory under real pods: the one
// that uses more than it asked for goes, the other stays.
func TestEviction(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	n.cfg.SkipNode = false
	var short atomic.Bool
	n.before = func(a *Agent) {
		a.relief.look = func() (map[lifecycle.Signal]lifecycle.Measure, error) {
			m := lifecycle.Measure{Available: 4 << 30, Capacity: 8 << 30}
			if short.Load() {
				m.Available = 64 << 20
			}
			return map[lifecycle.Signal]lifecycle.Measure{lifecycle.MemoryAvailable: m}, nil
		}
	}
	n.start()
	modest := box("main", "sleep")
	modest.Resources.Requests = corev1.ResourceList{corev1.ResourceMemory: resource.MustParse("64Mi")}
	n.create(newPod("greedy", box("main", "fill", "50000000")))
	n.create(newPod("modest", modest))
	n.until("modest", "is ready", ready)
	n.until("greedy", "is ready", ready)
	podtest.Wait(t, "greedy has its memory", func() bool { return n.log("greedy", "main", 0) == "filled\n" })
	short.Store(true)
	got := n.until("greedy", "is evicted", phaseOf(corev1.PodFailed))
	n.create(newPod("late", box("main", "sleep")))
	late := n.until("late", "is refused", phaseOf(corev1.PodFailed))
	short.Store(false)
	const message = "The node was low on resource: memory. Threshold quantity: 100Mi, available: 64Mi. Container main was using "
	if got.Status.Reason != "Evicted" || !strings.HasPrefix(got.Status.Message, message) || !strings.HasSuffix(got.Status.Message, ", request is 0, has larger consumption of memory. ") {
		t.Errorf("reason %q, message %q", got.Status.Reason, got.Status.Message)
	}
	if c := condition(got, corev1.DisruptionTarget); c == nil || c.Status != corev1.ConditionTrue || c.Reason != corev1.PodReasonTerminationByKubelet {
		t.Errorf("condition %+v", c)
	}
	if late.Status.Reason != "Evicted" || !strings.Contains(late.Status.Message, "MemoryPressure") {
		t.Errorf("a pod that came under pressure: %q %q", late.Status.Reason, late.Status.Message)
	}
	podtest.Wait(t, "the node says so", func() bool { return nodeCondition(n.nodeObject(), corev1.NodeMemoryPressure) == corev1.ConditionTrue })
	n.wantEvents("Warning EvictionThresholdMet Attempting to reclaim memory.available", "Warning Evicted The node was low on resource: memory.")
	if p := n.get("modest"); !ready(p) {
		t.Errorf("modest: %+v", p.Status)
	}
	if nodeCondition(n.nodeObject(), corev1.NodeDiskPressure) != corev1.ConditionFalse {
		t.Error("the disk is said to be full too")
	}
	n.delete("modest", 0)
}
