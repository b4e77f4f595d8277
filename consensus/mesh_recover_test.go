package consensus

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/anishathalye/porcupine"

	"github.com/podvine/podvine/consensus/store"
)

func (m *mesh) recover(id string, alive func(string) bool) (Recovery, error) {
	cfg := m.configs[id]
	host := m.net.Host(id)
	return Recover(m.ctx(30*time.Second), RecoverConfig{
		Dir: cfg.Dir, NodeID: id, ClusterID: cfg.ClusterID, Alive: alive, Dial: host.Dial, SegmentBytes: cfg.SegmentBytes,
	})
}

// TestRecoverOneOfThree loses two voters of three for good, goes on with the third, and meets the old ones again.
func TestRecoverOneOfThree(t *testing.T) {
	inMesh(t, 3, func(t *testing.T, m *mesh) {
		last := m.put(m.leader(), "k", "v")
		for id := range m.replicas {
			m.ready(id)
		}
		m.kill("n2")
		var living *MajorityError
		if _, err := m.recover("n2", nil); !errors.As(err, &living) || len(living.Living) != 3 {
			t.Fatalf("recovery beside a living majority: %v", err)
		}
		m.kill("n0")
		m.kill("n1")
		if _, err := m.recover("n2", func(id string) bool { return id == "n0" }); !errors.As(err, &living) || len(living.Living) != 2 {
			t.Fatalf("recovery beside a majority that is believed to live: %v", err)
		}
		done, err := m.recover("n2", nil)
		if err != nil || done.Epoch != 2 || len(done.Lost) != 2 || done.Revision < last.Revision+RevisionJump {
			t.Fatalf("recovery: %+v, %v", done, err)
		}
		r := m.start("n2")
		m.ready("n2")
		if read(r, "k") != "v" || r.Role() != RoleVoter {
			t.Fatal("the recovered replica lost a write, or is no voter")
		}
		m.put(r, "after", "v")
		// Both old voters come back at once: they are a majority of what was, and must not become one.
		old := []*Replica{m.start("n0"), m.start("n1")}
		for i, o := range old {
			select {
			case <-o.Superseded():
			case <-time.After(30 * time.Second):
				t.Fatalf("old voter %d does not learn that it is superseded", i)
			}
			if _, ok := o.Leading(); ok {
				t.Fatalf("old voter %d leads", i)
			}
		}
		m.kill("n0")
		m.must(PutAway(m.configs["n0"].Dir))
		cfg := m.configs["n0"]
		cfg.Join = true
		m.configs["n0"] = cfg
		fresh := m.start("n0")
		m.must(r.AddStandby(m.ctx(10*time.Second), "n0"))
		m.ready("n0")
		if read(fresh, "after") != "v" || fresh.Epoch() != 2 || fresh.Role() != RoleStandby {
			t.Fatalf("the old voter joined again in epoch %d as %s with %q", fresh.Epoch(), fresh.Role(), read(fresh, "after"))
		}
	})
}

// TestRecoverTheStandbyOfTwo is the one command back after the only voter died.
func TestRecoverTheStandbyOfTwo(t *testing.T) {
	inMesh(t, 1, func(t *testing.T, m *mesh) {
		cfg := testConfig(m.configs["n0"].Dir + "-standby")
		cfg.NodeID, cfg.Join = "s", true
		m.configs["s"] = cfg
		s := m.start("s")
		m.must(m.leader().AddStandby(m.ctx(10*time.Second), "s"))
		m.ready("s")
		m.put(s, "k", "v")
		m.kill("n0")
		m.sleep(3 * time.Second)
		if _, lost := s.QuorumLost(); !lost {
			t.Fatal("the standby does not say that the quorum is lost")
		}
		m.kill("s")
		if _, err := m.recover("s", nil); err != nil {
			t.Fatal(err)
		}
		s = m.start("s")
		m.ready("s")
		if m.put(s, "k2", "v"); read(s, "k") != "v" {
			t.Fatal("the recovered standby lost a write that it had")
		}
		// The old voter is a majority by itself. It must ask before it leads.
		old := m.start("n0")
		led := false
		for range 200 {
			if _, ok := old.Leading(); ok {
				led = true
			}
			m.sleep(10 * time.Millisecond)
		}
		select {
		case <-old.Superseded():
		default:
			t.Fatal("the old voter does not know that it is superseded")
		}
		if led {
			t.Fatal("the old voter led")
		}
	})
}

// TestInterruptedRecoveryIsFinished opens a replica whose recovery did not end.
func TestInterruptedRecoveryIsFinished(t *testing.T) {
	inMesh(t, 1, func(t *testing.T, m *mesh) {
		m.put(m.leader(), "k", "v")
		m.kill("n0")
		cfg := m.configs["n0"]
		m.must(writeIdentity(cfg.Dir, identity{Format: identityFormat, Node: "n0", Cluster: cfg.ClusterID, Epoch: 2, Recovering: true}))
		if _, err := Open(m.t.Context(), cfg); err == nil {
			t.Fatal("a half recovered replica opens")
		}
		if done, err := m.recover("n0", nil); err != nil || done.Epoch != 2 {
			t.Fatalf("recover again: %+v, %v", done, err)
		}
		r := m.start("n0")
		m.ready("n0")
		if read(r, "k") != "v" {
			t.Fatal("a write is lost")
		}
	})
}

