package store

import (
	"cmp"
	"slices"
)

const (
	// DedupeCommandsPerMember is how many of a member's latest results are remembered.
	DedupeCommandsPerMember = 1024
	// DedupeMembers is how many members are remembered; the one that wrote longest ago is dropped.
	DedupeMembers = 256
)

// memberWindow remembers the results of one member's latest commands, oldest first.
type memberWindow struct {
	// touched orders members by their last command.
	touched uint64
	// forgotten is the highest sequence that left the window.
	forgotten uint64
	results   []dedupedResult
}

type dedupedResult struct {
	sequence uint64
	result   Result
}

// dedupe is part of the replicated state.
type dedupe struct {
	clock   uint64
	members map[string]*memberWindow
}

func newDedupe() dedupe { return dedupe{members: map[string]*memberWindow{}} }

// lookup returns the remembered result of (member, sequence).
func (d *dedupe) lookup(member string, sequence uint64) (Result, bool) {
	w := d.members[member]
	if w == nil {
		return Result{}, false
	}
	for i := len(w.results) - 1; i >= 0; i-- {
		if w.results[i].sequence == sequence {
			r := w.results[i].result
			r.Duplicate = true
			return r, true
		}
	}
	if sequence <= w.forgotten {
		return Result{Code: CodeForgotten}, true
	}
	return Result{}, false
}

func (d *dedupe) remember(member string, sequence uint64, r Result) {
	w := d.members[member]
	if w == nil {
		d.evict()
		w = &memberWindow{}
		d.members[member] = w
	}
	d.clock++
	w.touched = d.clock
	r.Current = nil
	w.results = append(w.results, dedupedResult{sequence: sequence, result: r})
	if len(w.results) > DedupeCommandsPerMember {
		w.forgotten = max(w.forgotten, w.results[0].sequence)
		w.results = slices.Delete(w.results, 0, 1)
	}
}

// evict makes room for one more member.
func (d *dedupe) evict() {
	if len(d.members) < DedupeMembers {
		return
	}
	delete(d.members, slices.MinFunc(d.names(), func(a, b string) int {
		return cmp.Compare(d.members[a].touched, d.members[b].touched)
	}))
}

// names returns the members in an order that is the same on every replica.
func (d *dedupe) names() []string {
	names := make([]string, 0, len(d.members))
	for n := range d.members {
		names = append(names, n)
	}
	slices.Sort(names)
	return names
}

// clone returns a copy that later commands do not change.
func (d *dedupe) clone() dedupe {
	c := dedupe{clock: d.clock, members: make(map[string]*memberWindow, len(d.members))}
	for n, w := range d.members {
		k := *w
		k.results = slices.Clone(w.results)
		c.members[n] = &k
	}
	return c
}
