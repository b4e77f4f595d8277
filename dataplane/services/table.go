package services

import (
	"cmp"
	"maps"
	"net/netip"
	"slices"
)

// setState is a set as the maps hold it: its head, and its slots, each of which is a member.
type setState struct {
	head Head
	// headed is false before the head is first written and after it is deleted, while slots are there.
	headed bool
	slots  []Backend
	// table is nil, or a Maglev table in which an entry may be missing; entries counts those that are there.
	table   []Backend
	entries int
	sources map[netip.Prefix]bool
}

func (s *setState) entry(i int) Backend {
	if i < len(s.table) {
		return s.table[i]
	}
	return Backend{}
}

func (s *setState) putEntry(i int, b Backend) {
	if s.table == nil {
		s.table = make([]Backend, maglevEntries)
	}
	for _, change := range []struct {
		entry Backend
		by    int
	}{{s.table[i], -1}, {b, 1}} {
		if change.entry != (Backend{}) {
			s.entries += change.by
		}
	}
	if s.table[i] = b; s.entries == 0 {
		s.table = nil
	}
}

func (s *setState) isEmpty() bool {
	return !s.headed && len(s.slots) == 0 && s.table == nil && len(s.sources) == 0
}

// State is the content of the maps, as far as services are concerned.
type State struct {
	Frontends map[Frontend]Target
	sets      map[uint32]*setState
}

func newState() State {
	return State{Frontends: map[Frontend]Target{}, sets: map[uint32]*setState{}}
}

// apply follows one write. Slots beyond the count exist only between the writes of a plan.
func (s *State) apply(w Write) {
	switch w.Verb {
	case PutFrontend:
		s.Frontends[w.Frontend] = w.Target
	case DeleteFrontend:
		delete(s.Frontends, w.Frontend)
	case PutSet:
		set := s.set(w.Set)
		set.head, set.headed = w.Head, true
	case PutSlot:
		set := s.set(w.Set)
		for len(set.slots) <= int(w.Index) {
			set.slots = append(set.slots, Backend{})
		}
		set.slots[w.Index] = w.Backend
	case DeleteSlot:
		if set := s.sets[w.Set]; set != nil && int(w.Index) < len(set.slots) {
			set.slots[w.Index] = Backend{}
			for len(set.slots) > 0 && set.slots[len(set.slots)-1] == (Backend{}) {
				set.slots = set.slots[:len(set.slots)-1]
			}
			s.forgetEmpty(w.Set, set)
		}
	case PutEntry:
		s.set(w.Set).putEntry(int(w.Index), w.Backend)
	case DeleteEntry:
		if set := s.sets[w.Set]; set != nil && set.table != nil {
			set.putEntry(int(w.Index), Backend{})
			s.forgetEmpty(w.Set, set)
		}
	case PutSource:
		set := s.set(w.Set)
		if set.sources == nil {
			set.sources = map[netip.Prefix]bool{}
		}
		set.sources[w.Source] = true
	case DeleteSource:
		if set := s.sets[w.Set]; set != nil {
			delete(set.sources, w.Source)
			s.forgetEmpty(w.Set, set)
		}
	case DeleteSet:
		if set := s.sets[w.Set]; set != nil {
			set.head, set.headed = Head{}, false
			s.forgetEmpty(w.Set, set)
		}
	case PutMember, DeleteMember:
		// Members mirror the slots.
	}
}

func (s *State) forgetEmpty(id uint32, set *setState) {
	if set.isEmpty() {
		delete(s.sets, id)
	}
}

func (s *State) set(id uint32) *setState {
	set := s.sets[id]
	if set == nil {
		set = &setState{}
		s.sets[id] = set
	}
	return set
}

// table knows what is wanted and what the maps hold, and plans from the one to the other. It is pure: no clock, no
// randomness, no system call. One goroutine at a time.
type table struct {
	state    State
	services map[string]*compiled
	// claims lists, for each frontend, the services that want it.
	claims map[Frontend][]string
	ids    map[setKey]uint32
	named  map[uint32]setKey
	lastID uint32
	// released are the sets whose removal the current plan contains already.
	released []uint32
	// tabled are the sets with a Maglev table, refused those that got none because there are too many.
	tabled, refused map[setKey]bool
}

