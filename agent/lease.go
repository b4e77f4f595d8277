package agent

import (
	"context"
	"errors"
	"fmt"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	authuser "k8s.io/apiserver/pkg/authentication/user"

	"github.com/podvine/podvine/agent/pki"
)

const (
	// leasePath is where a node asks for its lease.
	leasePath = "/lease"
	// maxConfirmed bounds the pods that one call confirms; the rest is confirmed by the next.
	maxConfirmed = 64
)

// leaseCall asks for a lease, and which of the pods may be started under it.
type leaseCall struct {
	// Node is the one that asks, when a replica passes it on to the leader; else it is the caller.
	Node pki.NodeIdentity `json:"node,omitzero"`
	Pods []leasedPod      `json:"pods"`
	// Parting asks for a lease of isolation.PartingLease. Short says that no such lease can last on the node: its end was written anew since.
	Parting bool `json:"parting,omitempty"`
	Short   bool `json:"short,omitempty"`
}

type leasedPod struct {
	Namespace string    `json:"namespace"`
	Name      string    `json:"name"`
	UID       types.UID `json:"uid"`
}

type leaseAnswer struct {
	Wanted []types.UID `json:"wanted"`
}

// takeLease grants a lease, or has the leader do so.
func (n *node) takeLease(ctx context.Context, caller pki.NodeIdentity, asked leaseCall) (leaseAnswer, error) {
	node := caller
	if asked.Node.ID != "" {
		if !caller.Replica {
			return leaseAnswer{}, fmt.Errorf("node %s is no replica and asks for itself only", caller.Name)
		}
		node = asked.Node
	}
	term, leads := n.replica.Leading()
	if !leads {
		leader := n.replica.Status().LeaderID
		if leader == "" || leader == n.dir.NodeID || asked.Node.ID != "" {
			return leaseAnswer{}, errors.New("grant a lease: there is no leader")
		}
		return call[leaseCall, leaseAnswer](ctx, n.peers, leader, leasePath, leaseCall{Node: node, Pods: asked.Pods, Parting: asked.Parting, Short: asked.Short})
	}
	// Another may lead already: then this one must not grant. The node counts from before it asked, and so from before this.
	if _, err := n.replica.ReadRevision(ctx); err != nil {
		return leaseAnswer{}, fmt.Errorf("grant a lease: %w", err)
	}
	if now, still := n.replica.Leading(); !still || now != term {
		return leaseAnswer{}, errors.New("grant a lease: the lead is lost")
	}
	if asked.Parting {
		// It is known to every leader before the node may count on it.
		if err := n.part(ctx, node.Name); err != nil {
			return leaseAnswer{}, err
		}
	}
	// Written down before the pods are looked at: from now on none of them is removed, and those that were to be are terminating.
	n.leases.grant(node.ID, time.Now())
	if asked.Short && n.parting(node.Name) {
		if err := n.unpart(ctx, node.Name); err != nil {
			return leaseAnswer{}, err
		}
	}
	return n.confirmPods(ctx, node, asked.Pods)
}

// confirmPods tells which of the pods are the node's still, and are not about to go.
func (n *node) confirmPods(ctx context.Context, node pki.NodeIdentity, asked []leasedPod) (answered leaseAnswer, err error) {
	client := n.client(authuser.APIServerUser, authuser.SystemPrivilegedGroup)
	for _, pod := range asked[:min(len(asked), maxConfirmed)] {
		known, err := client.CoreV1().Pods(pod.Namespace).Get(ctx, pod.Name, metav1.GetOptions{})
		switch {
		case apierrors.IsNotFound(err):
		case err != nil:
			return answered, fmt.Errorf("look for pod %s/%s: %w", pod.Namespace, pod.Name, err)
		case known.UID == pod.UID && known.Spec.NodeName == node.Name && known.DeletionTimestamp == nil:
			answered.Wanted = append(answered.Wanted, pod.UID)
		}
	}
	return answered, nil
}
