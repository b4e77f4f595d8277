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
		err = s.Frontends.Put(frontendKey(w.Frontend), bpf.Frontend{InnerSet: w.Target.Inner, OuterSet: w.Target.Outer})
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
	s := bpf.Set{Count: h.Count, AffinitySeconds: h.AffinitySeconds, Algorithm: bpf.AlgorithmRandom}
	if h.DropWhenEmpty {
		s.Flags |= bpf.SetDropWhenEmpty
	}
	if h.Algorithm == RoundRobin {
		s.Algorithm = bpf.AlgorithmRoundRobin
	}
	return s
}

func headOf(s bpf.Set) Head {
	h := Head{Count: s.Count, AffinitySeconds: s.AffinitySeconds, DropWhenEmpty: s.Flags&bpf.SetDropWhenEmpty != 0}
	if s.Algorithm == bpf.AlgorithmRoundRobin {
		h.Algorithm = RoundRobin
	}
	return h
}

// content is what the maps hold, entry by entry, before it is known to be whole.
type content struct {
	frontends map[Frontend]Target
	heads     map[uint32]Head
	slots     map[bpf.SlotKey]Backend
	members   map[bpf.MemberKey]uint32
}

// read copies the maps.
func read(s *bpf.Sockets) (*content, error) {
	c := &content{frontends: map[Frontend]Target{}, heads: map[uint32]Head{}, slots: map[bpf.SlotKey]Backend{}, members: map[bpf.MemberKey]uint32{}}
	if err := c.readFrontends(s); err != nil {
		return nil, err
	}
	var id, index uint32
	var set bpf.Set
	sets := s.Sets.Iterate()
	for sets.Next(&id, &set) {
		c.heads[id] = headOf(set)
	}
	var slotKey bpf.SlotKey
	var slot bpf.Slot
	slots := s.Slots.Iterate()
	for slots.Next(&slotKey, &slot) {
		c.slots[slotKey] = Backend{Addr: netip.AddrPortFrom(slot.Addr.Netip(), slot.Port.Uint16()), Local: slot.Flags&bpf.SlotLocal != 0}
	}
	var memberKey bpf.MemberKey
	members := s.Members.Iterate()
	for members.Next(&memberKey, &index) {
		c.members[memberKey] = index
	}
	if err := errors.Join(sets.Err(), slots.Err(), members.Err()); err != nil {
		return nil, fmt.Errorf("read service maps: %w", err)
	}
	return c, nil
}

func (c *content) readFrontends(s *bpf.Sockets) error {
	var endpoint bpf.Endpoint
	var frontend bpf.Frontend
	iterator := s.Frontends.Iterate()
	for iterator.Next(&endpoint, &frontend) {
		addr := endpoint.Addr.Netip()
		f := Frontend{Addr: netip.AddrPortFrom(addr, endpoint.Port.Uint16()), Protocol: Protocol(endpoint.Proto)}
		c.frontends[f] = Target{Inner: frontend.InnerSet, Outer: frontend.OuterSet}
	}
	if err := iterator.Err(); err != nil {
		return fmt.Errorf("read frontends: %w", err)
	}
	return nil
}
