package nodes

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	v1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"pgregory.net/rapid"

	"github.com/podvine/podvine/agent/control/loop/looptest"
	"github.com/podvine/podvine/agent/isolation"
)

var start = time.Unix(1_000_000, 0)

func testNode(name string, conditions ...v1.NodeCondition) *v1.Node {
	return &v1.Node{ObjectMeta: metav1.ObjectMeta{Name: name, UID: types.UID(name)}, Status: v1.NodeStatus{Conditions: conditions}}
}

func condition(kind v1.NodeConditionType, status v1.ConditionStatus) v1.NodeCondition {
	return v1.NodeCondition{Type: kind, Status: status}
}

func show(taints []v1.Taint) string {
	var out []string
	for _, t := range taints {
		out = append(out, strings.TrimPrefix(t.Key, "node.kubernetes.io/")+":"+string(t.Effect))
	}
	return strings.Join(out, " ")
}

func TestDecideNode(t *testing.T) {
	ready := condition(v1.NodeReady, v1.ConditionTrue)
	foreign := v1.Taint{Key: "dedicated", Effect: v1.TaintEffectNoSchedule}
	for _, test := range []struct {
		name  string
		view  NodeView
		want  string
		again bool
	}{
		{name: "well", view: NodeView{Node: testNode("n", ready), Alive: true}},
		{name: "under pressure", view: NodeView{Node: testNode("n", ready, condition(v1.NodeDiskPressure, v1.ConditionTrue),
			condition(v1.NodeNetworkUnavailable, v1.ConditionTrue)), Alive: true}, want: "disk-pressure:NoSchedule network-unavailable:NoSchedule"},
		{name: "not ready", view: NodeView{Node: testNode("n", condition(v1.NodeReady, v1.ConditionFalse)), Alive: true},
			want: "not-ready:NoSchedule not-ready:NoExecute"},
		{name: "dead", view: NodeView{Node: testNode("n", ready), Since: start.Add(-time.Second)}, want: "unreachable:NoSchedule unreachable:NoExecute"},
		{name: "dead in a storm", view: NodeView{Node: testNode("n", condition(v1.NodeReady, v1.ConditionUnknown)), Since: start, Storm: true},
			want: "unreachable:NoSchedule", again: true},
		{name: "back, and gossip does not know yet", again: true, view: NodeView{Since: start.Add(-20 * time.Second), Node: testNode("n",
			v1.NodeCondition{Type: v1.NodeReady, Status: v1.ConditionTrue, LastTransitionTime: metav1.NewTime(start.Add(-5 * time.Second))})}},
		{name: "back, and gossip denies it", want: "unreachable:NoSchedule unreachable:NoExecute", view: NodeView{Since: start.Add(-time.Minute), Node: testNode("n",
			v1.NodeCondition{Type: v1.NodeReady, Status: v1.ConditionTrue, LastTransitionTime: metav1.NewTime(start.Add(-15 * time.Second))})}},
		{name: "ready by a clock that is ahead", want: "unreachable:NoSchedule unreachable:NoExecute", view: NodeView{Since: start.Add(-time.Minute), Node: testNode("n",
			v1.NodeCondition{Type: v1.NodeReady, Status: v1.ConditionTrue, LastTransitionTime: metav1.NewTime(start.Add(time.Hour))})}},
		{name: "of another agent, renewed by a clock that is ahead", want: "unreachable:NoSchedule unreachable:NoExecute",
			view: NodeView{Node: testNode("n", ready), Watching: start.Add(-time.Hour), Renewed: start.Add(time.Hour)}},
		{name: "never heard of, lately", view: NodeView{Node: testNode("n", ready), Watching: start.Add(-time.Second)}, again: true},
		{name: "of another agent, alive by its lease", view: NodeView{Node: testNode("n", ready), Watching: start.Add(-time.Hour), Renewed: start.Add(-40 * time.Second)}, again: true},
		{name: "of another agent, whose lease ran out", want: "unreachable:NoSchedule unreachable:NoExecute",
			view: NodeView{Node: testNode("n", ready), Watching: start.Add(-time.Hour), Renewed: start.Add(-time.Minute)}},
		{name: "never heard of, new", again: true, view: NodeView{Watching: start.Add(-time.Hour), Node: func() *v1.Node {
			n := testNode("n", ready)
			n.CreationTimestamp = metav1.NewTime(start.Add(-time.Second))
			return n
		}()}},
		{name: "never heard of, for long", view: NodeView{Node: testNode("n", ready), Watching: start.Add(-time.Hour)},
			want: "unreachable:NoSchedule unreachable:NoExecute"},
		{name: "cordoned, foreign taint kept", want: "dedicated:NoSchedule unschedulable:NoSchedule", view: NodeView{Alive: true, Node: func() *v1.Node {
			n := testNode("n", ready)
			n.Spec.Unschedulable, n.Spec.Taints = true, []v1.Taint{foreign}
			return n
		}()}},
	} {
		t.Run(test.name, func(t *testing.T) {
			plan := DecideNode(test.view, start)
			if got := show(plan.Taints); got != test.want || (plan.Again > 0) != test.again {
				t.Errorf("taints %q, again in %s; want %q", got, plan.Again, test.want)
			}
			next := test.view.Node.DeepCopy() // what was written needs no writing
			if plan.SetTaints {
				next.Spec.Taints = plan.Taints
			}
			if plan.Conditions != nil {
				next.Status.Conditions = plan.Conditions
			}
			test.view.Node = next
			if plan = DecideNode(test.view, start.Add(time.Second)); plan.SetTaints || plan.Conditions != nil {
				t.Errorf("second decision changes again: %q %v", show(plan.Taints), plan.Conditions)
			}
		})
	}
}

