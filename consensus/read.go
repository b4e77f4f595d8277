package consensus

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/raft"
)

// maxLeaderWait is how long a read or a write waits for a leader before it says that there is none.
const maxLeaderWait = 2 * time.Second

// Between two attempts to reach a leader.
const (
	firstRetryWait = 10 * time.Millisecond
	lastRetryWait  = 200 * time.Millisecond
)

// leadership is what this replica knows of its own lead.
type leadership struct {
	// term is the term in which all earlier entries are applied and this replica leads; 0 when it does not.
	term atomic.Uint64

	mu sync.Mutex
	// changed is closed when term changes.
	changed chan struct{}
}

func (l *leadership) set(term uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.term.Store(term)
	close(l.changed)
	l.changed = make(chan struct{})
}

// wake tells those who wait that another may lead.
func (l *leadership) wake() {
	l.mu.Lock()
	defer l.mu.Unlock()
	close(l.changed)
	l.changed = make(chan struct{})
}

func (l *leadership) wait() <-chan struct{} {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.changed
}

// runLeadership follows raft's elections. After each it writes one barrier: then everything that an earlier leader
// acknowledged is applied here.
func (r *Replica) runLeadership() {
	for {
		select {
		case leads := <-r.raft.LeaderCh():
			if !leads {
				r.lead.set(0)
				continue
			}
			r.gate.forgetProgress()
			<-r.woken
		case <-r.closing:
			return
		}
		term := r.raft.CurrentTerm()
		if err := r.await(r.raft.Barrier(0)); err != nil {
			r.log.Debug("barrier", "error", err)
			continue
		}
		if err := r.readVoters(); err != nil {
			r.log.Debug("read voters", "error", err)
			continue
		}
		if r.raft.State() == raft.Leader && r.raft.CurrentTerm() == term {
			r.metrics.leaderships.Inc()
			r.reach.confirm()
			r.log.Info("this replica leads", "term", term)
			r.lead.set(term)
		}
	}
}

// Leading returns whether this replica leads, and its term. It is a hint: only the log decides.
func (r *Replica) Leading() (term uint64, ok bool) {
	term = r.lead.term.Load()
	return term, term != 0 && r.raft.State() == raft.Leader && r.raft.CurrentTerm() == term && !r.membership.isOver()
}

// LeadershipChanged returns a channel that is closed when [Replica.Leading] may answer differently, or another node leads.
func (r *Replica) LeadershipChanged() <-chan struct{} {
	return r.lead.wait()
}

// WaitReady returns once this replica leads or follows a leader, and has applied everything that was acknowledged before.
func (r *Replica) WaitReady(ctx context.Context) error {
	for {
		changed := r.LeadershipChanged()
		_, err := r.ReadRevision(ctx)
		if err == nil {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return fmt.Errorf("wait for leadership: %w", errors.Join(ctx.Err(), err))
		case <-r.closing:
			return ErrClosed
		}
	}
}

// waitLeader returns the node that leads: this one, or with a network another.
func (r *Replica) waitLeader(ctx context.Context) (string, error) {
	timer := time.NewTimer(maxLeaderWait)
	defer timer.Stop()
	for {
		changed := r.LeadershipChanged()
		if id := r.leader(); id != "" {
			return id, nil
		}
		select {
		case <-changed:
		case <-timer.C:
			return "", errNobodyLeads
		case <-ctx.Done():
			return "", fmt.Errorf("%w: wait for a leader: %w", ErrNotLeader, ctx.Err())
		case <-r.closing:
			return "", fmt.Errorf("%w: %w", ErrNotLeader, ErrClosed)
		}
	}
}

// leader returns the node that can be asked to write, "" when none is known.
func (r *Replica) leader() string {
	if _, ok := r.Leading(); ok {
		return r.cfg.NodeID
	}
	_, id := r.raft.LeaderWithID()
	if r.network == nil || string(id) == r.cfg.NodeID {
		return ""
	}
	return string(id)
}

// ReadRevision returns a revision that covers every write acknowledged before the call, anywhere. The local store has
// reached it on return. It writes nothing: concurrent calls share one round of asking who leads, and a sole voter, who
// cannot be deposed behind its back, asks nobody. A follower asks its leader.
func (r *Replica) ReadRevision(ctx context.Context) (int64, error) {
	start := time.Now()
	for wait := firstRetryWait; ; wait = min(2*wait, lastRetryWait) {
		revision, err := r.readRevision(ctx)
		if err == nil {
			r.reach.confirm()
			return revision, nil
		}
		if ctx.Err() != nil || errors.Is(err, ErrClosed) {
			return 0, err
		}
		if time.Since(start) >= maxLeaderWait {
			r.reach.lost(start)
			return 0, err
		}
		if err := r.pause(ctx, wait); err != nil {
			return 0, err
		}
	}
}

func (r *Replica) readRevision(ctx context.Context) (int64, error) {
	leader, err := r.waitLeader(ctx)
	if err != nil {
		return 0, err
	}
	ask := &r.verifier
	how := r.verify
	if leader != r.cfg.NodeID {
		ask, how = &r.remote, r.askLeader
	} else if r.soleVoter.Load() {
		return r.store.Revision(), nil
	}
	round := ask.join(how)
	select {
	case <-round.done:
	case <-ctx.Done():
		return 0, fmt.Errorf("verify leadership: %w", ctx.Err())
	}
	if round.err != nil {
		return 0, round.err
	}
	return round.revision, r.store.WaitRevision(ctx, round.revision)
}

// verify asks the peers in one term from end to end: after a lead that was lost and won again, the store may lack what
// another leader acknowledged in between, until the barrier of the new term.
func (r *Replica) verify(round *verifyRound) {
	term, leads := r.Leading()
	if !leads {
		round.err = fmt.Errorf("%w: it was lost before the peers were asked", ErrNotLeader)
		return
	}
	round.revision = r.store.Revision()
	r.metrics.reads.Inc()
	defer r.gate.pace.ask()()
	if err := r.await(r.raft.VerifyLeader()); err != nil {
		round.err = fmt.Errorf("%w: %w", ErrNotLeader, err)
		return
	}
	if now, leads := r.Leading(); !leads || now != term {
		round.err = fmt.Errorf("%w: the lead changed while the peers were asked", ErrNotLeader)
	}
}

// verifier lets readers share rounds. A reader joins a round that has not begun: one that has may be older than a write
// the reader knows of.
type verifier struct {
	mu      sync.Mutex
	running bool
	next    *verifyRound
}

type verifyRound struct {
	done     chan struct{}
	revision int64
	err      error
}

func (v *verifier) join(verify func(*verifyRound)) *verifyRound {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.next == nil {
		v.next = &verifyRound{done: make(chan struct{})}
	}
	round := v.next
	if !v.running {
		v.running = true
		go v.run(verify)
	}
	return round
}

func (v *verifier) run(verify func(*verifyRound)) {
	for {
		v.mu.Lock()
		round := v.next
		v.next = nil
		v.running = round != nil
		v.mu.Unlock()
		if round == nil {
			return
		}
		verify(round)
		close(round.done)
	}
}
