package consensus

import (
	"bufio"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"net"
	"sync"
	"time"

	"github.com/hashicorp/raft"
)

const (
	// serveTimeout bounds how long a peer's question may take here; the peer asks again, or another.
	serveTimeout = 30 * time.Second
	// commitNoticeInterval is the shortest time between two unasked commit points to a peer.
	commitNoticeInterval = time.Millisecond
)

// serve answers peers' questions until the replica closes.
func (r *Replica) serve() {
	var peers sync.WaitGroup
	defer peers.Wait()
	for {
		conn, err := r.network.store.Accept()
		if err != nil {
			return // the listener is closed, which is the only error it has
		}
		peers.Go(func() { r.servePeer(conn) })
	}
}

// peerConn is a peer's connection to this replica.
type peerConn struct {
	r    *Replica
	peer string
	conn net.Conn
	out  chan []byte
	// busy bounds the questions at work.
	busy  chan struct{}
	ended chan struct{}
	tasks sync.WaitGroup
}

func (r *Replica) servePeer(conn net.Conn) {
	p := &peerConn{
		r: r, peer: conn.RemoteAddr().String(), conn: conn,
		out: make(chan []byte, 64), busy: make(chan struct{}, maxQuestions), ended: make(chan struct{}),
	}
	ctx, cancel := context.WithCancel(context.Background())
	p.tasks.Go(p.write)
	p.tasks.Go(p.announce)
	p.read(ctx)
	cancel()
	close(p.ended)
	drop(conn)
	p.tasks.Wait()
}

func (p *peerConn) write() {
	defer drop(p.conn)
	w := bufio.NewWriter(p.conn)
	for {
		select {
		case data := <-p.out:
			if err := writeAll(p.conn, w, data, p.out); err != nil {
				return
			}
		case <-p.ended:
			return
		}
	}
}

func (p *peerConn) send(f frame) {
	data, err := f.encode()
	if err != nil {
		drop(p.conn)
		return
	}
	select {
	case p.out <- data:
	case <-p.ended:
	}
}

func (p *peerConn) answer(number uint64, code answerCode, body []byte) {
	p.send(frame{kind: frameAnswer, number: number, payload: answer{at: p.r.commitPoint(), code: code, body: body}.encode()})
}

// announce tells the peer what is committed as it is, so that its readers need not wait for raft's next message.
func (p *peerConn) announce() {
	var told commitPoint
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		advanced := p.r.store.Advanced()
		if at := p.r.commitPoint(); at.Term != 0 && at != told {
			told = at
			p.send(frame{kind: frameCommit, payload: at.encode(nil)})
		}
		select {
		case <-advanced:
		case <-p.ended:
			return
		}
		timer.Reset(commitNoticeInterval)
		select {
		case <-timer.C:
		case <-p.ended:
			return
		}
	}
}

func (p *peerConn) read(ctx context.Context) {
	reader := bufio.NewReader(p.conn)
	for {
		f, err := readFrame(reader)
		if err != nil {
			return
		}
		select {
		case p.busy <- struct{}{}:
		case <-p.r.closing:
			return
		}
		if !p.question(ctx, f) {
			return
		}
	}
}

// question begins to answer. Writes are queued before the next question is read: their order is their sequence.
func (p *peerConn) question(ctx context.Context, f frame) bool {
	ctx, cancel := context.WithTimeout(ctx, serveTimeout)
	work := func(do func()) {
		p.tasks.Go(func() {
			defer cancel()
			defer func() { <-p.busy }()
			do()
		})
	}
	switch f.kind {
	case framePing:
		work(func() { p.answer(f.number, answerOK, nil) })
	case frameStatus:
		work(func() { p.status(f.number) })
	case frameRead:
		work(func() { p.readRevision(ctx, f.number) })
	case framePropose:
		w, code, err := p.accept(ctx, f.payload)
		work(func() {
			if err != nil {
				p.answer(f.number, code, []byte(err.Error()))
				return
			}
			p.finish(ctx, f.number, w)
		})
	default:
		cancel()
		return false
	}
	return true
}

func (p *peerConn) readRevision(ctx context.Context, number uint64) {
	if !p.r.isReplica(p.peer) {
		p.answer(number, answerRefused, []byte("not a replica of this cluster"))
		return
	}
	if _, leads := p.r.Leading(); !leads {
		p.answer(number, answerNotLeader, nil)
		return
	}
	revision := p.r.store.Revision()
	if !p.r.soleVoter.Load() {
		round := p.r.verifier.join(p.r.verify)
		select {
		case <-round.done:
		case <-ctx.Done():
			return
		}
		if round.err != nil {
			p.answer(number, answerNotLeader, []byte(round.err.Error()))
			return
		}
		revision = round.revision
	}
	p.answer(number, answerOK, binary.AppendVarint(nil, revision))
}

// accept puts a peer's write into the queue.
func (p *peerConn) accept(ctx context.Context, payload []byte) (*proposal, answerCode, error) {
	command, err := decodeCommand(payload)
	if err != nil {
		return nil, answerRefused, err
	}
	if !p.r.isReplica(p.peer) {
		return nil, answerRefused, errors.New("not a replica of this cluster")
	}
	if _, leads := p.r.Leading(); !leads {
		return nil, answerNotLeader, errors.New("the lead is elsewhere")
	}
	w := &proposal{ticket: &ticket{Proposal: Proposal{Command: command}}, start: p.r.cfg.Now(), done: make(chan outcome, 1)}
	if err := p.r.enqueue(ctx, w); err != nil {
		return nil, answerBusy, err
	}
	return w, answerOK, nil
}

func (p *peerConn) finish(ctx context.Context, number uint64, w *proposal) {
	result, err := p.r.settled(ctx, w)
	switch {
	case err == nil:
		p.answer(number, answerOK, encodeResult(result))
	case errors.Is(err, ErrUnknownOutcome):
		p.answer(number, answerUnknown, []byte(err.Error()))
	case errors.Is(err, ErrNotLeader), errors.Is(err, ErrClosed):
		p.answer(number, answerNotLeader, []byte(err.Error()))
	default:
		p.answer(number, answerBusy, []byte(err.Error()))
	}
}

func (p *peerConn) status(number uint64) {
	body, err := json.Marshal(p.r.localView())
	if err != nil {
		p.answer(number, answerRefused, []byte(err.Error()))
		return
	}
	p.answer(number, answerOK, body)
}

// commitPoint returns what this leader knows to be committed; none when it does not lead.
func (r *Replica) commitPoint() commitPoint {
	term, leads := r.Leading()
	if !leads {
		return commitPoint{}
	}
	index, indexTerm := r.store.Applied()
	if index == 0 {
		return commitPoint{}
	}
	return commitPoint{Term: term, Index: index, IndexTerm: indexTerm}
}

// isReplica tells whether a node takes part in the log, as far as this replica knows.
func (r *Replica) isReplica(node string) bool {
	for _, s := range r.servers() {
		if string(s.ID) == node {
			return true
		}
	}
	return false
}

func (r *Replica) servers() []raft.Server {
	f := r.raft.GetConfiguration()
	if f.Error() != nil {
		return nil
	}
	return f.Configuration().Servers
}
