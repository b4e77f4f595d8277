package agent

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"syscall"
	"time"

	"github.com/podvine/podvine/agent/pki"
	"github.com/podvine/podvine/consensus"
	"github.com/podvine/podvine/consensus/quorum"
	"github.com/podvine/podvine/gossip"
)

const (
	// rolePath is where a replica tells another node what it is to be.
	rolePath = "/role"
	// restartPause lets the answer to a call get through before the agent starts anew.
	restartPause = 50 * time.Millisecond
	// roleInterval is how often a replica compares its role in the quorum with what gossip says of it.
	roleInterval = 500 * time.Millisecond
	// handOverTimeout bounds how long a leader that ends looks for a successor.
	handOverTimeout = 3 * time.Second
)

// roleCall makes a node a replica, with the keys that replicas hold, or an edge.
type roleCall struct {
	Replica  bool            `json:"replica"`
	Epoch    uint64          `json:"epoch"`
	Keys     *pki.Bundle     `json:"keys,omitempty"`
	DataKeys json.RawMessage `json:"dataKeys,omitempty"`
}

type roleAnswer struct{}

// errRoleChanged ends an agent that is to start anew in another role.
var errRoleChanged = errors.New("this node has another role now")

// assign tells a node its role. It is what the quorum's keeper calls on the leader. The keys that a replica knows rotate before it
// is told that it is one no more: its answer may be lost, and it is not asked again.
func (n *node) assign(ctx context.Context, nodeID string, role consensus.Role) error {
	wanted := roleCall{Replica: role != consensus.RoleEdge, Epoch: n.replica.Epoch()}
	if wanted.Replica {
		n.former.again(nodeID)
		keys, err := n.keys.Export()
		if err != nil {
			return err
		}
		if wanted.DataKeys, _, err = n.dataKeys.export(); err != nil {
			return err
		}
		wanted.Keys = &keys
	} else if err := n.rotateHeld(ctx, nodeID); err != nil {
		return err
	}
	_, err := call[roleCall, roleAnswer](ctx, n.peers, nodeID, rolePath, wanted)
	return err
}

// takeRole obeys a replica that tells this node its role. What has to be on disk is there before the answer; then the agent
// starts anew.
func (n *node) takeRole(_ context.Context, caller pki.NodeIdentity, wanted roleCall) (roleAnswer, error) {
	if !caller.Replica {
		return roleAnswer{}, fmt.Errorf("node %s is no replica and has no say in roles", caller.Name)
	}
	if n.leaving.Load() != leavingNot {
		return roleAnswer{}, errors.New("this node leaves the cluster and takes no other role")
	}
	if wanted.Replica && (wanted.Keys == nil || len(wanted.DataKeys) == 0) {
		return roleAnswer{}, errors.New("a replica needs keys, and none came")
	}
	if wanted.Replica == !n.dir.Edge {
		if wanted.Replica {
			return roleAnswer{}, errors.Join(n.keys.AdoptTokenKeys(*wanted.Keys), n.dataKeys.adopt(wanted.DataKeys))
		}
		return roleAnswer{}, nil
	}
	next := n.dir.identity
	next.Edge, next.Joined, next.Epoch = !wanted.Replica, true, wanted.Epoch
	if wanted.Replica {
		if err := writeSecret(n.dir.join(dataKeysFile), wanted.DataKeys); err != nil {
			return roleAnswer{}, err
		}
		if err := pki.Install(n.dir.join("pki"), *wanted.Keys); err != nil {
			return roleAnswer{}, err
		}
	}
	if err := n.dir.become(next); err != nil {
		return roleAnswer{}, err
	}
	n.log.Info("take another role", "replica", wanted.Replica, "told by", caller.Name)
	time.AfterFunc(restartPause, func() { n.end(errRoleChanged) })
	return roleAnswer{}, nil
}