func newTable(state State) *table {
	t := &table{
		state:    state,
		services: map[string]*compiled{},
		claims:   map[Frontend][]string{},
		ids:      map[setKey]uint32{},
		named:    map[uint32]setKey{},
		tabled:   map[setKey]bool{},
		refused:  map[setKey]bool{},
	}
	for id := range state.sets {
		t.lastID = max(t.lastID, id)
	}
	return t
}

// change is a service's new form; nil removes it.
type change struct {
	name string
	want *compiled
}

// plan takes in the changes and returns the writes that realise them. With full set the changes name every service: then
// IDs of an earlier agent's sets are adopted, and its strays go. The writes must be executed in order; each that succeeds
// is to be reported to state.apply before the next plan.
func (t *table) plan(changes []change, full bool) []Write {
	t.released = t.released[:0]
	touched := map[Frontend]bool{}
	var dropped []setKey
	for _, c := range changes {
		dropped = append(dropped, t.replace(c, touched)...)
	}
	var writes []Write
	if full {
		writes = t.strayFrontends(touched)
		t.adopt()
	}
	puts, deletes := t.planFrontends(slices.SortedFunc(maps.Keys(touched), compareFrontends))
	writes = append(writes, deletes...)
	var late []Write
	for _, c := range changes {
		if c.want == nil {
			continue
		}
		for _, key := range slices.SortedFunc(maps.Keys(c.want.sets), compareSetKeys) {
			now, later := t.planSet(key, c.want.sets[key])
			writes, late = append(writes, now...), append(late, later...)
		}
	}
	writes = append(writes, puts...)
	writes = append(writes, late...)
	for _, key := range dropped {
		writes = append(writes, t.planDrop(key)...)
	}
	if full {
		writes = append(writes, t.straySets()...)
	}
	return writes
}

// strayFrontends plans the removal of frontends that nobody wants and that no change touched: what an earlier agent left.
func (t *table) strayFrontends(touched map[Frontend]bool) []Write {
	var stray []Frontend
	for f := range t.state.Frontends {
		if len(t.claims[f]) == 0 && !touched[f] {
			stray = append(stray, f)
		}
	}
	slices.SortFunc(stray, compareFrontends)
	var writes []Write
	for _, f := range stray {
		writes = append(writes, Write{Verb: DeleteFrontend, Frontend: f})
	}
	return writes
}

// straySets plans the removal of sets without a name. It comes after everything else, when no frontend leads to them.
func (t *table) straySets() []Write {
	var writes []Write
	for _, id := range slices.Sorted(maps.Keys(t.state.sets)) {
		if _, ok := t.named[id]; !ok && !slices.Contains(t.released, id) {
			writes = append(writes, planDelete(id, t.state.sets[id])...)
		}
	}
	return writes
}

// replace swaps a service's compiled form, marks the frontends it touches, and returns the sets it no longer has.
func (t *table) replace(c change, touched map[Frontend]bool) []setKey {
	var dropped []setKey
	if old := t.services[c.name]; old != nil {
		for f := range old.frontends {
			touched[f] = true
			t.claims[f] = slices.DeleteFunc(t.claims[f], func(n string) bool { return n == c.name })
			if len(t.claims[f]) == 0 {
				delete(t.claims, f)
			}
		}
		for key := range old.sets {
			if c.want == nil {
				dropped = append(dropped, key)
			} else if _, still := c.want.sets[key]; !still {
				dropped = append(dropped, key)
			}
		}
	}
	slices.SortFunc(dropped, compareSetKeys)
	if c.want == nil {
		delete(t.services, c.name)
		return dropped
	}
	t.services[c.name] = c.want
	for f := range c.want.frontends {
		touched[f] = true
		t.claims[f] = append(t.claims[f], c.name)
	}
	return dropped
}

