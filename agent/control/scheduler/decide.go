package scheduler

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"sort"
	"strings"

	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// View is what a decision is made on. Never changed; a later view shares the nodes that are the same.
type View struct {
	// Nodes in the order of their names, those with pods but no object included.
	Nodes []*Node
	// Namespaces that pod affinity selects by; nil is none.
	Namespaces *Namespaces
}

// Namespaces are the labels of the cluster's namespaces by name. Never changed: a change makes a new one.
type Namespaces struct{ Labels map[string]map[string]string }

func (n *Namespaces) labels() map[string]map[string]string {
	if n == nil {
		return nil
	}
	return n.Labels
}

// Decision is what shall become of one pod.
type Decision struct {
	Pod *Pod
	// Node to bind to; empty when Refused says why there is none.
	Node    string
	Refused *Refusal
}

// Refusal is why a pod cannot be placed now.
type Refusal struct {
	// Message in Kubernetes' words, for the PodScheduled condition and the event.
	Message string
	// Reason of the condition: Unschedulable or SchedulingGated.
	Reason string
	// Plugins that refused nodes, sorted: only what concerns one of them can help.
	Plugins []string
}

// Decide places the pods one after the other, each seeing those before it. It is pure: memo only remembers what
// would be computed again, and rng breaks ties between equally good nodes.
func Decide(view *View, pods []*Pod, memo *Memo, rng *rand.Rand) []Decision {
	d := &decider{view: view, nodes: slices.Clone(view.Nodes), memo: memo, rng: rng}
	for _, n := range d.nodes {
		if n.Object != nil {
			d.present++
		}
	}
	decisions := make([]Decision, len(pods))
	for i, pod := range pods {
		decisions[i] = d.place(pod)
	}
	return decisions
}

type decider struct {
	view    *View
	nodes   []*Node
	present int // nodes that exist
	memo    *Memo
	rng     *rand.Rand
	ties    []int
	zones   []float64
}

func (d *decider) place(pod *Pod) Decision {
	if refused := unsupported(pod.Object); refused != nil {
		return Decision{Pod: pod, Refused: refused}
	}
	if d.present == 0 {
		return Decision{Pod: pod, Refused: &Refusal{Reason: v1.PodReasonUnschedulable,
			Message: "no nodes available to schedule pods"}}
	}
	e := d.memo.class(pod, d.view)
	d.refresh(e)
	rel := e.relate(d.nodes)
	at := d.best(e, rel)
	if at < 0 {
		return Decision{Pod: pod, Refused: d.explain(e)}
	}
	d.nodes[at] = d.nodes[at].With(pod)
	return Decision{Pod: pod, Node: d.nodes[at].Name}
}

// evaluation is what a class makes of one node. It holds as long as the node is the same.
type evaluation struct {
	object         *v1.Node
	fixed, verdict verdict
	short, never   uint64
	tally          tally
}

// candidate is the part of an evaluation that each placement scans, kept small and apart for that.
type candidate struct {
	fits        bool
	mates, zone int32
	room        int64
	intolerable int32
	preference  int32

	// For one placement only: by the pods elsewhere.
	related verdict
	crowd   int64
}

// refresh evaluates the nodes that changed since the class was last looked at.
func (d *decider) refresh(e *evaluated) {
	if count := len(d.nodes); len(e.seen) != count {
		e.nodes, e.seen, e.candidates, e.forbidding = make([]evaluation, count), make([]*Node, count), make([]candidate, count), 0
	}
	for i, n := range d.nodes {
		if e.seen[i] != n {
			e.seen[i] = n
			e.evaluate(n, &e.nodes[i], &e.candidates[i])
		}
	}
}

func (e *evaluated) evaluate(n *Node, v *evaluation, to *candidate) {
	c := e.c
	if v.object != n.Object || n.Object == nil {
		v.object, v.fixed = n.Object, c.static(n)
		if v.fixed == fits {
			to.intolerable, to.preference = int32(c.intolerable(n)), int32(c.preference(n))
		}
	}
	v.verdict, v.short, v.never = v.fixed, 0, 0
	if v.verdict == fits {
		v.verdict, v.short, v.never = c.dynamic(n)
	}
	if to.fits = v.verdict == fits; to.fits {
		to.room = c.room(n)
	}
	to.mates, to.zone = c.mates(n), e.zone(n)
	if len(v.tally.forbids) > 0 {
		e.forbidding--
	}
	if v.tally = c.relations.tally(c.pod, n); len(v.tally.forbids) > 0 {
		e.forbidding++
	}
}

