package scheduler

import (
	"slices"

	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/selection"
)

// term is an affinity term or spread constraint, compiled: which pods it means, and within which topology.
type term struct {
	key        string
	namespaces []string
	// inNamespaces selects further namespaces by their labels; nil selects none.
	inNamespaces labels.Selector
	selector     labels.Selector
	weight       int64 // of a preferred term, negative for anti-affinity
}

// spreadTerm is a topology spread constraint.
type spreadTerm struct {
	term
	maxSkew, minDomains        int64
	honorAffinity, honorTaints bool
	self                       int64 // 1 when the pod matches its own selector
}

// relations are a pod's constraints towards other pods.
type relations struct {
	required, anti, preferred []term
	hard, soft                []spreadTerm
	// selfAffine: the pod matches all its own required terms, so it may be the first of its group.
	selfAffine bool
	namespaces map[string]map[string]string
}

func (r *relations) empty() bool {
	return len(r.required)+len(r.anti)+len(r.preferred)+len(r.hard)+len(r.soft) == 0
}

func newRelations(pod *Pod, namespaces map[string]map[string]string) relations {
	r := relations{anti: pod.anti, namespaces: namespaces}
	object := pod.Object
	if a := object.Spec.Affinity; a != nil {
		if a.PodAffinity != nil {
			r.required = newTerms(object, a.PodAffinity.RequiredDuringSchedulingIgnoredDuringExecution)
			r.addPreferred(object, a.PodAffinity.PreferredDuringSchedulingIgnoredDuringExecution, 1)
		}
		if a.PodAntiAffinity != nil {
			r.addPreferred(object, a.PodAntiAffinity.PreferredDuringSchedulingIgnoredDuringExecution, -1)
		}
	}
	r.selfAffine = !slices.ContainsFunc(r.required, func(t term) bool { return !t.matches(object, namespaces) })
	for i := range object.Spec.TopologySpreadConstraints {
		constraint := &object.Spec.TopologySpreadConstraints[i]
		t := newSpreadTerm(object, constraint)
		if constraint.WhenUnsatisfiable == v1.DoNotSchedule {
			r.hard = append(r.hard, t)
		} else {
			r.soft = append(r.soft, t)
		}
	}
	return r
}

func (r *relations) addPreferred(pod *v1.Pod, weighted []v1.WeightedPodAffinityTerm, sign int64) {
	for i := range weighted {
		t := newTerm(pod, &weighted[i].PodAffinityTerm)
		t.weight = sign * int64(weighted[i].Weight)
		r.preferred = append(r.preferred, t)
	}
}

func antiAffinityTerms(pod *v1.Pod) []term {
	if pod.Spec.Affinity == nil || pod.Spec.Affinity.PodAntiAffinity == nil {
		return nil
	}
	return newTerms(pod, pod.Spec.Affinity.PodAntiAffinity.RequiredDuringSchedulingIgnoredDuringExecution)
}

func newTerms(pod *v1.Pod, from []v1.PodAffinityTerm) []term {
	terms := make([]term, len(from))
	for i := range from {
		terms[i] = newTerm(pod, &from[i])
	}
	return terms
}

func newTerm(pod *v1.Pod, from *v1.PodAffinityTerm) term {
	t := term{key: from.TopologyKey, namespaces: from.Namespaces, selector: selector(from.LabelSelector)}
	if from.NamespaceSelector != nil {
		t.inNamespaces = selector(from.NamespaceSelector)
	} else if len(from.Namespaces) == 0 {
		t.namespaces = []string{pod.Namespace}
	}
	t.selector = withLabelKeys(t.selector, pod, from.MatchLabelKeys, selection.In)
	t.selector = withLabelKeys(t.selector, pod, from.MismatchLabelKeys, selection.NotIn)
	return t
}

func newSpreadTerm(pod *v1.Pod, from *v1.TopologySpreadConstraint) spreadTerm {
	t := spreadTerm{
		term: term{key: from.TopologyKey, namespaces: []string{pod.Namespace},
			selector: withLabelKeys(selector(from.LabelSelector), pod, from.MatchLabelKeys, selection.In)},
		maxSkew:       int64(from.MaxSkew),
		minDomains:    1,
		honorAffinity: from.NodeAffinityPolicy == nil || *from.NodeAffinityPolicy == v1.NodeInclusionPolicyHonor,
		honorTaints:   from.NodeTaintsPolicy != nil && *from.NodeTaintsPolicy == v1.NodeInclusionPolicyHonor,
	}
	if from.MinDomains != nil {
		t.minDomains = int64(*from.MinDomains)
	}
	if t.selector.Matches(labels.Set(pod.Labels)) {
		t.self = 1
	}
	return t
}

// selector compiles a label selector; one that is absent or does not parse selects nothing.
func selector(from *metav1.LabelSelector) labels.Selector {
	s, err := metav1.LabelSelectorAsSelector(from)
	if err != nil {
		return labels.Nothing()
	}
	return s
}

// withLabelKeys narrows a selector by the pod's own values of some labels.
func withLabelKeys(s labels.Selector, pod *v1.Pod, keys []string, operator selection.Operator) labels.Selector {
	for _, key := range keys {
		value, ok := pod.Labels[key]
		if !ok {
			continue
		}
		if requirement, err := labels.NewRequirement(key, operator, []string{value}); err == nil {
			s = s.Add(*requirement)
		}
	}
	return s
}

func (t *term) matches(pod *v1.Pod, namespaces map[string]map[string]string) bool {
	in := slices.Contains(t.namespaces, pod.Namespace) ||
		t.inNamespaces != nil && t.inNamespaces.Matches(labels.Set(namespaces[pod.Namespace]))
	return in && t.selector.Matches(labels.Set(pod.Labels))
}

// tally is what one node contributes to a class's relations.
type tally struct {
	// counts are the matching pods for each of required, anti, preferred, hard, soft, in this order.
	counts []int32
	// forbids are the topology keys within which a pod on this node wants no pod of the class.
	forbids []string
}

func (r *relations) tally(pod *Pod, n *Node) tally {
	var t tally
	for _, other := range n.anti {
		for i := range other.anti {
			if other.anti[i].matches(pod.Object, r.namespaces) && !slices.Contains(t.forbids, other.anti[i].key) {
				t.forbids = append(t.forbids, other.anti[i].key)
			}
		}
	}
	if r.empty() {
		return t
	}
	t.counts = make([]int32, 0, len(r.required)+len(r.anti)+len(r.preferred)+len(r.hard)+len(r.soft))
	count := func(t *term, spreading bool) (matching int32) {
		for _, p := range n.Pods {
			if spreading && p.Object.DeletionTimestamp != nil {
				continue // a leaving pod must not keep its domain full
			}
			if t.matches(p.Object, r.namespaces) {
				matching++
			}
		}
		return matching
	}
	for _, terms := range [][]term{r.required, r.anti, r.preferred} {
		for i := range terms {
			t.counts = append(t.counts, count(&terms[i], false))
		}
	}
	for _, terms := range [][]spreadTerm{r.hard, r.soft} {
		for i := range terms {
			t.counts = append(t.counts, count(&terms[i].term, true))
		}
	}
	return t
}
