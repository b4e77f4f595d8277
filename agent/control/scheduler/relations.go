package scheduler

import (
	"slices"

	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/selection"
	"k8s.io/apimachinery/pkg/types"
)

// requiredTermWeight is how much a placed pod's required affinity to an incoming pod attracts it, Kubernetes' default.
const requiredTermWeight = 1

// term is an affinity term, compiled: which pods it means, and within which topology.
type term struct {
	key        string
	namespaces []string
	// inNamespaces selects further namespaces by their labels; nil selects none.
	inNamespaces labels.Selector
	selector     labels.Selector
	weight       int64 // of a preferred term, negative for anti-affinity
}

// terms are all affinity terms of a pod.
type terms struct {
	required, anti, preferred []term
}

func (t *terms) none() bool { return len(t.required)+len(t.anti)+len(t.preferred) == 0 }

// spreadTerm is a topology spread constraint.
type spreadTerm struct {
	key       string
	namespace string
	selector  labels.Selector
	// mates, when set, means the pods of that controller instead of a selector's.
	mates                      types.UID
	maxSkew, minDomains        int64
	honorAffinity, honorTaints bool
	self                       int64 // 1 when the pod matches its own selector
}

// relations are a class's constraints towards other pods.
type relations struct {
	terms
	hard, soft []spreadTerm
	// byDefault: the soft constraints are the built-in ones, which also score nodes that lack a label.
	byDefault bool
	// selfAffine: the pod matches all its own required terms, so it may be the first of its group.
	selfAffine bool
	namespaces map[string]map[string]string
}

func (r *relations) empty() bool { return r.none() && len(r.hard)+len(r.soft) == 0 }

func newRelations(pod *Pod, namespaces map[string]map[string]string, servedBy labels.Set) relations {
	object := pod.Object
	r := relations{terms: pod.terms, namespaces: namespaces}
	r.selfAffine = matchesAll(r.required, object, namespaces)
	for i := range object.Spec.TopologySpreadConstraints {
		constraint := &object.Spec.TopologySpreadConstraints[i]
		t := newSpreadTerm(object, constraint)
		if constraint.WhenUnsatisfiable == v1.DoNotSchedule {
			r.hard = append(r.hard, t)
		} else {
			r.soft = append(r.soft, t)
		}
	}
	switch {
	case len(object.Spec.TopologySpreadConstraints) > 0:
	case len(servedBy) > 0:
		r.soft, r.byDefault = defaultSpread(spreadTerm{namespace: object.Namespace, selector: servedBy.AsSelector()}), true
	case pod.Controller != "":
		r.soft, r.byDefault = defaultSpread(spreadTerm{mates: pod.Controller}), true
	}
	return r
}

// defaultSpread is how pods are spread that belong together, by a controller or a service, and do not say: Kubernetes' built-in
// constraints.
func defaultSpread(together spreadTerm) []spreadTerm {
	const hostSkew, zoneSkew = 3, 5
	together.honorAffinity = true
	host, zone := together, together
	host.key, host.maxSkew = v1.LabelHostname, hostSkew
	zone.key, zone.maxSkew = v1.LabelTopologyZone, zoneSkew
	return []spreadTerm{host, zone}
}

// newTerms compiles the affinity terms of a pod.
func newTerms(pod *v1.Pod) (t terms) {
	a := pod.Spec.Affinity
	if a == nil {
		return t
	}
	if a.PodAffinity != nil {
		t.required = compileTerms(pod, a.PodAffinity.RequiredDuringSchedulingIgnoredDuringExecution)
		t.addPreferred(pod, a.PodAffinity.PreferredDuringSchedulingIgnoredDuringExecution, 1)
	}
	if a.PodAntiAffinity != nil {
		t.anti = compileTerms(pod, a.PodAntiAffinity.RequiredDuringSchedulingIgnoredDuringExecution)
		t.addPreferred(pod, a.PodAntiAffinity.PreferredDuringSchedulingIgnoredDuringExecution, -1)
	}
	return t
}

func (t *terms) addPreferred(pod *v1.Pod, weighted []v1.WeightedPodAffinityTerm, sign int64) {
	for i := range weighted {
		compiled := newTerm(pod, &weighted[i].PodAffinityTerm)
		compiled.weight = sign * int64(weighted[i].Weight)
		t.preferred = append(t.preferred, compiled)
	}
}

func compileTerms(pod *v1.Pod, from []v1.PodAffinityTerm) []term {
	compiled := make([]term, len(from))
	for i := range from {
		compiled[i] = newTerm(pod, &from[i])
	}
	return compiled
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
		key: from.TopologyKey, namespace: pod.Namespace,
		selector:      withLabelKeys(selector(from.LabelSelector), pod, from.MatchLabelKeys, selection.In),
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

// matchesAll tells whether the pod is one that every term means.
func matchesAll(all []term, pod *v1.Pod, namespaces map[string]map[string]string) bool {
	for i := range all {
		if !all[i].matches(pod, namespaces) {
			return false
		}
	}
	return true
}

// counts tells whether the pod counts for the spread. One that leaves must not keep its domain full. A selector that
// selects everything counts nobody, as in Kubernetes.
func (t *spreadTerm) counts(p *Pod) bool {
	return p.Object.DeletionTimestamp == nil && t.selects(p)
}

func (t *spreadTerm) selects(p *Pod) bool {
	if t.mates != "" {
		return p.Controller == t.mates
	}
	return p.Object.Namespace == t.namespace && !t.selector.Empty() && t.selector.Matches(labels.Set(p.Object.Labels))
}
