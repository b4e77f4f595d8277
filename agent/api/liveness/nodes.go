package liveness

import (
	"context"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/apis/meta/internalversion"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"

	"github.com/podvine/podvine/agent/api/kinds"
)

// Heartbeats is the storage of nodes with heartbeats in what it reads. Watches show nodes as they are stored: an event says
// what changed, and a heartbeat changes nothing.
type Heartbeats struct {
	*kinds.REST
	alive Alive
}

// NewHeartbeats serves what is in nodes.
func NewHeartbeats(nodes *kinds.REST, alive Alive) *Heartbeats { return &Heartbeats{nodes, alive} }

// Get implements rest.Getter.
func (h *Heartbeats) Get(ctx context.Context, name string, options *metav1.GetOptions) (runtime.Object, error) {
	found, err := h.REST.Get(ctx, name, options)
	if node, ok := found.(*corev1.Node); err == nil && ok {
		return h.alive.withHeartbeats(node, time.Now()), nil
	}
	return found, err
}

// List implements rest.Lister.
func (h *Heartbeats) List(ctx context.Context, options *internalversion.ListOptions) (runtime.Object, error) {
	found, err := h.Store.List(ctx, options)
	list, ok := found.(*corev1.NodeList)
	if err != nil || !ok {
		return found, err
	}
	shown, now := *list, time.Now()
	shown.Items = make([]corev1.Node, len(list.Items))
	for i := range list.Items {
		shown.Items[i] = *h.alive.withHeartbeats(&list.Items[i], now)
	}
	return &shown, nil
}
