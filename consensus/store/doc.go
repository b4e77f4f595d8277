// Package store is the replicated state machine of a Podvine cluster: a versioned map of keys to bytes, split into one
// ordered table for each resource.
//
// Role. Raft hands committed log entries to [FSM]; each entry is a [Group] of independent commands, each command a
// compare-and-swap over one key or, with several operations, a transaction. Every written key gets a revision of its own
// from one counter. The recent past is kept, so that readers can page over an old revision and watchers can resume.
//
// Determinism. The state after an entry depends on the state before it and on the entry alone. No clock is read: the time
// by which history ages is the proposer's, carried in the entry. No map is ranged over where order matters. Values are
// opaque: two versions of the program that disagree about an object still agree about the state.
//
// Ownership and concurrency. Only the goroutine that raft applies with writes. Any number of goroutines read; an [Entry], an
// [Event] and a [View] never change once they are visible, except for their attachments, which are a reader's cache and
// no part of the state.
//
// Test with `go test ./consensus/store`; a property test compares the store with a plain map.
package store
