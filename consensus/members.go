package consensus

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/hashicorp/raft"
)

// Role is what a node is to the quorum.
type Role string

// Roles of a node. Only voters decide; a standby has everything a voter has; an edge has no replica.
const (
	RoleVoter   Role = "voter"
	RoleStandby Role = "standby"
	RoleEdge    Role = "edge"
)

// errNoVoter says that a leader has nobody to hand over to.
var errNoVoter = errors.New("no other voter has what this replica has")

// Server is one replica of the configuration.
type Server struct {
	ID    string `json:"id"`
	Voter bool   `json:"voter"`
	// Match is the newest log entry that the replica is known to have, 0 when the leader does not know yet.
	Match uint64 `json:"match"`
	// Silence is how long ago it last answered the leader; negative when it never did.
	Silence time.Duration `json:"silence"`
}

// View is the quorum as one replica sees it.
type View struct {
	// Node is who looks. Only what the leader sees has Match and Silence in Servers.
	Node   string `json:"node"`
	Leader string `json:"leader"`
	Term   uint64 `json:"term"`
	Epoch  uint64 `json:"epoch"`
	// LastIndex is the newest log entry.
	LastIndex uint64   `json:"lastIndex"`
	Revision  int64    `json:"revision"`
	Servers   []Server `json:"servers"`
}

func (r *Replica) localView() View {
	v := View{
		Node: r.cfg.NodeID, Leader: r.leader(), Term: r.raft.CurrentTerm(), Epoch: r.Epoch(),
		LastIndex: r.raft.LastIndex(), Revision: r.store.Revision(),
	}
	_, leads := r.Leading()
	for _, s := range r.servers() {
		server := Server{ID: string(s.ID), Voter: s.Suffrage == raft.Voter, Silence: -1}
		switch p := r.gate.progress(server.ID); {
		case !leads:
		case server.ID == v.Node:
			server.Match, server.Silence = v.LastIndex, 0
		case !p.Contact.IsZero():
			server.Match, server.Silence = p.Match, time.Since(p.Contact)
		}
		v.Servers = append(v.Servers, server)
	}
	return v
}

// View returns the quorum as the leader sees it, or as this replica does when no leader answers.
func (r *Replica) View(ctx context.Context) View {
	leader := r.leader()
	if leader == "" || leader == r.cfg.NodeID {
		return r.localView()
	}
	v, err := r.viewOf(ctx, leader)
	if err != nil {
		r.log.Debug("ask the leader for its view", "leader", leader, "error", err)
		return r.localView()
	}
	return v
}

func (r *Replica) viewOf(ctx context.Context, node string) (View, error) {
	s, err := r.session(ctx, node)
	if err != nil {
		return View{}, err
	}
	return askView(ctx, s)
}

func askView(ctx context.Context, s *session) (View, error) {
	a, _, err := s.ask(ctx, frameStatus, func() []byte { return nil })
	if err == nil {
		err = answerError(a)
	}
	if err != nil {
		return View{}, err
	}
	var v View
	return v, json.Unmarshal(a.body, &v)
}

// Role returns what this replica is by its own configuration: an edge while it is in none.
func (r *Replica) Role() Role {
	for _, s := range r.servers() {
		if string(s.ID) != r.cfg.NodeID {
			continue
		}
		if s.Suffrage == raft.Voter {
			return RoleVoter
		}
		return RoleStandby
	}
	return RoleEdge
}

// AddStandby makes the leader feed a node's replica, which has no vote. It returns when that is decided, not when the
// replica has everything.
func (r *Replica) AddStandby(ctx context.Context, node string) error {
	return r.configure(ctx, "add standby "+node, func() raft.IndexFuture {
		return r.raft.AddNonvoter(raft.ServerID(node), raft.ServerAddress(node), 0, configTimeout(ctx))
	})
}

// Promote gives a replica a vote.
func (r *Replica) Promote(ctx context.Context, node string) error {
	return r.configure(ctx, "promote "+node, func() raft.IndexFuture {
		return r.raft.AddVoter(raft.ServerID(node), raft.ServerAddress(node), 0, configTimeout(ctx))
	})
}

