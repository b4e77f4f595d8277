// Package quorum keeps a cluster's quorum in order without anybody's help: who votes, who stands by, and who takes the
// place of a voter that died.
//
// Role. [Keeper.Run] runs on every replica and acts on the leader, twice a second: it looks at the configuration, at how far
// each replica is and at who lives ([View]), decides at most one step ([Decide], which is pure) and takes it. Every step is
// safe alone, and the next one starts from what is then there; so it does not matter where a leader's work ends and the
// next one's begins.
//
// Rules. Voters are 1 of 1 or 2 nodes, 3 of 3 or 4, 5 from 5 on, or as many as the setting says; two more nodes stand by;
// the rest has no replica. A node that is dead still counts as a node until it has left: a cluster of three that misses one
// keeps what it would need for it. A dead voter goes when another can take its place, or when its going makes no majority
// harder to reach. A node that comes and goes waits longer each time before it votes.
//
// Safety. No step is taken after which the voters that answer now were no majority. Growth goes by two, because an even
// number can lose no more than the odd one below it.
//
// Ownership and concurrency. A Keeper's memory of who came and went belongs to Run; [Keeper.Status] may be called from any
// goroutine. Test with `go test ./consensus/quorum`: properties and schedules of faults on a model, each named by its seed,
// and a few on real replicas in virtual time.
package quorum
