package quorum

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/podvine/podvine/consensus"
	"github.com/podvine/podvine/consensus/netsim"
	"github.com/podvine/podvine/consensus/store"
)

// town is a cluster of nodes with real replicas and keepers, on a network in memory and in virtual time. It plays what a
// node's agent does.
type town struct {
	t   *testing.T
	dir string
	net *netsim.Network

	mu    sync.Mutex
	nodes map[string]*resident
}

type resident struct {
	member  Member
	replica *consensus.Replica
	keeper  *Keeper
	stop    context.CancelFunc
	done    chan struct{}
}

func inTown(t *testing.T, nodes int, run func(t *testing.T, w *town)) {
	t.Helper()
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		w := &town{t: t, dir: dir, net: netsim.New(), nodes: map[string]*resident{}}
		defer w.close()
		for i := range nodes {
			id := fmt.Sprintf("n%d", i)
			w.nodes[id] = &resident{member: Member{ID: id, Name: "host-" + id, Alive: true, Since: time.Now(), Role: consensus.RoleEdge}}
		}
		w.open("n0", false)
		run(t, w)
	})
}

func (w *town) members() []Member {
	w.mu.Lock()
	defer w.mu.Unlock()
	var all []Member
	for _, n := range w.nodes {
		m := n.member
		m.Role = consensus.RoleEdge
		if n.replica != nil {
			m.Role = consensus.RoleStandby
		}
		all = append(all, m)
	}
	return all
}

func (w *town) open(id string, join bool) {
	host := w.net.Host(id)
	r, err := consensus.Open(context.Background(), consensus.Config{
		Dir: w.dir + "/" + id, NodeID: id, ClusterID: "town", Join: join, SegmentBytes: 1 << 20, ReserveBytes: -1,
		Logger: slog.New(slog.DiscardHandler),
		Network: &consensus.Network{
			Dial: host.Dial, Raft: host.Listen(consensus.ProtocolRaft), Store: host.Listen(consensus.ProtocolStore),
		},
	})
	if err != nil {
		w.t.Errorf("open %s: %v", id, err)
		return
	}
	log := slog.New(slog.DiscardHandler)
	if os.Getenv("MESH_LOG") != "" {
		log = slog.New(slog.NewTextHandler(os.Stderr, nil)).With("keeper", id)
	}
	k, err := New(Config{Replica: r, Members: w.members, Assign: w.assign, Logger: log})
	if err != nil {
		w.t.Error(err)
		return
	}
	ctx, stop := context.WithCancel(context.Background())
	n := &resident{replica: r, keeper: k, stop: stop, done: make(chan struct{})}
	go func() {
		defer close(n.done)
		k.Run(ctx)
	}()
	w.mu.Lock()
	defer w.mu.Unlock()
	n.member = w.nodes[id].member
	w.nodes[id] = n
}

func (w *town) shut(id string) {
	w.mu.Lock()
	n := w.nodes[id]
	w.nodes[id] = &resident{member: n.member}
	w.mu.Unlock()
	if n.replica == nil {
		return
	}
	n.stop()
	<-n.done
	if err := n.replica.Close(); err != nil {
		w.t.Errorf("close %s: %v", id, err)
	}
}

func (w *town) assign(_ context.Context, id string, role consensus.Role) error {
	w.mu.Lock()
	n := w.nodes[id]
	w.mu.Unlock()
	switch {
	case !n.member.Alive:
		return errors.New("node is dead")
	case role == consensus.RoleStandby && n.replica == nil:
		w.open(id, true)
	case role == consensus.RoleEdge && n.replica != nil:
		w.shut(id)
		return consensus.PutAway(w.dir + "/" + id)
	}
	return nil
}

// kill ends a node, as the member list knows a second later.
func (w *town) kill(ids ...string) {
	for _, id := range ids {
		w.net.Kill(id)
	}
	for _, id := range ids {
		w.shut(id)
	}
	w.sleep(time.Second)
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, id := range ids {
		w.nodes[id].member.Alive, w.nodes[id].member.Since = false, time.Now()
	}
}

func (w *town) close() {
	w.mu.Lock()
	ids := []string{}
	for id := range w.nodes {
		ids = append(ids, id)
	}
	w.mu.Unlock()
	for _, id := range ids {
		w.net.Kill(id)
	}
	for _, id := range ids {
		w.shut(id)
	}
}

