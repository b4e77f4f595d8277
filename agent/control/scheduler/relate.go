package scheduler

import v1 "k8s.io/api/core/v1"

// related counts, by topology domain, the pods that a class cares about and those that care about it. It is kept up
// node by node: what one node adds is its [tally].
type related struct {
	c          *constraints
	topologies []topology
	nodes      int
	// required are the pods that match all required affinity terms, in the domains of each term; matched is how many
	// there are on nodes with a label of any.
	required []domainSums
	matched  int64
	anti     []domainSums
	// spread are the hard constraints and then the soft ones.
	spread []spreading
	// pulls are the weights of preferred terms, own and others'; forbids the pods that want none of the class near.
	// Both by topology.
	pulls, forbids []domainSums
	// pulling and forbidding count the contributions: 0 spares the look.
	pulling, forbidding int64
}

// tally is what the pods of one node, or some of them, are to a class.
type tally struct {
	matching int64
	// counts are the pods that match each of the anti-affinity terms, and then each spread constraint.
	counts         []int32
	pulls, forbids []pull
}

// pull is an amount within the node's domain of a topology.
type pull struct {
	topology int
	amount   int64
}

func newRelated(c *constraints, nodes int) *related {
	r := &related{c: c, nodes: nodes}
	rel := &c.relations
	for i := range rel.required {
		r.required = append(r.required, domainSums{topology: r.topology(rel.required[i].key)})
	}
	for i := range rel.anti {
		r.anti = append(r.anti, domainSums{topology: r.topology(rel.anti[i].key)})
	}
	for _, terms := range [][]spreadTerm{rel.hard, rel.soft} {
		for i := range terms {
			at := r.topology(terms[i].key)
			r.spread = append(r.spread, spreading{term: &terms[i], domainSums: domainSums{topology: at},
				own: make([]int32, nodes), takes: make([]bool, nodes)})
		}
	}
	return r
}

// topology finds the topology of a key or adds one, on which no node is placed yet.
func (r *related) topology(key string) int {
	for i := range r.topologies {
		if r.topologies[i].key == key {
			return i
		}
	}
	of := make([]int32, r.nodes)
	for i := range of {
		of[i] = none
	}
	r.topologies = append(r.topologies, topology{key: key, numbers: map[string]int32{}, of: of})
	r.pulls = append(r.pulls, domainSums{topology: len(r.topologies) - 1})
	r.forbids = append(r.forbids, domainSums{topology: len(r.topologies) - 1})
	return len(r.topologies) - 1
}

func (r *related) domain(topology, i int) int32 { return r.topologies[topology].of[i] }

// hard and soft are the two kinds of spread constraints.
func (r *related) hard() []spreading { return r.spread[:len(r.c.relations.hard)] }
func (r *related) soft() []spreading { return r.spread[len(r.c.relations.hard):] }

// leave takes the node out of the spreads.
func (r *related) leave(i int) {
	for k := range r.spread {
		if s := &r.spread[k]; s.takes[i] {
			s.takes[i] = false
			s.join(r.domain(s.topology, i), false)
		}
	}
}

// place puts the node, whose tally is not counted, into its domains.
func (r *related) place(i int, object *v1.Node) {
	r.leave(i)
	for k := range r.topologies {
		r.topologies[k].place(i, object)
	}
	if object == nil || len(r.spread) == 0 {
		return
	}
	ok, err := r.c.affinity.Match(object)
	wanted, tolerated := ok && err == nil, r.c.tolerates(object.Spec.Taints)
	for _, group := range [][]spreading{r.hard(), r.soft()} {
		if !r.labelled(group, i) {
			continue
		}
		for k := range group {
			s := &group[k]
			if r.domain(s.topology, i) != none && (wanted || !s.term.honorAffinity) && (tolerated || !s.term.honorTaints) {
				s.takes[i] = true
				s.join(r.domain(s.topology, i), true)
			}
		}
	}
}

// labelled tells whether the node has the labels that all constraints of the group want.
func (r *related) labelled(group []spreading, i int) bool {
	if r.c.relations.byDefault {
		return true
	}
	for k := range group {
		if r.domain(group[k].topology, i) == none {
			return false
		}
	}
	return true
}

// reset empties a tally for pods of this class.
func (r *related) reset(t *tally) {
	t.matching, t.pulls, t.forbids = 0, t.pulls[:0], t.forbids[:0]
	if t.counts == nil {
		t.counts = make([]int32, len(r.anti)+len(r.spread))
	}
	clear(t.counts)
}