func TestDeathCountsFromItsTime(t *testing.T) {
	died := start.Add(-2 * time.Second)
	plan := DecideNode(NodeView{Node: testNode("n", condition(v1.NodeReady, v1.ConditionTrue)), Since: died}, start)
	node := testNode("n", plan.Conditions...)
	node.Spec.Taints = plan.Taints
	pod := tolerant(5)
	verdict := DecidePod(PodView{Pod: pod, Node: node}, start)
	if verdict.Action != Keep || verdict.Again != 3*time.Second {
		t.Errorf("%+v, want eviction in 3 s, 5 s after the death", verdict)
	}
}

// tolerant makes a running pod that tolerates unreachable for some seconds; negative is forever.
func tolerant(seconds int64) *v1.Pod {
	toleration := v1.Toleration{Key: v1.TaintNodeUnreachable, Operator: v1.TolerationOpExists, Effect: v1.TaintEffectNoExecute, TolerationSeconds: &seconds}
	if seconds < 0 {
		toleration.TolerationSeconds = nil
	}
	return &v1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "p", UID: "p"},
		Spec: v1.PodSpec{NodeName: "n", Tolerations: []v1.Toleration{toleration}}, Status: v1.PodStatus{Phase: v1.PodRunning}}
}

func TestDecidePod(t *testing.T) {
	dead := testNode("n", condition(v1.NodeReady, v1.ConditionUnknown))
	dead.Spec.Taints = []v1.Taint{{Key: v1.TaintNodeUnreachable, Effect: v1.TaintEffectNoExecute, TimeAdded: &metav1.Time{Time: start}}}
	out := dead.DeepCopy()
	out.Spec.Taints = append(out.Spec.Taints, v1.Taint{Key: v1.TaintNodeOutOfService, Effect: v1.TaintEffectNoExecute})
	leaving := func(p *v1.Pod) *v1.Pod { p.DeletionTimestamp = &metav1.Time{Time: start}; return p }
	nowhere := func(p *v1.Pod) *v1.Pod { p.Spec.NodeName = ""; return p }
	both := tolerant(-1)
	five := int64(5)
	both.Spec.Tolerations = append(both.Spec.Tolerations, v1.Toleration{Operator: v1.TolerationOpExists, TolerationSeconds: &five})
	reversed := both.DeepCopy()
	slices.Reverse(reversed.Spec.Tolerations)
	intolerant := tolerant(5)
	intolerant.Spec.Tolerations = nil
	for _, test := range []struct {
		name string
		pod  *v1.Pod
		node *v1.Node
		want PodVerdict
	}{
		{"patient", tolerant(5), dead, PodVerdict{Again: 4 * time.Second, Pending: true}},
		{"patience over", tolerant(1), dead, PodVerdict{Action: Evict}},
		{"patient for ever", tolerant(-1), dead, PodVerdict{}},
		{"the first toleration counts", both, dead, PodVerdict{}},
		{"and so does one with an end", reversed, dead, PodVerdict{Again: 4 * time.Second, Pending: true}},
		{"intolerant", intolerant, dead, PodVerdict{Action: Evict}},
		{"leaving already", leaving(tolerant(1)), dead, PodVerdict{}},
		{"leaving, node out of service", leaving(tolerant(1)), out, PodVerdict{Action: Remove}},
		{"node just gone", tolerant(1), nil, PodVerdict{Again: 39 * time.Second}},
		{"left before it had a node", leaving(nowhere(tolerant(1))), nil, PodVerdict{Action: Remove}},
		{"waits for a node", nowhere(tolerant(1)), nil, PodVerdict{}},
	} {
		if got := DecidePod(PodView{Pod: test.pod, Node: test.node, Missing: start}, start.Add(time.Second)); got != test.want {
			t.Errorf("%s: %+v, want %+v", test.name, got, test.want)
		}
	}
	if got := DecidePod(PodView{Pod: tolerant(1), Missing: start}, start.Add(41*time.Second)); got.Action != Confirm {
		t.Errorf("node gone for long: %+v", got)
	}
}