// tidyEdge removes from an edge what a replica has: its records and the keys. A replica that was put away stays readable
// for who must recover a cluster by hand.
func (n *node) tidyEdge() error {
	if _, err := os.Stat(n.dir.join("raft")); err == nil {
		if err := consensus.PutAway(n.dir.join("raft")); err != nil {
			return err
		}
	}
	if err := os.Remove(n.dir.join(dataKeysFile)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove data keys: %w", err)
	}
	if err := os.Remove(n.kubeconfigFile()); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove the administrator's kubeconfig: %w", err)
	}
	return pki.Uninstall(n.dir.join("pki"))
}

// runQuorum keeps the quorum in order while this replica leads, and tells gossip what this replica is.
func (n *node) runQuorum(ctx context.Context) error {
	done := make(chan struct{})
	go func() {
		defer close(done)
		n.keeper.Run(ctx)
	}()
	defer func() { <-done }()
	ticker := time.NewTicker(roleInterval)
	defer ticker.Stop()
	told := gossip.RoleEdge // as the node began: it did not know yet
	for {
		if tags := n.tags(); tags.Role != told {
			if err := n.mesh.SetTags(tags); err != nil {
				n.log.Warn("tell gossip this node's role", "error", err)
			} else {
				n.log.Info("this node's role in the quorum", "role", tags.Role.String())
				told = tags.Role
			}
		}
		select {
		case <-ctx.Done():
			return nil
		case <-n.replica.Superseded():
			return n.supersede()
		case <-ticker.C:
		}
	}
}

// supersede makes a replica that its cluster was recovered without an edge: its records are of a past that did not happen.
func (n *node) supersede() error {
	next := n.dir.identity
	next.Edge, next.Joined = true, true
	if err := n.dir.become(next); err != nil {
		return err
	}
	n.log.Warn("the cluster was recovered without this replica: it becomes an edge, its records are put away")
	return errRoleChanged
}

// quorumMembers are the nodes as the keeper sees them.
func (n *node) quorumMembers() []quorum.Member {
	known := n.directory.all()
	members := make([]quorum.Member, 0, len(known))
	for id, member := range known {
		role := consensus.RoleEdge
		switch member.Tags.Role {
		case gossip.RoleVoter:
			role = consensus.RoleVoter
		case gossip.RoleStandby:
			role = consensus.RoleStandby
		}
		members = append(members, quorum.Member{
			ID: id, Name: n.directory.name(id), Alive: answers(member),
			Since: member.Since, Zone: n.directory.zone(id), Role: role,
			Leaving: member.State == gossip.StateLeaving || member.Tags.Leaving, Left: member.State == gossip.StateLeft, Version: member.Tags.Version,
		})
	}
	return members
}

// awaitTurn returns when the pause is over, the trigger was pulled, or another may lead, of which it tells changed first; false says that ctx
// has ended. What a replica does while it leads it does in turns.
func (n *node) awaitTurn(ctx context.Context, pause time.Duration, trigger <-chan struct{}, changed func()) bool {
	leadership := n.replica.LeadershipChanged()
	timer := time.NewTimer(pause)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-leadership:
		changed()
	case <-trigger:
	case <-timer.C:
	}
	return true
}

// replicaIDs are the replicas of the quorum, as the leader sees it.
func (n *node) replicaIDs(ctx context.Context) map[string]bool {
	ids := map[string]bool{}
	for _, server := range n.replica.View(ctx).Servers {
		ids[server.ID] = true
	}
	return ids
}

// handOver gives the lead away before this replica ends, so that nobody waits for an election.
func (n *node) handOver() {
	if n.replica == nil {
		return
	}
	if _, leads := n.replica.Leading(); !leads {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), handOverTimeout)
	defer cancel()
	voters := 0
	for _, server := range n.replica.View(ctx).Servers {
		if server.Voter {
			voters++
		}
	}
	if voters < 2 {
		return
	}
	if err := n.replica.HandOver(ctx); err != nil {
		n.log.Warn("hand over the lead", "error", err)
	}
}

// startAnew replaces this process by a fresh agent with the same arguments. It returns only on error.
func startAnew() error {
	program, err := os.Executable()
	if err != nil {
		return fmt.Errorf("start anew: %w", err)
	}
	if err := syscall.Exec(program, os.Args, os.Environ()); err != nil {
		return fmt.Errorf("start anew: %w", err)
	}
	return nil
}
