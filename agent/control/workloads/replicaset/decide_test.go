package replicaset

import (
	"fmt"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"pgregory.net/rapid"
)

func testSet(replicas int32) *appsv1.ReplicaSet {
	app := map[string]string{"app": "x"}
	return &appsv1.ReplicaSet{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "rs", UID: "rs", Generation: 3},
		Spec: appsv1.ReplicaSetSpec{Replicas: &replicas, Selector: &metav1.LabelSelector{MatchLabels: app},
			Template: v1.PodTemplateSpec{ObjectMeta: metav1.ObjectMeta{Labels: app}}}}
}

func testPod(name string, change ...func(*v1.Pod)) *v1.Pod {
	p := &v1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name, UID: types.UID(name),
		Labels: map[string]string{"app": "x"}}, Spec: v1.PodSpec{NodeName: "n"}, Status: v1.PodStatus{Phase: v1.PodRunning}}
	owned(p)
	for _, f := range change {
		f(p)
	}
	return p
}

func owned(p *v1.Pod) {
	p.OwnerReferences = []metav1.OwnerReference{*metav1.NewControllerRef(testSet(0), appsv1.SchemeGroupVersion.WithKind("ReplicaSet"))}
}
func orphan(p *v1.Pod)     { p.OwnerReferences = nil }
func relabelled(p *v1.Pod) { p.Labels = map[string]string{"app": "other"} }
func ended(p *v1.Pod)      { p.Status.Phase = v1.PodFailed }
func leaving(p *v1.Pod)    { p.DeletionTimestamp = &metav1.Time{} }
func ready(at time.Time) func(*v1.Pod) {
	return func(p *v1.Pod) {
		p.Status.Conditions = []v1.PodCondition{{Type: v1.PodReady, Status: v1.ConditionTrue, LastTransitionTime: metav1.NewTime(at)}}
	}
}

var start = time.Unix(1_000_000, 0)

func names(pods []*v1.Pod) (s string) {
	for _, p := range pods {
		s += p.Name
	}
	return s
}

func TestDecide(t *testing.T) {
	for _, test := range []struct {
		name                   string
		replicas               int32
		view                   View
		create                 int
		adopt, release, remove string
	}{
		{name: "from nothing", replicas: 3, create: 3},
		{name: "own writes unseen", replicas: 3, view: View{Unseen: 2}, create: 1},
		{name: "no victims while creations are unseen", replicas: 0, view: View{Unseen: 1, Pods: []*v1.Pod{testPod("a")}}},
		{name: "ended and leaving pods do not count", replicas: 1, create: 1,
			view: View{Pods: []*v1.Pod{testPod("a", ended), testPod("b", leaving)}}},
		{name: "own deletions unseen", replicas: 1,
			view: View{Pods: []*v1.Pod{testPod("a"), testPod("b")}, Deleted: map[types.UID]bool{"a": true}}},
		{name: "adopts and releases", replicas: 1, adopt: "a", release: "b",
			view: View{Pods: []*v1.Pod{testPod("a", orphan), testPod("b", relabelled)}}},
		{name: "does not adopt what ends", replicas: 1, create: 1,
			view: View{Pods: []*v1.Pod{testPod("a", orphan, leaving), testPod("b", orphan, ended)}}},
		{name: "burst", replicas: 2000, create: BurstReplicas},
		{name: "shrinks", replicas: 1, remove: "b", view: View{Pods: []*v1.Pod{testPod("a", ready(start)), testPod("b")}}},
	} {
		t.Run(test.name, func(t *testing.T) {
			test.view.Set = testSet(test.replicas)
			plan := Decide(test.view, start)
			if plan.Create != test.create || names(plan.Adopt) != test.adopt || names(plan.Release) != test.release || names(plan.Delete) != test.remove {
				t.Errorf("create %d, adopt %q, release %q, delete %q", plan.Create, names(plan.Adopt), names(plan.Release), names(plan.Delete))
			}
		})
	}
}

