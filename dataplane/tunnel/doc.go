// Package tunnel carries pods' packets between nodes: WireGuard by default, VXLAN, or the network itself (direct).
//
// Role: [Open] finds out what the kernel has, [Tunnel.Set] takes the whole wanted state (this node and its peers) and makes
// links, routes and the eBPF map of remote ranges fit, [Reset] removes every trace. WireGuard is the kernel's where it has
// it, and else netd's, which outlives the agent. What is wanted is decided by a pure function (plan.go); the rest compares
// and writes what differs, so that repeating changes nothing and interrupts nothing.
//
// How packets go: the program on a pod's link sends what is for another node's range straight out of the tunnel's link, and
// the program on the tunnel's link hands what arrives straight to the pod; foreign FORWARD rules see neither, and no address
// is translated. Where the programs let go (a packet that is too large, say) the routes lead the same way. From the host
// itself packets leave with the first address of the node's range.
//
// MTU: that of the link which carries the node's address, less what the mode adds. It is followed when it changes and passed
// on to the pods' links.
//
// Ownership: the links pvwg0 and pvx0, the program on them, routes of protocol 118 (pv), the map of remote ranges, the
// folder Config.Dir with the private key.
//
// Concurrency: a [Tunnel] may be used by several goroutines; changes are carried out one after the other. One goroutine
// watches links and addresses.
//
// Inspect with [Tunnel.Status], `ip route show proto 118`, and `wg show` where the kernel's WireGuard is used.
package tunnel
