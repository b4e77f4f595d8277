package scheduler

import (
	"maps"
	"math"
	"math/rand/v2"
	"slices"

	v1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
)

// The reference works on plain API objects, one pod and one node at a time, with nothing remembered. It shares
// no code with the scheduler but the tie break.
type reference struct {
	nodes     []*v1.Node
	on        map[string][]*v1.Pod
	nominated map[string][]*v1.Pod
	evicting  map[string]bool // pods by name
	budgets   []*policyv1.PodDisruptionBudget
	services  []map[string]string // their selectors
}

// with is the cluster with other pods on one node.
func (r *reference) with(node string, pods []*v1.Pod) *reference {
	next := *r
	next.on = map[string][]*v1.Pod{}
	for name, others := range r.on {
		next.on[name] = others
	}
	next.on[node] = pods
	return &next
}

func (r *reference) place(pod *v1.Pod, rng *rand.Rand) string {
	var feasible []*v1.Node
	for _, n := range r.nodes {
		if !r.feasible(pod, n) {
			continue
		}
		if slices.ContainsFunc(r.nominated[n.Name], func(p *v1.Pod) bool { return p.Name == pod.Name }) {
			return n.Name
		}
		feasible = append(feasible, n)
	}
	if len(feasible) == 0 {
		return ""
	}
	var ties []string
	best := int64(-1)
	for _, n := range feasible {
		score := r.score(pod, n, feasible)
		if score > best {
			best, ties = score, nil
		}
		if score == best {
			ties = append(ties, n.Name)
		}
	}
	return ties[rng.IntN(len(ties))]
}

// before are the pods nominated for a node that are not less important than the pod.
func (r *reference) before(pod *v1.Pod, node string) (others []*v1.Pod) {
	for _, p := range r.nominated[node] {
		if p.Name != pod.Name && priority(p) >= priority(pod) {
			others = append(others, p)
		}
	}
	return others
}

func (r *reference) feasible(pod *v1.Pod, n *v1.Node) bool {
	ok, _ := r.judge(pod, n)
	return ok
}

// judge runs the filters in order, and tells whether fewer pods could change what the first that refuses says.
func (r *reference) judge(pod *v1.Pod, n *v1.Node) (ok, removable bool) {
	if others := r.before(pod, n.Name); len(others) > 0 {
		if ok, removable := r.with(n.Name, slices.Concat(r.on[n.Name], others)).filter(pod, n); !ok {
			return false, removable
		}
	}
	return r.filter(pod, n)
}

func (r *reference) filter(pod *v1.Pod, n *v1.Node) (ok, removable bool) {
	if n.Spec.Unschedulable || !tolerates(pod, n, v1.TaintEffectNoSchedule) || !selected(pod, n) {
		return false, false
	}
	for _, other := range r.on[n.Name] {
		if mine, theirs := pod.Spec.Containers[0].Ports, other.Spec.Containers[0].Ports; mine != nil && theirs != nil && mine[0].HostPort == theirs[0].HostPort {
			return false, true
		}
	}
	if ok, possible := r.hasRoom(pod, n); !ok {
		return false, possible
	}
	if ok, labelled := r.spreads(pod, n); !ok {
		return false, labelled
	}
	if !r.together(pod, n) {
		return false, false
	}
	return r.apart(pod, n), true
}

// hasRoom tells whether the node has the resources, and whether it would have them when empty.
func (r *reference) hasRoom(pod *v1.Pod, n *v1.Node) (ok, possible bool) {
	ok, possible = true, true
	ask := func(p *v1.Pod, name v1.ResourceName) int64 {
		if name == v1.ResourcePods {
			return 1000
		}
		q := p.Spec.Containers[0].Resources.Requests[name]
		return q.MilliValue()
	}
	for _, name := range []v1.ResourceName{v1.ResourceCPU, v1.ResourceMemory, v1.ResourcePods, gpu} {
		q := n.Status.Allocatable[name]
		have, wanted, used := q.MilliValue(), ask(pod, name), int64(0)
		for _, other := range r.on[n.Name] {
			used += ask(other, name)
		}
		if wanted > 0 && wanted > have-used {
			ok, possible = false, possible && wanted <= have
		}
	}
	return ok, possible
}

