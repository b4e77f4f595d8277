package scheduler

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	v1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	apiresource "k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"pgregory.net/rapid"
)

func drawNodes(t *rapid.T) []*v1.Node {
	nodes := make([]*v1.Node, rapid.IntRange(1, 7).Draw(t, "nodes"))
	for i := range nodes {
		name := fmt.Sprintf("n%d", i)
		n := testNode(name, rapid.SampledFrom([]string{"1", "2", "4"}).Draw(t, "cpu"),
			rapid.SampledFrom([]string{"1Gi", "4Gi"}).Draw(t, "memory"), rapid.IntRange(1, 8).Draw(t, "pods"))
		n.Labels = map[string]string{v1.LabelHostname: name}
		if zone := rapid.SampledFrom([]string{"", "a", "b", "c"}).Draw(t, "zone"); zone != "" {
			n.Labels[v1.LabelTopologyZone] = zone
		}
		if rapid.IntRange(0, 2).Draw(t, "gpus") == 0 {
			n.Status.Allocatable[gpu] = apiresource.MustParse("2")
		}
		if mega := rapid.SampledFrom([]int64{0, 10, 300, 2000}).Draw(t, "image"); mega > 0 {
			n.Status.Images = []v1.ContainerImage{{Names: []string{"app:latest", "app@sha256:0"}, SizeBytes: mega << 20}}
		}
		n.Spec.Unschedulable = rapid.IntRange(0, 9).Draw(t, "cordon") == 0
		for _, effect := range []v1.TaintEffect{v1.TaintEffectNoSchedule, v1.TaintEffectPreferNoSchedule} {
			if rapid.IntRange(0, 3).Draw(t, "taint") == 0 {
				key := rapid.SampledFrom([]string{"gpu", "spot"}).Draw(t, "key")
				n.Spec.Taints = append(n.Spec.Taints, v1.Taint{Key: key, Effect: effect})
			}
		}
		nodes[i] = n
	}
	return nodes
}

func drawTerms(t *rapid.T, most int) []v1.PodAffinityTerm {
	terms := make([]v1.PodAffinityTerm, rapid.IntRange(1, most).Draw(t, "terms"))
	for i := range terms {
		terms[i] = v1.PodAffinityTerm{TopologyKey: drawKey(t), LabelSelector: drawSelector(t)}
	}
	return terms
}

func drawKey(t *rapid.T) string {
	return rapid.SampledFrom([]string{v1.LabelTopologyZone, v1.LabelHostname}).Draw(t, "topology")
}

func drawSelector(t *rapid.T) *metav1.LabelSelector {
	return &metav1.LabelSelector{MatchLabels: map[string]string{"app": rapid.SampledFrom([]string{"x", "y"}).Draw(t, "other")}}
}

func drawAffinity(t *rapid.T) *v1.Affinity {
	a := &v1.Affinity{PodAffinity: &v1.PodAffinity{}, PodAntiAffinity: &v1.PodAntiAffinity{}}
	switch rapid.IntRange(0, 9).Draw(t, "relation") {
	case 0:
		a.PodAntiAffinity.RequiredDuringSchedulingIgnoredDuringExecution = drawTerms(t, 2)
	case 1:
		a.PodAffinity.RequiredDuringSchedulingIgnoredDuringExecution = drawTerms(t, 2)
	case 2, 3:
		for i, term := range drawTerms(t, 2) {
			weighted := []v1.WeightedPodAffinityTerm{{Weight: rapid.Int32Range(1, 100).Draw(t, "weight"), PodAffinityTerm: term}}
			if i == 0 && rapid.Bool().Draw(t, "away") {
				a.PodAntiAffinity.PreferredDuringSchedulingIgnoredDuringExecution = weighted
			} else {
				a.PodAffinity.PreferredDuringSchedulingIgnoredDuringExecution = weighted
			}
		}
	}
	if rapid.IntRange(0, 3).Draw(t, "prefer") == 0 {
		a.NodeAffinity = &v1.NodeAffinity{PreferredDuringSchedulingIgnoredDuringExecution: []v1.PreferredSchedulingTerm{
			{Weight: 3, Preference: v1.NodeSelectorTerm{MatchExpressions: []v1.NodeSelectorRequirement{
				{Key: v1.LabelTopologyZone, Operator: v1.NodeSelectorOpIn, Values: []string{"a"}}}}}}}
	}
	return a
}

