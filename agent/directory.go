package agent

import (
	"context"
	"fmt"
	"net/netip"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/tools/cache"

	"github.com/podvine/podvine/gossip"
)

const (
	// NodeIDAnnotation is on a Node object and holds the UUID of the node that has the name.
	NodeIDAnnotation = "podvine.io/node-id"
	// nodeIDIndex finds a Node object by that UUID.
	nodeIDIndex = "podvine.io/node-id"
	// silenceMeansDeath is how long after this agent's start a node that gossip has never heard of counts as dead: until
	// then it may only not have been met yet.
	silenceMeansDeath = 10 * time.Second
)

// directory tells of nodes what gossip and the Node objects know together: gossip knows nodes by UUID, the API by name.
// It is safe for concurrent use.
type directory struct {
	self    identity
	mesh    *gossip.Mesh
	started time.Time
	nodes   cache.Indexer

	mu      sync.RWMutex
	members map[string]gossip.Member // by UUID
}

// newDirectory must be called before the informers start.
func newDirectory(self identity, mesh *gossip.Mesh, factory informers.SharedInformerFactory) (*directory, error) {
	informer := factory.Core().V1().Nodes().Informer()
	err := informer.AddIndexers(cache.Indexers{nodeIDIndex: func(object any) ([]string, error) {
		node, ok := object.(*corev1.Node)
		if !ok {
			return nil, fmt.Errorf("index %T", object)
		}
		if id := node.Annotations[NodeIDAnnotation]; id != "" {
			return []string{id}, nil
		}
		return nil, nil
	}})
	if err != nil {
		return nil, fmt.Errorf("index nodes by ID: %w", err)
	}
	d := &directory{self: self, mesh: mesh, started: time.Now(), nodes: informer.GetIndexer()}
	d.refresh()
	return d, nil
}

// follow keeps the members current until ctx ends, and calls changed after each change.
func (d *directory) follow(ctx context.Context, changed func(before, after map[string]gossip.Member)) {
	trigger := d.mesh.Subscribe(ctx)
	for {
		select {
		case <-ctx.Done():
			return
		case <-trigger:
			changed(d.refresh())
		}
	}
}

func (d *directory) refresh() (before, after map[string]gossip.Member) {
	after = map[string]gossip.Member{}
	for _, member := range d.mesh.Members() {
		after[member.ID] = member
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	before, d.members = d.members, after
	return before, after
}

// all are the members now; do not change the map.
func (d *directory) all() map[string]gossip.Member {
	d.mu.RLock()
	defer d.mu.RUnlock()
	return d.members
}

// name is the name of the node with that UUID, "" while it has none.
func (d *directory) name(id string) string {
	if id == d.self.NodeID {
		return d.self.NodeName
	}
	if node := d.node(id); node != nil {
		return node.Name
	}
	return ""
}

// zone is the zone of the node with that UUID, as its Node object says.
func (d *directory) zone(id string) string {
	if node := d.node(id); node != nil {
		return node.Labels[corev1.LabelTopologyZone]
	}
	return ""
}

// node is the Node object of the node with that UUID, nil while there is none.
func (d *directory) node(id string) *corev1.Node {
	found, err := d.nodes.ByIndex(nodeIDIndex, id)
	if err != nil || len(found) == 0 {
		return nil
	}
	node, _ := found[0].(*corev1.Node)
	return node
}

// id is the UUID of the node with that name, "" while it is not known.
func (d *directory) id(name string) string {
	if name == d.self.NodeName {
		return d.self.NodeID
	}
	found, exists, err := d.nodes.GetByKey(name)
	if err != nil || !exists {
		return ""
	}
	node, ok := found.(*corev1.Node)
	if !ok {
		return ""
	}
	return node.Annotations[NodeIDAnnotation]
}

// Alive implements nodes.Liveness.
func (d *directory) Alive(name string) (alive bool, since time.Time) {
	id := d.id(name)
	if id == "" {
		return false, time.Time{}
	}
	member, known := d.all()[id]
	if !known {
		if dead := d.started.Add(silenceMeansDeath); time.Now().After(dead) {
			return false, dead
		}
		return false, time.Time{}
	}
	return answers(member), member.Since
}

// answers tells whether a member is there: one that leaves still is.
func answers(member gossip.Member) bool {
	return member.State == gossip.StateAlive || member.State == gossip.StateLeaving
}

// peerAddress is where the peer port of a node is.
func (d *directory) peerAddress(id string) (netip.AddrPort, bool) {
	member, known := d.all()[id]
	if !known || member.Tags.PeerPort == 0 {
		return netip.AddrPort{}, false
	}
	return netip.AddrPortFrom(member.Address.Addr(), member.Tags.PeerPort), true
}
