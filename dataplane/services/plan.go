package services

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
)

// Verb is what a [Write] does.
type Verb uint8

// The verbs; each is one system call on one map entry, and atomic.
const (
	PutMember Verb = iota
	PutSlot
	PutEntry
	PutSource
	PutSet
	PutFrontend
	DeleteFrontend
	DeleteSet
	DeleteSlot
	DeleteEntry
	DeleteSource
	DeleteMember
)

func (v Verb) String() string {
	names := [...]string{
		"put member", "put slot", "put entry", "put source", "put set", "put frontend",
		"delete frontend", "delete set", "delete slot", "delete entry", "delete source", "delete member",
	}
	if int(v) < len(names) {
		return names[v]
	}
	return fmt.Sprintf("verb %d", uint8(v))
}

// Target is where a frontend leads: a set for what starts on this node, one for what comes from outside. Guarded ones
// serve only the sources of the outer set.
type Target struct {
	Inner, Outer uint32
	Guarded      bool
}

// Write is one change of one map entry. Which fields count depends on the verb; Index is a slot's, or an entry's of a
// Maglev table.
type Write struct {
	Verb     Verb
	Frontend Frontend
	Target   Target
	Set      uint32
	Head     Head
	Index    uint32
	Backend  Backend
	Source   netip.Prefix
}

func (w Write) String() string {
	switch w.Verb {
	case PutFrontend:
		return fmt.Sprintf("%s %s/%s → %d, %d", w.Verb, w.Frontend.Addr, w.Frontend.Protocol, w.Target.Inner, w.Target.Outer)
	case DeleteFrontend:
		return fmt.Sprintf("%s %s/%s", w.Verb, w.Frontend.Addr, w.Frontend.Protocol)
	case PutSet:
		return fmt.Sprintf("%s %d size %d", w.Verb, w.Set, w.Head.Count)
	case DeleteSet:
		return fmt.Sprintf("%s %d", w.Verb, w.Set)
	case PutSource, DeleteSource:
		return fmt.Sprintf("%s %d %s", w.Verb, w.Set, w.Source)
	}
	return fmt.Sprintf("%s %d[%d] %s", w.Verb, w.Set, w.Index, w.Backend.Addr)
}

// planSet turns a set into the wanted one. Survivors keep their slots; a newcomer takes the slot of one that leaves; the
// tail fills what gaps remain. In every state between two writes each slot below the count, and each entry of a Maglev
// table, holds a backend of the old or of the new set, and each of these is a member. late are writes to be done when the
// frontends have been put.
//
// The number of writes is at most 4 for each backend that comes or goes, plus 1 for the head, plus 1 for each entry of a
// Maglev table that changes and each source that comes or goes.
func planSet(id uint32, current *setState, want wantedSet) (writes, late []Write) {
	old := current.slots
	l := arrange(old, want.backends)
	var leaving []Write
	put := func(verb Verb, i int, b Backend) {
		writes = append(writes, Write{Verb: verb, Set: id, Index: uint32(i), Backend: b})
	}
	leave := func(i int) {
		leaving = append(leaving, Write{Verb: DeleteMember, Set: id, Index: uint32(i), Backend: old[i]})
	}
	for i, b := range l.slots {
		switch l.from[i] {
		case stays:
			if old[i] != b {
				put(PutSlot, i, b)
			}
			continue
		case arrives:
			put(PutMember, i, b)
			put(PutSlot, i, b)
		case moves:
			put(PutSlot, i, b)
			put(PutMember, i, b)
		}
		if i < len(old) {
			leave(i)
		}
	}
	for i, b := range want.table {
		if current.entry(i) != b {
			put(PutEntry, i, b)
		}
	}
	sources, lateSources := planSources(id, current.sources, want.sources)
	writes = append(writes, sources...)
	if !current.headed || current.head != want.head {
		writes = append(writes, Write{Verb: PutSet, Set: id, Head: want.head})
	}
	for i := len(l.slots); i < len(old); i++ {
		put(DeleteSlot, i, old[i])
		if !l.moved[i] {
			leave(i)
		}
	}
	for i := len(want.table); i < len(current.table); i++ {
		if b := current.table[i]; b != (Backend{}) {
			put(DeleteEntry, i, b)
		}
	}
	return append(writes, leaving...), lateSources
}

// planSources lets new clients in first; those that are no longer let in are shut out when nothing relies on them.
func planSources(id uint32, current map[netip.Prefix]bool, want []netip.Prefix) (puts, deletes []Write) {
	for _, source := range want {
		if !current[source] {
			puts = append(puts, Write{Verb: PutSource, Set: id, Source: source})
		}
	}
	for _, source := range slices.SortedFunc(maps.Keys(current), comparePrefixes) {
		if _, keep := slices.BinarySearchFunc(want, source, comparePrefixes); !keep {
			deletes = append(deletes, Write{Verb: DeleteSource, Set: id, Source: source})
		}
	}
	return puts, deletes
}

// origin says where the backend of a slot comes from.
type origin uint8

const (
	arrives origin = iota
	stays
	moves
)

// layout is where the wanted backends go: their slots, how each got there, and which old slots were moved from.
type layout struct {
	slots []Backend
	from  []origin
	moved map[int]bool
}

func arrange(old, want []Backend) layout {
	l := layout{slots: make([]Backend, len(want)), from: make([]origin, len(want)), moved: map[int]bool{}}
	pending := make(map[netip.AddrPort]Backend, len(want))
	for _, b := range want {
		pending[b.Addr] = b
	}
	var moving []Backend
	for i, b := range old {
		w, ok := pending[b.Addr]
		if !ok {
			continue
		}
		delete(pending, b.Addr)
		if i < len(want) {
			l.slots[i], l.from[i] = w, stays
			continue
		}
		moving = append(moving, w)
		l.moved[i] = true
	}
	// The wanted order, not the map's, so that equal input gives equal plans.
	queue := make([]Backend, 0, len(pending))
	for _, b := range want {
		if _, ok := pending[b.Addr]; ok {
			queue = append(queue, b)
		}
	}
	arriving := len(queue)
	queue = append(queue, moving...)
	next := 0
	for i := range l.slots {
		if l.from[i] == stays {
			continue
		}
		l.slots[i] = queue[next]
		if next >= arriving {
			l.from[i] = moves
		}
		next++
	}
	return l
}

// planDelete removes a set that no frontend names any more.
func planDelete(id uint32, current *setState) []Write {
	writes := []Write{{Verb: DeleteSet, Set: id}}
	for i, b := range current.table {
		if b != (Backend{}) {
			writes = append(writes, Write{Verb: DeleteEntry, Set: id, Index: uint32(i), Backend: b})
		}
	}
	for i, b := range current.slots {
		writes = append(writes,
			Write{Verb: DeleteSlot, Set: id, Index: uint32(i), Backend: b},
			Write{Verb: DeleteMember, Set: id, Index: uint32(i), Backend: b})
	}
	_, sources := planSources(id, current.sources, nil)
	return append(writes, sources...)
}
