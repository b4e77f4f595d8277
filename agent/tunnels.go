package agent

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/tools/cache"

	"github.com/podvine/podvine/agent/pki"
	"github.com/podvine/podvine/dataplane/tunnel"
	"github.com/podvine/podvine/dataplane/tunnel/wireguard"
	"github.com/podvine/podvine/gossip"
)

const (
	// TunnelKeyAnnotation is on a Node object and holds the public key of the node's tunnel. It stands there and not in
	// gossip, because the API lets only the node itself write it.
	TunnelKeyAnnotation = "podvine.io/tunnel-key"
	// tunnelStateFile keeps what the tunnel was set to last: a node that starts without anybody to ask sets it again.
	tunnelStateFile = "tunnel.json"
	// tunnelPause gathers changes, and is the pause before a failed change is tried again.
	tunnelPause = 200 * time.Millisecond
)

// tunnels connects this node's pods with those of other nodes: ranges and keys come from Node objects, addresses from gossip.
type tunnels struct {
	node *node
	// changed has a capacity of one.
	changed chan struct{}
	synced  cache.InformerSynced
}

// newTunnels must be called before the informers start.
func newTunnels(n *node) (*tunnels, error) {
	t := &tunnels{node: n, changed: make(chan struct{}, 1)}
	registration, err := n.informers.Core().V1().Nodes().Informer().AddEventHandler(cache.ResourceEventHandlerFuncs{
		AddFunc:    func(any) { t.trigger() },
		UpdateFunc: func(old, fresh any) { t.triggerOn(old, fresh) },
		DeleteFunc: func(any) { t.trigger() },
	})
	if err != nil {
		return nil, fmt.Errorf("subscribe to nodes: %w", err)
	}
	t.synced = registration.HasSynced
	return t, nil
}

func (t *tunnels) trigger() {
	select {
	case t.changed <- struct{}{}:
	default: // it is told already
	}
}

// triggerOn ignores the changes of a Node object that mean nothing to the tunnel, which are nearly all.
func (t *tunnels) triggerOn(old, fresh any) {
	before, ok := old.(*corev1.Node)
	after, also := fresh.(*corev1.Node)
	if ok && also && slices.Equal(before.Spec.PodCIDRs, after.Spec.PodCIDRs) &&
		before.Annotations[TunnelKeyAnnotation] == after.Annotations[TunnelKeyAnnotation] &&
		before.Annotations[NodeIDAnnotation] == after.Annotations[NodeIDAnnotation] && nodeHost(before) == nodeHost(after) {
		return
	}
	t.trigger()
}

// run keeps the tunnel as it should be until ctx ends. Before anybody has told which nodes there are, it is as it was when
// this agent last ran.
func (t *tunnels) run(ctx context.Context, link *tunnel.Tunnel, ranges []netip.Prefix) {
	var last tunnel.State
	if err := readJSON(t.node.dir.join(tunnelStateFile), &last); err != nil {
		t.node.log.Warn("read the tunnel's last state", "error", err)
	} else if last.Self.ID == t.node.dir.NodeID {
		t.set(ctx, link, last)
	}
	if !cache.WaitForCacheSync(ctx.Done(), t.synced) {
		return
	}
	published := false
	for {
		if !t.credible() {
			if !t.wait(ctx, true) {
				return
			}
			continue
		}
		if !published {
			published = t.publish(ctx, link.PublicKey())
		}
		state := t.state(ranges)
		done := t.set(ctx, link, state)
		if done && !equalStates(last, state) {
			if err := writeJSON(t.node.dir.join(tunnelStateFile), state); err != nil {
				t.node.log.Warn("keep the tunnel's state", "error", err)
			}
			last = state
		}
		if !t.wait(ctx, done && published) {
			return
		}
	}
}

// credible reports whether the nodes that are known are the cluster's: one that knows not even this node is no view of it,
// but a replica that has not caught up since its start. Peers that it lacks must not be cut off.
func (t *tunnels) credible() bool {
	_, err := t.node.nodeLister().Get(t.node.dir.NodeName)
	return err == nil
}

