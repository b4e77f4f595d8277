package services

import (
	"fmt"
	"net/netip"
)

// Verb is what a [Write] does.
type Verb uint8

// The verbs; each is one system call on one map entry, and atomic.
const (
	PutMember Verb = iota
	PutSlot
	PutSet
	PutFrontend
	DeleteFrontend
	DeleteSet
	DeleteSlot
	DeleteMember
)

func (v Verb) String() string {
	names := [...]string{"put member", "put slot", "put set", "put frontend", "delete frontend", "delete set", "delete slot", "delete member"}
	if int(v) < len(names) {
		return names[v]
	}
	return fmt.Sprintf("verb %d", uint8(v))
}

// Target is where a frontend leads: a set for what starts on this node, one for what comes from outside.
type Target struct {
	Inner, Outer uint32
}

// Write is one change of one map entry. Which fields count depends on the verb.
type Write struct {
	Verb     Verb
	Frontend Frontend
	Target   Target
	Set      uint32
	Head     Head
	Index    uint32
	Backend  Backend
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
	}
	return fmt.Sprintf("%s %d[%d] %s", w.Verb, w.Set, w.Index, w.Backend.Addr)
}

// planSet turns a set's slots into the wanted ones. Survivors keep their slots; a newcomer takes the slot of one that
// leaves; the tail fills what gaps remain. In every state between two writes each slot below the count holds a backend
// of the old or of the new set, and each of these is a member.
//
// The number of writes is at most 4 for each backend that comes or goes, plus 1 for the head.
func planSet(id uint32, old []Backend, oldHead Head, exists bool, want wantedSet) []Write {
	l := arrange(old, want.backends)
	var writes []Write
	put := func(verb Verb, i int, b Backend) {
		writes = append(writes, Write{Verb: verb, Set: id, Index: uint32(i), Backend: b})
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
			put(DeleteMember, i, old[i])
		}
	}
	if !exists || oldHead != want.head {
		writes = append(writes, Write{Verb: PutSet, Set: id, Head: want.head})
	}
	for i := len(l.slots); i < len(old); i++ {
		put(DeleteSlot, i, old[i])
		if !l.moved[i] {
			put(DeleteMember, i, old[i])
		}
	}
	return writes
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
func planDelete(id uint32, old []Backend) []Write {
	writes := []Write{{Verb: DeleteSet, Set: id}}
	for i, b := range old {
		writes = append(writes,
			Write{Verb: DeleteSlot, Set: id, Index: uint32(i), Backend: b},
			Write{Verb: DeleteMember, Set: id, Index: uint32(i), Backend: b})
	}
	return writes
}