// TestTaintsWithoutATime: users' taints have none, and that of a leader whose clock was ahead says nothing; patience with them ends all the
// same, and is counted from when they were seen.
func TestTaintsWithoutATime(t *testing.T) {
	node := testNode("n", condition(v1.NodeReady, v1.ConditionTrue))
	node.Spec.Taints = []v1.Taint{{Key: v1.TaintNodeUnreachable, Effect: v1.TaintEffectNoExecute}}
	ahead := node.DeepCopy()
	ahead.Spec.Taints[0].TimeAdded = &metav1.Time{Time: start.Add(time.Hour)}
	for _, test := range []struct {
		name    string
		pending time.Time
		want    PodVerdict
	}{
		{"just seen", time.Time{}, PodVerdict{Again: 5 * time.Second, Pending: true}},
		{"seen before", start.Add(-3 * time.Second), PodVerdict{Again: 2 * time.Second, Pending: true}},
		{"patience over", start.Add(-5 * time.Second), PodVerdict{Action: Evict}},
	} {
		for _, node := range []*v1.Node{node, ahead} {
			if got := DecidePod(PodView{Pod: tolerant(5), Node: node, Pending: test.pending}, start); got != test.want {
				t.Errorf("%s: %+v, want %+v", test.name, got, test.want)
			}
		}
	}
}

// TestUsersTaintEvicts: a pod goes when its patience with a taint without a time is over; the end of the taint calls that off.
func TestUsersTaintEvicts(t *testing.T) {
	run(t, func(t *testing.T, c *looptest.Cluster, _ *gossip) {
		taint := func(taints ...v1.Taint) {
			n, err := c.Client.CoreV1().Nodes().Get(t.Context(), "n", metav1.GetOptions{})
			c.Must(err)
			n.Spec.Taints = taints
			_, err = c.Client.CoreV1().Nodes().Update(t.Context(), n, metav1.UpdateOptions{})
			c.Must(err)
		}
		there := func() bool {
			_, err := c.Client.CoreV1().Pods("default").Get(t.Context(), "p", metav1.GetOptions{})
			return err == nil
		}
		all := v1.Taint{Key: "dedicated", Effect: v1.TaintEffectNoExecute}
		p, err := c.Client.CoreV1().Pods("default").Get(t.Context(), "p", metav1.GetOptions{})
		c.Must(err)
		p.Spec.Tolerations[0].Key = "dedicated"
		_, err = c.Client.CoreV1().Pods("default").Update(t.Context(), p, metav1.UpdateOptions{})
		c.Must(err)
		c.Pass(time.Second) // pods and nodes are watched apart: the loop must not see the taint first
		taint(all)
		c.Pass(4 * time.Second)
		taint()
		c.Pass(time.Minute)
		if !there() {
			t.Fatal("the pod went although the taint did")
		}
		taint(all)
		c.Pass(4 * time.Second)
		if !there() {
			t.Error("the pod went too early")
		}
		c.Pass(2 * time.Second)
		if there() {
			t.Error("the pod stayed")
		}
	})
}

