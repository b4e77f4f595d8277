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
	// related are those of Pods that have affinity terms.
	related []*Pod
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
	next.setPorts(pod, 1)
	if !pod.terms.none() {
		next.related = append(n.related[:len(n.related):len(n.related)], pod)
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
	next.setPorts(pod, -1)
	if !pod.terms.none() {
		next.related = slices.DeleteFunc(slices.Clone(n.related), is)
	}
	return next, true
}

// setPorts adds the pod's host ports to the node, or takes each away once. It changes n, not the slice it had.
func (n *Node) setPorts(pod *Pod, sign int32) {
	if len(pod.Ports) == 0 {
		return
	}
	ports := slices.Clone(n.ports)
	for _, port := range pod.Ports {
		if sign > 0 {
			ports = append(ports, port)
		} else if at := slices.Index(ports, port); at >= 0 {
			ports = slices.Delete(ports, at, at+1)
		}
	}
	n.ports = ports
}

func (n *Node) sum(pod *Pod, sign int64) *Node {
	next := *n
	next.add(pod, sign)
	return &next
}

func (n *Node) add(pod *Pod, sign int64) {
	n.Requested = n.Requested.plus(pod.Requests, sign)
	n.ScoredMilliCPU += sign * pod.ScoredMilliCPU
	n.ScoredMemoryBytes += sign * pod.ScoredMemoryBytes
}
