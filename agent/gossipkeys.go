package agent

import (
	"context"
	"slices"
	"sync"
	"time"

	"github.com/podvine/podvine/agent/pki"
	"github.com/podvine/podvine/gossip"
)

const (
	// gossipKeysPath is where any member tells another one the keys of gossip.
	gossipKeysPath = "/gossip-keys"
	// gossipKeysPause is how long a member waits before it asks replicas that gossip does not show as living, and again, twice as long
	// each time up to the longest, while the same ones are missing.
	gossipKeysPause        = 2 * time.Second
	longestGossipKeysPause = time.Minute
	// maxGossipKeysAsked bounds how many it asks at a time.
	maxGossipKeysAsked = 5
)

type gossipKeysCall struct{}

// gossipKeysAnswer says how the answering member uses gossip.
type gossipKeysAnswer struct {
	Keys [][]byte `json:"keys"`
	gossipSide
}

// gossipSide is what decides whose keys count when gossip has fallen apart into sides that do not understand each other.
type gossipSide struct {
	// Quorum says that the member is a replica that has a quorum, Leads that it leads it, and Alive how many members it sees living.
	Quorum bool `json:"quorum"`
	Leads  bool `json:"leads"`
	Alive  int  `json:"alive"`
}

// yieldsTo tells whether a member takes over the keys of another one: keys rotate where the leader is, and all that live there have the
// new ones. Pure.
func (s gossipSide) yieldsTo(other gossipSide) bool {
	switch {
	case !other.Quorum || s.Leads:
		return false
	case other.Leads || !s.Quorum:
		return true
	}
	return other.Alive > s.Alive
}

func (n *node) gossipSide() gossipSide {
	var side gossipSide
	if n.replica != nil {
		side.Quorum = n.replica.Available()
		_, side.Leads = n.replica.Leading()
	}
	for _, member := range n.mesh.Members() {
		if answers(member) {
			side.Alive++
		}
	}
	return side
}

// tellGossipKeys answers a member, who has them or should.
func (n *node) tellGossipKeys(context.Context, pki.NodeIdentity, gossipKeysCall) (gossipKeysAnswer, error) {
	return gossipKeysAnswer{n.mesh.Keys(), n.gossipSide()}, nil
}

// runGossipKeys brings a member back that was away while the keys of gossip rotated: others do not understand it, and seem dead to it.
// It asks them over the peers' port, where its certificate counts and no key of gossip.
func (n *node) runGossipKeys(ctx context.Context) error {
	pause, before := gossipKeysPause, []string(nil)
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(pause):
		}
		missing := n.missingReplicas()
		if pause = min(2*pause, longestGossipKeysPause); len(missing) == 0 || !slices.Equal(missing, before) {
			pause = gossipKeysPause
		}
		before = missing
		n.askGossipKeys(ctx, missing[:min(len(missing), maxGossipKeysAsked)])
	}
}

// askGossipKeys takes over the keys of the first that answers and counts more than this member.
func (n *node) askGossipKeys(ctx context.Context, replicas []string) {
	var mu sync.Mutex
	var asks sync.WaitGroup
	for _, id := range replicas {
		asks.Go(func() {
			told, err := callReplica[gossipKeysCall, gossipKeysAnswer](ctx, n.peers, id, gossipKeysPath, gossipKeysCall{})
			if err != nil {
				return // it is dead, most likely
			}
			mu.Lock()
			defer mu.Unlock()
			if !n.gossipSide().yieldsTo(told.gossipSide) {
				return
			}
			changed, err := n.mesh.AdoptKeys(told.Keys)
			if err != nil {
				n.log.Warn("adopt the keys of gossip", "error", err)
			}
			if changed {
				n.log.Info("took over the keys of gossip, which were rotated while this node was away", "from", id)
				if _, err := n.mesh.Join(n.lastGossip()); err != nil {
					n.log.Warn("meet the others with the new keys", "error", err)
				}
			}
		})
	}
	asks.Wait()
}

// missingReplicas are those that gossip does not show as living, also of the time before this start.
func (n *node) missingReplicas() []string {
	known := n.directory.all()
	var missing []string
	for id, member := range known {
		if id != n.dir.NodeID && member.Tags.Role.Replica() && member.State == gossip.StateDead {
			missing = append(missing, id)
		}
	}
	for _, last := range n.lastPeers {
		if _, met := known[last.ID]; last.Replica && !met {
			missing = append(missing, last.ID)
		}
	}
	slices.Sort(missing)
	return missing
}

// lastGossip are the addresses at which gossip may find the others.
func (n *node) lastGossip() []string {
	var addresses []string
	for _, last := range n.lastPeers {
		addresses = append(addresses, last.Address.String())
	}
	for id, member := range n.directory.all() {
		if id != n.dir.NodeID {
			addresses = append(addresses, member.Address.String())
		}
	}
	return addresses
}
