// Package liveness makes up, when it is asked, what Kubernetes' nodes write as heartbeats: the leases of nodes in
// kube-node-lease and the heartbeats in their conditions.
//
// Who is alive is known from gossip, so that no heartbeat is ever written and an idle cluster writes nothing. A lease
// that somebody did store, such as a node agent that is not Podvine's, is served as it is.
//
// A made-up lease has the resource version of its Node object: it changes by itself only when that does, and its renewTime
// moves with each read. A list shows made-up leases behind the last page, which they can make longer than its limit. A
// watch is one of the stored leases and one of the nodes; it can be resumed from the version of any of its events but
// those that arrived out of order, at most the few that were under way at that moment.
//
// Everything is safe for concurrent use.
package liveness

import (
	"time"

	"github.com/google/uuid"
	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

const (
	// leaseSeconds is how long a node's lease says that it holds, Kubernetes' default.
	leaseSeconds = 40
	// renewEvery and reportEvery are the steps of renewTime and lastHeartbeatTime, as often as Kubernetes' nodes write
	// them, so that members asked at about the same time answer the same.
	renewEvery  = 10 * time.Second
	reportEvery = 5 * time.Minute
)

// Alive tells whether a node lives, or since when it does not; a zero time means that nothing is known of it.
type Alive func(node string) (alive bool, since time.Time)

// seen is when the node was last known alive, in steps; ok is false when nothing is known of it.
func (a Alive) seen(name string, now time.Time, step time.Duration) (at time.Time, ok bool) {
	alive, since := a(name)
	switch {
	case alive:
		return now.Truncate(step), true
	case since.IsZero():
		return time.Time{}, false
	default:
		return since, true
	}
}

// leaseOf makes up the lease of a node; nil when nothing is known of it.
func (a Alive) leaseOf(node *corev1.Node, now time.Time) *coordinationv1.Lease {
	at, ok := a.seen(node.Name, now, renewEvery)
	if !ok {
		return nil
	}
	if at.Before(node.CreationTimestamp.Time) {
		at = node.CreationTimestamp.Time
	}
	// The identity follows from the node's, so that every member makes up the same.
	id := uuid.NewSHA1(uuid.NameSpaceOID, []byte("lease/"+node.UID))
	return &coordinationv1.Lease{
		ObjectMeta: metav1.ObjectMeta{
			Name: node.Name, Namespace: corev1.NamespaceNodeLease, UID: types.UID(id.String()),
			ResourceVersion: node.ResourceVersion, CreationTimestamp: node.CreationTimestamp,
			OwnerReferences: []metav1.OwnerReference{{APIVersion: "v1", Kind: "Node", Name: node.Name, UID: node.UID}},
		},
		Spec: coordinationv1.LeaseSpec{HolderIdentity: &node.Name, LeaseDurationSeconds: new(int32(leaseSeconds)), RenewTime: &metav1.MicroTime{Time: at}},
	}
}

// withHeartbeats is the node with conditions as of the last time that it was seen. The node itself is not changed.
func (a Alive) withHeartbeats(node *corev1.Node, now time.Time) *corev1.Node {
	at, ok := a.seen(node.Name, now, reportEvery)
	if !ok || len(node.Status.Conditions) == 0 {
		return node
	}
	shown := *node
	shown.Status.Conditions = make([]corev1.NodeCondition, len(node.Status.Conditions))
	for i, c := range node.Status.Conditions {
		if c.LastHeartbeatTime.Time.Before(at) {
			c.LastHeartbeatTime = metav1.Time{Time: at}
		}
		shown.Status.Conditions[i] = c
	}
	return &shown
}
