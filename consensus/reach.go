package consensus

import (
	"context"
	"sync"
	"time"

	"github.com/hashicorp/raft"
)

const (
	// staleAfter is how long the quorum must be out of reach before reads may be served from what is here.
	staleAfter = 2 * time.Second
	// reachInterval is how often a lost quorum is looked for.
	reachInterval = 500 * time.Millisecond
)

// reach knows since when the quorum is out of reach.
type reach struct {
	mu sync.Mutex
	// lostSince is zero while the quorum answers.
	lostSince time.Time
	// confirmed is when the quorum answered last.
	confirmed time.Time
	// look, of capacity one, has the quorum looked for: it was lost.
	look chan struct{}
}

func (q *reach) confirm() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.lostSince, q.confirmed = time.Time{}, time.Now()
}

// lost notes that nothing was heard of a quorum since then. Who has tried since before others succeeded knows nothing new.
func (q *reach) lost(since time.Time) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if !q.lostSince.IsZero() || q.confirmed.After(since) {
		return
	}
	q.lostSince = since
	select {
	case q.look <- struct{}{}:
	default: // it is being looked for
	}
}

func (q *reach) since() time.Time {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.lostSince
}

// QuorumLost returns whether the quorum has been out of reach of this replica for two seconds, and since when. Until it is
// back, the local store answers with what this replica knew then.
func (r *Replica) QuorumLost() (since time.Time, lost bool) {
	since = r.reach.since()
	return since, !since.IsZero() && time.Since(since) >= staleAfter
}

// Available tells whether the quorum answered lately.
func (r *Replica) Available() bool { return r.reach.since().IsZero() }

// runReach follows who leads, and looks for the quorum while it is out of reach.
func (r *Replica) runReach() {
	seen := make(chan raft.Observation, 1)
	observer := raft.NewObserver(seen, false, func(o *raft.Observation) bool {
		_, ok := o.Data.(raft.LeaderObservation)
		return ok
	})
	r.raft.RegisterObserver(observer)
	defer r.raft.DeregisterObserver(observer)
	timer := time.NewTimer(reachInterval)
	defer timer.Stop()
	for {
		_, leader := r.raft.LeaderWithID()
		if _, leads := r.Leading(); !leads {
			// Nobody is known to lead, or another does who must be asked: that opens the connection over which it tells
			// what is committed.
			r.reach.lost(time.Now())
		}
		r.leaveSessions(string(leader))
		r.lead.wake()
		if !r.awaitReach(seen, timer) {
			return
		}
	}
}

// awaitReach returns true when another node may lead, false when the replica is done.
func (r *Replica) awaitReach(seen <-chan raft.Observation, timer *time.Timer) bool {
	for wait := firstRetryWait; ; wait = reachInterval {
		timer.Reset(wait)
		tick := timer.C
		if r.reach.since().IsZero() {
			tick = nil
		}
		changed := r.LeadershipChanged()
		select {
		case <-seen:
			return true
		case <-changed: // the tick decides anew
		case <-r.reach.look: // a read has found that the quorum is lost
		case <-tick:
			if r.leader() != "" {
				ctx, cancel := context.WithTimeout(context.Background(), reachInterval)
				if _, err := r.ReadRevision(ctx); err != nil {
					r.log.Debug("look for the quorum", "error", err)
				}
				cancel()
			}
		case <-r.membership.over:
			r.gate.retire()
			r.lead.set(0)
			r.reach.lost(time.Now())
			return false
		case <-r.closing:
			return false
		}
	}
}
