// Package gossip tells who is alive. It wraps serf and memberlist: every node keeps the list of all members, learns of a
// death within the budget of its [Profile], and spreads a few bytes about itself ([Tags]).
//
// Gossip holds liveness and nothing else: a member that is believed dead keeps every record that the cluster has of it,
// and what a member may claim of itself is limited to its tags, so that no member can take another's addresses or zone.
// A member is its ID (a UUID); its address may change while it runs.
//
// A [Mesh] owns its sockets and goroutines until Close returns. All of its methods may be called from several
// goroutines. Subscribers are told that something changed, never what: they read Members anew (level-triggered), so
// a slow reader loses nothing.
//
// The package knows neither the store nor Kubernetes. Package memnet is a network in memory, for tests in virtual time.
package gossip
