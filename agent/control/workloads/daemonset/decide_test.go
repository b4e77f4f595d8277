package daemonset

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/intstr"
	"pgregory.net/rapid"

	"github.com/podvine/podvine/agent/control/loop/looptest"
	"github.com/podvine/podvine/agent/control/workloads/history"
)

var start = time.Unix(1_000_000, 0)

func testSet(change ...func(*appsv1.DaemonSet)) *appsv1.DaemonSet {
	app, one, zero := map[string]string{"app": "d"}, intstr.FromInt32(1), intstr.FromInt32(0)
	set := &appsv1.DaemonSet{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "d", UID: "set", Generation: 2},
		Spec: appsv1.DaemonSetSpec{Selector: &metav1.LabelSelector{MatchLabels: app},
			UpdateStrategy: appsv1.DaemonSetUpdateStrategy{Type: appsv1.RollingUpdateDaemonSetStrategyType,
				RollingUpdate: &appsv1.RollingUpdateDaemonSet{MaxUnavailable: &one, MaxSurge: &zero}},
			Template: v1.PodTemplateSpec{ObjectMeta: metav1.ObjectMeta{Labels: app}, Spec: v1.PodSpec{Containers: []v1.Container{{Name: "c", Image: "new"}}}}}}
	for _, f := range change {
		f(set)
	}
	return set
}

func onDelete(s *appsv1.DaemonSet) {
	s.Spec.UpdateStrategy = appsv1.DaemonSetUpdateStrategy{Type: appsv1.OnDeleteDaemonSetStrategyType}
}
func rolling(unavailable, surge intstr.IntOrString) func(*appsv1.DaemonSet) {
	return func(s *appsv1.DaemonSet) {
		s.Spec.UpdateStrategy.RollingUpdate = &appsv1.RollingUpdateDaemonSet{MaxUnavailable: &unavailable, MaxSurge: &surge}
	}
}
func minReady(seconds int32) func(*appsv1.DaemonSet) {
	return func(s *appsv1.DaemonSet) { s.Spec.MinReadySeconds = seconds }
}
func selecting(s *appsv1.DaemonSet) {
	s.Spec.Template.Spec.NodeSelector = map[string]string{"disk": "ssd"}
}
func tolerating(s *appsv1.DaemonSet) {
	s.Spec.Template.Spec.Tolerations = []v1.Toleration{{Operator: v1.TolerationOpExists}}
}

// revisionOf is the set's revision whose template has the image.
func revisionOf(set *appsv1.DaemonSet, image string, number int64) *appsv1.ControllerRevision {
	template := set.Spec.Template.DeepCopy()
	template.Spec.Containers[0].Image = image
	r, err := history.New(set, kind(), template, number, nil)
	if err != nil {
		panic(err) // a template of the test's own always has a JSON form
	}
	r.Labels[appsv1.DefaultDaemonSetUniqueLabelKey] = r.Labels[history.HashLabel]
	return r
}

// world makes a view from words: "a:new,ready b:old c: d,ssd,cordoned:". Before the colon stands a node with its traits,
// behind it its pods, a slash between them.
func world(set *appsv1.DaemonSet, words string) View {
	old, fresh := revisionOf(set, "old", 1), revisionOf(set, "new", 2)
	view := View{Set: set, Revisions: []*appsv1.ControllerRevision{old, fresh}, Deleted: map[types.UID]bool{}, Failures: map[string]int{}}
	for word := range strings.FieldsSeq(words) {
		traits, there, _ := strings.Cut(word, ":")
		names := strings.Split(traits, ",")
		node := &v1.Node{ObjectMeta: metav1.ObjectMeta{Name: names[0], Labels: map[string]string{}}}
		taint := func(key string, effect v1.TaintEffect) {
			node.Spec.Taints = append(node.Spec.Taints, v1.Taint{Key: key, Effect: effect})
		}
		gone := false
		for _, trait := range names[1:] {
			switch trait {
			case "ssd":
				node.Labels["disk"] = "ssd"
			case "cordoned":
				taint(v1.TaintNodeUnschedulable, v1.TaintEffectNoSchedule)
			case "dead":
				taint(v1.TaintNodeUnreachable, v1.TaintEffectNoExecute)
			case "reserved":
				taint("reserved", v1.TaintEffectNoSchedule)
			case "cleared":
				taint("cleared", v1.TaintEffectNoExecute)
			case "gone":
				gone = true
			}
		}
		if !gone {
			view.Nodes = append(view.Nodes, node)
		}
		if there == "" {
			continue
		}
		for i, one := range strings.Split(there, "/") {
			view.Pods = append(view.Pods, podFrom(&view, node.Name, i, strings.Split(one, ",")))
		}
	}
	return view
}

