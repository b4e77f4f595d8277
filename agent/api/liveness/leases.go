package liveness

import (
	"context"
	"fmt"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/apis/meta/internalversion"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/apiserver/pkg/endpoints/request"

	"github.com/podvine/podvine/agent/api/kinds"
)

// Leases is the storage of leases with those of nodes made up.
type Leases struct {
	*kinds.REST
	nodes *kinds.REST
	alive Alive
}

// NewLeases serves what is in leases, and a lease for each node in nodes of which alive knows and none is stored.
func NewLeases(leases, nodes *kinds.REST, alive Alive) *Leases {
	return &Leases{REST: leases, nodes: nodes, alive: alive}
}

// Get implements rest.Getter.
func (l *Leases) Get(ctx context.Context, name string, options *metav1.GetOptions) (runtime.Object, error) {
	stored, err := l.REST.Get(ctx, name, options)
	if !apierrors.IsNotFound(err) || request.NamespaceValue(ctx) != corev1.NamespaceNodeLease {
		return stored, err
	}
	found, nodeErr := l.nodes.Get(clusterScope(ctx), name, options)
	if apierrors.IsNotFound(nodeErr) {
		return nil, err
	}
	if nodeErr != nil {
		return nil, fmt.Errorf("read the node of lease %s: %w", name, nodeErr)
	}
	if node, ok := found.(*corev1.Node); ok {
		if lease := l.alive.leaseOf(node, time.Now()); lease != nil {
			return lease, nil
		}
	}
	return nil, err
}

// List implements rest.Lister.
func (l *Leases) List(ctx context.Context, options *internalversion.ListOptions) (runtime.Object, error) {
	if !concerns(ctx) {
		return l.REST.List(ctx, options)
	}
	stored, err := l.Store.List(ctx, options)
	if err != nil {
		return nil, err
	}
	list, ok := stored.(*coordinationv1.LeaseList)
	if !ok || list.Continue != "" {
		return stored, nil
	}
	found, err := l.nodes.Store.List(clusterScope(ctx), &internalversion.ListOptions{ResourceVersion: "0"})
	if err != nil {
		return nil, fmt.Errorf("read the nodes of leases: %w", err)
	}
	nodes, ok := found.(*corev1.NodeList)
	if !ok {
		return stored, nil
	}
	shown, now := *list, time.Now()
	shown.Items = append(make([]coordinationv1.Lease, 0, len(list.Items)+len(nodes.Items)), list.Items...)
	for i := range nodes.Items {
		lease := l.alive.leaseOf(&nodes.Items[i], now)
		if lease == nil || !selects(options, lease) || l.stored(ctx, lease.Name) {
			continue
		}
		shown.Items = append(shown.Items, *lease)
	}
	return &shown, nil
}

// concerns tells whether the leases of nodes are among what is asked for.
func concerns(ctx context.Context) bool {
	namespace := request.NamespaceValue(ctx)
	return namespace == "" || namespace == corev1.NamespaceNodeLease
}

// stored tells whether somebody keeps the lease of that node.
func (l *Leases) stored(ctx context.Context, name string) bool {
	_, err := l.REST.Get(request.WithNamespace(ctx, corev1.NamespaceNodeLease), name, &metav1.GetOptions{ResourceVersion: "0"})
	return err == nil
}

func clusterScope(ctx context.Context) context.Context { return request.WithNamespace(ctx, "") }

func selects(options *internalversion.ListOptions, lease *coordinationv1.Lease) bool {
	if options == nil {
		return true
	}
	byLabel, byField := options.LabelSelector, options.FieldSelector
	return (byLabel == nil || byLabel.Matches(labels.Set(lease.Labels))) &&
		(byField == nil || byField.Matches(fields.Set{"metadata.name": lease.Name, "metadata.namespace": lease.Namespace}))
}

// Watch implements rest.Watcher.
func (l *Leases) Watch(ctx context.Context, options *internalversion.ListOptions) (watch.Interface, error) {
	stored, err := l.REST.Watch(ctx, options)
	if err != nil || !concerns(ctx) {
		return stored, err
	}
	ofNodes := &internalversion.ListOptions{}
	if options != nil {
		*ofNodes = *options
		ofNodes.LabelSelector, ofNodes.FieldSelector = nil, nil
	}
	nodes, err := l.nodes.Watch(clusterScope(ctx), ofNodes)
	if err != nil {
		stored.Stop()
		return nil, fmt.Errorf("watch the nodes of leases: %w", err)
	}
	return merge(stored, nodes, func(event watch.Event) (watch.Event, bool) { return l.event(ctx, options, event) }), nil
}

// event turns the event of a node into that of its lease.
func (l *Leases) event(ctx context.Context, options *internalversion.ListOptions, event watch.Event) (watch.Event, bool) {
	object := event.Object
	if cached, ok := object.(runtime.CacheableObject); ok {
		object = cached.GetObject()
	}
	node, ok := object.(*corev1.Node)
	if !ok {
		return event, event.Type == watch.Error
	}
	lease := l.alive.leaseOf(node, time.Now())
	if lease == nil || !selects(options, lease) || l.stored(ctx, lease.Name) {
		return event, false
	}
	return watch.Event{Type: event.Type, Object: lease}, true
}