func drawSpread(t *rapid.T) (all []v1.TopologySpreadConstraint) {
	policy := func(name string) *v1.NodeInclusionPolicy {
		return rapid.SampledFrom([]*v1.NodeInclusionPolicy{nil, new(v1.NodeInclusionPolicyHonor), new(v1.NodeInclusionPolicyIgnore)}).Draw(t, name)
	}
	for range rapid.SampledFrom([]int{0, 0, 1, 2}).Draw(t, "constraints") {
		c := v1.TopologySpreadConstraint{TopologyKey: drawKey(t), LabelSelector: drawSelector(t), MaxSkew: rapid.Int32Range(1, 2).Draw(t, "skew"),
			WhenUnsatisfiable:  rapid.SampledFrom([]v1.UnsatisfiableConstraintAction{v1.DoNotSchedule, v1.ScheduleAnyway}).Draw(t, "when"),
			NodeAffinityPolicy: policy("affinity"), NodeTaintsPolicy: policy("taints")}
		if c.WhenUnsatisfiable == v1.DoNotSchedule && rapid.IntRange(0, 3).Draw(t, "minimal") == 0 {
			c.MinDomains = new(rapid.Int32Range(1, 4).Draw(t, "domains"))
		}
		if rapid.IntRange(0, 3).Draw(t, "keys") == 0 {
			c.MatchLabelKeys = []string{"revision"}
		}
		all = append(all, c)
	}
	return all
}

func drawTemplate(t *rapid.T) *v1.Pod {
	pod := testPod("", rapid.SampledFrom([]string{"", "100m", "500m", "1500m"}).Draw(t, "cpu"),
		rapid.SampledFrom([]string{"", "64Mi", "1Gi"}).Draw(t, "memory"))
	pod.Labels = map[string]string{"app": rapid.SampledFrom([]string{"x", "y"}).Draw(t, "app"),
		"revision": rapid.SampledFrom([]string{"1", "2"}).Draw(t, "revision")}
	pod.Spec.Affinity, pod.Spec.TopologySpreadConstraints = drawAffinity(t), drawSpread(t)
	pod.Spec.Priority = new(rapid.SampledFrom([]int32{0, 0, 10, 100}).Draw(t, "priority"))
	pod.Spec.PreemptionPolicy = new(rapid.SampledFrom([]v1.PreemptionPolicy{v1.PreemptLowerPriority, v1.PreemptLowerPriority, v1.PreemptNever}).Draw(t, "policy"))
	if rapid.IntRange(0, 4).Draw(t, "gpu") == 0 {
		pod.Spec.Containers[0].Resources.Requests[gpu] = apiresource.MustParse("1")
	}
	if rapid.IntRange(0, 4).Draw(t, "select") == 0 {
		pod.Spec.NodeSelector = map[string]string{v1.LabelTopologyZone: "b"}
	}
	if rapid.IntRange(0, 2).Draw(t, "tolerate") == 0 {
		pod.Spec.Tolerations = []v1.Toleration{{Key: "gpu", Operator: v1.TolerationOpExists}}
	}
	if rapid.Bool().Draw(t, "controlled") {
		pod.Labels["controlled"] = "yes"
		pod.OwnerReferences = []metav1.OwnerReference{{Kind: "ReplicaSet", Name: "rs", UID: types.UID(pod.Labels["app"]), Controller: new(true)}}
	}
	if rapid.IntRange(0, 5).Draw(t, "port") == 0 {
		pod.Spec.Containers[0].Ports = []v1.ContainerPort{{HostPort: 80}}
	}
	return pod
}

func drawBudgets(t *rapid.T) (budgets []*policyv1.PodDisruptionBudget) {
	for i := range rapid.IntRange(0, 2).Draw(t, "budgets") {
		b := &policyv1.PodDisruptionBudget{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: fmt.Sprint(i)}}
		b.Spec.Selector = drawSelector(t)
		b.Status.DisruptionsAllowed = rapid.Int32Range(0, 2).Draw(t, "allowed")
		if rapid.Bool().Draw(t, "disrupted") {
			b.Status.DisruptedPods = map[string]metav1.Time{"p0": metav1.Now()}
		}
		budgets = append(budgets, b)
	}
	return budgets
}

// duel runs the scheduler and the reference side by side.
type duel struct {
	*rapid.T
	ref          *reference
	cache        *Cache
	memo         *Memo
	ours, theirs *rand.Rand
	waiting      []*Pod
	made         []*Preemption
}

// TestDecideEqualsReference: whatever was remembered, every decision is the one that a naive scheduler makes.
func TestDecideEqualsReference(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		seed := rapid.Uint64().Draw(t, "seed")
		d := &duel{T: t, cache: NewCache(), memo: NewMemo(), ours: rand.New(rand.NewPCG(seed, 0)), theirs: rand.New(rand.NewPCG(seed, 0)),
			ref: &reference{nodes: drawNodes(t), on: map[string][]*v1.Pod{}, nominated: map[string][]*v1.Pod{}, evicting: map[string]bool{},
				budgets: drawBudgets(t)}}
		most := rapid.SampledFrom([]int{0, 2, 100}).Draw(t, "groups")
		d.memo.grouping = grouping{after: rapid.IntRange(0, 2).Draw(t, "after"), most: func(int) int { return most }}
		for _, n := range d.ref.nodes {
			d.cache.SetNode(n)
		}
		for _, b := range d.ref.budgets {
			d.cache.SetBudget(types.NamespacedName{Namespace: b.Namespace, Name: b.Name}, NewBudget(b))
		}
		d.serve()
		templates := make([]*v1.Pod, rapid.IntRange(1, 4).Draw(t, "templates"))
		for i := range templates {
			templates[i] = drawTemplate(t)
		}
		count := 0
		for range rapid.IntRange(1, 5).Draw(t, "batches") {
			batch := d.waiting
			d.waiting = nil
			for range rapid.IntRange(1, 6).Draw(t, "batch") {
				pod := templates[rapid.IntRange(0, len(templates)-1).Draw(t, "template")].DeepCopy()
				pod.Name, count = fmt.Sprintf("p%d", count), count+1
				pod.UID = types.UID(pod.Name)
				pod.Status.StartTime = new(metav1.Unix(rapid.Int64Range(0, 3).Draw(t, "start"), 0))
				batch = append(batch, NewPod(pod))
			}
			for _, decision := range Decide(d.cache.View(), batch, d.memo, d.ours) {
				d.compare(decision)
			}
			d.tell()
			d.change()
			d.move()
			d.serve()
		}
	})
}