// TestRestoreReplacesTheStateEverywhere restores a backup on a living cluster.
func TestRestoreReplacesTheStateEverywhere(t *testing.T) {
	inMesh(t, 3, func(t *testing.T, m *mesh) {
		l := m.leader()
		m.put(l, "k", "old")
		var backup bytes.Buffer
		m.must(l.Backup(&backup))
		m.put(l, "k", "new")
		seen := m.put(l, "later", "v").Revision
		whole := backup.Bytes()
		for _, damaged := range [][]byte{whole[:len(whole)-1], append(bytes.Clone(whole[:20]), make([]byte, 50)...)} {
			if _, err := l.Restore(m.ctx(10*time.Second), bytes.NewReader(damaged)); !errors.Is(err, store.ErrCorrupt) {
				t.Fatalf("a damaged backup: %v", err)
			}
		}
		if read(l, "k") != "new" {
			t.Fatal("a refused restore changed something")
		}
		info, err := l.Restore(m.ctx(10*time.Second), bytes.NewReader(whole))
		if err != nil || info.Revision < seen+RevisionJump || info.Keys[testTable] == 0 {
			t.Fatalf("restore: %+v, %v", info, err)
		}
		for id, r := range m.replicas {
			if _, err := r.ReadRevision(m.ctx(20 * time.Second)); err != nil {
				t.Fatal(err)
			}
			if read(r, "k") != "old" || read(r, "later") != "" || r.Store().Revision() < info.Revision {
				t.Fatalf("%s has %q at %d", id, read(r, "k"), r.Store().Revision())
			}
			if _, err := r.Store().Changes(testTable, seen); !errors.Is(err, store.ErrCompacted) {
				t.Fatalf("a watch from before goes on at %s: %v", id, err)
			}
		}
		m.put(m.followers()[0], "after", "v")
		if entries, err := os.ReadDir(l.cfg.Dir); err != nil || len(entries) == 0 {
			t.Fatal(err)
		}
		if _, err := os.Stat(l.cfg.Dir + "/" + restoreFile); !errors.Is(err, os.ErrNotExist) {
			t.Fatalf("the restore left its file: %v", err)
		}
	})
}

// meshRun lets clients work at all replicas of a mesh, those that come and go included.
type meshRun struct {
	clock   atomic.Int64
	mu      sync.Mutex
	history []porcupine.Operation
}

func (h *meshRun) client(ctx context.Context, id int, at func() *Replica, stop <-chan struct{}) {
	rng := rand.New(rand.NewPCG(uint64(id), 7))
	for i := 0; ; i++ {
		select {
		case <-stop:
			return
		case <-time.After(time.Duration(rng.IntN(20)) * time.Millisecond):
		}
		r := at()
		if r == nil {
			continue
		}
		l := &linearRun{start: time.Now()}
		l.replica.Store(r)
		in := linearInput{key: rng.IntN(linearKeys), kind: linearKind(rng.IntN(4)), value: fmt.Sprintf("%d-%d", id, i)}
		call := h.clock.Add(1)
		ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
		out := l.do(ctx, in)
		cancel()
		end := h.clock.Add(1)
		if out.rejected {
			continue
		}
		if out.unknown {
			end = math.MaxInt64
		}
		h.mu.Lock()
		h.history = append(h.history, porcupine.Operation{ClientId: id, Input: in, Call: call, Output: out, Return: end})
		h.mu.Unlock()
		if out.unknown {
			id += linearClients // a client whose answer was lost does nothing after it
		}
	}
}

// fault breaks something, waits and mends it. at is where clients find the replicas: they hold no lock, in which virtual
// time would stand still.
func (m *mesh) fault(rng *rand.Rand, at map[string]*atomic.Pointer[Replica]) {
	leader := m.leader().cfg.NodeID
	others := []string{}
	for id := range m.configs {
		if id != leader {
			others = append(others, id)
		}
	}
	slices.Sort(others)
	switch rng.IntN(4) {
	case 0:
		at[leader].Store(nil)
		m.kill(leader)
		m.sleep(time.Duration(rng.IntN(3000)) * time.Millisecond)
		at[leader].Store(m.start(leader))
	case 1:
		m.net.Split([]string{leader}, others)
	case 2:
		m.net.CutOneWay(leader, others[rng.IntN(len(others))])
	case 3:
		m.net.CutOneWay(others[rng.IntN(len(others))], leader)
	}
	m.sleep(time.Duration(rng.IntN(4000)) * time.Millisecond)
	m.net.Heal()
	m.sleep(time.Second)
}

// TestMeshHistoriesAreLinearizable lets clients read and write at all replicas while leaders die and links are cut.
func TestMeshHistoriesAreLinearizable(t *testing.T) {
	for seed := range uint64(4) {
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
			inMesh(t, 3, func(t *testing.T, m *mesh) {
				rng := rand.New(rand.NewPCG(seed, 1))
				var delays sync.Mutex
				m.net.Delay(func() time.Duration {
					delays.Lock()
					defer delays.Unlock()
					return time.Duration(rng.IntN(2000)) * time.Microsecond
				})
				h := &meshRun{}
				at := map[string]*atomic.Pointer[Replica]{}
				for id, r := range m.replicas {
					at[id] = &atomic.Pointer[Replica]{}
					at[id].Store(r)
				}
				stop := make(chan struct{})
				var clients sync.WaitGroup
				for id := range linearClients {
					here := at[fmt.Sprintf("n%d", id%3)]
					clients.Go(func() { h.client(m.t.Context(), id, here.Load, stop) })
				}
				faults := rand.New(rand.NewPCG(seed, 2))
				for range 6 {
					m.fault(faults, at)
				}
				close(stop)
				clients.Wait()
				result, _ := porcupine.CheckOperationsVerbose(linearModel(), h.history, time.Minute)
				if result == porcupine.Illegal || len(h.history) < 500 {
					t.Errorf("%d operations: %v", len(h.history), result)
				}
			})
		})
	}
}
