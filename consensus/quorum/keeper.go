package quorum

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"time"

	"github.com/podvine/podvine/consensus"
)

const (
	// DefaultInterval is how often the leader looks.
	DefaultInterval = 500 * time.Millisecond
	// stepTimeout bounds a change of the configuration, assignTimeout the telling of a role. What takes longer is looked at
	// again.
	stepTimeout   = 5 * time.Second
	assignTimeout = 3 * time.Second
	viewTimeout   = 2 * time.Second
)

// Replica is what the keeper needs of this node's replica; *consensus.Replica is one.
type Replica interface {
	Leading() (term uint64, ok bool)
	LeadershipChanged() <-chan struct{}
	QuorumLost() (since time.Time, lost bool)
	View(ctx context.Context) consensus.View
	AddStandby(ctx context.Context, node string) error
	Promote(ctx context.Context, node string) error
	Demote(ctx context.Context, node string) error
	Remove(ctx context.Context, node string) error
	HandOver(ctx context.Context) error
}

var _ Replica = (*consensus.Replica)(nil)

// Config describes a keeper. Replica, Members and Assign are required.
type Config struct {
	Replica Replica
	// Members returns all nodes that the member list knows, this one included. It must not block.
	Members func() []Member
	// Assign makes a node a standby, which opens an empty replica that waits to be fed, or an edge, which closes its
	// replica and puts its directory away. It is repeated, and returns once that is done.
	Assign func(ctx context.Context, nodeID string, role consensus.Role) error
	// Voters is the cluster's setting; nil or 0 follows the number of nodes.
	Voters   func() int
	Interval time.Duration
	Logger   *slog.Logger
	// Now is the node's clock, time.Now when nil.
	Now func() time.Time
}

// Keeper keeps the quorum in order while its replica leads. See the package comment.
type Keeper struct {
	cfg Config

	mu sync.Mutex
	// last is the step that was taken last, failed what kept it from being taken.
	last   Step
	failed error

	// What follows belongs to Run.
	term   uint64
	since  time.Time
	tracks map[string]Track
}

// New returns a keeper that does nothing before [Keeper.Run].
func New(cfg Config) (*Keeper, error) {
	if cfg.Replica == nil || cfg.Members == nil || cfg.Assign == nil {
		return nil, errors.New("new quorum keeper: Replica, Members and Assign are required")
	}
	if cfg.Voters == nil {
		cfg.Voters = func() int { return 0 }
	}
	if cfg.Interval == 0 {
		cfg.Interval = DefaultInterval
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	return &Keeper{cfg: cfg, tracks: map[string]Track{}}, nil
}

// Run keeps the quorum until ctx ends.
func (k *Keeper) Run(ctx context.Context) {
	tick := time.NewTimer(0)
	defer tick.Stop()
	for {
		changed := k.cfg.Replica.LeadershipChanged()
		due := tick.C
		if _, leads := k.cfg.Replica.Leading(); !leads {
			due = nil
		}
		select {
		case <-due:
			k.turn(ctx)
		case <-changed:
		case <-ctx.Done():
			return
		}
		tick.Reset(k.cfg.Interval)
	}
}

// turn takes one step, if one is due.
func (k *Keeper) turn(ctx context.Context) {
	term, leads := k.cfg.Replica.Leading()
	if !leads {
		return
	}
	now := k.cfg.Now()
	if term != k.term {
		k.term, k.since = term, now
	}
	members := k.cfg.Members()
	k.tracks = Observe(k.tracks, members, now)
	viewCtx, cancel := context.WithTimeout(ctx, viewTimeout)
	seen := k.cfg.Replica.View(viewCtx)
	cancel()
	if seen.Leader != seen.Node || seen.Term != term {
		return
	}
	step := Decide(View{
		Now: now, Self: seen.Node, Since: k.since, LastIndex: seen.LastIndex, Servers: seen.Servers,
		Members: members, Tracks: k.tracks, Voters: k.cfg.Voters(),
	})
	if step.Action == ActionNone {
		return
	}
	err := k.take(ctx, step)
	k.mu.Lock()
	repeated := k.failed != nil && err != nil && k.last == step
	k.last, k.failed = step, err
	k.mu.Unlock()
	name := nameOf(members, step.Node)
	switch {
	case err == nil:
		k.cfg.Logger.Info("quorum step", "action", step.Action, "node", name, "why", step.Why)
	case !repeated:
		k.cfg.Logger.Warn("quorum step failed; it is decided anew", "action", step.Action, "node", name, "why", step.Why, "error", err)
	}
}

// take does what the step says. Every step may be repeated.
func (k *Keeper) take(ctx context.Context, step Step) error {
	r := k.cfg.Replica
	stepCtx, cancel := context.WithTimeout(ctx, stepTimeout)
	defer cancel()
	switch step.Action {
	case ActionAdd:
		if err := k.assign(ctx, step.Node, consensus.RoleStandby); err != nil {
			return err
		}
		return r.AddStandby(stepCtx, step.Node)
	case ActionAssign:
		return k.assign(ctx, step.Node, step.Role)
	case ActionPromote:
		return r.Promote(stepCtx, step.Node)
	case ActionDemote:
		return r.Demote(stepCtx, step.Node)
	case ActionRemove:
		return r.Remove(stepCtx, step.Node)
	case ActionHandOver:
		return r.HandOver(stepCtx)
	}
	return errors.New("unknown step " + string(step.Action))
}

func (k *Keeper) assign(ctx context.Context, node string, role consensus.Role) error {
	ctx, cancel := context.WithTimeout(ctx, assignTimeout)
	defer cancel()
	if t, ok := k.tracks[node]; ok {
		t.Asked = k.cfg.Now()
		k.tracks[node] = t
	}
	return k.cfg.Assign(ctx, node, role)
}

func nameOf(members []Member, id string) string {
	for _, m := range members {
		if m.ID == id && m.Name != "" {
			return m.Name
		}
	}
	return id
}