// best finds the node with the highest score; among equals chance decides. Negative: none fits.
func (d *decider) best(e *evaluated, rel *related) int {
	near := d.gather(e)
	span := d.feasible(e, rel, near)
	if span.feasible == 0 {
		return -1
	}
	highest := int64(-1)
	d.ties = d.ties[:0]
	for i := range e.candidates {
		v := &e.candidates[i]
		if !v.fits || v.related != fits {
			continue
		}
		score := v.room + span.score(v)
		if rel != nil {
			score += span.relatedScore(rel, d.nodes[i])
		}
		if near != nil {
			score += near.score(v)
		}
		if score > highest {
			highest, d.ties = score, d.ties[:0]
		}
		if score == highest {
			d.ties = append(d.ties, i)
		}
	}
	return d.ties[d.rng.IntN(len(d.ties))]
}

// span holds the extremes over the feasible nodes that raw scores are normalised by.
type span struct {
	feasible                     int
	intolerable, preference      int32
	attractionMin, attractionMax int64
	crowdingMin, crowdingMax     int64
	soft, spreadSeen             bool
}

func (d *decider) feasible(e *evaluated, rel *related, near *neighbours) span {
	var s span
	for i := range e.candidates {
		v := &e.candidates[i]
		if !v.fits {
			continue
		}
		v.related = fits
		if rel != nil {
			if v.related = rel.filter(d.nodes[i]); v.related != fits {
				continue
			}
			s.observe(rel, d.nodes[i])
		}
		if near != nil {
			near.observe(v)
		}
		s.feasible++
		s.intolerable = max(s.intolerable, v.intolerable)
		s.preference = max(s.preference, v.preference)
	}
	return s
}

func (s *span) observe(rel *related, n *Node) {
	raw := rel.attraction(n)
	if s.feasible == 0 {
		s.attractionMin, s.attractionMax = raw, raw
	}
	s.attractionMin, s.attractionMax = min(s.attractionMin, raw), max(s.attractionMax, raw)
	s.soft = len(rel.c.relations.soft) > 0
	if crowd, ok := rel.crowding(n); ok && s.soft {
		if !s.spreadSeen {
			s.crowdingMin, s.crowdingMax, s.spreadSeen = crowd, crowd, true
		}
		s.crowdingMin, s.crowdingMax = min(s.crowdingMin, crowd), max(s.crowdingMax, crowd)
	}
}

// score is the normalised sum of the scores that depend on the node's object.
func (s *span) score(v *candidate) int64 {
	tolerable, preferred := int64(maxScore), int64(0)
	if s.intolerable > 0 {
		tolerable = maxScore - maxScore*int64(v.intolerable)/int64(s.intolerable)
	}
	if s.preference > 0 {
		preferred = maxScore * int64(v.preference) / int64(s.preference)
	}
	return weightTaint*tolerable + weightAffinity*preferred
}

// relatedScore is the normalised sum of the scores that depend on the pods elsewhere.
func (s *span) relatedScore(rel *related, n *Node) int64 {
	var sum int64
	if width := s.attractionMax - s.attractionMin; width > 0 {
		sum += weightInterPod * (maxScore * (rel.attraction(n) - s.attractionMin) / width)
	}
	if !s.soft {
		return sum
	}
	if crowd, ok := rel.crowding(n); ok {
		if s.crowdingMax == 0 {
			return sum + weightSpread*maxScore
		}
		sum += weightSpread * (maxScore * (s.crowdingMax + s.crowdingMin - crowd) / s.crowdingMax)
	}
	return sum
}

// explain words why no node took a pod of the class, as kube-scheduler does.
func (d *decider) explain(e *evaluated) *Refusal {
	counts, plugins := map[string]int{}, map[string]bool{}
	never, helpless, victims := 0, 0, 0
	for i := range e.nodes {
		v := &e.nodes[i]
		judged := v.verdict
		switch {
		case judged == nodeGone:
			continue
		case judged == fits:
			judged = e.candidates[i].related
		}
		r := judged.refusal()
		plugins[r.plugin] = true
		texts := []string{r.text}
		if judged == resources {
			texts = e.c.shortageTexts(v.short)
		}
		for _, text := range texts {
			counts[text]++
		}
		switch {
		case !r.removable || v.never != 0:
			never++
		case outranks(e.c.pod, d.nodes[i]):
			victims++
		default:
			helpless++
		}
	}
	return &Refusal{
		Reason:  v1.PodReasonUnschedulable,
		Plugins: sortedKeys(plugins),
		Message: fmt.Sprintf("0/%d nodes are available: %s. %s", d.present, histogram(counts),
			preemption(e.c.pod, d.present, never, helpless, victims)),
	}
}