// TestRemovedPodsFail: one that left before it had a node is failed before it goes, so that a finalizer's owner sees its end.
func TestRemovedPodsFail(t *testing.T) {
	run(t, func(t *testing.T, c *looptest.Cluster, _ *gossip) {
		p := tolerant(5)
		p.Name, p.UID, p.Spec.NodeName, p.Status.Phase, p.DeletionTimestamp = "q", "q", "", v1.PodPending, &metav1.Time{Time: time.Now()}
		_, err := c.Client.CoreV1().Pods("default").Create(t.Context(), p, metav1.CreateOptions{})
		c.Must(err)
		c.Client.ClearActions()
		c.Settle()
		var did []string
		for _, action := range c.Client.Actions() {
			if action.GetVerb() == "patch" || action.GetVerb() == "delete" {
				did = append(did, action.GetVerb()+" "+action.GetSubresource())
			}
		}
		if got := strings.Join(slices.Compact(did), ", "); got != "patch status, delete " { // a delete more, before the watch shows the end, does no harm
			t.Errorf("did %q", got)
		}
	})
}

// TestAllot: blocks are inside a range, never overlap, freed ones are used again, and a full range says so.
func TestAllot(t *testing.T) {
	ranges := []netip.Prefix{netip.MustParsePrefix("10.244.0.0/22"), netip.MustParsePrefix("fd00::/62"), netip.MustParsePrefix("10.9.8.0/24")}
	rapid.Check(t, func(t *rapid.T) {
		used := map[netip.Prefix]bool{}
		for range rapid.IntRange(0, 20).Draw(t, "steps") {
			if len(used) > 0 && rapid.IntRange(0, 3).Draw(t, "free") == 0 {
				of := slices.SortedFunc(maps.Keys(used), func(a, b netip.Prefix) int { return a.Addr().Compare(b.Addr()) })
				delete(used, rapid.SampledFrom(of).Draw(t, "which"))
				continue
			}
			count := [2]int{}
			for p := range used {
				count[family(p.Addr())]++
			}
			blocks, err := Allot(ranges, used)
			if full := count[0] == 5 || count[1] == 4; (err != nil) != full {
				t.Fatalf("error %v with %v used", err, count)
			}
			for _, b := range blocks {
				for u := range used {
					if u.Overlaps(b) {
						t.Fatalf("%s overlaps %s", b, u)
					}
				}
				if !slices.ContainsFunc(ranges, func(r netip.Prefix) bool { return r.Contains(b.Addr()) && b.Bits() >= r.Bits() }) {
					t.Fatalf("%s is outside of the ranges", b)
				}
				used[b] = true
			}
		}
	})
}

func TestExcess(t *testing.T) {
	var pods []*v1.Pod
	for i := range 5 {
		p := tolerant(1)
		p.Name, p.CreationTimestamp = fmt.Sprint(i), metav1.NewTime(start.Add(time.Duration(10-i)*time.Second))
		if i != 3 {
			p.Status.Phase = v1.PodSucceeded
		}
		pods = append(pods, p)
	}
	last := tolerant(1)
	last.Name, last.CreationTimestamp = "5", metav1.NewTime(start.Add(time.Hour))
	last.Status.Phase, last.Status.Reason = v1.PodFailed, "Evicted"
	got := ""
	for _, p := range Excess(append(pods, last), 2) {
		got += p.Name
	}
	if got != "542" {
		t.Errorf("dropped %s, want the evicted one and the two oldest ended ones, 5, 4 and 2", got)
	}
}

// gossip is a liveness that tests set.
type gossip struct {
	mu   sync.Mutex
	dead map[string]time.Time
}

func (g *gossip) Alive(node string) (bool, time.Time) {
	g.mu.Lock()
	defer g.mu.Unlock()
	since, dead := g.dead[node]
	if dead {
		return false, since
	}
	return true, start
}

func (g *gossip) kill(node string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.dead[node] = time.Now()
}

func run(t *testing.T, test func(t *testing.T, c *looptest.Cluster, g *gossip)) {
	synctest.Test(t, func(t *testing.T) {
		ready := condition(v1.NodeReady, v1.ConditionTrue)
		c := looptest.New(t, testNode("n", ready), testNode("m", ready), testNode("o", ready))
		defer c.Stop()
		g := &gossip{dead: map[string]time.Time{}}
		l, err := New(Config{Client: c.Client, Informers: c.Informers, Logger: c.Logger(), Liveness: g})
		c.Must(err)
		c.Start(l)
		_, err = c.Client.CoreV1().Pods("default").Create(t.Context(), tolerant(5), metav1.CreateOptions{})
		c.Must(err)
		c.Settle()
		test(t, c, g)
	})
}

