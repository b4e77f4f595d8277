package scheduler

import (
	"encoding/binary"
	"math/bits"
	"slices"

	v1 "k8s.io/api/core/v1"
)

const (
	// maxGroups bounds the groups of a class, and their memory: each has a bit for every node. A cluster whose nodes differ
	// more than that is looked at node by node.
	maxGroups = 512
	// minGroupNodes is how many nodes a group must have on average to be worth the keeping.
	minGroupNodes = 4
	// groupAfter is how many pods of a class are placed before its nodes are grouped, which takes as long as some placements.
	groupAfter = 4
)

// grouping says when nodes are grouped.
type grouping struct {
	after int
	// most limits the groups of that many nodes.
	most func(nodes int) int
}

func usualGrouping() grouping {
	return grouping{after: groupAfter, most: func(nodes int) int { return min(maxGroups, nodes/minGroupNodes) }}
}

// groups are the nodes on which the class can be placed as far as the node by itself is concerned, those together that nothing
// tells apart: they have the same rating, and lie in the same domains or in domains of their own with the same in them. A
// placement compares groups, of which there are few, and one changes with each pod only by one node.
type groups struct {
	active bool
	// wait is how many more placements pass before the nodes are grouped.
	wait  int
	slots []group
	free  []int32 // slots without nodes
	byKey map[string]int32
	of    []int32 // the slot of each node, none for those that the class cannot be placed on
	// dirty are the nodes that may be in the wrong group, stale tells which those are.
	dirty []int32
	stale []bool
	// alone tells for each topology, as the keys were made, whether its domains have one node each.
	alone []bool
	key   []byte
}

// group is a set of nodes.
type group struct {
	key   string
	nodes []uint64 // a bit for each
	size  int32
	any   int32 // one of them
}

// touch notes that the node changed.
func (g *groups) touch(i int) {
	if g.active && !g.stale[i] {
		g.stale[i] = true
		g.dirty = append(g.dirty, int32(i))
	}
}

// grouped brings the groups of a class up to date and tells whether it has any.
func (m *Memo) grouped(e *evaluated) bool {
	g := &e.groups
	most := m.grouping.most(len(e.ratings))
	switch {
	case !g.active && g.wait > 0:
		g.wait--
		return false
	case !g.active || !e.related.alike(g.alone):
		g.begin(e)
	}
	for _, i := range g.dirty {
		g.stale[i] = false
		g.move(e, int(i))
		if len(g.slots)-len(g.free) > most {
			*g = groups{wait: len(e.ratings)}
			return false
		}
	}
	g.dirty = g.dirty[:0]
	return true
}

// begin starts with no groups and all nodes to be put into one.
func (g *groups) begin(e *evaluated) {
	count := len(e.ratings)
	*g = groups{active: true, byKey: map[string]int32{}, of: make([]int32, count), dirty: make([]int32, count), stale: make([]bool, count),
		alone: e.related.alone()}
	for i := range count {
		g.of[i], g.dirty[i], g.stale[i] = none, int32(i), true
	}
}

// move puts a node where it belongs.
func (g *groups) move(e *evaluated, i int) {
	at := g.of[i]
	if e.ratings[i] < 0 {
		g.leave(i)
		return
	}
	g.key = e.groupKey(g.key[:0], i)
	if at != none && g.slots[at].key == string(g.key) {
		return
	}
	g.leave(i)
	at, ok := g.byKey[string(g.key)]
	if !ok {
		at = g.slot(len(e.ratings))
		key := string(g.key)
		g.slots[at].key, g.byKey[key] = key, at
	}
	s := &g.slots[at]
	s.nodes[i/64] |= 1 << (i % 64)
	s.size++
	s.any, g.of[i] = int32(i), at
}

// slot is one without nodes.
func (g *groups) slot(nodes int) int32 {
	if last := len(g.free) - 1; last >= 0 {
		at := g.free[last]
		g.free = g.free[:last]
		return at
	}
	g.slots = append(g.slots, group{nodes: make([]uint64, (nodes+63)/64)})
	return int32(len(g.slots) - 1)
}

func (g *groups) leave(i int) {
	at := g.of[i]
	if at == none {
		return
	}
	g.of[i] = none
	s := &g.slots[at]
	s.nodes[i/64] &^= 1 << (i % 64)
	s.size--
	switch {
	case s.size == 0:
		delete(g.byKey, s.key)
		s.key = ""
		g.free = append(g.free, at)
	case s.any == int32(i):
		word := slices.IndexFunc(s.nodes, func(w uint64) bool { return w != 0 })
		s.any = int32(word*64 + bits.TrailingZeros64(s.nodes[word]))
	}
}

// pick is the n-th node, in the order of the view, of those that are in the groups of the given nodes.
func (g *groups) pick(of []int32, n int) int {
	for word := range g.slots[g.of[of[0]]].nodes {
		var union uint64
		for _, i := range of {
			union |= g.slots[g.of[i]].nodes[word]
		}
		if count := bits.OnesCount64(union); n >= count {
			n -= count
			continue
		}
		for range n {
			union &= union - 1
		}
		return word*64 + bits.TrailingZeros64(union)
	}
	return -1
}

// groupKey appends all that can tell the node from others where the class is placed.
func (e *evaluated) groupKey(key []byte, i int) []byte {
	put := func(v int64) { key = binary.AppendVarint(key, v) }
	v, r := &e.candidates[i], e.related
	put(int64(e.ratings[i]))
	put(int64(v.intolerable))
	put(int64(v.preference))
	amount := func(s *domainSums) {
		if domain := r.domain(s.topology, i); domain != none && !r.topologies[s.topology].shared() {
			put(s.at(domain))
		}
	}
	for k := range r.topologies {
		switch domain := r.domain(k, i); {
		case domain == none || r.topologies[k].shared():
			put(int64(domain))
		default:
			put(0) // what is in it tells the node from others, not which it is
		}
		amount(&r.pulls[k])
		amount(&r.forbids[k])
	}
	for k := range r.required {
		amount(&r.required[k])
	}
	for k := range r.anti {
		amount(&r.anti[k])
	}
	for k := range r.spread {
		if r.spread[k].term.key == v1.LabelHostname { // what is on the node counts then, wherever it lies
			put(int64(r.spread[k].own[i]))
		}
		amount(&r.spread[k].domainSums)
	}
	return key
}

// alone tells of each topology whether its domains have one node each.
func (r *related) alone() []bool {
	all := make([]bool, len(r.topologies))
	for k := range r.topologies {
		all[k] = !r.topologies[k].shared()
	}
	return all
}

// alike tells whether that is how it was.
func (r *related) alike(before []bool) bool {
	if len(before) != len(r.topologies) {
		return false
	}
	for k := range before {
		if before[k] == r.topologies[k].shared() {
			return false
		}
	}
	return true
}