// outranks tells whether the node has a pod of lower priority.
func outranks(pod *Pod, n *Node) bool {
	return slices.ContainsFunc(n.Pods, func(p *Pod) bool { return p.Priority < pod.Priority })
}

// preemption says what evicting others would bring. Podvine evicts nobody yet, and says so where it matters.
func preemption(pod *Pod, nodes, never, helpless, victims int) string {
	if policy := pod.Object.Spec.PreemptionPolicy; policy != nil && *policy == v1.PreemptNever {
		return "preemption: not eligible due to preemptionPolicy=Never."
	}
	counts := map[string]int{}
	for text, n := range map[string]int{
		"Preemption is not helpful for scheduling":                          never,
		"No preemption victims found for incoming pod":                      helpless,
		"Preemption of pods of lower priority is not served by Podvine yet": victims,
	} {
		if n > 0 {
			counts[text] = n
		}
	}
	return fmt.Sprintf("preemption: 0/%d nodes are available: %s.", nodes, histogram(counts))
}

func histogram(counts map[string]int) string {
	texts := make([]string, 0, len(counts))
	for text, n := range counts {
		texts = append(texts, fmt.Sprintf("%d %s", n, text))
	}
	sort.Strings(texts)
	return strings.Join(texts, ", ")
}

func sortedKeys(set map[string]bool) []string {
	keys := make([]string, 0, len(set))
	for key := range set {
		keys = append(keys, key)
	}
	slices.Sort(keys)
	return keys
}

// unsupported refuses a pod that asks for what the scheduler cannot give, rather than place it wrongly.
func unsupported(pod *v1.Pod) *Refusal {
	refuse := func(plugin, message string) *Refusal {
		return &Refusal{Reason: v1.PodReasonUnschedulable, Plugins: []string{plugin}, Message: message}
	}
	if len(pod.Spec.SchedulingGates) > 0 {
		names := make([]string, len(pod.Spec.SchedulingGates))
		for i, gate := range pod.Spec.SchedulingGates {
			names[i] = gate.Name
		}
		r := refuse(pluginGates, fmt.Sprintf("Scheduling is blocked due to non-empty scheduling gates: %v", names))
		r.Reason = v1.PodReasonSchedulingGated
		return r
	}
	for i := range pod.Spec.Volumes {
		if v := &pod.Spec.Volumes[i]; v.PersistentVolumeClaim != nil || v.Ephemeral != nil {
			return refuse(pluginVolumes, fmt.Sprintf("volume %q needs a PersistentVolumeClaim, which Podvine does not serve yet", v.Name))
		}
	}
	if len(pod.Spec.ResourceClaims) > 0 {
		return refuse(pluginClaims, fmt.Sprintf("resource claim %q: dynamic resource allocation is not served by Podvine yet",
			pod.Spec.ResourceClaims[0].Name))
	}
	if pod.Spec.SchedulingGroup != nil {
		return refuse("GangScheduling", "scheduling groups are not served by Podvine yet")
	}
	return nil
}

// pinned is the name of the one node that a pod's required affinity allows, as a DaemonSet's pods have it.
func pinned(pod *v1.Pod) (string, bool) {
	a := pod.Spec.Affinity
	if a == nil || a.NodeAffinity == nil || a.NodeAffinity.RequiredDuringSchedulingIgnoredDuringExecution == nil {
		return "", false
	}
	terms := a.NodeAffinity.RequiredDuringSchedulingIgnoredDuringExecution.NodeSelectorTerms
	if len(terms) != 1 {
		return "", false
	}
	for _, field := range terms[0].MatchFields {
		if field.Key == metav1.ObjectNameField && field.Operator == v1.NodeSelectorOpIn && len(field.Values) == 1 {
			return field.Values[0], true
		}
	}
	return "", false
}
