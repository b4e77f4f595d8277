package consensus

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/raft"
)

// maxLeaderWait is how long a read or a write waits for a leader before it says that there is none.
const maxLeaderWait = 2 * time.Second

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
		case <-r.closing:
			return
		}
		term := r.raft.CurrentTerm()
		if err := r.await(r.raft.Barrier(0)); err != nil {
			r.log.Debug("barrier", "error", err)
			continue
		}
		if r.raft.State() == raft.Leader && r.raft.CurrentTerm() == term {
			r.metrics.leaderships.Inc()
			r.log.Info("this replica leads", "term", term)
			r.lead.set(term)
		}
	}
}

// Leading returns whether this replica leads, and its term. It is a hint: only the log decides.
func (r *Replica) Leading() (term uint64, ok bool) {
	term = r.lead.term.Load()
	return term, term != 0 && r.raft.State() == raft.Leader && r.raft.CurrentTerm() == term
}

// LeadershipChanged returns a channel that is closed when [Replica.Leading] may answer differently.
func (r *Replica) LeadershipChanged() <-chan struct{} {
	return r.lead.wait()
}

// WaitReady returns once this replica leads and has applied everything that was acknowledged before.
func (r *Replica) WaitReady(ctx context.Context) error {
	for {
		changed := r.LeadershipChanged()
		if _, ok := r.Leading(); ok {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return fmt.Errorf("wait for leadership: %w", ctx.Err())
		case <-r.closing:
			return ErrClosed
		}
	}
}

func (r *Replica) waitLeading(ctx context.Context) error {
	if _, ok := r.Leading(); ok {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, maxLeaderWait)
	defer cancel()
	if err := r.WaitReady(ctx); err != nil {
		return fmt.Errorf("%w: %w", ErrNotLeader, err)
	}
	return nil
}

// ReadRevision returns a revision that covers every write acknowledged before the call, anywhere. The local store has
// reached it on return. It writes nothing: concurrent calls share one round of asking the peers who leads, and a sole
// voter, who cannot be deposed behind its back, asks nobody.
func (r *Replica) ReadRevision(ctx context.Context) (int64, error) {
	if err := r.waitLeading(ctx); err != nil {
		return 0, err
	}
	if r.soleVoter.Load() {
		return r.store.Revision(), nil
	}
	round := r.verifier.join(r.verify)
	select {
	case <-round.done:
		return round.revision, round.err
	case <-ctx.Done():
		return 0, fmt.Errorf("verify leadership: %w", ctx.Err())
	}
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
