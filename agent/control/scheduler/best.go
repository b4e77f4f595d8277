package scheduler

import (
	"math"

	v1 "k8s.io/api/core/v1"
)

// ignored is the crowd of a node that lacks a label which spreading wants: it scores nothing.
const ignored = -1

// scan is the state of choosing among the nodes for one pod; its memory is used again for the next.
type scan struct {
	number   uint64
	feasible []int32
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
	s.find(e)
	if len(s.feasible) == 0 {
		return -1
	}
	s.spread(e)
	s.taints.prepare()
	s.preference.prepare()
	s.attraction.prepare()
	s.crowd.prepare()
	pulling := e.related.pulling != 0
	highest := int64(-1)
	s.ties = s.ties[:0]
	for k, i := range s.feasible {
		v := &e.candidates[i]
		score := int64(v.room) + weightImages*int64(v.image) + s.taints.of(int64(v.intolerable)) + s.preference.of(int64(v.preference))
		if pulling {
			score += s.attraction.of(e.related.attraction(int(i)))
		}
		if len(s.crowds) > 0 && s.crowds[k] != ignored {
			score += s.crowd.of(s.crowds[k])
		}
		if score > highest {
			highest, s.ties = score, s.ties[:0]
		}
		if score == highest {
			s.ties = append(s.ties, i)
		}
	}
	return int(s.ties[d.rng.IntN(len(s.ties))])
}

// find lists the feasible nodes and the extremes of their raw scores.
func (s *scan) find(e *evaluated) {
	for _, scale := range []*scale{&s.taints, &s.preference, &s.attraction, &s.crowd} {
		scale.reset()
	}
	filters, pulling := e.related.filters(), e.related.pulling != 0
	s.feasible, s.crowds = s.feasible[:0], s.crowds[:0]
	for i := range e.candidates {
		v := &e.candidates[i]
		if !v.fits || filters && e.related.filter(i) != fits {
			continue
		}
		s.feasible = append(s.feasible, int32(i))
		s.taints.observe(int64(v.intolerable))
		s.preference.observe(int64(v.preference))
		if pulling {
			s.attraction.observe(e.related.attraction(i))
		}
	}
}

// spread computes the crowds of the feasible nodes, the raw score of the soft spread constraints: the fewer the better.
func (s *scan) spread(e *evaluated) {
	soft := e.related.soft()
	if len(soft) == 0 {
		return
	}
	s.weigh(e, soft)
	for _, i := range s.feasible {
		if !e.related.labelled(soft, int(i)) {
			s.crowds = append(s.crowds, ignored)
			continue
		}
		var sum float64
		for k := range soft {
			c := &soft[k]
			domain := e.related.domain(c.topology, int(i))
			switch {
			case domain == none:
			case c.term.key == v1.LabelHostname:
				sum += float64(c.own[i])*c.weight + float64(c.term.maxSkew-1)
			default:
				sum += float64(c.at(domain))*c.weight + float64(c.term.maxSkew-1)
			}
		}
		crowd := int64(math.Round(sum))
		s.crowds = append(s.crowds, crowd)
		s.crowd.observe(crowd)
	}
}

// weigh gives constraints with more domains more weight, or they would be drowned by those with few. Domains are those
// with a feasible node; nodes without the label are one domain together where they are not left out.
func (s *scan) weigh(e *evaluated, soft []spreading) {
	s.number++
	counted := 0
	sizes := make([]int, len(soft))
	bare := make([]bool, len(soft))
	for _, i := range s.feasible {
		if !e.related.labelled(soft, int(i)) {
			continue
		}
		counted++
		for k := range soft {
			c := &soft[k]
			if c.term.key == v1.LabelHostname {
				continue
			}
			domain := e.related.domain(c.topology, int(i))
			if domain == none {
				bare[k] = true
				continue
			}
			for int(domain) >= len(c.stamps) {
				c.stamps = append(c.stamps, 0)
			}
			if c.stamps[domain] != s.number {
				c.stamps[domain] = s.number
				sizes[k]++
			}
		}
	}
	for k := range soft {
		size := sizes[k]
		if bare[k] {
			size++
		}
		if soft[k].term.key == v1.LabelHostname {
			size = counted
		}
		soft[k].weight = math.Log(float64(size + 2))
	}
}
