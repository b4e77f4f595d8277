// Package consensus keeps a cluster's records on several machines at once: a log replicated by Raft, the state machine of
// package store that it feeds, and the rules by which a reader may trust what it reads.
//
// Role. [Open] starts this node's [Replica]. Writes go through [Replica.Propose]: concurrent ones share a log entry and a
// disk write, and each is acknowledged only with the result of having been applied. Reads come from [Replica.Store]; one
// that must see every acknowledged write asks [Replica.ReadRevision] first, which writes nothing.
//
// Peers. With a [Network] the replica is one of several. A follower forwards writes to its leader, exactly once whatever
// becomes of the leader, and asks it for the revision that a read must reach. Who is a member is changed by
// [Replica.AddStandby], [Replica.Promote], [Replica.Demote] and [Replica.Remove]; package quorum decides when. [Recover] and
// [Replica.Restore] are the ways back from a lost majority and from lost content.
//
// Disk. All of the log's disk operations pass the disk guard. A full, broken or slow disk cuts this node off its peers, so
// that others take the lead, and is retried for as long as it lasts. The process does not end.
//
// Ownership. A Replica owns its data directory, locked while it is open:
//
//	identity.json  which node of which cluster this is
//	log/           raft-wal's segments, and meta: their list, the term and the vote
//	snapshots/     the state machine at some log index
//	reserve        space that a full disk gives back
//
// Concurrency. Every method may be called from any goroutine. Inspect with [Replica.Status], [Replica.Conditions] and the
// metrics podvine_consensus_*. Test with `go test ./consensus` as root; the disk tests mount loop images, the tests of
// several replicas run on package netsim in virtual time (MESH_LOG=1 shows what they say).
package consensus
