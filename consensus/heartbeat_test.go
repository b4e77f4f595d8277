package consensus

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/raft"
)

// TestIdleLeaderSendsLittle bounds the messages between a leader and its followers while nothing is read or written.
func TestIdleLeaderSendsLittle(t *testing.T) {
	inMesh(t, 3, func(t *testing.T, m *mesh) {
		const span, perPeer = 10 * time.Second, 9 // a second: 6.7 heartbeats, and what is committed 1.3 times
		m.put(m.leader(), "k", "v")
		m.sleep(5 * time.Second)
		before := m.net.Written()
		m.sleep(span)
		messages := float64(m.net.Written()-before) / 2 / span.Seconds() // each is answered
		if limit := float64(perPeer * 2); messages > limit || messages < 2 {
			t.Errorf("an idle leader of three sends %.1f messages a second, want no more than %.0f", messages, limit)
		}
	})
}

// TestReadDoesNotWaitForTheNextHeartbeat reads at the leader and at a follower of an idle cluster, without delay on the network.
func TestReadDoesNotWaitForTheNextHeartbeat(t *testing.T) {
	inMesh(t, 3, func(t *testing.T, m *mesh) {
		for _, r := range []*Replica{m.leader(), m.followers()[0]} {
			for range 20 {
				m.sleep(time.Duration(rand.IntN(300)) * time.Millisecond)
				start := time.Now()
				if _, err := r.ReadRevision(m.ctx(time.Second)); err != nil {
					t.Fatal(err)
				}
				if took := time.Since(start); took > 0 {
					t.Fatalf("a read at %s took %v", r.cfg.NodeID, took)
				}
			}
		}
	})
}

// TestNoticeBeforeItsEntry writes on a network on which what is told of a commitment overtakes entries: no follower learns of
// a write later than its entry and the notice take.
func TestNoticeBeforeItsEntry(t *testing.T) {
	inMesh(t, 5, func(t *testing.T, m *mesh) {
		const slowest = 60 * time.Millisecond
		leader := m.leader()
		var mu sync.Mutex
		random := rand.New(rand.NewPCG(1, 2))
		m.net.Delay(func() time.Duration {
			mu.Lock()
			defer mu.Unlock()
			return time.Duration(random.Int64N(int64(slowest)))
		})
		for i := range 100 {
			result := m.put(leader, fmt.Sprint("k", i), "v")
			written := time.Now()
			for _, r := range m.followers() {
				if err := r.Store().WaitRevision(m.ctx(5*time.Second), result.Revision); err != nil {
					t.Fatal(err)
				}
			}
			if took := time.Since(written); took > 4*slowest {
				t.Fatalf("write %d was known to all followers after %v", i, took)
			}
		}
		m.net.Delay(nil)
	})
}

// TestNoticeReachesAsFarAsEntries tells which part of a notice entries may take along.
func TestNoticeReachesAsFarAsEntries(t *testing.T) {
	entries := func(term, previous uint64, n int, committed uint64) *raft.AppendEntriesRequest {
		return &raft.AppendEntriesRequest{Term: term, PrevLogEntry: previous, Entries: slices.Repeat([]*raft.Log{{}}, n), LeaderCommitIndex: committed}
	}
	for _, c := range []struct {
		name    string
		noticed *commitPoint
		request *raft.AppendEntriesRequest
		want    uint64
	}{
		{"no notice", nil, entries(3, 10, 2, 9), 9},
		{"all of it", &commitPoint{Term: 3, Index: 12}, entries(3, 10, 2, 9), 12},
		{"more than is sent", &commitPoint{Term: 3, Index: 20}, entries(3, 10, 2, 9), 12},
		{"older than the message", &commitPoint{Term: 3, Index: 8}, entries(3, 10, 2, 9), 9},
		{"of another leader", &commitPoint{Term: 2, Index: 12}, entries(3, 10, 2, 9), 9},
		{"a heartbeat", &commitPoint{Term: 3, Index: 12}, entries(3, 0, 0, 0), 0},
	} {
		g := &gate{}
		g.noticed.Store(c.noticed)
		if g.advance(c.request); c.request.LeaderCommitIndex != c.want {
			t.Errorf("%s: committed up to %d, want %d", c.name, c.request.LeaderCommitIndex, c.want)
		}
	}
}