// domain are the pods on nodes with the same value of the label.
func (r *reference) domain(n *v1.Node, key string, of func(*v1.Node) bool) (pods []*v1.Pod) {
	value, ok := n.Labels[key]
	for _, other := range r.nodes {
		if v, has := other.Labels[key]; ok && has && v == value && (of == nil || of(other)) {
			pods = append(pods, r.on[other.Name]...)
		}
	}
	return pods
}

// apart checks required anti-affinity both ways.
func (r *reference) apart(pod *v1.Pod, n *v1.Node) bool {
	for _, t := range antiTerms(pod) {
		if countOf(r.domain(n, t.TopologyKey, nil), t.LabelSelector) > 0 {
			return false
		}
	}
	for _, other := range r.nodes {
		for _, p := range r.on[other.Name] {
			for _, t := range antiTerms(p) {
				if same(n, other, t.TopologyKey) && selects(t.LabelSelector, pod) {
					return false
				}
			}
		}
	}
	return true
}

// together checks required affinity: pods count that match all terms.
func (r *reference) together(pod *v1.Pod, n *v1.Node) bool {
	terms := affinityTerms(pod)
	all := func(p *v1.Pod) bool {
		return !slices.ContainsFunc(terms, func(t v1.PodAffinityTerm) bool { return !selects(t.LabelSelector, p) })
	}
	present, anywhere := true, false
	for _, t := range terms {
		if _, ok := n.Labels[t.TopologyKey]; !ok {
			return false
		}
		present = present && slices.ContainsFunc(r.domain(n, t.TopologyKey, nil), all)
		for _, other := range r.nodes {
			if _, ok := other.Labels[t.TopologyKey]; ok && slices.ContainsFunc(r.on[other.Name], all) {
				anywhere = true
			}
		}
	}
	return present || !anywhere && all(pod)
}

// takesPart tells whether the node counts for a spread constraint.
func takesPart(pod *v1.Pod, c v1.TopologySpreadConstraint, n *v1.Node) bool {
	for _, other := range pod.Spec.TopologySpreadConstraints {
		if _, ok := n.Labels[other.TopologyKey]; !ok && other.WhenUnsatisfiable == c.WhenUnsatisfiable {
			return false
		}
	}
	if (c.NodeAffinityPolicy == nil || *c.NodeAffinityPolicy == v1.NodeInclusionPolicyHonor) && !selected(pod, n) {
		return false
	}
	return c.NodeTaintsPolicy == nil || *c.NodeTaintsPolicy == v1.NodeInclusionPolicyIgnore || tolerates(pod, n, v1.TaintEffectNoSchedule)
}

// counted are the pods that a constraint counts in the node's domain.
func (r *reference) counted(pod *v1.Pod, c v1.TopologySpreadConstraint, n *v1.Node) (count int) {
	for _, p := range r.domain(n, c.TopologyKey, func(o *v1.Node) bool { return takesPart(pod, c, o) }) {
		if countsFor(pod, c, p) {
			count++
		}
	}
	return count
}

func countsFor(pod *v1.Pod, c v1.TopologySpreadConstraint, p *v1.Pod) bool {
	for _, key := range c.MatchLabelKeys {
		if value, ok := pod.Labels[key]; ok && p.Labels[key] != value {
			return false
		}
	}
	return p.DeletionTimestamp == nil && selects(c.LabelSelector, p)
}

// spreads checks the hard constraints, and says whether the node has their labels.
func (r *reference) spreads(pod *v1.Pod, n *v1.Node) (ok, labelled bool) {
	for _, c := range pod.Spec.TopologySpreadConstraints {
		if c.WhenUnsatisfiable != v1.DoNotSchedule {
			continue
		}
		if _, ok := n.Labels[c.TopologyKey]; !ok {
			return false, false
		}
		lowest, domains := math.MaxInt, map[string]bool{}
		for _, other := range r.nodes {
			if takesPart(pod, c, other) {
				domains[other.Labels[c.TopologyKey]] = true
				lowest = min(lowest, r.counted(pod, c, other))
			}
		}
		if len(domains) == 0 || c.MinDomains != nil && len(domains) < int(*c.MinDomains) {
			lowest = 0
		}
		here := r.counted(pod, c, n)
		if selects(c.LabelSelector, pod) {
			here++
		}
		if here-lowest > int(c.MaxSkew) {
			return false, true
		}
	}
	return true, true
}