// take notes a pod in a tally, or takes it out of it.
func (r *related) take(t *tally, p *Pod, sign int32, nodes []*Node) {
	rel := &r.c.relations
	if len(rel.required) > 0 && matchesAll(rel.required, p.Object, rel.namespaces) {
		t.matching += int64(sign)
	}
	for k := range rel.anti {
		if rel.anti[k].matches(p.Object, rel.namespaces) {
			t.counts[k] += sign
		}
	}
	for k := range r.spread {
		if r.spread[k].term.counts(p) {
			t.counts[len(r.anti)+k] += sign
		}
	}
	for k := range rel.preferred {
		if own := &rel.preferred[k]; own.matches(p.Object, rel.namespaces) {
			t.pulls = r.pull(t.pulls, own.key, int64(sign)*own.weight, nodes)
		}
	}
	if p.terms.none() {
		return
	}
	of := func(pulls []pull, theirs []term, weigh func(*term) int64) []pull {
		for k := range theirs {
			if theirs[k].matches(r.c.pod.Object, rel.namespaces) {
				pulls = r.pull(pulls, theirs[k].key, int64(sign)*weigh(&theirs[k]), nodes)
			}
		}
		return pulls
	}
	t.pulls = of(t.pulls, p.terms.required, func(*term) int64 { return requiredTermWeight })
	t.pulls = of(t.pulls, p.terms.preferred, func(theirs *term) int64 { return theirs.weight })
	t.forbids = of(t.forbids, p.terms.anti, func(*term) int64 { return 1 })
}

// pull adds an amount to what pulls or forbids within a topology.
func (r *related) pull(pulls []pull, key string, amount int64, nodes []*Node) []pull {
	known := len(r.topologies)
	at := r.topology(key)
	if at == known { // the first to name this topology: place the nodes seen so far
		for i, n := range nodes {
			if n != nil {
				r.topologies[at].place(i, n.Object)
			}
		}
	}
	for i := range pulls {
		if pulls[i].topology == at {
			pulls[i].amount += amount
			return pulls
		}
	}
	return append(pulls, pull{at, amount})
}

// apply counts a tally of the node's pods, or takes it back.
func (r *related) apply(i int, t *tally, sign int64) {
	if t.matching != 0 {
		labelled := false
		for k := range r.required {
			if domain := r.domain(r.required[k].topology, i); domain != none {
				r.required[k].add(domain, sign*t.matching)
				labelled = true
			}
		}
		if labelled {
			r.matched += sign * t.matching
		}
	}
	for k, n := range t.counts {
		if n == 0 {
			continue
		}
		if k < len(r.anti) {
			if domain := r.domain(r.anti[k].topology, i); domain != none {
				r.anti[k].add(domain, sign*int64(n))
			}
			continue
		}
		s := &r.spread[k-len(r.anti)]
		s.own[i] += int32(sign) * n
		if s.takes[i] {
			s.count(r.domain(s.topology, i), sign*int64(n))
		}
	}
	r.pulling += sign * r.addPulls(r.pulls, i, t.pulls, sign)
	r.forbidding += sign * r.addPulls(r.forbids, i, t.forbids, sign)
}

func (r *related) addPulls(to []domainSums, i int, pulls []pull, sign int64) (count int64) {
	for _, p := range pulls {
		if domain := r.domain(p.topology, i); domain != none && p.amount != 0 {
			to[p.topology].add(domain, sign*p.amount)
			count++
		}
	}
	return count
}

// filters tells whether filter can refuse any node.
func (r *related) filters() bool {
	rel := &r.c.relations
	return r.forbidding != 0 || len(rel.hard)+len(rel.required)+len(rel.anti) > 0
}

// filter judges one node.
func (r *related) filter(i int) verdict {
	for k := range r.hard() {
		s := &r.spread[k]
		domain := r.domain(s.topology, i)
		if domain == none {
			return spreadLabel
		}
		if s.at(domain)+s.term.self-s.least() > s.term.maxSkew {
			return spread
		}
	}
	if v := r.filterRequired(i); v != fits {
		return v
	}
	for k := range r.anti {
		if domain := r.domain(r.anti[k].topology, i); domain != none && r.anti[k].at(domain) > 0 {
			return podAntiAffinity
		}
	}
	if r.forbidding == 0 {
		return fits
	}
	for k := range r.forbids {
		if domain := r.domain(k, i); domain != none && r.forbids[k].at(domain) > 0 {
			return existingAntiAffinity
		}
	}
	return fits
}

func (r *related) filterRequired(i int) verdict {
	missing := false
	for k := range r.required {
		domain := r.domain(r.required[k].topology, i)
		if domain == none {
			return podAffinity
		}
		missing = missing || r.required[k].at(domain) <= 0
	}
	if missing && (r.matched > 0 || !r.c.relations.selfAffine) {
		return podAffinity
	}
	return fits
}

// attraction is the raw score of the preferred terms, own and others', on the node.
func (r *related) attraction(i int) (sum int64) {
	for k := range r.pulls {
		if domain := r.domain(k, i); domain != none {
			sum += r.pulls[k].at(domain)
		}
	}
	return sum
}
