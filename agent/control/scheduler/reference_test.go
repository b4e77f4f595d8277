package scheduler

import (
	"fmt"
	"math"
	"math/rand/v2"
	"testing"

	v1 "k8s.io/api/core/v1"
	apiresource "k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"
	"pgregory.net/rapid"
)

// The reference works on plain API objects, one pod and one node at a time, with nothing remembered. It shares
// no code with the scheduler but the tie break.
type reference struct {
	nodes []*v1.Node
	on    map[string][]*v1.Pod
}

func (r *reference) place(pod *v1.Pod, rng *rand.Rand) string {
	var feasible []*v1.Node
	for _, n := range r.nodes {
		if r.fits(pod, n) {
			feasible = append(feasible, n)
		}
	}
	if len(feasible) == 0 {
		return ""
	}
	var maxSoft, maxPreferred int64
	for _, n := range feasible {
		maxSoft, maxPreferred = max(maxSoft, softTaints(pod, n)), max(maxPreferred, preferred(pod, n))
	}
	var ties []string
	best := int64(-1)
	for _, n := range feasible {
		score := int64(300)
		if maxSoft > 0 {
			score = 3 * (100 - 100*softTaints(pod, n)/maxSoft)
		}
		if maxPreferred > 0 {
			score += 2 * (100 * preferred(pod, n) / maxPreferred)
		}
		score += r.free(pod, n) + r.spreadScore(pod, n, feasible)
		if score > best {
			best, ties = score, nil
		}
		if score == best {
			ties = append(ties, n.Name)
		}
	}
	return ties[rng.IntN(len(ties))]
}

func (r *reference) fits(pod *v1.Pod, n *v1.Node) bool {
	return r.fitsAlone(pod, n) && r.related(pod, n)
}

// fitsAlone leaves out the pods on other nodes.
func (r *reference) fitsAlone(pod *v1.Pod, n *v1.Node) bool {
	if n.Spec.Unschedulable {
		return false
	}
	for _, t := range n.Spec.Taints {
		if t.Effect != v1.TaintEffectPreferNoSchedule && !tolerated(pod, t) {
			return false
		}
	}
	for key, value := range pod.Spec.NodeSelector {
		if n.Labels[key] != value {
			return false
		}
	}
	used := map[v1.ResourceName]int64{}
	for _, other := range append(r.on[n.Name], pod) {
		for name, q := range other.Spec.Containers[0].Resources.Requests {
			used[name] += q.MilliValue()
		}
		if other != pod && other.Spec.Containers[0].Ports != nil && pod.Spec.Containers[0].Ports != nil &&
			other.Spec.Containers[0].Ports[0].HostPort == pod.Spec.Containers[0].Ports[0].HostPort {
			return false
		}
	}
	used[v1.ResourcePods] = int64(len(r.on[n.Name])+1) * 1000
	for name, q := range pod.Spec.Containers[0].Resources.Requests {
		have := n.Status.Allocatable[name]
		if !q.IsZero() && used[name] > have.MilliValue() {
			return false
		}
	}
	have := n.Status.Allocatable[v1.ResourcePods]
	return used[v1.ResourcePods] <= have.MilliValue()
}

// related checks required anti-affinity both ways, required affinity and hard spread.
func (r *reference) related(pod *v1.Pod, n *v1.Node) bool {
	domain := func(key, value string) (pods []*v1.Pod) {
		for _, other := range r.nodes {
			if v, ok := other.Labels[key]; ok && v == value {
				pods = append(pods, r.on[other.Name]...)
			}
		}
		return pods
	}
	if t, ok := anti(pod); ok {
		if value, has := n.Labels[t.TopologyKey]; has && countOf(domain(t.TopologyKey, value), t.LabelSelector) > 0 {
			return false
		}
	}
	for name, others := range r.on {
		for _, other := range others {
			t, ok := anti(other)
			if !ok || !selects(t.LabelSelector, pod) {
				continue
			}
			value, has := r.node(name).Labels[t.TopologyKey]
			if mine, ok := n.Labels[t.TopologyKey]; ok && has && mine == value {
				return false
			}
		}
	}
	if t, ok := together(pod); ok {
		value, has := n.Labels[t.TopologyKey]
		anywhere := 0
		for _, other := range r.nodes {
			if _, ok := other.Labels[t.TopologyKey]; ok {
				anywhere += countOf(r.on[other.Name], t.LabelSelector)
			}
		}
		first := anywhere == 0 && selects(t.LabelSelector, pod)
		if !has || countOf(domain(t.TopologyKey, value), t.LabelSelector) == 0 && !first {
			return false
		}
	}
	return r.spreads(pod, n, domain)
}

