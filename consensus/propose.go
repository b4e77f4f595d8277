package consensus

import (
	"context"
	"errors"
	"fmt"
	"strconv"
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
	*ticket
	start time.Time
	done  chan outcome
}

type outcome struct {
	result store.Result
	err    error
}

// ticket is a proposal on its way, maybe by several attempts. The pair of member and sequence, once given, makes all
// attempts one write.
type ticket struct {
	Proposal
	// forwarded is set when another node's answer settled it.
	forwarded bool
}

// Propose writes through the log and returns the result of applying it, here or at the leader; the local store has
// reached the result's revision on return. A conflict is a result, not an error. With [ErrUnknownOutcome] the write may
// still happen; with any other error it does not.
func (r *Replica) Propose(ctx context.Context, p Proposal) (store.Result, error) {
	if err := p.Command.Validate(); err != nil {
		return store.Result{}, fmt.Errorf("propose: %w", err)
	}
	t := &ticket{Proposal: p}
	result, err := r.route(ctx, t)
	if err != nil || result.Code != store.CodeConflict || !t.forwarded && !result.Duplicate {
		return result, err
	}
	// The answer of another node, and one from memory, do not say what stood in the way.
	op := &p.Command.Ops[min(result.FailedOp, len(p.Command.Ops)-1)]
	result.Current, _ = r.store.Get(op.Table, op.Key)
	return result, nil
}

// route brings a write to whoever leads, until one answers. After an attempt whose answer was lost, the next one is the
// same write to the state machine; without that name for it, or when it belongs to a term, the outcome stays unknown.
func (r *Replica) route(ctx context.Context, t *ticket) (store.Result, error) {
	var lost error
	start := time.Now()
	for wait := firstRetryWait; ; wait = min(2*wait, lastRetryWait) {
		result, err := r.attempt(ctx, t)
		switch {
		case err == nil && result.Code == store.CodeForgotten:
			return store.Result{}, unknown(errForgotten)
		case err == nil && result.Code == store.CodeFenced && lost != nil:
			return store.Result{}, lost
		case err == nil:
			return result, nil
		case errors.Is(err, ErrUnknownOutcome):
			lost = err
			if t.Command.Member == "" || t.Command.Term != 0 {
				return result, err
			}
		case !errors.Is(err, ErrNotLeader) || r.network == nil:
			return result, errors.Join(lost, err)
		}
		if ctx.Err() != nil || errors.Is(err, errNobodyLeads) || time.Since(start) > maxRouteTime {
			return result, firstOf(lost, err)
		}
		if stop := r.pause(ctx, wait); stop != nil {
			return result, firstOf(lost, err)
		}
	}
}

func firstOf(a, b error) error {
	if a != nil {
		return a
	}
	return b
}

func (r *Replica) attempt(ctx context.Context, t *ticket) (store.Result, error) {
	leader, err := r.waitLeader(ctx)
	if err != nil {
		return store.Result{}, err
	}
	if leader != r.cfg.NodeID {
		t.forwarded = true
		return r.forward(ctx, leader, t)
	}
	t.forwarded = false
	return r.submit(ctx, t)
}

// pause waits between two attempts.
func (r *Replica) pause(ctx context.Context, wait time.Duration) error {
	timer := time.NewTimer(wait)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	case <-r.closing:
		return ErrClosed
	}
}

// submit writes a command through the local log.
func (r *Replica) submit(ctx context.Context, t *ticket) (store.Result, error) {
	w := &proposal{ticket: t, start: r.cfg.Now(), done: make(chan outcome, 1)}
	if err := r.enqueue(ctx, w); err != nil {
		return store.Result{}, err
	}
	return r.settled(ctx, w)
}

func (r *Replica) enqueue(ctx context.Context, w *proposal) error {
	select {
	case r.queue <- w:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("%w: %w", ErrBusy, ctx.Err())
	case <-r.closing:
		return ErrClosed
	}
}

func (r *Replica) settled(ctx context.Context, w *proposal) (store.Result, error) {
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
	id uint64
	// member names the process in the log: sequences begin anew in the next.
	member  string
	mu      sync.Mutex
	pending map[uint64]*group
}

func newProposer(id uint64) *proposer {
	return &proposer{id: id, member: strconv.FormatUint(id, 36), pending: map[uint64]*group{}}
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
	named := r.network != nil && !r.soleVoter.Load()
	for i, p := range g.proposals {
		if named {
			r.name(p.ticket)
		}
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

// name gives a write the name by which a second attempt is known as the same. A name once given stays.
func (r *Replica) name(t *ticket) {
	if t.Command.Member == "" {
		t.Command.Member, t.Command.Sequence = r.proposer.member, r.sequence.Add(1)
	}
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