// score is the weighted sum of all scores.
func (r *reference) score(pod *v1.Pod, n *v1.Node, feasible []*v1.Node) int64 {
	var maxSoft, maxPreferred int64
	low, high := int64(math.MaxInt64), int64(math.MinInt64)
	for _, other := range feasible {
		maxSoft, maxPreferred = max(maxSoft, softTaints(pod, other)), max(maxPreferred, preferred(pod, other))
		low, high = min(low, r.attraction(pod, other)), max(high, r.attraction(pod, other))
	}
	score := int64(300)
	if maxSoft > 0 {
		score = 3 * (100 - 100*softTaints(pod, n)/maxSoft)
	}
	if maxPreferred > 0 {
		score += 2 * (100 * preferred(pod, n) / maxPreferred)
	}
	if high > low {
		score += 2 * int64(100*(float64(r.attraction(pod, n)-low)/float64(high-low)))
	}
	return score + r.free(pod, n) + r.images(pod, n) + r.spreadScore(pod, n, feasible)
}

// attraction sums the weights of preferred terms, the pod's and those of others that mean it.
func (r *reference) attraction(pod *v1.Pod, n *v1.Node) (sum int64) {
	for _, other := range r.nodes {
		for _, p := range r.on[other.Name] {
			for _, t := range weighted(pod) {
				if same(n, other, t.PodAffinityTerm.TopologyKey) && selects(t.PodAffinityTerm.LabelSelector, p) {
					sum += int64(t.Weight)
				}
			}
			for _, t := range weighted(p) {
				if same(n, other, t.PodAffinityTerm.TopologyKey) && selects(t.PodAffinityTerm.LabelSelector, pod) {
					sum += int64(t.Weight)
				}
			}
			for _, t := range affinityTerms(p) {
				if same(n, other, t.TopologyKey) && selects(t.LabelSelector, pod) {
					sum++
				}
			}
		}
	}
	return sum
}

