package scheduler

import (
	"slices"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
)

// Node is a node and the pods on it, summed up. A Node is never changed: adding a pod gives a new one, so that
// an equal pointer means an equal node and results about it stay valid.
type Node struct {
	// Object is nil for a node that is not (or no longer) there but still has pods; such a node takes no pods.
	Object      *v1.Node
	Name        string
	Allocatable Resources
	Requested   Resources
	// ScoredMilliCPU and ScoredMemoryBytes sum the pods' scored requests.
	ScoredMilliCPU, ScoredMemoryBytes int64
	Pods                              []*Pod
	ports                             []Port
	// anti are those of Pods that have required anti-affinity.
	anti []*Pod
}

// NewNode makes a node without pods.
func NewNode(object *v1.Node) *Node {
	return (&Node{Name: object.Name}).withObject(object)
}

func (n *Node) withObject(object *v1.Node) *Node {
	next := *n
	next.Object, next.Allocatable = object, Resources{}
	if object == nil {
		return &next
	}
	next.Allocatable = NewResources(object.Status.Allocatable)
	return &next
}

// With returns the node with one more pod on it.
func (n *Node) With(pod *Pod) *Node {
	next := n.sum(pod, 1)
	next.Pods = append(n.Pods[:len(n.Pods):len(n.Pods)], pod)
	if len(pod.Ports) > 0 {
		next.ports = append(n.ports[:len(n.ports):len(n.ports)], pod.Ports...)
	}
	if len(pod.anti) > 0 {
		next.anti = append(n.anti[:len(n.anti):len(n.anti)], pod)
	}
	return next
}

// Without returns the node without the pod of that UID, and whether it was there.
func (n *Node) Without(uid types.UID) (*Node, bool) {
	is := func(p *Pod) bool { return p.Object.UID == uid }
	at := slices.IndexFunc(n.Pods, is)
	if at < 0 {
		return n, false
	}
	pod := n.Pods[at]
	next := n.sum(pod, -1)
	next.Pods = slices.Concat(n.Pods[:at], n.Pods[at+1:])
	if len(pod.Ports) > 0 {
		next.ports = nil
		for _, p := range next.Pods {
			next.ports = append(next.ports, p.Ports...)
		}
	}
	if len(pod.anti) > 0 {
		next.anti = slices.DeleteFunc(slices.Clone(n.anti), is)
	}
	return next, true
}

func (n *Node) sum(pod *Pod, sign int64) *Node {
	next := *n
	next.Requested = n.Requested.plus(pod.Requests, sign)
	next.ScoredMilliCPU += sign * pod.ScoredMilliCPU
	next.ScoredMemoryBytes += sign * pod.ScoredMemoryBytes
	return &next
}
