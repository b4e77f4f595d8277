// Package nodes keeps the records of nodes true: who is gone, what must not run there, which pod addresses are
// whose, and which pods have to go with it.
//
// Role: three loops share the package. The node loop turns conditions and liveness into taints, marks the
// conditions of a dead node unknown, and allots pod address ranges. The pod loop evicts pods that do not
// tolerate their node's NoExecute taints, at the second their toleration ends, counted from the death itself,
// and removes pods that nobody else will: those of nodes that no longer exist, those deleted before they had a
// node, those of nodes declared out of service. The history loop drops the oldest ended pods beyond a threshold.
//
// Liveness comes from outside ([Liveness], gossip in the product) and is never written down but for the
// conditions and taints of a death. The node's own agent owns its conditions otherwise and puts them right
// when it is back; see DeadReason.
//
// Safety: when most nodes look dead it is rather the observer who is cut off: then nobody is newly tainted for
// eviction ([Storm]).
//
// Concurrency: as [loop.Driver]; Decide functions are pure.
package nodes