func (d *duel) compare(got Decision) {
	pod := got.Pod.Object
	want := d.ref.place(pod, d.theirs)
	if got.Node != want {
		d.Fatalf("pod %s: placed on %q, reference says %q (%+v)", pod.Name, got.Node, want, got.Refused)
	}
	if want != "" {
		d.ref.withdraw(pod)
		d.cache.Assume(got.Pod, want)
		d.ref.on[want] = append(slices.Clone(d.ref.on[want]), pod)
		return
	}
	d.waiting = append(d.waiting, got.Pod)
	made := d.ref.preempt(pod, d.theirs)
	p := got.Refused.Preemption
	if (p == nil) != (made == nil) {
		d.Fatalf("pod %s: preemption %+v, reference says %+v (%s)", pod.Name, p, made, got.Refused.Message)
	}
	if p == nil {
		if got.Refused.Withdraw {
			d.cache.Withdraw(pod.UID)
		}
		return
	}
	if p.Node != made.node || !slices.Equal(names(p.Victims), made.victims) || !slices.Equal(names(p.Displaced), made.displaced) {
		d.Fatalf("pod %s: evicts %v from %s, displaces %v; reference says %+v", pod.Name, names(p.Victims), p.Node, names(p.Displaced), made)
	}
	d.cache.Nominate(got.Pod, p.Node)
	for _, other := range p.Displaced {
		d.cache.Withdraw(other.UID())
	}
	d.made = append(d.made, p)
}

// tell has the victims know that they are evicted, which the decisions of the same batch do not see.
func (d *duel) tell() {
	for _, p := range d.made {
		for _, victim := range p.Victims {
			if d.ref.evicting[victim.Object.Name] {
				continue
			}
			d.cache.SetEvicting(victim.UID(), true)
			d.ref.evicting[victim.Object.Name] = true
			d.again(p.Node, victim.Object) // the cache puts it last
		}
	}
	d.made = nil
}

// again moves a pod behind the others of its node.
func (d *duel) again(node string, pod *v1.Pod) {
	rest := slices.DeleteFunc(slices.Clone(d.ref.on[node]), func(p *v1.Pod) bool { return p.Name == pod.Name })
	d.ref.on[node] = append(rest, pod)
}

func names(pods []*Pod) (all []string) {
	for _, p := range pods {
		all = append(all, p.Object.Name)
	}
	return all
}

// serve has other services select pods.
func (d *duel) serve() {
	d.ref.services = nil
	for i, selector := range []map[string]string{{"app": "x"}, {"revision": "1"}} {
		if rapid.Bool().Draw(d.T, "served") {
			d.ref.services = append(d.ref.services, selector)
		} else {
			selector = nil
		}
		d.cache.SetService(types.NamespacedName{Namespace: "default", Name: fmt.Sprint(i)}, selector)
	}
}

// move gives a random node another zone.
func (d *duel) move() {
	at := rapid.IntRange(0, 3*len(d.ref.nodes)).Draw(d.T, "moved")
	if at >= len(d.ref.nodes) {
		return
	}
	moved := d.ref.nodes[at].DeepCopy()
	moved.Labels[v1.LabelTopologyZone] = rapid.SampledFrom([]string{"a", "b", "d"}).Draw(d.T, "zone")
	d.ref.nodes[at] = moved
	d.cache.SetNode(moved)
}

// change lets random pods end or begin to leave, and victims go.
func (d *duel) change() {
	for _, n := range d.ref.nodes {
		for _, p := range slices.Clone(d.ref.on[n.Name]) {
			most := 7
			if d.ref.evicting[p.Name] {
				most = 1
			}
			switch rapid.IntRange(0, most).Draw(d.T, "change") {
			case 0:
				d.cache.RemovePod(p.UID)
				d.ref.on[n.Name] = slices.DeleteFunc(slices.Clone(d.ref.on[n.Name]), func(o *v1.Pod) bool { return o.Name == p.Name })
			case 2:
				leaving := p.DeepCopy()
				leaving.DeletionTimestamp, leaving.Spec.NodeName = new(metav1.Unix(int64(time.Hour), 0)), n.Name
				d.cache.SetPod(NewPod(leaving))
				d.again(n.Name, leaving)
			}
		}
	}
}
