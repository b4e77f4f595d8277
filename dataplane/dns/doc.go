// Package dns answers for the names of a cluster: services, their ports and endpoints, pods, and the way back from
// addresses, as Kubernetes' DNS specification 1.1.0 has them.
//
// Role: [Records] holds what is known and answers questions about it, in memory, by itself; package dns/server puts it
// behind CoreDNS, and netd runs that. Nothing here asks the API or the network.
//
// Concurrency: [Records] may be read and updated by several goroutines at once.
package dns
