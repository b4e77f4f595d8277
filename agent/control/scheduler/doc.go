// Package scheduler gives pods their nodes.
//
// Role: pods that name this scheduler and have no node wait in a [Queue]; [Decide] places a batch of them on a
// [View] of the cluster by a chain of filters and scores that is Kubernetes' default profile: NodeUnschedulable,
// NodeName, TaintToleration, NodeAffinity, NodePorts, NodeResourcesFit, PodTopologySpread and InterPodAffinity, and
// the scores of these and of ImageLocality. The outcome is a binding, or a PodScheduled condition and an event that say
// why not, in kube-scheduler's words. For a pod that fits nowhere, less important ones are evicted where that is
// cheapest ([Preemption]); it is nominated for that node, which is then kept for it. What is asked for and not there
// yet (persistent volume claims, resource claims) is refused by name, never ignored.
//
// How it is fast: nodes are immutable values, so a class of equal pods remembers what it made of each node and
// looks again only at those that changed ([Memo]), and keeps the counts of pods in topology domains up. Nodes that nothing
// tells apart are compared once for all of them; where nodes differ too much for that, placing one more pod of a class is a
// scan of a few integers a node. Every node is always considered; there is no sampling.
//
// Ownership: the loop writes pods/binding, the PodScheduled and DisruptionTarget conditions, nominations and events,
// and deletes victims, nothing else. The [Cache] is
// fed by informers and by the loop's own assumptions, which end when the pod is seen on its node, when the
// binding fails, or AssumedMaxSeconds after an acknowledgement of which nothing was seen.
//
// Concurrency: Decide, Node, Pod and View are values without locks. [Scheduler.Run] has one goroutine that
// decides, a bounded number that bind and report, and may be called again after it returned.
package scheduler