func podFrom(view *View, node string, i int, states []string) *v1.Pod {
	hash := view.Revisions[1].Labels[appsv1.DefaultDaemonSetUniqueLabelKey]
	if slices.Contains(states, "old") {
		hash = view.Revisions[0].Labels[appsv1.DefaultDaemonSetUniqueLabelKey]
	}
	p := newPod(view.Set, hash, node)
	p.Name = fmt.Sprint(node, i)
	p.UID, p.Spec.NodeName, p.Status.Phase = types.UID(p.Name), node, v1.PodRunning
	p.CreationTimestamp = metav1.NewTime(start.Add(time.Duration(i) * time.Second))
	looptest.Put(p, states, view.Deleted, start)
	return p
}

func said(plan Plan) string {
	out := append(looptest.Said("adopt", plan.Adopt), looptest.Said("release", plan.Release)...)
	out = append(out, looptest.Said("delete", plan.Delete)...)
	for _, n := range plan.Create {
		out = append(out, "create on "+n)
	}
	return strings.Join(out, ", ")
}

func decided(t *testing.T, view View, now time.Time) Plan {
	t.Helper()
	plan, err := Decide(view, now)
	if err != nil {
		t.Fatal(err)
	}
	return plan
}

func TestDecide(t *testing.T) {
	number, percent := intstr.FromInt32, intstr.FromString
	for _, test := range []struct {
		name, nodes, want string
		set               *appsv1.DaemonSet
	}{
		{name: "a pod on each node", set: testSet(), nodes: "a: b:", want: "create on a, create on b"},
		{name: "and no second one", set: testSet(), nodes: "a:new,ready b:new"},
		{name: "where the template fits", set: testSet(selecting), nodes: "a: b,ssd:", want: "create on b"},
		{name: "on cordoned and dead nodes too", set: testSet(), nodes: "a,cordoned: b,dead:", want: "create on a, create on b"},
		{name: "not on reserved ones", set: testSet(), nodes: "a,reserved: b,cleared:"},
		{name: "unless it tolerates that", set: testSet(tolerating), nodes: "a,reserved: b,cleared:", want: "create on a, create on b"},
		{name: "what was there before the reservation stays", set: testSet(), nodes: "a,reserved:new,ready"},
		{name: "but not where all have to go", set: testSet(), nodes: "a,cleared:new,ready", want: "delete a0"},
		{name: "a node that the template fits no more", set: testSet(selecting), nodes: "a:new,ready", want: "delete a0"},
		{name: "one that leaves is waited for", set: testSet(), nodes: "a:new,leaving"},
		{name: "of two the older stays", set: testSet(), nodes: "a:new,ready/new,ready", want: "delete a1"},
		{name: "but one that is up before one that is not", set: testSet(), nodes: "a:new/new,ready", want: "delete a0"},
		{name: "also of two old ones under surge", set: testSet(rolling(number(0), number(1))), nodes: "a:old/old,ready", want: "delete a0"},
		{name: "a failed pod is replaced", set: testSet(), nodes: "a:new,failed", want: "delete a0"},
		{name: "so is one that ended", set: testSet(), nodes: "a:new,ended", want: "delete a0"},
		{name: "a pod for a node that is gone", set: testSet(), nodes: "a,gone:new,waiting", want: "delete a0"},
		{name: "adopts and releases", set: testSet(), nodes: "a:new,ready,orphan b:new,relabelled", want: "adopt a0, release b0, create on b"},

		{name: "rolls one by one", set: testSet(), nodes: "a:old,ready b:old,ready", want: "delete a0"},
		{name: "waits for the new one", set: testSet(), nodes: "a:new b:old,ready"},
		{name: "waits for the one that leaves", set: testSet(), nodes: "a:old,leaving b:old,ready"},
		{name: "own deletion unseen", set: testSet(), nodes: "a:old,ready,deleted b:old,ready"},
		{name: "goes on", set: testSet(), nodes: "a:new,ready b:old,ready", want: "delete b0"},
		{name: "an old one that is not up costs nothing", set: testSet(), nodes: "a:old b:old,ready", want: "delete a0"},
		{name: "not even beside one that is away", set: testSet(), nodes: "a:new b:old c:old,ready", want: "delete b0"},
		{name: "half of them", set: testSet(rolling(percent("50%"), number(0))), nodes: "a:old,ready b:old,ready c:old,ready", want: "delete a0, delete b0"},
		{name: "on delete, nothing rolls", set: testSet(onDelete), nodes: "a:old,ready"},
		{name: "surge puts new beside old", set: testSet(rolling(number(0), number(1))), nodes: "a:old,ready b:old,ready", want: "create on a"},
		{name: "and waits", set: testSet(rolling(number(0), number(1))), nodes: "a:old,ready/new b:old,ready"},
		{name: "and ends the old", set: testSet(rolling(number(0), number(1))), nodes: "a:old,ready/new,ready b:old,ready", want: "delete a0"},
	} {
		t.Run(test.name, func(t *testing.T) {
			if got := said(decided(t, world(test.set, test.nodes), start.Add(time.Minute))); got != test.want {
				t.Errorf("%q, want %q", got, test.want)
			}
		})
	}
}

