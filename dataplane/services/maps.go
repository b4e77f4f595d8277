package services

import (
	"errors"
	"fmt"
	"net/netip"

	"github.com/cilium/ebpf"

	"github.com/podvine/podvine/dataplane/bpf"
)

// execute carries out one write. Deleting what is not there is no error.
func execute(s *bpf.Sockets, w Write) error {
	var err error
	switch w.Verb {
	case PutFrontend:
		err = s.Frontends.Put(frontendKey(w.Frontend), frontendValue(w.Target))
	case DeleteFrontend:
		err = s.Frontends.Delete(frontendKey(w.Frontend))
	case PutSet:
		err = s.Sets.Put(w.Set, headValue(w.Head))
	case DeleteSet:
		err = s.Sets.Delete(w.Set)
	case PutSlot:
		err = s.Slots.Put(bpf.SlotKey{Set: w.Set, Index: w.Index}, slotValue(w.Backend))
	case DeleteSlot:
		err = s.Slots.Delete(bpf.SlotKey{Set: w.Set, Index: w.Index})
	case PutEntry:
		err = s.Tables.Put(bpf.SlotKey{Set: w.Set, Index: w.Index}, slotValue(w.Backend))
	case DeleteEntry:
		err = s.Tables.Delete(bpf.SlotKey{Set: w.Set, Index: w.Index})
	case PutSource:
		err = s.Sources.Put(sourceKey(w.Set, w.Source), uint32(1))
	case DeleteSource:
		err = s.Sources.Delete(sourceKey(w.Set, w.Source))
	case PutMember:
		err = s.Members.Put(memberKey(w.Set, w.Backend.Addr), w.Index)
	case DeleteMember:
		err = s.Members.Delete(memberKey(w.Set, w.Backend.Addr))
	}
	if err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
		return fmt.Errorf("%s: %w", w, err)
	}
	return nil
}

func frontendKey(f Frontend) bpf.Endpoint {
	return bpf.Endpoint{Addr: bpf.MakeAddr(f.Addr.Addr()), Port: bpf.MakePort(f.Addr.Port()), Proto: uint8(f.Protocol)}
}

func frontendValue(t Target) bpf.Frontend {
	f := bpf.Frontend{InnerSet: t.Inner, OuterSet: t.Outer}
	if t.Guarded {
		f.Flags |= bpf.FrontendGuarded
	}
	return f
}

// sourceKey's prefix begins with the set; IPv4 ranges lie in the IPv6-mapped one.
func sourceKey(set uint32, source netip.Prefix) bpf.SourceKey {
	bits := uint32(setBits + source.Bits())
	if source.Addr().Is4() {
		bits += mappedBits
	}
	return bpf.SourceKey{PrefixBits: bits, Set: set, Addr: bpf.MakeAddr(source.Addr())}
}

func sourceOf(key bpf.SourceKey) netip.Prefix {
	addr, bits := key.Addr.Netip(), int(key.PrefixBits)-setBits
	if addr.Is4() {
		bits -= mappedBits
	}
	return netip.PrefixFrom(addr, bits)
}

const (
	setBits    = 32
	mappedBits = 96
)

func memberKey(set uint32, addr netip.AddrPort) bpf.MemberKey {
	return bpf.MemberKey{Set: set, Addr: bpf.MakeAddr(addr.Addr()), Port: bpf.MakePort(addr.Port())}
}

func slotValue(b Backend) bpf.Slot {
	s := bpf.Slot{Addr: bpf.MakeAddr(b.Addr.Addr()), Port: bpf.MakePort(b.Addr.Port())}
	if b.Local {
		s.Flags |= bpf.SlotLocal
	}
	return s
}

func headValue(h Head) bpf.Set {
	s := bpf.Set{Count: h.Count, AffinitySeconds: h.AffinitySeconds, Algorithm: algorithmValues[h.Algorithm]}
	if h.DropWhenEmpty {
		s.Flags |= bpf.SetDropWhenEmpty
	}
	return s
}

func headOf(s bpf.Set) Head {
	h := Head{Count: s.Count, AffinitySeconds: s.AffinitySeconds, DropWhenEmpty: s.Flags&bpf.SetDropWhenEmpty != 0}
	for algorithm, value := range algorithmValues {
		if value == s.Algorithm {
			h.Algorithm = Algorithm(algorithm)
		}
	}
	return h
}

// algorithmValues is what the maps hold, by [Algorithm].
var algorithmValues = [...]uint8{
	Random: bpf.AlgorithmRandom, RoundRobin: bpf.AlgorithmRoundRobin, Maglev: bpf.AlgorithmMaglev, LeastConnections: bpf.AlgorithmLeast,
}

// content is what the maps hold, entry by entry, before it is known to be whole.
type content struct {
	frontends map[Frontend]Target
	heads     map[uint32]Head
	slots     map[bpf.SlotKey]Backend
	members   map[bpf.MemberKey]uint32
	entries   map[bpf.SlotKey]Backend
	sources   map[bpf.SourceKey]bool
}

func newContent() *content {
	return &content{
		frontends: map[Frontend]Target{}, heads: map[uint32]Head{}, slots: map[bpf.SlotKey]Backend{},
		members: map[bpf.MemberKey]uint32{}, entries: map[bpf.SlotKey]Backend{}, sources: map[bpf.SourceKey]bool{},
	}
}

// read copies the maps.
func read(s *bpf.Sockets) (*content, error) {
	c := newContent()
	if err := c.readFrontends(s); err != nil {
		return nil, err
	}
	var id, index uint32
	var set bpf.Set
	sets := s.Sets.Iterate()
	for sets.Next(&id, &set) {
		c.heads[id] = headOf(set)
	}
	problem := errors.Join(readSlots(s.Slots, c.slots), readSlots(s.Tables, c.entries))
	var source bpf.SourceKey
	sources := s.Sources.Iterate()
	for sources.Next(&source, &index) {
		c.sources[source] = true
	}
	var memberKey bpf.MemberKey
	members := s.Members.Iterate()
	for members.Next(&memberKey, &index) {
		c.members[memberKey] = index
	}
	if err := errors.Join(sets.Err(), problem, sources.Err(), members.Err()); err != nil {
		return nil, fmt.Errorf("read service maps: %w", err)
	}
	return c, nil
}

func readSlots(from *ebpf.Map, to map[bpf.SlotKey]Backend) error {
	var key bpf.SlotKey
	var slot bpf.Slot
	slots := from.Iterate()
	for slots.Next(&key, &slot) {
		to[key] = Backend{Addr: netip.AddrPortFrom(slot.Addr.Netip(), slot.Port.Uint16()), Local: slot.Flags&bpf.SlotLocal != 0}
	}
	return slots.Err()
}

func (c *content) readFrontends(s *bpf.Sockets) error {
	var endpoint bpf.Endpoint
	var frontend bpf.Frontend
	iterator := s.Frontends.Iterate()
	for iterator.Next(&endpoint, &frontend) {
		addr := endpoint.Addr.Netip()
		f := Frontend{Addr: netip.AddrPortFrom(addr, endpoint.Port.Uint16()), Protocol: Protocol(endpoint.Proto)}
		c.frontends[f] = Target{Inner: frontend.InnerSet, Outer: frontend.OuterSet, Guarded: frontend.Flags&bpf.FrontendGuarded != 0}
	}
	if err := iterator.Err(); err != nil {
		return fmt.Errorf("read frontends: %w", err)
	}
	return nil
}
