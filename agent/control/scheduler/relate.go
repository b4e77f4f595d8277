package scheduler

import (
	"math"

	v1 "k8s.io/api/core/v1"
)

// domain is one value of a topology label.
type domain struct{ key, value string }

// related is the state of all nodes' tallies at one moment, summed up by topology domain.
type related struct {
	c *constraints
	// sums are by the same index as tally.counts.
	sums      []map[string]int64
	any       bool // some pod matches some required term
	forbidden map[domain]bool
	// least is the smallest count of any eligible domain, for each hard spread term.
	least []int64
	// hardKeys and softKeys: how many different domains each spread term has.
	softDomains []int
}

// relate sums up; it returns nil when no pod relation matters to the class.
func (e *evaluated) relate(nodes []*Node) *related {
	if e.forbidding == 0 && e.c.relations.empty() {
		return nil
	}
	r := &related{c: e.c, forbidden: map[domain]bool{}}
	for i := range e.nodes {
		for _, key := range e.nodes[i].tally.forbids {
			if value, ok := topology(nodes[i], key); ok {
				r.forbidden[domain{key, value}] = true
			}
		}
	}
	if !e.c.relations.empty() {
		r.sum(nodes, e.nodes)
	}
	return r
}

func (r *related) sum(nodes []*Node, evaluations []evaluation) {
	rel := &r.c.relations
	at := 0
	add := func(t *term, eligible func(i int) bool) map[string]int64 {
		sums := map[string]int64{}
		for i, n := range nodes {
			if value, ok := topology(n, t.key); ok && eligible(i) {
				sums[value] += int64(evaluations[i].tally.counts[at])
			}
		}
		at++
		r.sums = append(r.sums, sums)
		return sums
	}
	all := func(int) bool { return true }
	for i := range rel.required {
		for _, n := range add(&rel.required[i], all) {
			r.any = r.any || n > 0
		}
	}
	for i := range rel.anti {
		add(&rel.anti[i], all)
	}
	for i := range rel.preferred {
		add(&rel.preferred[i], all)
	}
	for i := range rel.hard {
		t := &rel.hard[i]
		r.least = append(r.least, least(t, add(&t.term, func(i int) bool { return r.spreads(t, rel.hard, nodes[i]) })))
	}
	for i := range rel.soft {
		t := &rel.soft[i]
		r.softDomains = append(r.softDomains, len(add(&t.term, func(i int) bool { return r.spreads(t, rel.soft, nodes[i]) })))
	}
}

// spreads tells whether the node is part of the spread: it has the topology labels of all constraints, and the
// pod may go there as far as the constraint cares.
func (r *related) spreads(t *spreadTerm, all []spreadTerm, n *Node) bool {
	for i := range all {
		if _, ok := topology(n, all[i].key); !ok {
			return false
		}
	}
	if t.honorAffinity {
		if ok, err := r.c.affinity.Match(n.Object); err != nil || !ok {
			return false
		}
	}
	return !t.honorTaints || r.c.tolerates(n.Object.Spec.Taints)
}

func least(t *spreadTerm, sums map[string]int64) int64 {
	if int64(len(sums)) < t.minDomains {
		return 0
	}
	lowest := int64(math.MaxInt64)
	for _, n := range sums {
		lowest = min(lowest, n)
	}
	if lowest == math.MaxInt64 {
		return 0
	}
	return lowest
}

func topology(n *Node, key string) (string, bool) {
	if n.Object == nil {
		return "", false
	}
	value, ok := n.Object.Labels[key]
	return value, ok
}

// filter judges one node.
func (r *related) filter(n *Node) verdict {
	rel := &r.c.relations
	hard := len(rel.required) + len(rel.anti) + len(rel.preferred)
	for i := range rel.hard {
		t := &rel.hard[i]
		value, ok := topology(n, t.key)
		if !ok {
			return spreadLabel
		}
		if r.sums[hard+i][value]+t.self-r.least[i] > t.maxSkew {
			return spread
		}
	}
	if v := r.filterRequired(n); v != fits {
		return v
	}
	for i := range rel.anti {
		if value, ok := topology(n, rel.anti[i].key); ok && r.sums[len(rel.required)+i][value] > 0 {
			return podAntiAffinity
		}
	}
	for d := range r.forbidden {
		if value, ok := topology(n, d.key); ok && value == d.value {
			return existingAntiAffinity
		}
	}
	return fits
}

func (r *related) filterRequired(n *Node) verdict {
	rel := &r.c.relations
	missing := false
	for i := range rel.required {
		value, ok := topology(n, rel.required[i].key)
		if !ok {
			return podAffinity
		}
		missing = missing || r.sums[i][value] == 0
	}
	if missing && (r.any || !rel.selfAffine) {
		return podAffinity
	}
	return fits
}

// attraction is the raw score of the preferred terms on the node.
func (r *related) attraction(n *Node) int64 {
	rel := &r.c.relations
	first := len(rel.required) + len(rel.anti)
	var sum int64
	for i := range rel.preferred {
		if value, ok := topology(n, rel.preferred[i].key); ok {
			sum += rel.preferred[i].weight * r.sums[first+i][value]
		}
	}
	return sum
}

// crowding is the raw score of the soft spread constraints on the node, the fewer the better; false when the
// node lacks a label and so scores nothing. Constraints with more domains weigh more, or they would be drowned
// by those with few.
func (r *related) crowding(n *Node) (int64, bool) {
	rel := &r.c.relations
	first := len(r.sums) - len(rel.soft)
	var sum float64
	for i := range rel.soft {
		t := &rel.soft[i]
		value, ok := topology(n, t.key)
		if !ok {
			return 0, false
		}
		domains := r.softDomains[i]
		if t.key == v1.LabelHostname {
			domains = max(domains, 1)
		}
		sum += float64(r.sums[first+i][value])*math.Log(float64(domains+2)) + float64(t.maxSkew-1)
	}
	return int64(math.Round(sum)), true
}
