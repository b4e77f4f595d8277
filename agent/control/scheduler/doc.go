// Package scheduler gives pods their nodes.
//
// Role: pods that name this scheduler and have no node wait in a [Queue]; [Decide] places a batch of them on a
// [View] of the cluster by a chain of filters and scores that is Kubernetes' default profile: NodeUnschedulable,
// NodeName, TaintToleration, NodeAffinity, NodePorts, NodeResourcesFit, PodTopologySpread and InterPodAffinity.
// The outcome is a binding, or a PodScheduled condition and an event that say why not, in kube-scheduler's words.
// What is asked for and not there yet (persistent volume claims, resource claims, preemption) is refused by
// name, never ignored.
//
// How it is fast: nodes are immutable values, so a class of equal pods remembers what it made of each node and
// looks again only at those that changed ([Memo]); placing one more pod of a class is a scan of two integers a
// node. Every node is always considered; there is no sampling.
//
// Ownership: the loop writes pods/binding, the PodScheduled condition and events, nothing else. The [Cache] is
// fed by informers and by the loop's own assumptions, which end when the pod is seen on its node, when the
// binding fails, or AssumedMaxSeconds after an acknowledgement of which nothing was seen.
//
// Concurrency: Decide, Node, Pod and View are values without locks. [Scheduler.Run] has one goroutine that
// decides, a bounded number that bind and report, and may be called again after it returned.
package scheduler
