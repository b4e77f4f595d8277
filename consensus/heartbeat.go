package consensus

import (
	"sync"
	"time"

	"github.com/hashicorp/raft"
)

// heartbeatPace is the shortest time between two heartbeats to a peer that nobody waits for: three within the time after which
// its follower gives a leader up. Raft itself sends them every tenth to fifth of that.
const heartbeatPace = 150 * time.Millisecond

// pace holds heartbeats back until they are due, or until somebody waits for their answers.
type pace struct {
	mu sync.Mutex
	// asking counts those who wait; hurry is closed while there are any.
	asking int
	hurry  chan struct{}
	// sent is when a peer was sent its last heartbeat.
	sent map[string]time.Time
}

func newPace() *pace { return &pace{hurry: make(chan struct{}), sent: map[string]time.Time{}} }

// ask has every heartbeat go at once until the returned function is called.
func (p *pace) ask() (done func()) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.asking++; p.asking == 1 {
		close(p.hurry)
	}
	return sync.OnceFunc(func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		if p.asking--; p.asking == 0 {
			p.hurry = make(chan struct{})
		}
	})
}

// hold returns when a heartbeat to the peer shall go, or the transport ends.
func (p *pace) hold(peer string, ended <-chan struct{}) {
	p.mu.Lock()
	wait, hurry := time.Until(p.sent[peer].Add(heartbeatPace)), p.hurry
	p.mu.Unlock()
	if wait > 0 {
		timer := time.NewTimer(wait)
		defer timer.Stop()
		select {
		case <-timer.C:
		case <-hurry:
		case <-ended:
		}
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.sent[peer] = time.Now()
}

// isHeartbeat tells a heartbeat from what carries entries or tells what is committed, as raft's transport does.
func isHeartbeat(a *raft.AppendEntriesRequest) bool {
	return a.PrevLogEntry == 0 && a.PrevLogTerm == 0 && len(a.Entries) == 0 && a.LeaderCommitIndex == 0
}

// advance has entries that come after the notice of their commitment take it along: raft has refused the notice, because it did
// not have them yet. The notice is of the leader that sends the entries, and reaches as far as they do.
func (g *gate) advance(a *raft.AppendEntriesRequest) {
	at := g.noticed.Load()
	if at == nil || at.Term != a.Term || len(a.Entries) == 0 {
		return
	}
	last := a.PrevLogEntry + uint64(len(a.Entries))
	a.LeaderCommitIndex = max(a.LeaderCommitIndex, min(at.Index, last))
}
