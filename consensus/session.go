package consensus

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"sync"
	"time"

	"github.com/podvine/podvine/consensus/store"
)

const (
	// maxForwarded bounds the writes of this node that are on their way to a leader, below the state machine's memory of
	// a member's writes: see [store.DedupeCommandsPerMember].
	maxForwarded = 512
	// maxQuestions bounds all questions that wait for an answer of one peer.
	maxQuestions = 2 * maxForwarded
	// maxRouteTime bounds how long a write looks for a leader that answers.
	maxRouteTime = 10 * time.Second
	// silence is how long a peer that owes an answer may say nothing; it is asked for a sign of life every signInterval.
	silence      = 3 * time.Second
	signInterval = time.Second
	// writeTimeout bounds how long a peer may take nothing.
	writeTimeout = 5 * time.Second
	dialTimeout  = 2 * time.Second
)

var errSessionEnded = errors.New("connection to the leader ended")

// session is this replica's one connection to a peer. Questions are written in the order in which they are asked; answers
// come in any.
type session struct {
	peer string
	conn net.Conn
	// committed is told what the peer says is committed.
	committed func(peer string, at commitPoint)
	out       chan []byte
	ended     chan struct{}
	endOnce   sync.Once
	tasks     sync.WaitGroup

	mu      sync.Mutex
	number  uint64
	waiting map[uint64]chan answer
	heard   time.Time
}

func newSession(peer string, conn net.Conn, committed func(string, commitPoint)) *session {
	s := &session{
		peer: peer, conn: conn, committed: committed, out: make(chan []byte, maxQuestions+1), ended: make(chan struct{}),
		waiting: map[uint64]chan answer{}, heard: time.Now(),
	}
	s.tasks.Go(s.write)
	s.tasks.Go(s.read)
	s.tasks.Go(s.watch)
	return s
}

// end closes the connection. Questions without an answer get none.
func (s *session) end() {
	s.endOnce.Do(func() {
		close(s.ended)
		drop(s.conn)
	})
}

// ask sends a question; prepare makes its payload at the moment in which its place among the others is decided. sent says
// whether the peer may have got it.
func (s *session) ask(ctx context.Context, kind frameKind, prepare func() []byte) (a answer, sent bool, err error) {
	reply := make(chan answer, 1)
	s.mu.Lock()
	if len(s.waiting) >= maxQuestions {
		s.mu.Unlock()
		return a, false, ErrBusy
	}
	s.number++
	number := s.number
	data, err := frame{kind: kind, number: number, payload: prepare()}.encode()
	if err != nil {
		s.mu.Unlock()
		return a, false, err
	}
	if len(s.waiting) == 0 {
		s.heard = time.Now() // it owed nothing
	}
	s.waiting[number] = reply
	select {
	case s.out <- data:
	case <-s.ended:
		delete(s.waiting, number)
		s.mu.Unlock()
		return a, false, errSessionEnded
	}
	s.mu.Unlock()
	select {
	case a = <-reply:
		return a, true, nil
	case <-ctx.Done():
		err = ctx.Err()
	case <-s.ended:
		err = errSessionEnded
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.waiting, number)
	select {
	case a = <-reply:
		return a, true, nil
	default:
		return a, true, err
	}
}

func (s *session) write() {
	defer s.end()
	w := bufio.NewWriter(s.conn)
	for {
		var data []byte
		select {
		case data = <-s.out:
		case <-s.ended:
			return
		}
		if err := writeAll(s.conn, w, data, s.out); err != nil {
			return
		}
	}
}

// writeAll writes data and what waits behind it at once.
func writeAll(conn net.Conn, w *bufio.Writer, data []byte, more <-chan []byte) error {
	if err := conn.SetWriteDeadline(time.Now().Add(writeTimeout)); err != nil {
		return err
	}
	for {
		if _, err := w.Write(data); err != nil {
			return err
		}
		select {
		case data = <-more:
		default:
			return w.Flush()
		}
	}
}

func (s *session) read() {
	defer s.end()
	r := bufio.NewReader(s.conn)
	for {
		f, err := readFrame(r)
		if err != nil {
			return
		}
		at, _, err := decodeCommit(f.payload)
		if err != nil {
			return
		}
		if at.Term != 0 {
			s.committed(s.peer, at)
		}
		s.mu.Lock()
		s.heard = time.Now()
		reply := s.waiting[f.number]
		delete(s.waiting, f.number)
		s.mu.Unlock()
		if f.kind != frameAnswer || reply == nil {
			continue
		}
		a, err := decodeAnswer(f.payload)
		if err != nil {
			return
		}
		reply <- a
	}
}

