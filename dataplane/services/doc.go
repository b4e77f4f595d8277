// Package services is the service proxy: it keeps the eBPF maps that translate service addresses in step with the
// services that are wanted.
//
// Role: [Open] loads or adopts the pinned programs, [Proxy.Set] takes all services, [Proxy.Apply] changes of some,
// [Proxy.SetLocal] what belongs to the node itself (its DNS, its API, host ports of its pods). What is wanted is
// compiled (compile.go) and compared with what the maps hold; the difference becomes an ordered list of writes (plan.go,
// table.go), each of which leaves the maps consistent: a client never meets a backend that neither the old nor the new
// form of its service has. All of that is pure; maps.go carries the writes out.
//
// [Proxy.SetDeadNodes] takes from gossip which nodes look dead: their endpoints get no more traffic, and connections to those
// whose machine is silent too end at once.
//
// Vocabulary: a frontend is an address that clients ask for; it leads to two sets of backends, one for what starts on
// this node and one for what comes from outside. A set has a head (its size and options), numbered slots, with Maglev a
// table of entries, and the sources that its guarded frontends let in.
//
// Ownership: this package alone writes the maps of frontends, sets, slots, members, entries, sources and local addresses,
// and the chain "services-prerouting" of the nftables table podvine. The IDs of sets live in the pinned maps and are adopted at start.
//
// Concurrency: a [Proxy] may be used by several goroutines; changes are carried out one after the other.
//
// Inspect with [Proxy.Stats]. The tests run as root in network namespaces of their own.
package services