// TestNodeDeath: the node is marked, its pods wait for their patience and go, and every node has its own block.
func TestNodeDeath(t *testing.T) {
	run(t, func(t *testing.T, c *looptest.Cluster, g *gossip) {
		blocks := map[string]bool{}
		list, err := c.Client.CoreV1().Nodes().List(t.Context(), metav1.ListOptions{})
		c.Must(err)
		for _, n := range list.Items {
			blocks[n.Spec.PodCIDR] = true
		}
		if len(blocks) != 3 || !blocks["10.244.2.0/24"] {
			t.Errorf("blocks %v", blocks)
		}
		g.kill("n")
		c.Pass(4 * time.Second)
		n, err := c.Client.CoreV1().Nodes().Get(t.Context(), "n", metav1.GetOptions{})
		c.Must(err)
		if got := show(n.Spec.Taints); got != "unreachable:NoSchedule unreachable:NoExecute" || isReady(n) || n.Spec.PodCIDR == "" {
			t.Errorf("dead node has taints %q, conditions %v", got, n.Status.Conditions)
		}
		if _, err := c.Client.CoreV1().Pods("default").Get(t.Context(), "p", metav1.GetOptions{}); err != nil {
			t.Errorf("pod after 4 s: %v", err)
		}
		c.Pass(2 * time.Second)
		if _, err := c.Client.CoreV1().Pods("default").Get(t.Context(), "p", metav1.GetOptions{}); !apierrors.IsNotFound(err) {
			t.Errorf("pod after 6 s: %v, want it gone", err)
		}
	})
}

// TestOrphans: pods of a deleted node are failed and removed after the quarantine.
func TestOrphans(t *testing.T) {
	run(t, func(t *testing.T, c *looptest.Cluster, _ *gossip) {
		c.Must(c.Client.CoreV1().Nodes().Delete(t.Context(), "n", metav1.DeleteOptions{}))
		c.Pass(30 * time.Second)
		if _, err := c.Client.CoreV1().Pods("default").Get(t.Context(), "p", metav1.GetOptions{}); err != nil {
			t.Errorf("pod within the quarantine: %v", err)
		}
		c.Pass(15 * time.Second)
		if _, err := c.Client.CoreV1().Pods("default").Get(t.Context(), "p", metav1.GetOptions{}); !apierrors.IsNotFound(err) {
			t.Errorf("pod after the quarantine: %v, want it gone", err)
		}
	})
}

// TestStormEvictsNobody: when most nodes look dead, nothing runs away.
func TestStormEvictsNobody(t *testing.T) {
	run(t, func(t *testing.T, c *looptest.Cluster, g *gossip) {
		for _, name := range []string{"m", "n", "o"} {
			g.kill(name)
		}
		c.Pass(time.Minute)
		if _, err := c.Client.CoreV1().Pods("default").Get(t.Context(), "p", metav1.GetOptions{}); err != nil {
			t.Errorf("pod in a storm: %v", err)
		}
	})
}

// A pod that stops when its node is cut off is removed when the node's lease is over, and not before; no other is, nor one of a node that
// reports.
func TestStoppedPodsOfIsolatedNodesGo(t *testing.T) {
	dead, ready := testNode("n", condition(v1.NodeReady, v1.ConditionUnknown)), testNode("n", condition(v1.NodeReady, v1.ConditionTrue))
	leaving := func(annotations map[string]string) *v1.Pod {
		p := tolerant(1)
		p.Annotations, p.DeletionTimestamp = annotations, &metav1.Time{Time: start}
		return p
	}
	stops := map[string]string{isolation.Annotation: isolation.Stop}
	staying := tolerant(5)
	staying.Annotations = stops
	for _, test := range []struct {
		name     string
		pod      *v1.Pod
		node     *v1.Node
		released bool
		want     PodVerdict
	}{
		{"its lease may last", leaving(stops), dead, false, PodVerdict{Again: releasePause}},
		{"its lease is over", leaving(stops), dead, true, PodVerdict{Action: Remove}},
		{"it does not stop", leaving(nil), dead, true, PodVerdict{}},
		{"its node reports", leaving(stops), ready, true, PodVerdict{}},
		{"it is not leaving", staying, dead, true, PodVerdict{}},
	} {
		if got := DecidePod(PodView{Pod: test.pod, Node: test.node, Missing: start, Released: test.released}, start); got != test.want {
			t.Errorf("%s: %+v, want %+v", test.name, got, test.want)
		}
	}
}