func TestOwnCreationsUnseen(t *testing.T) {
	view := world(testSet(), "a: b:old,ready")
	view.Unseen = true
	if got := said(decided(t, view, start)); got != "" {
		t.Errorf("%q, want nothing", got)
	}
}

func TestAFailedPodIsLeftForAWhile(t *testing.T) {
	view := world(testSet(), "a:new,failed")
	view.Failures["a"] = 4
	plan := decided(t, view, start.Add(time.Second))
	if said(plan) != "" || plan.Again != 15*time.Second {
		t.Errorf("%q, again in %s, want nothing before 16 s of age", said(plan), plan.Again)
	}
	if got := said(decided(t, view, start.Add(16*time.Second))); got != "delete a0" {
		t.Errorf("after the time %q", got)
	}
}

func TestPodsAreBoundToTheirNode(t *testing.T) {
	set := testSet()
	set.Annotations = map[string]string{appsv1.DeprecatedTemplateGeneration: "7"}
	p := newPod(set, "h", "n")
	got := fmt.Sprint(nodeOf(p), p.GenerateName, p.Labels["pod-template-generation"], p.Labels[appsv1.DefaultDaemonSetUniqueLabelKey], len(p.Spec.Tolerations))
	if want := "nd-7h6"; strings.ReplaceAll(got, " ", "") != want {
		t.Errorf("%s, want %s", got, want)
	}
}

func TestStatus(t *testing.T) {
	plan := decided(t, world(testSet(minReady(10)), "a:new,ready b:old,ready c: d:new e,reserved:new,ready"), start.Add(4*time.Second))
	s := plan.Status
	got := fmt.Sprint(s.DesiredNumberScheduled, s.CurrentNumberScheduled, s.NumberReady, s.UpdatedNumberScheduled, s.NumberAvailable, s.NumberUnavailable, s.NumberMisscheduled, s.ObservedGeneration)
	if got != "4 3 2 2 0 4 1 2" || plan.Again != 6*time.Second {
		t.Errorf("%s, again in %s", got, plan.Again)
	}
}

// sim is a cluster with one set: what is there by node, and what an informer behind shows of the loop's own writes.
type sim struct {
	*rapid.T
	view    View
	real    map[types.UID]*v1.Pod
	shown   map[types.UID]*v1.Pod
	deleted map[types.UID]bool
	made    int
	now     time.Time
}

func (s *sim) live(node string) (all, up int) {
	for _, p := range s.real {
		if nodeOf(p) == node && p.DeletionTimestamp == nil {
			all++
			if len(p.Status.Conditions) > 0 {
				up++
			}
		}
	}
	return all, up
}

func (s *sim) upCount() (count int) {
	for _, node := range s.view.Nodes {
		if _, up := s.live(node.Name); up > 0 {
			count++
		}
	}
	return count
}

// act decides and carries out, and checks what must never be.
func (s *sim) act() {
	view := s.view
	view.Deleted, view.Unseen = map[types.UID]bool{}, false
	view.Pods = nil
	for _, uid := range slices.Sorted(maps.Keys(s.shown)) {
		view.Pods = append(view.Pods, s.shown[uid])
		view.Deleted[uid] = s.deleted[uid]
	}
	for uid := range s.real {
		view.Unseen = view.Unseen || s.shown[uid] == nil
	}
	plan, err := Decide(view, s.now)
	if err != nil {
		s.Fatal(err)
	}
	if plan.NewRevision != nil {
		s.view.Revisions = append(s.view.Revisions, plan.NewRevision)
		return
	}
	if r := plan.Renumbered; r != nil {
		for i := range s.view.Revisions {
			if s.view.Revisions[i].Name == r.Name {
				s.view.Revisions[i] = r
			}
		}
	}
	before := s.upCount()
	for _, p := range plan.Delete {
		if r := s.real[p.UID]; r != nil {
			next := r.DeepCopy()
			next.DeletionTimestamp = &metav1.Time{Time: s.now}
			s.real[p.UID], s.deleted[p.UID] = next, true
		}
	}
	d := decision{View: view, set: view.Set}
	d.sort()
	surge, unavailable := d.budgets()
	if floor := len(view.Nodes) - unavailable; s.upCount() < min(before, floor) {
		s.Fatalf("%d of %d nodes are served after %s, %d before, %d may be away", s.upCount(), len(view.Nodes), said(plan), before, unavailable)
	}
	doubled := s.doubled(plan.Hash)
	for _, node := range plan.Create {
		s.made++
		p := newPod(view.Set, plan.Hash, node)
		p.UID, p.Name, p.Spec.NodeName, p.Status.Phase = types.UID(fmt.Sprint(s.made)), fmt.Sprint(s.made), node, v1.PodPending
		p.CreationTimestamp = metav1.NewTime(s.now.Add(time.Duration(s.made)))
		s.real[p.UID] = p
	}
	if after := s.doubled(plan.Hash); after > max(doubled, surge) {
		s.Fatalf("%d nodes have a new pod beside an old one that is up after %s, %d before, %d may", after, said(plan), doubled, surge)
	}
	s.view.Set.Status = plan.Status
}

