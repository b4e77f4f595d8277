package scheduler

import (
	"math"
	"slices"

	v1 "k8s.io/api/core/v1"
)

// ignored is the crowd of a node that lacks a label which spreading wants: it scores nothing.
const ignored = -1

// scan is the state of choosing among the nodes for one pod; its memory is used again for the next.
type scan struct {
	number uint64
	// feasible are the nodes that are compared, sizes how many each stands for: nil when for itself.
	feasible []int32
	sizes    []int32
	counts   []int32 // the memory of sizes
	crowds   []int64 // of the feasible nodes
	ties     []int32

	taints, preference, attraction, crowd scale
}

func newScan() *scan {
	return &scan{taints: scale{weigh: weighTaints}, preference: scale{weigh: weighPreference},
		attraction: scale{weigh: weighAttraction}, crowd: scale{weigh: weighCrowd}}
}

// best finds the node with the highest score; among equals chance decides. Negative: none fits.
func (d *decider) best(e *evaluated) int {
	s := d.memo.scan
	s.ties, s.sizes = s.ties[:0], nil
	grouped := false
	switch {
	case e.alone():
		s.highest(e)
	case d.memo.grouped(e):
		grouped = true
		s.findGroups(e)
	default:
		s.find(e)
	}
	if !e.alone() {
		s.spread(e)
		s.compare(e)
	}
	if len(s.ties) == 0 {
		return -1
	}
	if !grouped {
		return int(s.ties[d.rng.IntN(len(s.ties))])
	}
	var total int32
	for _, i := range s.ties {
		total += e.groups.slots[e.groups.of[i]].size
	}
	return e.groups.pick(s.ties, d.rng.IntN(int(total)))
}

// alone tells whether a node's rating is all that tells it from others.
func (e *evaluated) alone() bool {
	return e.uneven == 0 && e.related.pulling == 0 && !e.related.filters() && len(e.related.soft()) == 0
}

// highest lists the nodes with the highest rating.
func (s *scan) highest(e *evaluated) {
	highest := int32(0)
	for i, rating := range e.ratings {
		if rating < highest {
			continue
		}
		if rating > highest {
			highest, s.ties = rating, s.ties[:0]
		}
		s.ties = append(s.ties, int32(i))
	}
}

func (s *scan) begin() {
	for _, scale := range []*scale{&s.taints, &s.preference, &s.attraction, &s.crowd} {
		scale.reset()
	}
	s.feasible, s.crowds = s.feasible[:0], s.crowds[:0]
}

// find lists the feasible nodes and the extremes of their raw scores.
func (s *scan) find(e *evaluated) {
	s.begin()
	filters := e.related.filters()
	for i, rating := range e.ratings {
		if rating >= 0 && (!filters || e.related.filter(i) == fits) {
			s.feasible = append(s.feasible, int32(i))
			s.observe(e, i)
		}
	}
}

// findGroups is find by one node of each group.
func (s *scan) findGroups(e *evaluated) {
	s.begin()
	filters := e.related.filters()
	s.sizes = s.counts[:0]
	for k := range e.groups.slots {
		g := &e.groups.slots[k]
		if i := int(g.any); g.size > 0 && (!filters || e.related.filter(i) == fits) {
			s.feasible, s.sizes = append(s.feasible, g.any), append(s.sizes, g.size)
			s.observe(e, i)
		}
	}
	s.counts = s.sizes
}

func (s *scan) observe(e *evaluated, i int) {
	if e.uneven > 0 {
		s.taints.observe(int64(e.candidates[i].intolerable))
		s.preference.observe(int64(e.candidates[i].preference))
	}
	if e.related.pulling != 0 {
		s.attraction.observe(e.related.attraction(i))
	}
}

// size is how many nodes the k-th feasible one stands for.
func (s *scan) size(k int) int {
	if s.sizes == nil {
		return 1
	}
	return int(s.sizes[k])
}

// compare lists those of the feasible nodes that score highest. What is the same for all nodes is left out.
func (s *scan) compare(e *evaluated) {
	for _, scale := range []*scale{&s.taints, &s.preference, &s.attraction, &s.crowd} {
		scale.prepare()
	}
	pulling, crowded := e.related.pulling != 0, len(s.crowds) == len(s.feasible)
	highest := int64(0)
	for k, i := range s.feasible {
		score := int64(e.ratings[i])
		if e.uneven > 0 {
			v := &e.candidates[i]
			score += s.taints.of(int64(v.intolerable)) + s.preference.of(int64(v.preference))
		}
		if pulling {
			score += s.attraction.of(e.related.attraction(int(i)))
		}
		if crowded && s.crowds[k] != ignored {
			score += s.crowd.of(s.crowds[k])
		}
		if score < highest {
			continue
		}
		if score > highest {
			highest, s.ties = score, s.ties[:0]
		}
		s.ties = append(s.ties, i)
	}
}

// spread computes the crowds of the feasible nodes, the raw score of the soft spread constraints: the fewer the better.
func (s *scan) spread(e *evaluated) {
	soft := e.related.soft()
	if len(soft) == 0 {
		return
	}
	s.weigh(e, soft)
	every := e.related.c.relations.byDefault
	s.crowds = slices.Grow(s.crowds, len(s.feasible))[:len(s.feasible)]
	for at, i := range s.feasible {
		if !every && !e.related.labelled(soft, int(i)) {
			s.crowds[at] = ignored
			continue
		}
		var sum float64
		for k := range soft {
			c := &soft[k]
			domain := c.places[i]
			switch {
			case domain == none:
			case c.byNode:
				sum += float64(c.own[i])*c.weight + c.slack
			default:
				sum += float64(c.at(domain))*c.weight + c.slack
			}
		}
		crowd := int64(sum + 0.5) // rounded: it is never negative
		s.crowds[at] = crowd
		s.crowd.observe(crowd)
	}
}

// weigh gives constraints with more domains more weight, or they would be drowned by those with few. Domains are those
// with a feasible node; nodes without the label are one domain together where they are not left out.
func (s *scan) weigh(e *evaluated, soft []spreading) {
	s.number++
	counted := 0
	for k := range soft {
		c := &soft[k]
		c.places, c.byNode = e.related.topologies[c.topology].of, c.term.key == v1.LabelHostname
		c.slack = float64(c.term.maxSkew - 1)
	}
	for k, i := range s.feasible {
		if e.related.labelled(soft, int(i)) {
			counted += s.size(k)
		}
	}
	for k := range soft {
		c, size := &soft[k], counted
		if !c.byNode {
			size = s.domains(e, soft, c)
		}
		c.weight = math.Log(float64(size + 2))
	}
}

// domains counts those that have a feasible node that is not left out.
func (s *scan) domains(e *evaluated, soft []spreading, c *spreading) (size int) {
	every, bare, shared := e.related.c.relations.byDefault, 0, e.related.topologies[c.topology].shared()
	for k, i := range s.feasible {
		if !every && !e.related.labelled(soft, int(i)) {
			continue
		}
		domain := c.places[i]
		if domain == none {
			bare = 1
			continue
		}
		if !shared {
			size += s.size(k)
			continue
		}
		for int(domain) >= len(c.stamps) {
			c.stamps = append(c.stamps, 0)
		}
		if c.stamps[domain] != s.number {
			c.stamps[domain] = s.number
			size++
		}
	}
	return size + bare
}
