package consensus

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/raft"

	"github.com/podvine/podvine/consensus/store"
)

// Proposal is a command and what the proposer already knows of its outcome.
type Proposal struct {
	Command store.Command
	// Attach, when not nil, is called for every entry that the command wrote, before others see it, on the applying
	// goroutine. It may attach a decoded form, and may replace e.Value by an equal slice that the proposer no longer
	// changes; it returns whether it did. It must not block.
	Attach func(op int, e *store.Entry) bool
}

// proposal waits in the queue, then in a group, then for its outcome.
type proposal struct {
	Proposal
	start time.Time
	done  chan outcome
}

type outcome struct {
	result store.Result
	err    error
}

// Propose writes through the log and returns the result of applying it. A conflict is a result, not an error. With
// [ErrUnknownOutcome] the write may still happen; with any other error it does not.
func (r *Replica) Propose(ctx context.Context, p Proposal) (store.Result, error) {
	if err := p.Command.Validate(); err != nil {
		return store.Result{}, fmt.Errorf("propose: %w", err)
	}
	if err := r.waitLeading(ctx); err != nil {
		return store.Result{}, err
	}
	w := &proposal{Proposal: p, start: r.cfg.Now(), done: make(chan outcome, 1)}
	select {
	case r.queue <- w:
	case <-ctx.Done():
		return store.Result{}, fmt.Errorf("%w: %w", ErrBusy, ctx.Err())
	case <-r.closing:
		return store.Result{}, ErrClosed
	}
	select {
	case o := <-w.done:
		r.observe(w, o)
		return o.result, o.err
	case <-ctx.Done():
		r.metrics.commands.WithLabelValues("unknown").Inc()
		return store.Result{}, unknown(ctx.Err())
	case <-r.drained:
		return r.lastWord(w)
	}
}

// lastWord answers a write after the replica closed: one without an outcome was never taken from the queue.
func (r *Replica) lastWord(w *proposal) (store.Result, error) {
	select {
	case o := <-w.done:
		return o.result, o.err
	default:
		return store.Result{}, ErrClosed
	}
}

func (r *Replica) observe(w *proposal, o outcome) {
	label := "committed"
	switch {
	case errors.Is(o.err, ErrUnknownOutcome):
		label = "unknown"
	case o.err != nil:
		label = "rejected"
	case o.result.Code != store.CodeCommitted:
		label = "conflict"
	}
	r.metrics.commands.WithLabelValues(label).Inc()
	r.metrics.writeSeconds.Observe(r.cfg.Now().Sub(w.start).Seconds())
}

// group is the proposer's side of one log entry.
type group struct {
	number    uint64
	proposals []*proposal
	future    raft.ApplyFuture
	settled   atomic.Bool
	// slots is how many the group holds, start when it was dispatched.
	slots int
	start time.Time
}

// Attach implements store.Claim.
func (g *group) Attach(command, op int, e *store.Entry) bool {
	attach := g.proposals[command].Attach
	return attach != nil && attach(op, e)
}

// Deliver implements store.Claim.
func (g *group) Deliver(results []store.Result) {
	if !g.settled.CompareAndSwap(false, true) {
		return
	}
	for i, p := range g.proposals {
		p.done <- outcome{result: results[i]}
	}
}

func (g *group) fail(err error) {
	if !g.settled.CompareAndSwap(false, true) {
		return
	}
	for _, p := range g.proposals {
		p.done <- outcome{err: err}
	}
}

// proposer turns waiting proposals into log entries.
type proposer struct {
	id      uint64
	mu      sync.Mutex
	pending map[uint64]*group
}

// claim finds the group that an entry belongs to.
func (p *proposer) claim(id, number uint64) store.Claim {
	if id != p.id {
		return nil
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if g := p.pending[number]; g != nil {
		delete(p.pending, number)
		return g
	}
	return nil
}

func (p *proposer) forget(number uint64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.pending, number)
}