// doubled counts nodes with a pod of the revision beside one of an older that is up.
func (s *sim) doubled(hash string) (count int) {
	for _, node := range s.view.Nodes {
		fresh, old := false, false
		for _, p := range s.real {
			switch {
			case nodeOf(p) != node.Name || p.DeletionTimestamp != nil:
			case p.Labels[appsv1.DefaultDaemonSetUniqueLabelKey] == hash:
				fresh = true
			default:
				old = old || len(p.Status.Conditions) > 0
			}
		}
		if fresh && old {
			count++
		}
	}
	return count
}

func (s *sim) nature() {
	uids := slices.Sorted(maps.Keys(s.real))
	switch what := rapid.IntRange(0, 5).Draw(s.T, "what"); {
	case what == 0:
		s.view.Set = s.view.Set.DeepCopy()
		s.view.Set.Spec.Template.Spec.Containers[0].Image = rapid.SampledFrom([]string{"x", "y"}).Draw(s.T, "image")
	case what == 1:
		s.shown = maps.Clone(s.real)
	case len(uids) > 0:
		s.grow(rapid.SampledFrom(uids).Draw(s.T, "pod"), rapid.IntRange(0, 3).Draw(s.T, "up") > 0)
	}
}

// grow is what a node's agent does with a pod: it ends it, or it is up, or down.
func (s *sim) grow(uid types.UID, up bool) {
	p := s.real[uid].DeepCopy()
	if p.DeletionTimestamp != nil {
		delete(s.real, uid)
		return
	}
	p.Status.Phase, p.Status.Conditions = v1.PodRunning, nil
	if up {
		p.Status.Conditions = []v1.PodCondition{{Type: v1.PodReady, Status: v1.ConditionTrue, LastTransitionTime: metav1.NewTime(s.now)}}
	}
	if s.shown[uid] == s.real[uid] {
		s.shown[uid] = p // what agents report is shown at once
	}
	s.real[uid] = p
}

func newSim(t *rapid.T) *sim {
	number := intstr.FromInt32
	set := testSet(rolling(number(rapid.Int32Range(1, 3).Draw(t, "away")), number(0)))
	if rapid.Bool().Draw(t, "surge") {
		set = testSet(rolling(number(0), number(rapid.Int32Range(1, 3).Draw(t, "extra"))))
	}
	nodes := strings.Join(strings.Split("abcde", "")[:rapid.IntRange(1, 5).Draw(t, "nodes")], ": ") + ":"
	return &sim{T: t, view: world(set, nodes), real: map[types.UID]*v1.Pod{}, shown: map[types.UID]*v1.Pod{}, deleted: map[types.UID]bool{}, now: start}
}

func (s *sim) history() {
	for range rapid.IntRange(0, 50).Draw(s.T, "steps") {
		if rapid.Bool().Draw(s.T, "ours") {
			s.act()
		} else {
			s.nature()
		}
	}
}

// TestNeverTooFewNeverTooMany is safety: whatever happens, and however far the informer is behind the loop's own writes.
func TestNeverTooFewNeverTooMany(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) { newSim(t).history() })
}

// TestConverges is liveness: left alone, with agents that do their work, each node has one pod, of the last template.
func TestConverges(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := newSim(t)
		s.history()
		for range 60 {
			for _, uid := range slices.Sorted(maps.Keys(s.real)) {
				s.grow(uid, true)
			}
			s.shown = maps.Clone(s.real)
			s.act()
		}
		if len(s.real) != len(s.view.Nodes) || s.upCount() != len(s.view.Nodes) {
			t.Fatalf("%d pods, %d up, on %d nodes", len(s.real), s.upCount(), len(s.view.Nodes))
		}
		if status := s.view.Set.Status; int(status.UpdatedNumberScheduled) != len(s.view.Nodes) || status.NumberUnavailable != 0 {
			t.Fatalf("status %+v", status)
		}
	})
}