func (w *town) sleep(d time.Duration) {
	timer := time.NewTimer(d)
	<-timer.C
}

func (w *town) any() *resident {
	w.mu.Lock()
	defer w.mu.Unlock()
	var best *resident
	for _, n := range w.nodes {
		if n.replica == nil {
			continue
		}
		if _, leads := n.replica.Leading(); leads || best == nil {
			best = n
		}
	}
	return best
}

func (w *town) await(limit time.Duration, what string, ok func(Status) bool) Status {
	w.t.Helper()
	start := time.Now()
	for {
		n := w.any()
		s := n.keeper.Status(w.t.Context())
		if ok(s) {
			return s
		}
		if time.Since(start) > limit {
			w.t.Fatalf("not within %v: %s: %+v", limit, what, s)
		}
		w.sleep(100 * time.Millisecond)
	}
}

func healthy(voters, standbys int) func(Status) bool {
	return func(s Status) bool {
		return s.State == StateHealthy && len(s.Voters) == voters && len(s.Standbys) == standbys
	}
}

func (w *town) put(key string) error {
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	op := store.Op{Kind: store.OpPut, Table: "/t/", Key: key, Expect: store.ExpectAbsent, Value: []byte("v")}
	result, err := w.any().replica.Propose(ctx, consensus.Proposal{Command: store.Command{Ops: []store.Op{op}}})
	if err == nil && result.Code != store.CodeCommitted {
		err = fmt.Errorf("code %d", result.Code)
	}
	return err
}

// TestNineNodesKillTwoVotersAtOnce grows a cluster from one node to nine, and loses two of its five voters, the leader among
// them, at once.
func TestNineNodesKillTwoVotersAtOnce(t *testing.T) {
	inTown(t, 9, func(t *testing.T, w *town) {
		grown := w.await(time.Minute, "five voters and two standbys", healthy(5, 2))
		if grown.CanLose != 2 || grown.Leader.Name == "" || grown.Target != 5 {
			t.Fatalf("grown: %+v", grown)
		}
		if err := w.put("before"); err != nil {
			t.Fatal(err)
		}
		victims := []string{grown.Leader.ID}
		for _, v := range grown.Voters {
			if v.ID != grown.Leader.ID && len(victims) == 1 {
				victims = append(victims, v.ID)
			}
		}
		start := time.Now()
		w.kill(victims...)
		if err := w.put("after"); err != nil {
			t.Fatal(err)
		}
		s := w.await(10*time.Second, "five new voters", healthy(5, 2))
		t.Logf("healthy again after %v", time.Since(start))
		for _, v := range s.Voters {
			if slices.Contains(victims, v.ID) {
				t.Fatalf("dead %s votes", v.ID)
			}
		}
	})
}

// TestFiveNodesLoseTwoAndGetThemBack has nobody to take the place of the dead.
func TestFiveNodesLoseTwoAndGetThemBack(t *testing.T) {
	inTown(t, 5, func(t *testing.T, w *town) {
		w.await(time.Minute, "five voters", healthy(5, 0))
		w.kill("n0", "n3")
		s := w.await(10*time.Second, "three voters", func(s Status) bool { return len(s.Voters) == 3 && s.CanLose == 1 })
		if s.State != StateDegraded {
			t.Fatalf("three of five wanted voters are %q", s.State)
		}
		w.mu.Lock()
		for _, id := range []string{"n0", "n3"} {
			w.nodes[id].member.Alive, w.nodes[id].member.Since = true, time.Now()
		}
		w.mu.Unlock()
		w.open("n0", true)
		w.open("n3", true)
		w.await(time.Minute, "five voters again", healthy(5, 0))
	})
}

// TestLosingTheMajorityIsTold kills two of three: nothing is decided, and the status says so.
func TestLosingTheMajorityIsTold(t *testing.T) {
	inTown(t, 3, func(t *testing.T, w *town) {
		w.await(time.Minute, "three voters", healthy(3, 0))
		w.kill("n1", "n2")
		s := w.await(10*time.Second, "the loss", func(s Status) bool { return s.State == StateLost && s.LostSince != nil })
		if s.CanLose != 0 || len(s.Voters) != 3 {
			t.Fatalf("lost: %+v", s)
		}
	})
}