// watch ends a session whose peer owes an answer and gives no sign of life.
func (s *session) watch() {
	tick := time.NewTicker(signInterval)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
		case <-s.ended:
			return
		}
		s.mu.Lock()
		owes, quiet := len(s.waiting) > 0, time.Since(s.heard)
		s.mu.Unlock()
		if !owes {
			continue
		}
		if quiet > silence {
			s.end()
			return
		}
		sign, err := frame{kind: framePing}.encode()
		if err != nil {
			return
		}
		select {
		case s.out <- sign:
		default:
		}
	}
}

// session returns the connection to a peer, a new one when there is none.
func (r *Replica) session(ctx context.Context, peer string) (*session, error) {
	r.sessionsMu.Lock()
	s := r.sessions[peer]
	r.sessionsMu.Unlock()
	if s != nil {
		select {
		case <-s.ended:
		default:
			return s, nil
		}
	}
	ctx, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	conn, err := r.network.dial(ctx, peer, ProtocolStore)
	if err != nil {
		return nil, err
	}
	fresh := newSession(peer, conn, r.gate.commit)
	r.sessionsMu.Lock()
	defer r.sessionsMu.Unlock()
	select {
	case <-r.closing:
		fresh.end()
		return nil, ErrClosed
	default:
	}
	if other := r.sessions[peer]; other != nil && other != s {
		select {
		case <-other.ended:
		default:
			fresh.end() // another caller was quicker
			return other, nil
		}
	}
	r.sessions[peer] = fresh
	return fresh, nil
}

// leaveSessions ends the connections to all peers but one: they do not lead.
func (r *Replica) leaveSessions(but string) {
	r.sessionsMu.Lock()
	defer r.sessionsMu.Unlock()
	for peer, s := range r.sessions {
		if peer != but {
			s.end()
			delete(r.sessions, peer)
		}
	}
}

func (r *Replica) closeSessions() {
	r.sessionsMu.Lock()
	all := r.sessions
	r.sessions = map[string]*session{}
	r.sessionsMu.Unlock()
	for _, s := range all {
		s.end()
		s.tasks.Wait()
	}
}

// forward sends a write to the leader and waits until the local store has what it came to.
func (r *Replica) forward(ctx context.Context, leader string, t *ticket) (store.Result, error) {
	select {
	case r.forwarding <- struct{}{}:
	case <-ctx.Done():
		return store.Result{}, fmt.Errorf("%w: %w", ErrBusy, ctx.Err())
	case <-r.closing:
		return store.Result{}, ErrClosed
	}
	defer func() { <-r.forwarding }()
	s, err := r.session(ctx, leader)
	if err != nil {
		return store.Result{}, fmt.Errorf("%w: reach %s: %w", ErrNotLeader, leader, err)
	}
	a, sent, err := s.ask(ctx, framePropose, func() []byte {
		r.name(t)
		return encodeCommand(t.Command)
	})
	switch {
	case err != nil && sent:
		return store.Result{}, unknown(err)
	case errors.Is(err, errSessionEnded):
		return store.Result{}, fmt.Errorf("%w: %w", ErrNotLeader, err)
	case err != nil:
		return store.Result{}, fmt.Errorf("forward to %s: %w", leader, err)
	}
	if err := answerError(a); err != nil {
		return store.Result{}, err
	}
	result, err := decodeResult(a.body)
	if err != nil {
		return store.Result{}, unknown(err)
	}
	if err := r.store.WaitRevision(ctx, result.Revision); err != nil {
		return store.Result{}, unknown(err)
	}
	return result, nil
}

// askLeader asks the leader for a revision that covers every acknowledged write.
func (r *Replica) askLeader(round *verifyRound) {
	ctx, cancel := context.WithTimeout(context.Background(), silence)
	defer cancel()
	round.revision, round.err = r.leaderRevision(ctx)
}

func (r *Replica) leaderRevision(ctx context.Context) (int64, error) {
	leader := r.leader()
	if leader == "" || leader == r.cfg.NodeID {
		return 0, fmt.Errorf("%w: the lead changed before the leader was asked", ErrNotLeader)
	}
	s, err := r.session(ctx, leader)
	if err != nil {
		return 0, fmt.Errorf("%w: reach %s: %w", ErrNotLeader, leader, err)
	}
	a, _, err := s.ask(ctx, frameRead, func() []byte { return nil })
	if err == nil {
		err = answerError(a)
	}
	if err != nil {
		return 0, fmt.Errorf("%w: ask %s: %w", ErrNotLeader, leader, err)
	}
	revision, n := binary.Varint(a.body)
	if n <= 0 {
		return 0, errFrame
	}
	return revision, nil
}