func (r *reference) spreads(pod *v1.Pod, n *v1.Node, domain func(key, value string) []*v1.Pod) bool {
	for _, c := range pod.Spec.TopologySpreadConstraints {
		value, ok := n.Labels[c.TopologyKey]
		if !ok {
			return false
		}
		lowest := 1 << 30
		for _, other := range r.nodes {
			v, ok := other.Labels[c.TopologyKey]
			if !ok || !labels.SelectorFromSet(pod.Spec.NodeSelector).Matches(labels.Set(other.Labels)) {
				continue
			}
			lowest = min(lowest, r.eligible(pod, domain(c.TopologyKey, v), c.LabelSelector))
		}
		here := r.eligible(pod, domain(c.TopologyKey, value), c.LabelSelector)
		if selects(c.LabelSelector, pod) {
			here++
		}
		if here-lowest > int(c.MaxSkew) {
			return false
		}
	}
	return true
}

// eligible counts the pods on nodes that the incoming pod's node selector admits.
func (r *reference) eligible(pod *v1.Pod, others []*v1.Pod, s *metav1.LabelSelector) int {
	count := 0
	for _, other := range others {
		node := r.node(other.Spec.NodeName)
		if labels.SelectorFromSet(pod.Spec.NodeSelector).Matches(labels.Set(node.Labels)) && selects(s, other) {
			count++
		}
	}
	return count
}

func (r *reference) node(name string) *v1.Node {
	for _, n := range r.nodes {
		if n.Name == name {
			return n
		}
	}
	return nil
}

func (r *reference) free(pod *v1.Pod, n *v1.Node) int64 {
	ask := func(p *v1.Pod, name v1.ResourceName, unset int64) (asked, counted int64) {
		q, ok := p.Spec.Containers[0].Resources.Requests[name]
		if !ok {
			return 0, unset
		}
		if name == v1.ResourceCPU {
			return q.MilliValue(), q.MilliValue()
		}
		return q.Value(), q.Value()
	}
	share := func(name v1.ResourceName, unset int64) (left int64, fraction float64) {
		q := n.Status.Allocatable[name]
		have := q.Value()
		if name == v1.ResourceCPU {
			have = q.MilliValue()
		}
		var asked, counted int64
		for _, p := range append(r.on[n.Name], pod) {
			a, c := ask(p, name, unset)
			asked, counted = asked+a, counted+c
		}
		if counted <= have {
			left = (have - counted) * 100 / have
		}
		return left, min(1, float64(asked)/float64(have))
	}
	cpuLeft, cpu := share(v1.ResourceCPU, 100)
	memoryLeft, memory := share(v1.ResourceMemory, 200<<20)
	score := (cpuLeft + memoryLeft) / 2
	if len(pod.Spec.Containers[0].Resources.Requests) > 0 {
		score += int64((1 - max(cpu-memory, memory-cpu)/2) * 100)
	}
	return score
}

// spreadScore is the built-in spreading over hosts and zones of pods with one controller.
func (r *reference) spreadScore(pod *v1.Pod, n *v1.Node, feasible []*v1.Node) int64 {
	if len(pod.OwnerReferences) == 0 || len(pod.Spec.TopologySpreadConstraints) > 0 {
		return 0
	}
	mates := func(in func(*v1.Node) bool) (count int) {
		for _, other := range r.nodes {
			for _, p := range r.on[other.Name] {
				if in(other) && len(p.OwnerReferences) > 0 && p.OwnerReferences[0].UID == pod.OwnerReferences[0].UID {
					count++
				}
			}
		}
		return count
	}
	if mates(func(*v1.Node) bool { return true }) == 0 {
		return 0
	}
	zones, hosts := map[string]bool{}, 0
	for _, other := range r.nodes {
		if zone, ok := other.Labels[v1.LabelTopologyZone]; ok {
			zones[zone] = true
		}
		if r.fitsAlone(pod, other) {
			hosts++
		}
	}
	crowd := func(n *v1.Node) int64 {
		sum := float64(mates(func(o *v1.Node) bool { return o == n }))*math.Log(float64(hosts+2)) + 2
		if zone, ok := n.Labels[v1.LabelTopologyZone]; ok {
			sum += float64(mates(func(o *v1.Node) bool { return o.Labels[v1.LabelTopologyZone] == zone }))*math.Log(float64(len(zones)+2)) + 4
		}
		return int64(math.Round(sum))
	}
	lowest, highest := int64(1<<40), int64(0)
	for _, other := range feasible {
		lowest, highest = min(lowest, crowd(other)), max(highest, crowd(other))
	}
	return 2 * (100 * (highest + lowest - crowd(n)) / max(1, highest))
}

