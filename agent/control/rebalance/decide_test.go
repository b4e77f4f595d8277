package rebalance

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	v1 "k8s.io/api/core/v1"
	apiresource "k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"pgregory.net/rapid"
)

var start = time.Unix(1_000_000, 0)

// node makes one that is so old.
func node(name string, age time.Duration) *v1.Node {
	return &v1.Node{ObjectMeta: metav1.ObjectMeta{Name: name, CreationTimestamp: metav1.NewTime(start.Add(-age)), Labels: map[string]string{v1.LabelHostname: name}},
		Status: v1.NodeStatus{Conditions: []v1.NodeCondition{{Type: v1.NodeReady, Status: v1.ConditionTrue}}, Allocatable: v1.ResourceList{
			v1.ResourceCPU: apiresource.MustParse("16"), v1.ResourceMemory: apiresource.MustParse("64Gi"), v1.ResourcePods: apiresource.MustParse("110")}}}
}

// world has replica sets whose pods are on the nodes named: {"web": {"a", "a", "b"}}.
func world(nodes []*v1.Node, sets map[string][]string) View {
	view := View{Nodes: nodes}
	for _, name := range slices.Sorted(func(yield func(string) bool) {
		for name := range sets {
			if !yield(name) {
				return
			}
		}
	}) {
		count := int32(len(sets[name]))
		view.Sets = append(view.Sets, &appsv1.ReplicaSet{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name, UID: types.UID(name)},
			Spec: appsv1.ReplicaSetSpec{Replicas: &count}, Status: appsv1.ReplicaSetStatus{Replicas: count, AvailableReplicas: count}})
		for i, on := range sets[name] {
			pod := fmt.Sprintf("%s-%d", name, i)
			view.Pods = append(view.Pods, &v1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: pod, UID: types.UID(pod), Labels: map[string]string{"app": name},
				OwnerReferences: []metav1.OwnerReference{{Kind: "ReplicaSet", Name: name, UID: types.UID(name), Controller: new(true)}}},
				Spec: v1.PodSpec{NodeName: on, Containers: []v1.Container{{Name: "c", Image: "app"}}}, Status: v1.PodStatus{Phase: v1.PodRunning}})
		}
	}
	return view
}

func decide(view View) Plan { return Decide(view, start, rand.New(rand.NewPCG(1, 1))) }

