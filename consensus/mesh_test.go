package consensus

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/podvine/podvine/consensus/netsim"
	"github.com/podvine/podvine/consensus/store"
)

// mesh is a cluster of replicas on a network in memory, in a synctest bubble: its time is virtual.
type mesh struct {
	t        *testing.T
	net      *netsim.Network
	configs  map[string]Config
	replicas map[string]*Replica
}

// inMesh runs a test on a mesh whose first n nodes are voters.
func inMesh(t *testing.T, n int, run func(t *testing.T, m *mesh)) {
	t.Helper()
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		m := &mesh{t: t, net: netsim.New(), configs: map[string]Config{}, replicas: map[string]*Replica{}}
		defer m.close()
		for i := range n {
			id := fmt.Sprintf("n%d", i)
			cfg := testConfig(fmt.Sprintf("%s/%s", dir, id))
			cfg.NodeID, cfg.Join = id, i > 0
			if os.Getenv("MESH_LOG") != "" {
				cfg.Logger = slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelDebug})).With("node", id)
			}
			m.configs[id] = cfg
			m.start(id)
			if i > 0 {
				m.must(m.leader().AddStandby(m.ctx(20*time.Second), id))
				m.must(m.leader().Promote(m.ctx(20*time.Second), id))
			}
		}
		for id := range m.replicas {
			m.ready(id)
		}
		run(t, m)
	})
}

func (m *mesh) must(err error) {
	m.t.Helper()
	if err != nil {
		m.t.Fatal(err)
	}
}

// ctx returns a context of the bubble's time.
func (m *mesh) ctx(limit time.Duration) context.Context {
	ctx, cancel := context.WithTimeout(m.t.Context(), limit)
	m.t.Cleanup(cancel)
	return ctx
}

// start opens a node's replica, again after [mesh.kill].
func (m *mesh) start(id string) *Replica {
	m.t.Helper()
	cfg := m.configs[id]
	host := m.net.Host(id)
	cfg.Network = &Network{Dial: host.Dial, Raft: host.Listen(ProtocolRaft), Store: host.Listen(ProtocolStore)}
	r, err := Open(m.t.Context(), cfg)
	m.must(err)
	m.replicas[id] = r
	return r
}

// kill ends a node without a goodbye.
func (m *mesh) kill(id string) {
	m.t.Helper()
	m.net.Kill(id)
	r := m.replicas[id]
	delete(m.replicas, id)
	m.must(r.Close())
}

func (m *mesh) close() {
	for id, r := range m.replicas {
		m.net.Kill(id)
		if err := r.Close(); err != nil {
			m.t.Error(err)
		}
	}
	// raft answers connections in goroutines that its Shutdown does not wait for.
	m.net.Close()
}

func (m *mesh) ready(id string) {
	m.t.Helper()
	m.must(m.replicas[id].WaitReady(m.ctx(20 * time.Second)))
}

// leader returns the replica that leads, none of the given.
func (m *mesh) leader(not ...*Replica) *Replica {
	m.t.Helper()
	var leader *Replica
	eventually(m.t, 20*time.Second, "a leader", func() bool {
		for _, r := range m.replicas {
			if _, ok := r.Leading(); ok && (len(not) == 0 || r != not[0]) {
				leader = r
			}
		}
		return leader != nil
	})
	return leader
}

func (m *mesh) followers() []*Replica {
	leader := m.leader()
	var all []*Replica
	for _, r := range m.replicas {
		if r != leader {
			all = append(all, r)
		}
	}
	return all
}

// put writes through a replica.
func (m *mesh) put(r *Replica, key, value string) store.Result {
	m.t.Helper()
	result, err := r.Propose(m.ctx(30*time.Second), Proposal{Command: putCommand(key, value, store.ExpectAny)})
	if err != nil || result.Code != store.CodeCommitted {
		m.t.Fatalf("write %s at %s: %+v, %v", key, r.cfg.NodeID, result, err)
	}
	return result
}

// sleep lets the bubble's time go by.
func (m *mesh) sleep(d time.Duration) {
	timer := time.NewTimer(d)
	<-timer.C
}

// TestEveryReplicaWritesAndReads writes at each of three replicas and reads it there at once and everywhere after.
func TestEveryReplicaWritesAndReads(t *testing.T) {
	inMesh(t, 3, func(t *testing.T, m *mesh) {
		for round := range 20 {
			for id, r := range m.replicas {
				key := fmt.Sprintf("%s-%d", id, round)
				m.put(r, key, "v")
				if read(r, key) != "v" {
					t.Fatalf("%s does not see its own write", id)
				}
				for other, o := range m.replicas {
					if _, err := o.ReadRevision(m.ctx(5 * time.Second)); err != nil || read(o, key) != "v" {
						t.Fatalf("%s does not see what %s wrote: %v", other, id, err)
					}
				}
			}
		}
		f := m.followers()[0]
		result, err := f.Propose(m.ctx(time.Second), Proposal{Command: putCommand("n0-0", "x", store.ExpectAbsent)})
		if err != nil || result.Code != store.CodeConflict || result.Current == nil || string(result.Current.Value) != "v" {
			t.Fatalf("a conflict at a follower: %+v, %v", result, err)
		}
	})
}