func tolerated(pod *v1.Pod, t v1.Taint) bool {
	for _, tol := range pod.Spec.Tolerations {
		if tol.Key == t.Key && (tol.Effect == "" || tol.Effect == t.Effect) {
			return true
		}
	}
	return false
}

func softTaints(pod *v1.Pod, n *v1.Node) (count int64) {
	for _, t := range n.Spec.Taints {
		if t.Effect == v1.TaintEffectPreferNoSchedule && !tolerated(pod, t) {
			count++
		}
	}
	return count
}

func preferred(pod *v1.Pod, n *v1.Node) (sum int64) {
	if pod.Spec.Affinity == nil || pod.Spec.Affinity.NodeAffinity == nil {
		return 0
	}
	for _, t := range pod.Spec.Affinity.NodeAffinity.PreferredDuringSchedulingIgnoredDuringExecution {
		if n.Labels[t.Preference.MatchExpressions[0].Key] == t.Preference.MatchExpressions[0].Values[0] {
			sum += int64(t.Weight)
		}
	}
	return sum
}

func anti(pod *v1.Pod) (v1.PodAffinityTerm, bool) {
	if pod.Spec.Affinity == nil || pod.Spec.Affinity.PodAntiAffinity == nil {
		return v1.PodAffinityTerm{}, false
	}
	return pod.Spec.Affinity.PodAntiAffinity.RequiredDuringSchedulingIgnoredDuringExecution[0], true
}

func together(pod *v1.Pod) (v1.PodAffinityTerm, bool) {
	if pod.Spec.Affinity == nil || pod.Spec.Affinity.PodAffinity == nil {
		return v1.PodAffinityTerm{}, false
	}
	return pod.Spec.Affinity.PodAffinity.RequiredDuringSchedulingIgnoredDuringExecution[0], true
}

func selects(s *metav1.LabelSelector, pod *v1.Pod) bool {
	return labels.SelectorFromSet(s.MatchLabels).Matches(labels.Set(pod.Labels))
}

func countOf(pods []*v1.Pod, s *metav1.LabelSelector) (count int) {
	for _, p := range pods {
		if selects(s, p) {
			count++
		}
	}
	return count
}

