package nodes

import (
	"errors"
	"testing"
	"time"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"pgregory.net/rapid"
)

func TestFence(t *testing.T) {
	ready, unknown := condition(v1.NodeReady, v1.ConditionTrue), condition(v1.NodeReady, v1.ConditionUnknown)
	fenced := testNode("n", unknown)
	fenced.Spec.Taints = []v1.Taint{{Key: v1.TaintNodeOutOfService, Effect: v1.TaintEffectNoExecute}}
	weak := testNode("n", unknown)
	weak.Spec.Taints = []v1.Taint{{Key: v1.TaintNodeOutOfService, Effect: v1.TaintEffectNoSchedule}}
	for _, test := range []struct {
		name    string
		node    *v1.Node
		alive   bool
		want    string
		changed bool
		err     error
	}{
		{name: "dead", node: testNode("n", unknown), want: "out-of-service:NoExecute", changed: true},
		{name: "dead, never reported", node: testNode("n"), want: "out-of-service:NoExecute", changed: true},
		{name: "alive", node: testNode("n", ready), alive: true, err: ErrAlive},
		{name: "alive, not ready", node: testNode("n", unknown), alive: true, err: ErrAlive},
		{name: "dead, and its record is ready", node: testNode("n", ready), err: ErrReady},
		{name: "fenced", node: fenced, want: "out-of-service:NoExecute"},
		{name: "fenced, and back", node: fenced, alive: true, want: "out-of-service:NoExecute"},
		{name: "a taint that evicts nobody is no fence", node: weak, want: "out-of-service:NoSchedule out-of-service:NoExecute", changed: true},
	} {
		t.Run(test.name, func(t *testing.T) {
			taints, changed, err := Fence(test.node, test.alive, start)
			if show(taints) != test.want || changed != test.changed || !errors.Is(err, test.err) {
				t.Errorf("%q, %t, %v; want %q, %t, %v", show(taints), changed, err, test.want, test.changed, test.err)
			}
		})
	}
}

// Whatever else a node's taints are, the fence keeps them, the node loop keeps the fence, no pod that leaves stays, one that
// tolerates nothing leaves at once, and the end of the fence leaves what was there before.
func TestFencedNodeKeepsNothing(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		node := testNode("n", condition(v1.NodeReady, rapid.SampledFrom([]v1.ConditionStatus{v1.ConditionFalse, v1.ConditionUnknown}).Draw(t, "ready")))
		node.Spec.Taints = rapid.SliceOfNDistinct(rapid.Custom(func(t *rapid.T) v1.Taint {
			return v1.Taint{Key: rapid.SampledFrom([]string{"dedicated", v1.TaintNodeUnreachable, v1.TaintNodeUnschedulable}).Draw(t, "key"),
				Effect: rapid.SampledFrom([]v1.TaintEffect{v1.TaintEffectNoSchedule, v1.TaintEffectNoExecute}).Draw(t, "effect")}
		}), 0, 3, func(t v1.Taint) string { return t.Key + string(t.Effect) }).Draw(t, "taints")
		before := node.DeepCopy().Spec.Taints
		taints, changed, err := Fence(node, false, start)
		if err != nil || !changed {
			t.Fatalf("fence a dead node: %t, %v", changed, err)
		}
		if !equality.Semantic.DeepEqual(node.Spec.Taints, before) {
			t.Fatal("the decision changed its input")
		}
		node.Spec.Taints = taints
		storm := rapid.Bool().Draw(t, "storm")
		if plan := DecideNode(NodeView{Node: node, Since: start, Storm: storm}, start.Add(time.Second)); plan.SetTaints {
			node.Spec.Taints = plan.Taints
		}
		if _, again, err := Fence(node, false, start); err != nil || again {
			t.Fatalf("the node loop took the fence away: %s", show(node.Spec.Taints))
		}
		pod := tolerant(5) // as every pod, it tolerates a dead node for a while, and no fence
		if verdict := DecidePod(PodView{Pod: pod, Node: node}, start); verdict.Action != Evict {
			t.Fatalf("a pod of a fenced node: %+v", verdict)
		}
		pod.DeletionTimestamp = &metav1.Time{Time: start}
		if verdict := DecidePod(PodView{Pod: pod, Node: node}, start); verdict.Action != Remove {
			t.Fatalf("a leaving pod of a fenced node: %+v", verdict)
		}
		node.Spec.Taints = taints
		if after, changed := Unfence(node); !changed || !equality.Semantic.DeepEqual(after, before) {
			t.Fatalf("the end of the fence leaves %q of %q", show(after), show(before))
		}
		node.Spec.Taints = before
		if _, changed := Unfence(node); changed {
			t.Fatal("a node that is not fenced changes")
		}
	})
}
