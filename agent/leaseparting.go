package agent

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	authuser "k8s.io/apiserver/pkg/authentication/user"

	"github.com/podvine/podvine/agent/isolation"
)

// released tells whether a node has stopped its pods that stop when it is cut off. Only the leader knows.
func (n *node) released(name string) bool {
	term, leads := n.replica.Leading()
	id := n.directory.id(name)
	return leads && id != "" && n.leases.released(id, term, time.Now(), n.parting(name))
}

// parting tells whether a node's agent may have ended with a longer lease. Not knowing is a yes.
func (n *node) parting(name string) bool {
	found, err := n.nodeLister().Get(name)
	return err != nil || found.Annotations[isolation.PartingAnnotation] != ""
}

// part notes, for this leader and those that follow, that a node's agent may end with a longer lease.
func (n *node) part(ctx context.Context, node string) error {
	return n.patchNode(ctx, node, map[string]any{"annotations": map[string]any{isolation.PartingAnnotation: isolation.PartingLease.String()}})
}

// unpart notes that the node has no such lease any more, unless the node has changed since that was seen.
func (n *node) unpart(ctx context.Context, node string) error {
	found, err := n.nodeLister().Get(node)
	if err != nil {
		return fmt.Errorf("note the lease of node %s: %w", node, err)
	}
	return n.patchNode(ctx, node, map[string]any{
		"resourceVersion": found.ResourceVersion, "annotations": map[string]any{isolation.PartingAnnotation: nil},
	})
}

func (n *node) patchNode(ctx context.Context, node string, metadata map[string]any) error {
	patch, err := json.Marshal(map[string]any{"metadata": metadata})
	if err == nil {
		_, err = n.client(authuser.APIServerUser, authuser.SystemPrivilegedGroup).CoreV1().Nodes().
			Patch(ctx, node, types.MergePatchType, patch, metav1.PatchOptions{})
	}
	if err != nil {
		return fmt.Errorf("note the lease of node %s: %w", node, err)
	}
	return nil
}