// Demote takes a replica's vote.
func (r *Replica) Demote(ctx context.Context, node string) error {
	return r.configure(ctx, "demote "+node, func() raft.IndexFuture {
		return r.raft.DemoteVoter(raft.ServerID(node), 0, configTimeout(ctx))
	})
}

// Remove takes a replica out of the configuration.
func (r *Replica) Remove(ctx context.Context, node string) error {
	return r.configure(ctx, "remove "+node, func() raft.IndexFuture {
		return r.raft.RemoveServer(raft.ServerID(node), 0, configTimeout(ctx))
	})
}

// configTimeout is how long a change may wait for the one before it to be committed.
func configTimeout(ctx context.Context) time.Duration {
	if deadline, ok := ctx.Deadline(); ok {
		return max(time.Until(deadline), time.Millisecond)
	}
	return maxLeaderWait
}

// configure changes the configuration by one log entry. An error says nothing about whether it happens still.
func (r *Replica) configure(ctx context.Context, what string, change func() raft.IndexFuture) error {
	if _, leads := r.Leading(); !leads {
		return fmt.Errorf("%s: %w", what, ErrNotLeader)
	}
	r.configMu.Lock()
	r.configuring++
	r.soleVoter.Store(false)
	r.configMu.Unlock()
	done := make(chan error, 1)
	go func() {
		err := r.await(change())
		r.configMu.Lock()
		r.configuring--
		r.configMu.Unlock()
		done <- errors.Join(err, r.readVoters())
	}()
	select {
	case err := <-done:
		if err != nil {
			return fmt.Errorf("%s: %w", what, err)
		}
		return nil
	case <-ctx.Done():
		return fmt.Errorf("%s: %w", what, ctx.Err())
	}
}

// HandOver gives the lead to the voter that has most of the log, and returns once this replica does not lead. Writes wait
// meanwhile. It is nothing to do for a replica that does not lead.
func (r *Replica) HandOver(ctx context.Context) error {
	if r.raft.State() != raft.Leader {
		return nil
	}
	next := r.successor()
	if next == "" {
		return fmt.Errorf("hand over: %w", errNoVoter)
	}
	done := make(chan error, 1)
	go func() {
		done <- r.await(r.raft.LeadershipTransferToServer(raft.ServerID(next), raft.ServerAddress(next)))
	}()
	select {
	case err := <-done:
		if err != nil {
			return fmt.Errorf("hand over to %s: %w", next, err)
		}
		r.log.Info("handed over the lead", "to", next)
		return nil
	case <-ctx.Done():
		return fmt.Errorf("hand over to %s: %w", next, ctx.Err())
	}
}

// successor returns the other voter that answered lately and has most of the log, "" when there is none.
func (r *Replica) successor() string {
	best, match := "", uint64(0)
	for _, s := range r.servers() {
		p := r.gate.progress(string(s.ID))
		if s.Suffrage != raft.Voter || string(s.ID) == r.cfg.NodeID || time.Since(p.Contact) > heartbeatInterval {
			continue
		}
		if best == "" || p.Match > match {
			best, match = string(s.ID), p.Match
		}
	}
	return best
}

// abdicate asks the successor to stand for election now. Unlike [Replica.HandOver] it needs nothing of raft, which may hang
// in a disk operation, and does not wait.
func (r *Replica) abdicate() {
	if r.raft == nil || r.raft.State() != raft.Leader {
		return
	}
	next := r.successor()
	if next == "" {
		return
	}
	go func() {
		header := raft.RPCHeader{ProtocolVersion: raft.ProtocolVersionMax, ID: []byte(r.cfg.NodeID), Addr: []byte(r.cfg.NodeID)}
		request := &raft.TimeoutNowRequest{RPCHeader: header}
		err := r.gate.inner.TimeoutNow(raft.ServerID(next), raft.ServerAddress(next), request, &raft.TimeoutNowResponse{})
		if err != nil {
			r.log.Debug("ask another voter to take the lead", "voter", next, "error", err)
		}
	}()
}
