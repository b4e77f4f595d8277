// Package podnet connects the pods of a node: a link pair and an address each, no bridge, no NAT among pods.
//
// Role: [Open] prepares the node (its own address in the range, forwarding, masquerading) and adopts what an earlier
// agent left; [Network.Setup] connects a pod's network namespace, [Network.Teardown] disconnects it in the background,
// [Network.Collect] removes what belongs to no pod any more, [Reset] removes every trace.
//
// How packets go: a pod has its address as a /32 (or /128) and a default route to a link-local gateway whose hardware
// address it knows, so that nothing is ever resolved. From pod to pod of a node the program on the host's end of the
// sender's link hands packets straight to the receiver (foreign FORWARD rules never see them). From the host to a pod
// there is a route per pod, with the first address of the node's range as source. Everything else is forwarded by the
// kernel and masqueraded by the chain "podnet-postrouting" of the nftables table podvine.
//
// Ownership: links that begin with pv, the map of pods, the folder Config.StateDir. A pod's record is written before
// anything is made for it and removed after everything is gone, so that a crash leaves nothing unaccounted for.
//
// Concurrency: a [Network] may be used by several goroutines; pods are set up in parallel, each pod by one call at a time.
package podnet