// TestFollowersAreQuick holds that a follower's write and read do not wait for raft's next message: they take no virtual time
// beyond what messages wait for, which is nothing.
func TestFollowersAreQuick(t *testing.T) {
	inMesh(t, 3, func(t *testing.T, m *mesh) {
		f := m.followers()[0]
		m.put(f, "warm", "up")
		start := time.Now()
		for i := range 50 {
			m.put(f, fmt.Sprint(i), "v")
			if _, err := f.ReadRevision(m.ctx(time.Second)); err != nil {
				t.Fatal(err)
			}
		}
		if took := time.Since(start) / 50; took > 10*time.Millisecond {
			t.Fatalf("a write and a read at a follower wait for %v", took)
		}
	})
}

// TestIdleClusterOfFiveAppendsNothing holds law 2 for a minute.
func TestIdleClusterOfFiveAppendsNothing(t *testing.T) {
	inMesh(t, 5, func(t *testing.T, m *mesh) {
		m.put(m.leader(), "k", "v")
		m.sleep(time.Second)
		before, dials := m.leader().raft.LastIndex(), m.net.Dials()
		m.sleep(time.Minute)
		if now := m.leader().raft.LastIndex(); now != before {
			t.Fatalf("an idle cluster appended %d entries", now-before)
		}
		if now := m.net.Dials(); now > dials+40 {
			t.Fatalf("an idle cluster dialed %d times in a minute: connections are not kept", now-dials)
		}
	})
}

// TestCreatesAreExactlyOnceAcrossLeaders creates keys at followers while leaders die: a retry must never find its own
// first attempt and call it somebody else's.
func TestCreatesAreExactlyOnceAcrossLeaders(t *testing.T) {
	inMesh(t, 5, func(t *testing.T, m *mesh) {
		const clients, each = 4, 40
		survivors := m.followers()
		clientsOf := survivors[:2]
		type answer struct {
			key string
			err error
			res store.Result
		}
		answers := make(chan answer, clients*each)
		var writers sync.WaitGroup
		defer writers.Wait()
		for c := range clients {
			writers.Go(func() {
				r := clientsOf[c%len(clientsOf)]
				for i := range each {
					key := fmt.Sprintf("key-%d-%d", c, i)
					ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
					res, err := r.Propose(ctx, Proposal{Command: putCommand(key, "v", store.ExpectAbsent)})
					cancel()
					answers <- answer{key, err, res}
					m.sleep(20 * time.Millisecond)
				}
			})
		}
		killed := 0
		for n := range clients * each {
			a := <-answers
			if a.err != nil || a.res.Code != store.CodeCommitted {
				t.Errorf("create %s: %+v, %v", a.key, a.res, a.err)
			}
			if n%50 == 25 && killed < 2 {
				l := m.leader()
				if l == clientsOf[0] || l == clientsOf[1] {
					m.must(l.HandOver(m.ctx(5 * time.Second)))
					continue
				}
				m.kill(l.cfg.NodeID)
				killed++
			}
		}
		if killed == 0 {
			t.Fatal("no leader was killed")
		}
		if _, err := clientsOf[0].ReadRevision(m.ctx(5 * time.Second)); err != nil {
			t.Fatal(err)
		}
		if n, _ := clientsOf[0].Store().TableStats(testTable); n != clients*each {
			t.Fatalf("%d keys, want %d", n, clients*each)
		}
	})
}

// TestOneWayCutIsUnknownNotFailed loses the leader's answers: the write happened, and the retry through the next leader says so.
func TestOneWayCutIsUnknownNotFailed(t *testing.T) {
	inMesh(t, 3, func(t *testing.T, m *mesh) {
		f, l := m.followers()[0], m.leader()
		m.put(f, "before", "v")
		m.net.CutOneWay(l.cfg.NodeID, f.cfg.NodeID)
		result, err := f.Propose(m.ctx(30*time.Second), Proposal{Command: putCommand("k", "v", store.ExpectAbsent)})
		if errors.Is(err, ErrUnknownOutcome) {
			m.net.Heal()
			m.ready(f.cfg.NodeID)
			if read(f, "k") != "v" {
				t.Fatal("the write is said to be unknown, and it was lost")
			}
			return
		}
		if err != nil || result.Code != store.CodeCommitted {
			t.Fatalf("a write whose answer was lost: %+v, %v", result, err)
		}
	})
}

// TestHandOverLosesNoWrite moves the lead around under writes.
func TestHandOverLosesNoWrite(t *testing.T) {
	inMesh(t, 3, func(t *testing.T, m *mesh) {
		for i := range 10 {
			l := m.leader()
			done := make(chan error, 1)
			go func() { done <- l.HandOver(m.ctx(5 * time.Second)) }()
			m.put(m.followers()[0], fmt.Sprint("a", i), "v")
			m.must(<-done)
			m.put(l, fmt.Sprint("b", i), "v")
		}
	})
}