func (r *reference) images(pod *v1.Pod, n *v1.Node) int64 {
	has := func(n *v1.Node) (size int64, ok bool) {
		for _, image := range n.Status.Images {
			if image.Names[0] == pod.Spec.Containers[0].Image+":latest" {
				return image.SizeBytes, true
			}
		}
		return 0, false
	}
	size, _ := has(n)
	holders := 0
	for _, other := range r.nodes {
		if _, ok := has(other); ok {
			holders++
		}
	}
	const mega = 1 << 20
	scaled := min(max(int64(float64(size)*(float64(holders)/float64(len(r.nodes)))), 23*mega), 1000*mega)
	return 100 * (scaled - 23*mega) / (977 * mega)
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
		for _, p := range slices.Concat(r.on[n.Name], []*v1.Pod{pod}) {
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
	requests := pod.Spec.Containers[0].Resources.Requests
	if _, ok := requests[v1.ResourceCPU]; ok || !requests.Memory().IsZero() {
		score += int64((1 - max(cpu-memory, memory-cpu)/2) * 100)
	}
	return score
}

// spreadScore is the score of the soft constraints: the pod's own, or the built-in ones over hosts and zones of pods
// with one controller, or of one service, for which a node without the label is not left out.
func (r *reference) spreadScore(pod *v1.Pod, n *v1.Node, feasible []*v1.Node) int64 {
	var soft []v1.TopologySpreadConstraint
	for _, c := range pod.Spec.TopologySpreadConstraints {
		if c.WhenUnsatisfiable == v1.ScheduleAnyway {
			soft = append(soft, c)
		}
	}
	mates := &metav1.LabelSelector{MatchLabels: map[string]string{"app": pod.Labels["app"], "controlled": "yes"}}
	if len(pod.OwnerReferences) == 0 {
		mates.MatchLabels = map[string]string{}
		for _, service := range r.services {
			if selects(&metav1.LabelSelector{MatchLabels: service}, pod) {
				maps.Copy(mates.MatchLabels, service)
			}
		}
	}
	builtIn := len(pod.Spec.TopologySpreadConstraints) == 0 && len(mates.MatchLabels) > 0
	if builtIn {
		soft = []v1.TopologySpreadConstraint{
			{MaxSkew: 3, TopologyKey: v1.LabelHostname, LabelSelector: mates}, {MaxSkew: 5, TopologyKey: v1.LabelTopologyZone, LabelSelector: mates}}
	}
	ignored := func(n *v1.Node) bool {
		return !builtIn && slices.ContainsFunc(soft, func(c v1.TopologySpreadConstraint) bool { _, ok := n.Labels[c.TopologyKey]; return !ok })
	}
	if len(soft) == 0 || ignored(n) {
		return 0
	}
	crowd := func(n *v1.Node) int64 {
		var sum float64
		for _, c := range soft {
			values, count := map[string]bool{}, 0
			for _, other := range feasible {
				if !ignored(other) {
					values[other.Labels[c.TopologyKey]] = true
					count++
				}
			}
			if _, ok := n.Labels[c.TopologyKey]; !ok {
				continue
			}
			size, pods := len(values), r.counted(pod, c, n)
			if c.TopologyKey == v1.LabelHostname {
				size, pods = count, 0
				for _, p := range r.on[n.Name] {
					if countsFor(pod, c, p) {
						pods++
					}
				}
			}
			sum += float64(pods)*math.Log(float64(size+2)) + float64(c.MaxSkew-1)
		}
		return int64(math.Round(sum))
	}
	lowest, highest := int64(math.MaxInt64), int64(0)
	for _, other := range feasible {
		if !ignored(other) {
			lowest, highest = min(lowest, crowd(other)), max(highest, crowd(other))
		}
	}
	if highest == 0 {
		return 200
	}
	return 2 * (100 * (highest + lowest - crowd(n)) / highest)
}

const gpu v1.ResourceName = "example.com/gpu"

func priority(pod *v1.Pod) int32 { return *pod.Spec.Priority }

// selected checks the node selector, the only required node affinity that is drawn.
func selected(pod *v1.Pod, n *v1.Node) bool {
	return labels.SelectorFromSet(pod.Spec.NodeSelector).Matches(labels.Set(n.Labels))
}

func tolerates(pod *v1.Pod, n *v1.Node, effect v1.TaintEffect) bool {
	return !slices.ContainsFunc(n.Spec.Taints, func(t v1.Taint) bool {
		return t.Effect == effect && !slices.ContainsFunc(pod.Spec.Tolerations, func(tol v1.Toleration) bool { return tol.Key == t.Key })
	})
}

func softTaints(pod *v1.Pod, n *v1.Node) int64 {
	if tolerates(pod, n, v1.TaintEffectPreferNoSchedule) {
		return 0
	}
	return 1
}

func preferred(pod *v1.Pod, n *v1.Node) (sum int64) {
	if pod.Spec.Affinity.NodeAffinity == nil {
		return 0
	}
	for _, t := range pod.Spec.Affinity.NodeAffinity.PreferredDuringSchedulingIgnoredDuringExecution {
		if n.Labels[t.Preference.MatchExpressions[0].Key] == t.Preference.MatchExpressions[0].Values[0] {
			sum += int64(t.Weight)
		}
	}
	return sum
}

func antiTerms(pod *v1.Pod) []v1.PodAffinityTerm {
	return pod.Spec.Affinity.PodAntiAffinity.RequiredDuringSchedulingIgnoredDuringExecution
}

func affinityTerms(pod *v1.Pod) []v1.PodAffinityTerm {
	return pod.Spec.Affinity.PodAffinity.RequiredDuringSchedulingIgnoredDuringExecution
}

// weighted are the preferred terms, those of anti-affinity with negative weights.
func weighted(pod *v1.Pod) []v1.WeightedPodAffinityTerm {
	all := slices.Clone(pod.Spec.Affinity.PodAffinity.PreferredDuringSchedulingIgnoredDuringExecution)
	for _, t := range pod.Spec.Affinity.PodAntiAffinity.PreferredDuringSchedulingIgnoredDuringExecution {
		t.Weight = -t.Weight
		all = append(all, t)
	}
	return all
}

func same(a, b *v1.Node, key string) bool {
	x, ok := a.Labels[key]
	y, has := b.Labels[key]
	return ok && has && x == y
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