func drawNodes(t *rapid.T) []*v1.Node {
	nodes := make([]*v1.Node, rapid.IntRange(1, 7).Draw(t, "nodes"))
	for i := range nodes {
		name := fmt.Sprintf("n%d", i)
		n := testNode(name, rapid.SampledFrom([]string{"1", "2", "4"}).Draw(t, "cpu"),
			rapid.SampledFrom([]string{"1Gi", "4Gi"}).Draw(t, "memory"), rapid.IntRange(1, 8).Draw(t, "pods"))
		n.Labels = map[string]string{v1.LabelHostname: name}
		if zone := rapid.SampledFrom([]string{"", "a", "b"}).Draw(t, "zone"); zone != "" {
			n.Labels[v1.LabelTopologyZone] = zone
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

func drawTemplate(t *rapid.T) *v1.Pod {
	pod := testPod("", rapid.SampledFrom([]string{"", "100m", "500m", "1500m"}).Draw(t, "cpu"),
		rapid.SampledFrom([]string{"", "64Mi", "1Gi"}).Draw(t, "memory"))
	pod.Labels = map[string]string{"app": rapid.SampledFrom([]string{"x", "y"}).Draw(t, "app")}
	other := &metav1.LabelSelector{MatchLabels: map[string]string{"app": rapid.SampledFrom([]string{"x", "y"}).Draw(t, "other")}}
	key := rapid.SampledFrom([]string{v1.LabelTopologyZone, v1.LabelHostname}).Draw(t, "topology")
	pod.Spec.Affinity = &v1.Affinity{}
	terms := []v1.PodAffinityTerm{{TopologyKey: key, LabelSelector: other}}
	switch rapid.IntRange(0, 7).Draw(t, "relation") {
	case 0:
		pod.Spec.Affinity.PodAntiAffinity = &v1.PodAntiAffinity{RequiredDuringSchedulingIgnoredDuringExecution: terms}
	case 1:
		pod.Spec.Affinity.PodAffinity = &v1.PodAffinity{RequiredDuringSchedulingIgnoredDuringExecution: terms}
	case 2:
		pod.Spec.TopologySpreadConstraints = []v1.TopologySpreadConstraint{{TopologyKey: key, LabelSelector: other,
			MaxSkew: rapid.Int32Range(1, 2).Draw(t, "skew"), WhenUnsatisfiable: v1.DoNotSchedule}}
	}
	if rapid.IntRange(0, 3).Draw(t, "prefer") == 0 {
		pod.Spec.Affinity.NodeAffinity = &v1.NodeAffinity{PreferredDuringSchedulingIgnoredDuringExecution: []v1.PreferredSchedulingTerm{
			{Weight: 3, Preference: v1.NodeSelectorTerm{MatchExpressions: []v1.NodeSelectorRequirement{
				{Key: v1.LabelTopologyZone, Operator: v1.NodeSelectorOpIn, Values: []string{"a"}}}}}}}
	}
	if rapid.IntRange(0, 4).Draw(t, "select") == 0 {
		pod.Spec.NodeSelector = map[string]string{v1.LabelTopologyZone: "b"}
	}
	if rapid.IntRange(0, 2).Draw(t, "tolerate") == 0 {
		pod.Spec.Tolerations = []v1.Toleration{{Key: "gpu", Operator: v1.TolerationOpExists}}
	}
	if rapid.Bool().Draw(t, "controlled") {
		yes := true
		pod.OwnerReferences = []metav1.OwnerReference{{Kind: "ReplicaSet", Name: "rs", UID: types.UID(pod.Labels["app"]), Controller: &yes}}
	}
	if rapid.IntRange(0, 5).Draw(t, "port") == 0 {
		pod.Spec.Containers[0].Ports = []v1.ContainerPort{{HostPort: 80}}
	}
	return pod
}

// TestDecideEqualsReference: whatever was remembered, every decision is the one that a naive scheduler makes.
func TestDecideEqualsReference(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		nodes := drawNodes(t)
		ref := &reference{nodes: nodes, on: map[string][]*v1.Pod{}}
		cache, memo := NewCache(), NewMemo()
		for _, n := range nodes {
			cache.SetNode(n)
		}
		templates := make([]*v1.Pod, rapid.IntRange(1, 3).Draw(t, "templates"))
		for i := range templates {
			templates[i] = drawTemplate(t)
		}
		seed := rapid.Uint64().Draw(t, "seed")
		ours, theirs := rand.New(rand.NewPCG(seed, 0)), rand.New(rand.NewPCG(seed, 0))
		count := 0
		for range rapid.IntRange(1, 5).Draw(t, "batches") {
			var batch []*Pod
			for range rapid.IntRange(1, 5).Draw(t, "batch") {
				pod := rapid.SampledFrom(templates).Draw(t, "template").DeepCopy()
				pod.Name, count = fmt.Sprintf("p%d", count), count+1
				pod.UID = types.UID(pod.Name)
				batch = append(batch, NewPod(pod))
			}
			for _, d := range Decide(cache.View(), batch, memo, ours) {
				want := ref.place(d.Pod.Object, theirs)
				if d.Node != want {
					t.Fatalf("pod %s: placed on %q, reference says %q (%+v)", d.Pod.Object.Name, d.Node, want, d.Refused)
				}
				if want != "" {
					cache.Assume(d.Pod, want)
					placed := d.Pod.Object.DeepCopy()
					placed.Spec.NodeName = want
					ref.on[want] = append(ref.on[want], placed)
				}
			}
			leave(t, ref, cache)
		}
	})
}

// leave lets a random pod end.
func leave(t *rapid.T, ref *reference, cache *Cache) {
	for _, n := range ref.nodes {
		if pods := ref.on[n.Name]; len(pods) > 0 && rapid.Bool().Draw(t, "leave") {
			cache.RemovePod(pods[0].UID)
			ref.on[n.Name] = pods[1:]
			return
		}
	}
}

func testNode(name, cpu, memory string, pods int) *v1.Node {
	return &v1.Node{ObjectMeta: metav1.ObjectMeta{Name: name}, Status: v1.NodeStatus{Allocatable: v1.ResourceList{
		v1.ResourceCPU: apiresource.MustParse(cpu), v1.ResourceMemory: apiresource.MustParse(memory),
		v1.ResourcePods: *apiresource.NewQuantity(int64(pods), apiresource.DecimalSI)}}}
}

func testPod(name, cpu, memory string) *v1.Pod {
	requests := v1.ResourceList{}
	if cpu != "" {
		requests[v1.ResourceCPU] = apiresource.MustParse(cpu)
	}
	if memory != "" {
		requests[v1.ResourceMemory] = apiresource.MustParse(memory)
	}
	return &v1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name, UID: types.UID(name)},
		Spec: v1.PodSpec{SchedulerName: v1.DefaultSchedulerName, Containers: []v1.Container{{Name: "c", Image: "app",
			Resources: v1.ResourceRequirements{Requests: requests}}}}}
}
