package services

import (
	"cmp"
	"maps"
	"net/netip"
	"slices"

	"github.com/podvine/podvine/dataplane/bpf"
)

// repair makes whole what an agent left that died between two writes of a plan: it returns the state that the content
// amounts to, and the writes that bring the maps to exactly that. Every head keeps the slots that it counts, so
// nothing that is served changes.
func repair(c *content) (State, []Write) {
	state := newState()
	maps.Copy(state.Frontends, c.frontends)
	var writes []Write
	for _, id := range slices.Sorted(maps.Keys(c.heads)) {
		set, fixes := repairSet(id, c)
		state.sets[id] = set
		writes = append(writes, fixes...)
	}
	writes = append(writes, repairEntries(&state, c)...)
	writes = append(writes, repairSources(&state, c)...)
	writes = append(writes, straySlots(&state, c)...)
	writes = append(writes, strayMembers(&state, c)...)
	return state, writes
}

// repairSet keeps the counted slots, each once, and ensures their membership.
func repairSet(id uint32, c *content) (*setState, []Write) {
	head := c.heads[id]
	set := &setState{head: head, headed: true}
	seen := map[netip.AddrPort]bool{}
	for i := range head.Count {
		b, ok := c.slots[bpf.SlotKey{Set: id, Index: i}]
		if ok && !seen[b.Addr] {
			seen[b.Addr] = true
			set.slots = append(set.slots, b)
		}
	}
	set.head.Count = uint32(len(set.slots))
	var writes []Write
	for i, b := range set.slots {
		index := uint32(i)
		if c.slots[bpf.SlotKey{Set: id, Index: index}] != b {
			writes = append(writes, Write{Verb: PutSlot, Set: id, Index: index, Backend: b})
		}
		if at, ok := c.members[memberKey(id, b.Addr)]; !ok || at != index {
			writes = append(writes, Write{Verb: PutMember, Set: id, Index: index, Backend: b})
		}
	}
	if set.head != head {
		writes = append(writes, Write{Verb: PutSet, Set: id, Head: set.head})
	}
	return set, writes
}

func straySlots(state *State, c *content) []Write {
	var writes []Write
	for key, b := range c.slots {
		set := state.sets[key.Set]
		if set == nil || int(key.Index) >= len(set.slots) {
			writes = append(writes, Write{Verb: DeleteSlot, Set: key.Set, Index: key.Index, Backend: b})
		}
	}
	slices.SortFunc(writes, compareWrites)
	return writes
}

// repairEntries keeps the entries of Maglev tables that lead to a backend of their set. Where one is missing the programs
// pick a slot, until the next plan fills it.
func repairEntries(state *State, c *content) []Write {
	slotOf := map[uint32]map[netip.AddrPort]Backend{}
	for id, set := range state.sets {
		if set.head.Algorithm != Maglev {
			continue
		}
		slotOf[id] = map[netip.AddrPort]Backend{}
		for _, b := range set.slots {
			slotOf[id][b.Addr] = b
		}
	}
	var writes []Write
	for key, b := range c.entries {
		if key.Index < maglevEntries && slotOf[key.Set][b.Addr] == b {
			state.sets[key.Set].putEntry(int(key.Index), b)
		} else {
			writes = append(writes, Write{Verb: DeleteEntry, Set: key.Set, Index: key.Index, Backend: b})
		}
	}
	slices.SortFunc(writes, compareWrites)
	return writes
}

func repairSources(state *State, c *content) []Write {
	var writes []Write
	for key := range c.sources {
		source := sourceOf(key)
		set := state.sets[key.Set]
		if set == nil {
			writes = append(writes, Write{Verb: DeleteSource, Set: key.Set, Source: source})
			continue
		}
		if set.sources == nil {
			set.sources = map[netip.Prefix]bool{}
		}
		set.sources[source] = true
	}
	slices.SortFunc(writes, compareWrites)
	return writes
}

func strayMembers(state *State, c *content) []Write {
	var writes []Write
	for key := range c.members {
		addr := netip.AddrPortFrom(key.Addr.Netip(), key.Port.Uint16())
		set := state.sets[key.Set]
		if set == nil || !slices.ContainsFunc(set.slots, func(b Backend) bool { return b.Addr == addr }) {
			writes = append(writes, Write{Verb: DeleteMember, Set: key.Set, Backend: Backend{Addr: addr}})
		}
	}
	slices.SortFunc(writes, compareWrites)
	return writes
}

func compareWrites(a, b Write) int {
	return cmp.Or(cmp.Compare(a.Set, b.Set), cmp.Compare(a.Index, b.Index), a.Backend.Addr.Compare(b.Backend.Addr),
		comparePrefixes(a.Source, b.Source))
}