// wait returns when there is something to do, or false when ctx ends.
func (t *tunnels) wait(ctx context.Context, settled bool) bool {
	again := time.NewTimer(tunnelPause)
	defer again.Stop()
	if settled {
		select {
		case <-ctx.Done():
			return false
		case <-t.changed:
		}
		again.Reset(tunnelPause / 10) // what changes together is looked at together
	}
	select {
	case <-ctx.Done():
		return false
	case <-again.C:
		return true
	}
}

func (t *tunnels) set(ctx context.Context, link *tunnel.Tunnel, state tunnel.State) (done bool) {
	err := link.Set(ctx, state)
	var refused *tunnel.PeerError
	switch {
	case err == nil:
		return true
	case ctx.Err() != nil:
		return false
	case errors.As(err, &refused):
		t.node.log.Warn("connect the pods of other nodes", "error", err)
		return true // it is as it should be, but for the peers that cannot be connected
	}
	t.node.log.Error("connect the pods of other nodes, again in a moment", "error", err)
	return false
}

// state is what the tunnel should be now.
func (t *tunnels) state(ranges []netip.Prefix) tunnel.State {
	n := t.node
	state := tunnel.State{
		Mode: n.live.get().tunnelMode(), Self: tunnel.Self{ID: n.dir.NodeID, Addrs: []netip.Addr{n.address}, PodCIDRs: ranges},
	}
	nodes, err := n.nodeLister().List(labels.Everything())
	if err != nil {
		n.log.Error("list nodes", "error", err)
		return state
	}
	members := n.directory.all()
	for _, node := range nodes {
		if node.Name == n.dir.NodeName {
			continue
		}
		if peer, ok := peerOf(node, members, state.Mode); ok {
			state.Peers = append(state.Peers, peer)
		}
	}
	slices.SortFunc(state.Peers, func(a, b tunnel.Peer) int { return cmp.Compare(a.ID, b.ID) })
	return state
}

// peerOf describes another node; ok is false while it cannot be connected yet.
func peerOf(node *corev1.Node, members map[string]gossip.Member, mode tunnel.Mode) (tunnel.Peer, bool) {
	peer := tunnel.Peer{ID: node.Annotations[NodeIDAnnotation]}
	key, err := wireguard.ParseKey(node.Annotations[TunnelKeyAnnotation])
	if err != nil && mode == tunnel.WireGuard {
		return peer, false
	}
	peer.PublicKey = key
	for _, text := range node.Spec.PodCIDRs {
		if prefix, err := netip.ParsePrefix(text); err == nil {
			peer.PodCIDRs = append(peer.PodCIDRs, prefix)
		}
	}
	if member, known := members[peer.ID]; known {
		peer.Addrs = []netip.Addr{member.Address.Addr()}
	} else if address, err := netip.ParseAddr(nodeHost(node)); err == nil {
		peer.Addrs = []netip.Addr{address}
	}
	return peer, peer.ID != "" && len(peer.PodCIDRs) > 0 && len(peer.Addrs) > 0
}

// publish writes this node's public key into its Node object.
func (t *tunnels) publish(ctx context.Context, key wireguard.Key) bool {
	n := t.node
	if node, err := n.nodeLister().Get(n.dir.NodeName); err == nil && node.Annotations[TunnelKeyAnnotation] == key.String() {
		return true
	}
	patch, err := json.Marshal(map[string]any{"metadata": map[string]any{"annotations": map[string]string{TunnelKeyAnnotation: key.String()}}})
	if err == nil {
		_, err = n.client(pki.NodeUserStart+n.dir.NodeName, pki.NodesGroup).CoreV1().Nodes().Patch(ctx, n.dir.NodeName, types.MergePatchType, patch, metav1.PatchOptions{})
	}
	if err != nil {
		n.log.Debug("publish the tunnel's key, again in a moment", "error", err)
	}
	return err == nil
}

func equalStates(a, b tunnel.State) bool {
	one, errA := json.Marshal(a)
	two, errB := json.Marshal(b)
	return errA == nil && errB == nil && string(one) == string(two)
}

// tunnelMode is the mode that the settings ask for; settings with an unknown one are refused before they get here.
func (s Settings) tunnelMode() tunnel.Mode {
	mode, err := tunnel.ParseMode(s.Tunnel)
	if err != nil {
		return tunnel.WireGuard
	}
	return mode
}