// TestPausedFollowerNeverAnswersOldData stops a follower's state machine for five seconds.
func TestPausedFollowerNeverAnswersOldData(t *testing.T) {
	inMesh(t, 3, func(t *testing.T, m *mesh) {
		id := m.followers()[0].cfg.NodeID
		m.kill(id)
		cfg := m.configs[id]
		pause := newPause()
		cfg.wrapFSM = pause.wrap
		m.configs[id] = cfg
		f := m.start(id)
		m.ready(id)
		m.put(m.leader(), "k", "old")
		m.ready(id)
		resume := pause.stop()
		m.put(m.leader(), "k", "new")
		for range 5 {
			start := time.Now()
			_, err := f.ReadRevision(m.ctx(time.Second))
			if err == nil {
				t.Fatalf("a read came back after %v with %q while the state machine was stopped", time.Since(start), read(f, "k"))
			}
		}
		resume()
		if _, err := f.ReadRevision(m.ctx(5 * time.Second)); err != nil || read(f, "k") != "new" {
			t.Fatalf("after the pause: %q, %v", read(f, "k"), err)
		}
	})
}

// TestQuorumLostIsTold cuts everybody off, and heals.
func TestQuorumLostIsTold(t *testing.T) {
	inMesh(t, 3, func(t *testing.T, m *mesh) {
		m.put(m.leader(), "k", "v")
		m.net.Cut("n0", "n1", "n2")
		m.sleep(500 * time.Millisecond)
		for id, r := range m.replicas {
			if _, lost := r.QuorumLost(); lost {
				t.Fatalf("%s gave the quorum up after half a second", id)
			}
		}
		m.sleep(4 * time.Second)
		for id, r := range m.replicas {
			if _, lost := r.QuorumLost(); !lost {
				t.Fatalf("%s does not know that the quorum is lost", id)
			}
			start := time.Now()
			if _, err := r.Propose(m.ctx(10*time.Second), Proposal{Command: putCommand("k", "w", store.ExpectAny)}); !errors.Is(err, ErrNotLeader) {
				t.Fatalf("a write without quorum: %v after %v", err, time.Since(start))
			}
		}
		m.net.Heal()
		for id, r := range m.replicas {
			m.ready(id)
			if _, lost := r.QuorumLost(); lost {
				t.Fatalf("%s does not know that the quorum is back", id)
			}
		}
	})
}

// TestBrokenDiskHandsOver trips the leader's guard: a follower leads long before it would have missed the leader.
func TestBrokenDiskHandsOver(t *testing.T) {
	inMesh(t, 3, func(t *testing.T, m *mesh) {
		old := m.leader()
		m.put(old, "k", "v")
		m.sleep(time.Second)
		start := time.Now()
		old.guard.failing.Add(1)
		old.guard.trip("append", errSlowDisk)
		next := m.leader(old)
		if took := time.Since(start); took > heartbeatInterval/2 {
			t.Fatalf("the next leader took %v", took)
		}
		old.guard.failing.Add(-1)
		m.put(next, "k", "w")
	})
}

// TestRemovedVoterKeepsSilent: a voter that was removed while it was away asks nobody for a vote when it is back, and takes part again
// when it is added again.
func TestRemovedVoterKeepsSilent(t *testing.T) {
	inMesh(t, 4, func(t *testing.T, m *mesh) {
		away := m.followers()[0].cfg.NodeID
		m.kill(away)
		leader := m.leader()
		m.must(leader.Remove(m.ctx(20*time.Second), away))
		m.sleep(time.Minute) // until the leader has given up to tell it
		back := m.start(away)
		m.sleep(30 * time.Second)
		if asked := back.gate.votes.Load(); asked > 0 || !back.gate.outside.Load() {
			t.Fatalf("it asked %d times for a vote; it knows that it was removed: %v", asked, back.gate.outside.Load())
		}
		m.must(m.leader().AddStandby(m.ctx(20*time.Second), away))
		m.must(m.leader().Promote(m.ctx(20*time.Second), away))
		m.ready(away)
		m.put(back, "k", "v")
		if back.gate.outside.Load() || back.Role() != RoleVoter {
			t.Fatalf("added again it is a %s, outside: %v", back.Role(), back.gate.outside.Load())
		}
	})
}

// TestVoterThatIsNotRemovedStands: one that was away only takes part in elections at once.
func TestVoterThatIsNotRemovedStands(t *testing.T) {
	inMesh(t, 3, func(t *testing.T, m *mesh) {
		away, leader := m.followers()[0].cfg.NodeID, m.leader()
		m.kill(away)
		back := m.start(away)
		m.ready(away)
		m.kill(leader.cfg.NodeID)
		m.put(back, "k", "v")
		if back.gate.outside.Load() {
			t.Error("it believes that it was removed")
		}
	})
}
