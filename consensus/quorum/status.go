package quorum

import (
	"cmp"
	"context"
	"slices"
	"time"

	"github.com/podvine/podvine/consensus"
)

// States of a quorum.
const (
	// StateHealthy says that there are as many voters as there should be, and all answer.
	StateHealthy = "healthy"
	// StateDegraded says that writes work, and that voters are missing or mute.
	StateDegraded = "degraded"
	// StateLost says that there is no majority: nothing can be written. If the missing voters do not come back,
	// `podvine quorum recover` is the way on.
	StateLost = "quorum lost"
)

// Status is the quorum for people.
type Status struct {
	State string `json:"state"`
	// Leader has an empty name when nobody leads.
	Leader    Node           `json:"leader"`
	Term      uint64         `json:"term"`
	Epoch     uint64         `json:"epoch"`
	LastIndex uint64         `json:"lastIndex"`
	Revision  int64          `json:"revision"`
	Voters    []ReplicaState `json:"voters"`
	Standbys  []ReplicaState `json:"standbys"`
	// Target is how many voters there should be.
	Target int `json:"target"`
	// CanLose is how many of the voters that answer may be lost at once before nothing can be written.
	CanLose int `json:"canLose"`
	// LostSince is set while the quorum is out of reach.
	LostSince *time.Time `json:"lostSince,omitempty"`
}

// Node names a node.
type Node struct {
	ID   string `json:"id"`
	Name string `json:"name"`
}

// ReplicaState is one replica for people.
type ReplicaState struct {
	Node
	Alive   bool   `json:"alive"`
	Zone    string `json:"zone,omitempty"`
	Version string `json:"version,omitempty"`
	// LagEntries is how many log entries it is behind; -1 when that is not known.
	LagEntries int64 `json:"lagEntries"`
	// SilentMillis is how long ago it last answered the leader; -1 when that is not known.
	SilentMillis int64 `json:"silentMillis"`
}

// Status returns the state of the quorum as the leader sees it, or as this replica does when none answers.
func (k *Keeper) Status(ctx context.Context) Status {
	ctx, cancel := context.WithTimeout(ctx, viewTimeout)
	defer cancel()
	since, lost := k.cfg.Replica.QuorumLost()
	s := StatusOf(k.cfg.Replica.View(ctx), k.cfg.Members(), k.cfg.Voters())
	if lost {
		s.State, s.CanLose, s.LostSince = StateLost, 0, &since
	}
	return s
}

// StatusOf is the pure part of [Keeper.Status].
func StatusOf(v consensus.View, members []Member, setting int) Status {
	s := Status{Term: v.Term, Epoch: v.Epoch, LastIndex: v.LastIndex, Revision: v.Revision, Voters: []ReplicaState{}, Standbys: []ReplicaState{}}
	if v.Leader != "" {
		s.Leader = Node{ID: v.Leader, Name: nameOf(members, v.Leader)}
	}
	byID := map[string]Member{}
	nodes := 0
	for _, m := range members {
		byID[m.ID] = m
		if !m.Left && !m.Leaving {
			nodes++
		}
	}
	s.Target = Target(nodes, setting)
	answering := 0
	for _, server := range v.Servers {
		r := replicaState(&v, server, byID[server.ID])
		r.Name = nameOf(members, server.ID)
		if !server.Voter {
			s.Standbys = append(s.Standbys, r)
			continue
		}
		s.Voters = append(s.Voters, r)
		if r.Alive {
			answering++
		}
	}
	byName := func(a, b ReplicaState) int { return cmp.Or(cmp.Compare(a.Name, b.Name), cmp.Compare(a.ID, b.ID)) }
	slices.SortFunc(s.Voters, byName)
	slices.SortFunc(s.Standbys, byName)
	need := len(s.Voters)/2 + 1
	s.CanLose = max(answering-need, 0)
	switch {
	case v.Leader == "" || answering < need:
		s.State = StateLost
	case answering < len(s.Voters) || len(s.Voters) < s.Target:
		s.State = StateDegraded
	default:
		s.State = StateHealthy
	}
	return s
}

// WantsReplica tells whether one more node, beside these members, would get a replica of the records.
func WantsReplica(v consensus.View, members []Member, setting int) bool {
	nodes := 1
	for _, m := range members {
		if !m.Left && !m.Leaving {
			nodes++
		}
	}
	return len(v.Servers) < min(nodes, Target(nodes, setting)+wantStandbys)
}

// replicaState says what the leader knows of a replica, or the member list when nobody leads.
func replicaState(v *consensus.View, server consensus.Server, m Member) ReplicaState {
	r := ReplicaState{Node: Node{ID: server.ID}, Alive: m.Alive || server.ID == v.Node, Zone: m.Zone, Version: m.Version, LagEntries: -1, SilentMillis: -1}
	if server.Silence < 0 || v.Leader != v.Node {
		return r
	}
	r.Alive = server.Silence < contactFresh
	r.SilentMillis = server.Silence.Milliseconds()
	if server.Match > 0 {
		r.LagEntries = int64(v.LastIndex) - int64(min(server.Match, v.LastIndex))
	}
	return r
}