// runProposer groups what waits while earlier groups are on their way to the disk.
func (r *Replica) runProposer() {
	defer close(r.inflight)
	var number uint64
	several := false
	for {
		var first *proposal
		select {
		case first = <-r.queue:
		case <-r.closing:
			r.rejectWaiting()
			return
		}
		held, ok := r.takeSlots(several)
		if !ok {
			first.done <- outcome{err: ErrClosed}
			r.rejectWaiting()
			return
		}
		number++
		g := &group{number: number, slots: held, proposals: r.gather(first)}
		several = len(g.proposals) > 1
		r.dispatch(g)
		r.inflight <- g
	}
}

// takeSlots waits until a group may go. On a fast disk one group is written while another is applied. On a slow one, where
// several write at once, groups go one at a time, each after a moment in which those who were just answered can join:
// else the writers would part into two halves that wait for each other's disk writes.
func (r *Replica) takeSlots(several bool) (held int, ok bool) {
	latency := time.Duration(r.groupLatency.Load())
	held = 1
	if several && latency > slowGroup {
		held = maxInflightGroups
	}
	for range held {
		select {
		case r.slots <- struct{}{}:
		case <-r.closing:
			return 0, false
		}
	}
	if held == 1 {
		return held, true
	}
	linger := time.NewTimer(min(latency/lingerPart, maxLinger))
	defer linger.Stop()
	select {
	case <-linger.C:
		return held, true
	case <-r.closing:
		return 0, false
	}
}

// gather takes what waits, up to the limits of a group.
func (r *Replica) gather(first *proposal) []*proposal {
	all := []*proposal{first}
	size := first.Command.EncodedSizeBytes()
	for len(all) < maxGroupCommands && size < maxGroupBytes {
		select {
		case p := <-r.queue:
			all = append(all, p)
			size += p.Command.EncodedSizeBytes()
		default:
			return all
		}
	}
	return all
}

func (r *Replica) dispatch(g *group) {
	entry := store.Group{TimeUnixMilli: r.cfg.Now().UnixMilli(), Proposer: r.proposer.id, Number: g.number}
	entry.Commands = make([]store.Command, len(g.proposals))
	size := 64
	for i, p := range g.proposals {
		entry.Commands[i] = p.Command
		size += p.Command.EncodedSizeBytes()
	}
	r.proposer.mu.Lock()
	r.proposer.pending[g.number] = g
	r.proposer.mu.Unlock()
	r.metrics.groupSize.Observe(float64(len(g.proposals)))
	g.start = time.Now()
	g.future = r.raft.Apply(entry.Encode(make([]byte, 0, size)), 0)
}

// runCompleter settles groups whose entry was not applied here.
func (r *Replica) runCompleter() {
	defer close(r.drained)
	for g := range r.inflight {
		err := r.await(g.future)
		r.groupLatency.Store((3*r.groupLatency.Load() + int64(time.Since(g.start))) / 4)
		for range g.slots {
			<-r.slots
		}
		if err == nil {
			fault, isFault := g.future.Response().(error)
			if !isFault {
				continue
			}
			err = fault
		}
		r.proposer.forget(g.number)
		switch {
		case errors.Is(err, raft.ErrNotLeader), errors.Is(err, raft.ErrLeadershipTransferInProgress):
			g.fail(ErrNotLeader)
		default:
			g.fail(unknown(err))
		}
	}
}

// await returns a future's outcome. raft forgets futures that wait in its channels when it shuts down; they end with it.
func (r *Replica) await(f raft.Future) error {
	done := make(chan error, 1)
	go func() { done <- f.Error() }()
	select {
	case err := <-done:
		return err
	case <-r.down:
	}
	select {
	case err := <-done:
		return err
	default:
		return raft.ErrRaftShutdown
	}
}

func (r *Replica) rejectWaiting() {
	for {
		select {
		case p := <-r.queue:
			p.done <- outcome{err: ErrClosed}
		default:
			return
		}
	}
}
