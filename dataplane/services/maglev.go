package services

import (
	"encoding/binary"
	"hash/fnv"
	"net/netip"
)

const (
	// maglevEntries is the size of a table, a prime: with 10 backends shares differ by about one part in a hundred, with
	// 100 by about a tenth.
	maglevEntries = 1021
	// maglevSetsLimit bounds the sets with a table (a set is a port, protocol and family of a service), for the map of
	// tables is bounded. Further ones are served at random, which is counted and logged.
	maglevSetsLimit = 512
)

// maglevTable fills a table by the algorithm of "Maglev: A Fast and Reliable Software Network Load Balancer" (Eisenbud et
// al., NSDI 2016, section 3.4): backends take turns at taking the next free entry of an order of their own. It depends on
// the set of backends only, so that all nodes have the same table, and changes little when a backend comes or goes.
func maglevTable(backends []Backend) []Backend {
	if len(backends) == 0 {
		return nil
	}
	type order struct{ next, skip uint64 }
	orders := make([]order, len(backends))
	for i, b := range backends {
		orders[i] = order{maglevHash(b.Addr, 'o') % maglevEntries, maglevHash(b.Addr, 's')%(maglevEntries-1) + 1}
	}
	table := make([]Backend, maglevEntries)
	for filled := 0; ; {
		for i, b := range backends {
			o := &orders[i]
			for table[o.next].Addr.IsValid() {
				o.next = (o.next + o.skip) % maglevEntries
			}
			table[o.next] = b
			if filled++; filled == maglevEntries {
				return table
			}
		}
	}
}

func maglevHash(addr netip.AddrPort, purpose byte) uint64 {
	h := fnv.New64a()
	bytes := addr.Addr().As16()
	port := binary.BigEndian.AppendUint16([]byte{purpose}, addr.Port())
	// A hash in memory cannot fail.
	_, _ = h.Write(port)
	_, _ = h.Write(bytes[:])
	// FNV's upper bits are its good ones; addresses of a node differ in their last byte only.
	sum := h.Sum64()
	sum ^= sum >> 32
	sum *= 0xd6e8feb86659fd93
	return sum ^ sum>>32
}