func TestDecide(t *testing.T) {
	old, joined := 24*time.Hour, time.Minute
	pair := func(age time.Duration) []*v1.Node { return []*v1.Node{node("a", old), node("b", age)} }
	crowded := map[string][]string{"web": {"a", "a", "a", "a"}}
	for _, test := range []struct {
		name   string
		view   View
		change func(*View)
		moves  bool
		again  bool
	}{
		{name: "a node that joined gets its part", view: world(pair(joined), crowded), moves: true, again: true},
		{name: "one that has been there gets nothing", view: world(pair(old), crowded)},
		{name: "all came at the same time", view: world([]*v1.Node{node("a", joined), node("b", joined)}, crowded), again: true},
		{name: "a young cluster, and one that is younger", view: world([]*v1.Node{node("a", 2*joined), node("b", joined)}, crowded), moves: true, again: true},
		{name: "nothing goes back to what was there before", view: world([]*v1.Node{node("a", joined), node("b", 2*joined)}, crowded), again: true},
		{name: "even already", view: world(pair(joined), map[string][]string{"web": {"a", "b"}}), again: true},
		{name: "one each of two: a move helps nobody", view: world(pair(joined), map[string][]string{"x": {"a"}, "y": {"a"}}), again: true},
		{name: "a pair on one node", view: world(pair(joined), map[string][]string{"web": {"a", "a"}}), moves: true, again: true},
		{name: "many pairs, one of each", view: world([]*v1.Node{node("a", old), node("b", old), node("c", joined)},
			map[string][]string{"x": {"a", "b"}, "y": {"a", "b"}, "z": {"a", "b"}}), moves: true, again: true},
		{name: "not while its set is not whole", view: world(pair(joined), crowded), again: true, change: func(v *View) { v.Sets[0].Status.AvailableReplicas = 3 }},
		{name: "nor while it rolls", view: world(pair(joined), crowded), again: true, change: func(v *View) { v.Sets[0].Generation = 2 }},
		{name: "nor while the last set is not whole", view: world(pair(joined), map[string][]string{"web": {"a", "a", "a"}, "last": {"a", "a"}}), again: true,
			change: func(v *View) {
				v.Sets[0].Status.AvailableReplicas, v.Last, v.Since = 1, "last", start.Add(-time.Second)
			}},
		{name: "but not for ever", view: world(pair(joined), map[string][]string{"web": {"a", "a", "a"}, "last": {"a", "a"}}), again: true, moves: true,
			change: func(v *View) { v.Sets[0].Status.AvailableReplicas, v.Last, v.Since = 1, "last", start.Add(-time.Hour) }},
		{name: "data on the node", view: world(pair(joined), crowded), again: true, change: func(v *View) {
			for _, p := range v.Pods {
				p.Spec.Volumes = []v1.Volume{{Name: "v", VolumeSource: v1.VolumeSource{EmptyDir: &v1.EmptyDirVolumeSource{}}}}
			}
		}},
		{name: "pods of nobody", view: world(pair(joined), crowded), again: true, change: func(v *View) {
			for _, p := range v.Pods {
				p.OwnerReferences = nil
			}
		}},
		{name: "a node that does not fit", view: world(pair(joined), crowded), again: true, change: func(v *View) {
			v.Nodes[1].Spec.Taints = []v1.Taint{{Key: "dedicated", Effect: v1.TaintEffectNoSchedule}}
		}},
		{name: "a node that is cordoned", view: world(pair(joined), crowded), change: func(v *View) { v.Nodes[1].Spec.Unschedulable = true }},
		{name: "a node that is not ready", view: world(pair(joined), crowded), change: func(v *View) { v.Nodes[1].Status.Conditions = nil }},
	} {
		if test.change != nil {
			test.change(&test.view)
		}
		plan := decide(test.view)
		if (len(plan.Candidates) > 0) != test.moves || (plan.Again > 0) != test.again {
			t.Errorf("%s: moves %d, again %v", test.name, len(plan.Candidates), plan.Again)
		}
	}
}

// TestMovesEnd: whatever is where, moves go from older nodes to younger ones, narrow what they compare, and come to an end.
func TestMovesEnd(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		nodes, names := []*v1.Node{node("j0", 2*time.Minute), node("j1", time.Minute)}[:rapid.IntRange(1, 2).Draw(t, "joined")], []string{}
		youngest := nodes[len(nodes)-1].Name
		for i := range rapid.IntRange(1, 4).Draw(t, "old") {
			nodes = append(nodes, node(fmt.Sprint("old", i), time.Hour*48))
		}
		for _, n := range nodes {
			names = append(names, n.Name)
		}
		sets := map[string][]string{}
		for i := range rapid.IntRange(1, 5).Draw(t, "sets") {
			sets[fmt.Sprint("s", i)] = rapid.SliceOfN(rapid.SampledFrom(names), 1, 5).Draw(t, "pods")
		}
		view := world(nodes, sets)
		rng := rand.New(rand.NewPCG(rapid.Uint64().Draw(t, "seed"), 0))
		for range len(view.Pods) + 1 {
			plan := Decide(view, start, rng)
			if len(plan.Candidates) == 0 {
				return
			}
			pod := plan.Candidates[0]
			c := newCluster(view)
			to := c.place(pod, rng)
			if pod.Spec.NodeName == youngest {
				t.Fatalf("%s leaves %s, the youngest", pod.Name, pod.Spec.NodeName)
			}
			if len(sets[string(controller(pod))]) < 2 {
				t.Fatalf("%s is the only one of its set", pod.Name)
			}
			i := slices.Index(view.Pods, pod)
			moved := pod.DeepCopy()
			moved.Spec.NodeName = to
			view.Pods[i] = moved
		}
		t.Fatal("no end after as many moves as there are pods")
	})
}
