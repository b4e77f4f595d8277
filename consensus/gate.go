package consensus

import (
	"errors"
	"io"
	"sync"
	"sync/atomic"

	"github.com/hashicorp/raft"
)

var errCut = errors.New("this node cut its raft transport because of its disk")

// gate is raft's transport with a switch: while it is cut, nothing goes out and every request from a peer is refused, so that
// the others stop counting on this node.
type gate struct {
	inner    raft.Transport
	preVote  raft.WithPreVote
	consumer chan raft.RPC
	isCut    atomic.Bool
	done     chan struct{}
	stop     sync.Once
}

var (
	_ raft.Transport   = (*gate)(nil)
	_ raft.WithPreVote = (*gate)(nil)
	_ raft.WithClose   = (*gate)(nil)
)

func newGate(inner raft.Transport) *gate {
	g := &gate{inner: inner, consumer: make(chan raft.RPC), done: make(chan struct{})}
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
	if g.isCut.Load() {
		rpc.Respond(nil, errCut)
		return
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

func (g *gate) cut()  { g.isCut.Store(true) }
func (g *gate) heal() { g.isCut.Store(false) }

func (g *gate) err() error {
	if g.isCut.Load() {
		return errCut
	}
	return nil
}

// Close stops the gate and the transport below.
func (g *gate) Close() error {
	g.stop.Do(func() { close(g.done) })
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
	if err := g.err(); err != nil {
		return err
	}
	return g.inner.AppendEntries(id, to, a, r)
}

func (g *gate) RequestVote(id raft.ServerID, to raft.ServerAddress, a *raft.RequestVoteRequest, r *raft.RequestVoteResponse) error {
	if err := g.err(); err != nil {
		return err
	}
	return g.inner.RequestVote(id, to, a, r)
}

func (g *gate) RequestPreVote(id raft.ServerID, to raft.ServerAddress, a *raft.RequestPreVoteRequest, r *raft.RequestPreVoteResponse) error {
	if err := g.err(); err != nil {
		return err
	}
	if g.preVote == nil {
		return errors.New("transport has no pre-vote")
	}
	return g.preVote.RequestPreVote(id, to, a, r)
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
	return g.inner.TimeoutNow(id, to, a, r)
}

func (g *gate) EncodePeer(id raft.ServerID, addr raft.ServerAddress) []byte {
	return g.inner.EncodePeer(id, addr)
}

func (g *gate) DecodePeer(b []byte) raft.ServerAddress { return g.inner.DecodePeer(b) }

func (g *gate) SetHeartbeatHandler(handle func(raft.RPC)) {
	g.inner.SetHeartbeatHandler(func(rpc raft.RPC) {
		if g.isCut.Load() {
			rpc.Respond(nil, errCut)
			return
		}
		handle(rpc)
	})
}