// adopt gives sets without an ID the one that their frontends lead to already: all of them, and only theirs, for a set
// that two services shared would, while it changes, show the backends of one to clients of the other.
func (t *table) adopt() {
	wish := map[uint32]setKey{}
	disputed := map[uint32]bool{}
	want := func(id uint32, key setKey) {
		if other, ok := wish[id]; ok && other != key {
			disputed[id] = true
		}
		wish[id] = key
	}
	for f, current := range t.state.Frontends {
		owner := t.owner(f)
		if owner == "" {
			continue
		}
		target := t.services[owner].frontends[f]
		want(current.Inner, target.inner)
		want(current.Outer, target.outer)
	}
	for _, id := range slices.Sorted(maps.Keys(wish)) {
		_, has := t.ids[wish[id]]
		_, claimed := t.named[id]
		if !has && !claimed && id != 0 && !disputed[id] {
			t.ids[wish[id]], t.named[id] = id, wish[id]
		}
	}
}

func (t *table) idFor(key setKey) uint32 {
	if id, ok := t.ids[key]; ok {
		return id
	}
	for {
		t.lastID++
		if _, used := t.named[t.lastID]; used || t.lastID == 0 || t.state.sets[t.lastID] != nil {
			continue
		}
		t.ids[key], t.named[t.lastID] = t.lastID, key
		return t.lastID
	}
}

// owner decides who gets a frontend that several want: static services first, then by name.
func (t *table) owner(f Frontend) string {
	best := ""
	for _, name := range t.claims[f] {
		if best == "" {
			best = name
			continue
		}
		a, b := t.services[name], t.services[best]
		if a.static != b.static {
			if a.static {
				best = name
			}
		} else if name < best {
			best = name
		}
	}
	return best
}

func (t *table) planSet(key setKey, want wantedSet) (writes, late []Write) {
	id := t.idFor(key)
	current := t.state.sets[id]
	if current == nil {
		current = &setState{}
	}
	return planSet(id, current, t.admit(key, want))
}

// admit lets a set have its Maglev table unless there are too many.
func (t *table) admit(key setKey, want wantedSet) wantedSet {
	if want.head.Algorithm != Maglev {
		delete(t.tabled, key)
		delete(t.refused, key)
		return want
	}
	if t.tabled[key] || len(t.tabled) < maglevSetsLimit {
		t.tabled[key] = true
		delete(t.refused, key)
		return want
	}
	t.refused[key] = true
	want.head.Algorithm, want.table = Random, nil
	return want
}

// planFrontends separates what is put, which waits for its sets, from what is deleted, which goes before they change.
func (t *table) planFrontends(frontends []Frontend) (puts, deletes []Write) {
	for _, f := range frontends {
		current, exists := t.state.Frontends[f]
		owner := t.owner(f)
		if owner == "" {
			if exists {
				deletes = append(deletes, Write{Verb: DeleteFrontend, Frontend: f})
			}
			continue
		}
		want := t.services[owner].frontends[f]
		target := Target{Inner: t.idFor(want.inner), Outer: t.idFor(want.outer), Guarded: want.guarded}
		if !exists || current != target {
			puts = append(puts, Write{Verb: PutFrontend, Frontend: f, Target: target})
		}
	}
	return puts, deletes
}

func (t *table) planDrop(key setKey) []Write {
	id, ok := t.ids[key]
	if !ok {
		return nil
	}
	delete(t.ids, key)
	delete(t.named, id)
	delete(t.tabled, key)
	delete(t.refused, key)
	current := t.state.sets[id]
	if current == nil {
		return nil
	}
	t.released = append(t.released, id)
	return planDelete(id, current)
}

// conflicts lists the frontends that more than one service wants.
func (t *table) conflicts() []Frontend {
	var out []Frontend
	for f, names := range t.claims {
		if len(names) > 1 {
			out = append(out, f)
		}
	}
	slices.SortFunc(out, compareFrontends)
	return out
}

func compareSetKeys(a, b setKey) int {
	v6 := func(k setKey) int {
		if k.v6 {
			return 1
		}
		return 0
	}
	return cmp.Or(cmp.Compare(a.service, b.service), cmp.Compare(a.port, b.port), cmp.Compare(a.protocol, b.protocol),
		cmp.Compare(v6(a), v6(b)), cmp.Compare(a.scope, b.scope))
}
