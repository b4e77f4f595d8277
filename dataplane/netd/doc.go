// Package netd starts and feeds the program podvine-netd, which answers DNS on a node, holds the WireGuard tunnel where the
// kernel has none, and outlives the agent.
//
// Role: [Start] adopts the netd that runs, or starts one in a session and cgroup of its own; [Client.Set] and
// [Client.Apply] tell it the services. netd keeps them on disk, so that it answers after a restart with no agent at all.
// A netd of another version or configuration is replaced: the successor listens beside it (SO_REUSEPORT) before it asks
// it to stop. The tunnel's link goes from hand to hand as a file descriptor. The program itself is package daemon, which alone
// contains CoreDNS and wireguard-go.
//
// Ownership: the folder Config.Dir with config.json, state.json, tunnel.json, netd.sock, netd.log;
// the tunnel's link.
//
// Concurrency: a [Client] may be used by several goroutines; its calls only note what is to be sent, and one goroutine
// sends it, again and again after a failure.
//
// Inspect: netd.log, and the metrics address if there is one.
package netd
