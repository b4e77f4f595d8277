package consensus

import (
	"errors"
	"io"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/raft"
)

var (
	errCut     = errors.New("this node cut its raft transport because of its disk")
	errWaking  = errors.New("this node asks first whether the cluster was recovered without it")
	errOutside = errors.New("this node was removed from the quorum and asks for no vote")
)

// gate is raft's transport with a switch: while it is cut, nothing goes out and every request from a peer is refused, so that
// the others stop counting on this node.
//
// It also notes what peers have of the log, keeps single messages small and heartbeats few, and repeats a vote's request on a new connection
// when a pooled one turns out to be dead.
type gate struct {
	inner    raft.Transport
	preVote  raft.WithPreVote
	consumer chan raft.RPC
	isCut    atomic.Bool
	// retired keeps the gate cut for good, waking until the peers were asked for their epoch.
	retired atomic.Bool
	waking  atomic.Bool
	// outside keeps requests for votes in, until a leader speaks to this node. votes counts those that went out.
	outside atomic.Bool
	votes   atomic.Int64
	// noticed is what the leader said last to be committed, nil when none has.
	noticed atomic.Pointer[commitPoint]
	pace    *pace
	done    chan struct{}
	stop    sync.Once

	mu    sync.Mutex
	peers map[string]Progress
}

const (
	// maxAppendBytes bounds the entries of one message; a single larger entry still goes.
	maxAppendBytes = 1 << 20
	// deadConnection is how quickly a connection fails that was dead before it was used.
	deadConnection = 50 * time.Millisecond
)

// Progress is what a leader knows of another replica.
type Progress struct {
	// Match is the newest log entry that the replica is known to have.
	Match uint64
	// Contact is when it last answered.
	Contact time.Time
}

var (
	_ raft.Transport   = (*gate)(nil)
	_ raft.WithPreVote = (*gate)(nil)
	_ raft.WithClose   = (*gate)(nil)
)

func newGate(inner raft.Transport) *gate {
	g := &gate{inner: inner, consumer: make(chan raft.RPC), done: make(chan struct{}), pace: newPace(), peers: map[string]Progress{}}
	g.preVote, _ = inner.(raft.WithPreVote)
	go g.pump()
	return g
}

// pump hands peers' requests to raft, or refuses them.
func (g *gate) pump() {
	for {
		select {
		case rpc := <-g.inner.Consumer():
			g.offer(rpc)
		case <-g.done:
			return
		}
	}
}

func (g *gate) offer(rpc raft.RPC) {
	if err := g.err(); err != nil {
		rpc.Respond(nil, err)
		return
	}
	if request, leads := rpc.Command.(*raft.AppendEntriesRequest); leads {
		g.outside.Store(false)
		g.advance(request)
	}
	select {
	case g.consumer <- rpc:
	case <-g.done:
		rpc.Respond(nil, errCut)
	}
}

// elect makes raft stand for election now instead of waiting for a leader that cannot exist.
func (g *gate) elect() {
	answer := make(chan raft.RPCResponse, 1)
	header := raft.RPCHeader{ProtocolVersion: raft.ProtocolVersionMax}
	g.offer(raft.RPC{Command: &raft.TimeoutNowRequest{RPCHeader: header}, RespChan: answer})
}

// commit tells raft what its leader says is committed, without waiting for the leader's next message. It is the message
// that the leader might have sent: raft checks the term, and that its log has the entry.
func (g *gate) commit(leader string, at commitPoint) {
	g.noticed.Store(&at)
	header := raft.RPCHeader{ProtocolVersion: raft.ProtocolVersionMax, ID: []byte(leader), Addr: []byte(leader)}
	answer := make(chan raft.RPCResponse, 1)
	g.offer(raft.RPC{RespChan: answer, Command: &raft.AppendEntriesRequest{
		RPCHeader: header, Term: at.Term, Leader: []byte(leader),
		PrevLogEntry: at.Index, PrevLogTerm: at.IndexTerm, LeaderCommitIndex: at.Index,
	}})
}

func (g *gate) cut()  { g.isCut.Store(true) }
func (g *gate) heal() { g.isCut.Store(false) }

// retire cuts the gate for good.
func (g *gate) retire() { g.retired.Store(true) }

func (g *gate) err() error {
	if g.isCut.Load() {
		return errCut
	}
	if g.retired.Load() {
		return ErrSuperseded
	}
	if g.waking.Load() {
		return errWaking
	}
	return nil
}

// Close stops the gate and the transport below.
func (g *gate) Close() error {
	g.stop.Do(func() { close(g.done) })
	if n, ok := g.inner.(*raft.NetworkTransport); ok {
		n.CloseStreams()
	}
	if c, ok := g.inner.(raft.WithClose); ok {
		return c.Close()
	}
	return nil
}

