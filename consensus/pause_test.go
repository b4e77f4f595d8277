package consensus

import (
	"sync"

	"github.com/hashicorp/raft"
)

// pause stops a replica's state machine on demand.
type pause struct {
	mu   sync.Mutex
	gate chan struct{}
}

func newPause() *pause {
	p := &pause{gate: make(chan struct{})}
	close(p.gate)
	return p
}

// stop keeps what comes from being applied until the returned function is called.
func (p *pause) stop() (resume func()) {
	p.mu.Lock()
	defer p.mu.Unlock()
	gate := make(chan struct{})
	p.gate = gate
	return sync.OnceFunc(func() { close(gate) })
}

func (p *pause) wait() {
	p.mu.Lock()
	gate := p.gate
	p.mu.Unlock()
	<-gate
}

func (p *pause) wrap(f raft.BatchingFSM) raft.BatchingFSM { return pausedFSM{f, p} }

type pausedFSM struct {
	raft.BatchingFSM
	p *pause
}

func (f pausedFSM) Apply(l *raft.Log) any {
	f.p.wait()
	return f.BatchingFSM.Apply(l)
}

func (f pausedFSM) ApplyBatch(logs []*raft.Log) []any {
	f.p.wait()
	return f.BatchingFSM.ApplyBatch(logs)
}