// TestDeletionOrder: each pod is worth less than the next for exactly one reason.
func TestDeletionOrder(t *testing.T) {
	now := start.Add(time.Hour)
	born := func(at time.Time) func(*v1.Pod) { return func(p *v1.Pod) { p.CreationTimestamp = metav1.NewTime(at) } }
	on := func(node string) func(*v1.Pod) { return func(p *v1.Pod) { p.Spec.NodeName = node } }
	cost := func(c string) func(*v1.Pod) {
		return func(p *v1.Pod) { p.Annotations = map[string]string{v1.PodDeletionCost: c} }
	}
	restarts := func(n int32) func(*v1.Pod) {
		return func(p *v1.Pod) { p.Status.ContainerStatuses = []v1.ContainerStatus{{RestartCount: n}} }
	}
	pending := func(p *v1.Pod) { p.Status.Phase = v1.PodPending }
	old := ready(start)
	pods := []*v1.Pod{
		testPod("i", old, born(start)),
		testPod("h", old, born(now)),
		testPod("g", old, born(now), restarts(3)),
		testPod("f", ready(now.Add(-time.Second)), born(start)),
		testPod("e", old, on("full"), born(start)),
		testPod("d", old, cost("-5"), born(start)),
		testPod("c", born(start)),
		testPod("b", pending, born(start)),
		testPod("a", pending, on(""), born(start)),
	}
	onNode := map[string]int{"full": 2, "n": 1}
	if got := names(victims(pods, 8, onNode, now)); got != "abcdefgh" {
		t.Errorf("deletion order %s, want abcdefgh", got)
	}
}

func TestStatus(t *testing.T) {
	set := testSet(3)
	set.Spec.MinReadySeconds = 10
	view := View{Set: set, Pods: []*v1.Pod{testPod("a", ready(start)), testPod("b", ready(start.Add(7*time.Second))), testPod("c"), testPod("d", leaving)}}
	plan := Decide(view, start.Add(10*time.Second))
	s := plan.Status
	got := fmt.Sprint(s.Replicas, s.FullyLabeledReplicas, s.ReadyReplicas, s.AvailableReplicas, *s.TerminatingReplicas, s.ObservedGeneration)
	if got != "3 3 2 1 1 3" || plan.Again != 7*time.Second {
		t.Errorf("status %s, again in %s; want 3 3 2 1 1 3 in 7s", got, plan.Again)
	}
}

// TestConverges: whatever pods come, go and change hands, and however far behind reads are, a set that is left
// alone ends with exactly its pods, and never has more than it asked for by its own doing.
func TestConverges(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		set := testSet(rapid.Int32Range(0, 8).Draw(t, "replicas"))
		var real, shown []*v1.Pod
		made := 0
		pending := map[types.UID]bool{}
		decide := func() Plan {
			view := View{Set: set, Pods: shown, Deleted: map[types.UID]bool{}}
			known := map[types.UID]bool{}
			for _, p := range shown {
				known[p.UID] = true
				view.Deleted[p.UID] = !has(real, p)
			}
			for uid := range pending {
				if known[uid] {
					delete(pending, uid)
				}
			}
			view.Unseen = len(pending)
			return Decide(view, start)
		}
		apply := func(plan Plan) {
			for range plan.Create {
				made++
				p := testPod(fmt.Sprintf("p%d", made))
				real, pending[p.UID] = append(real, p), true
			}
			for _, p := range plan.Delete {
				real = remove(real, p)
			}
			for _, p := range plan.Adopt {
				owned(p)
			}
		}
		for range rapid.IntRange(0, 20).Draw(t, "steps") {
			switch rapid.IntRange(0, 3).Draw(t, "what") {
			case 0:
				size := rapid.Int32Range(0, 8).Draw(t, "size")
				set.Spec.Replicas = &size
			case 1:
				shown = append([]*v1.Pod(nil), real...)
			default:
				before := len(real)
				plan := decide()
				apply(plan)
				if plan.Create > 0 && len(real) > int(*set.Spec.Replicas) {
					t.Fatalf("grew from %d to %d pods, %d wanted", before, len(real), *set.Spec.Replicas)
				}
			}
		}
		for range 4 {
			shown = append([]*v1.Pod(nil), real...)
			apply(decide())
		}
		if len(real) != int(*set.Spec.Replicas) {
			t.Fatalf("ended with %d pods, %d wanted", len(real), *set.Spec.Replicas)
		}
	})
}

func has(pods []*v1.Pod, pod *v1.Pod) bool {
	for _, p := range pods {
		if p.UID == pod.UID {
			return true
		}
	}
	return false
}

func remove(pods []*v1.Pod, pod *v1.Pod) (rest []*v1.Pod) {
	for _, p := range pods {
		if p.UID != pod.UID {
			rest = append(rest, p)
		}
	}
	return rest
}