func (g *gate) Consumer() <-chan raft.RPC { return g.consumer }

func (g *gate) LocalAddr() raft.ServerAddress { return g.inner.LocalAddr() }

func (g *gate) AppendEntriesPipeline(id raft.ServerID, to raft.ServerAddress) (raft.AppendPipeline, error) {
	// Pipelining would outlive a cut; single requests see it at once.
	return nil, raft.ErrPipelineReplicationNotSupported
}

func (g *gate) AppendEntries(id raft.ServerID, to raft.ServerAddress, a *raft.AppendEntriesRequest, r *raft.AppendEntriesResponse) error {
	if isHeartbeat(a) {
		g.pace.hold(string(id), g.done)
	}
	if err := g.err(); err != nil {
		return err
	}
	shorten(a)
	if err := g.inner.AppendEntries(id, to, a, r); err != nil {
		return err
	}
	g.note(string(id), a, r)
	return nil
}

// shorten makes raft send less at once: it goes on after what the message holds.
func shorten(a *raft.AppendEntriesRequest) {
	size := 0
	for i, e := range a.Entries {
		if size += len(e.Data); size > maxAppendBytes && i > 0 {
			a.Entries = a.Entries[:i]
			a.LeaderCommitIndex = min(a.LeaderCommitIndex, a.Entries[i-1].Index)
			return
		}
	}
}

func (g *gate) note(id string, a *raft.AppendEntriesRequest, r *raft.AppendEntriesResponse) {
	g.mu.Lock()
	defer g.mu.Unlock()
	p := g.peers[id]
	p.Contact = time.Now()
	if r.Success && a.PrevLogEntry+uint64(len(a.Entries)) > p.Match {
		p.Match = a.PrevLogEntry + uint64(len(a.Entries))
	}
	g.peers[id] = p
}

// progress returns what is known of a peer.
func (g *gate) progress(id string) Progress {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.peers[id]
}

// forgetProgress drops what was known in an earlier term: a peer may have dropped entries since.
func (g *gate) forgetProgress() {
	g.mu.Lock()
	defer g.mu.Unlock()
	clear(g.peers)
}

// again repeats a request that failed at once, for as many dead connections as a pool can hold.
func again(ask func() error) error {
	var err error
	for range pooledConnections + 1 {
		start := time.Now()
		if err = ask(); err == nil || time.Since(start) > deadConnection {
			return err
		}
	}
	return err
}

// mayAsk tells why no request for a vote may go out, and counts those that may.
func (g *gate) mayAsk() error {
	if err := g.err(); err != nil {
		return err
	}
	if g.outside.Load() {
		return errOutside
	}
	g.votes.Add(1)
	return nil
}

func (g *gate) RequestVote(id raft.ServerID, to raft.ServerAddress, a *raft.RequestVoteRequest, r *raft.RequestVoteResponse) error {
	if err := g.mayAsk(); err != nil {
		return err
	}
	return again(func() error { return g.inner.RequestVote(id, to, a, r) })
}

func (g *gate) RequestPreVote(id raft.ServerID, to raft.ServerAddress, a *raft.RequestPreVoteRequest, r *raft.RequestPreVoteResponse) error {
	if err := g.mayAsk(); err != nil {
		return err
	}
	if g.preVote == nil {
		return errors.New("transport has no pre-vote")
	}
	return again(func() error { return g.preVote.RequestPreVote(id, to, a, r) })
}

func (g *gate) InstallSnapshot(id raft.ServerID, to raft.ServerAddress, a *raft.InstallSnapshotRequest, r *raft.InstallSnapshotResponse, data io.Reader) error {
	if err := g.err(); err != nil {
		return err
	}
	return g.inner.InstallSnapshot(id, to, a, r, data)
}

func (g *gate) TimeoutNow(id raft.ServerID, to raft.ServerAddress, a *raft.TimeoutNowRequest, r *raft.TimeoutNowResponse) error {
	if err := g.err(); err != nil {
		return err
	}
	return again(func() error { return g.inner.TimeoutNow(id, to, a, r) })
}

func (g *gate) EncodePeer(id raft.ServerID, addr raft.ServerAddress) []byte {
	return g.inner.EncodePeer(id, addr)
}

func (g *gate) DecodePeer(b []byte) raft.ServerAddress { return g.inner.DecodePeer(b) }

func (g *gate) SetHeartbeatHandler(handle func(raft.RPC)) {
	g.inner.SetHeartbeatHandler(func(rpc raft.RPC) {
		if err := g.err(); err != nil {
			rpc.Respond(nil, err)
			return
		}
		g.outside.Store(false)
		handle(rpc)
	})
}
