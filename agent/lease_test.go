package agent

import (
	"context"
	"errors"
	"log/slog"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/types"
	"pgregory.net/rapid"

	"github.com/podvine/podvine/agent/isolation"
	"github.com/podvine/podvine/agent/pods"
)

// leaderMemory is long enough for each lease to be over.
const leaderMemory = isolation.ReleaseAfter

func TestLeaseBook(t *testing.T) {
	start := time.Unix(1000, 0)
	at := func(d time.Duration) time.Time { return start.Add(d) }
	var b leaseBook
	if b.released("a", 1, at(time.Hour)) {
		t.Error("released by one that never led")
	}
	b.grant("a", at(0)) // may come before the new leader's loops begin
	b.lead(1, at(0))
	for _, test := range []struct {
		name string
		term uint64
		at   time.Duration
		want bool
	}{
		{"just leads: another's lease may last", 1, leaderMemory - 1, false},
		{"no lease can last", 1, leaderMemory, true},
		{"of another term", 2, time.Hour, false},
	} {
		if got := b.released("a", test.term, at(test.at)); got != test.want {
			t.Errorf("%s: %t", test.name, got)
		}
	}
	b.grant("a", at(time.Minute))
	if b.released("a", 1, at(time.Minute+leaderMemory-1)) || !b.released("a", 1, at(time.Minute+leaderMemory)) || !b.released("b", 1, at(time.Minute)) {
		t.Error("a grant counts for its node, until it is over")
	}
	b.lead(2, at(2*time.Minute))
	if b.released("a", 2, at(2*time.Minute)) {
		t.Error("a new term knows nothing of the leases before")
	}
}

// leaseWorld is a node's keeper, the clock that it and the leader read, and a leader that answers or does not.
type leaseWorld struct {
	keeper *leaseKeeper
	clock  time.Duration
	book   leaseBook
	here   []pods.PodRef
	// before and after are how long a call takes to reach the leader, and its answer to come back; lost loses the answer.
	before, after time.Duration
	cut, lost     bool
	wanted        map[types.UID]bool
	changes       int
}

func newLeaseWorld(folder string) *leaseWorld {
	w := &leaseWorld{clock: time.Hour, wanted: map[types.UID]bool{}}
	w.book.lead(1, w.wall())
	w.keeper = &leaseKeeper{file: filepath.Join(folder, "lease"), log: slog.New(slog.DiscardHandler), ask: w.ask,
		here: func() []pods.PodRef { return w.here }, changed: func() { w.changes++ }, now: func() (time.Duration, error) { return w.clock, nil }}
	return w
}

func (w *leaseWorld) wall() time.Time { return time.Unix(0, 0).Add(w.clock) }

func (w *leaseWorld) ask(_ context.Context, asked []leasedPod) (answered []types.UID, err error) {
	unanswered := errors.New("no answer")
	if w.cut {
		w.clock += leaseCallTimeout
		return nil, unanswered
	}
	w.clock += w.before
	w.book.grant("n", w.wall())
	for _, pod := range asked {
		if w.wanted[pod.UID] {
			answered = append(answered, pod.UID)
		}
	}
	w.clock += w.after
	if w.lost {
		return nil, unanswered
	}
	return answered, nil
}

func TestLeaseKeeper(t *testing.T) {
	w := newLeaseWorld(t.TempDir())
	turn := func() error { return w.keeper.turn(t.Context()) }
	if err := turn(); err != nil || w.keeper.Holds("a") || w.changes != 0 {
		t.Fatalf("a node without such pods: %v, %+v", err, w.keeper)
	}
	w.here = []pods.PodRef{{Namespace: "default", Name: "a", UID: "a"}, {Namespace: "default", Name: "b", UID: "b"}}
	w.wanted["a"] = true
	if err := turn(); err != nil || !w.keeper.Holds("a") || w.keeper.Holds("b") || w.changes != 1 {
		t.Fatalf("one is confirmed, one is not: %v, %+v", err, w.keeper)
	}
	w.clock += isolation.Lease
	if w.keeper.Holds("a") {
		t.Error("held when the lease is over")
	}
	// It has been replaced meanwhile: the next lease does not let it start.
	w.wanted["a"] = false
	if err := turn(); err != nil || w.keeper.Holds("a") {
		t.Errorf("it is started again under a new lease: %v", err)
	}
	w.cut = true
	if err := turn(); err == nil {
		t.Error("no answer is no error")
	}
}

// TestLeaderOutwaitsNodes: whatever is slow or lost, a node holds no lease any more when the leader says that it has none.
func TestLeaderOutwaitsNodes(t *testing.T) {
	folder := t.TempDir()
	rapid.Check(t, func(t *rapid.T) {
		w := newLeaseWorld(folder)
		w.here = []pods.PodRef{{Namespace: "default", Name: "a", UID: "a"}}
		w.wanted["a"] = true
		for range rapid.IntRange(1, 20).Draw(t, "turns") {
			w.cut, w.lost = rapid.IntRange(0, 3).Draw(t, "cut") == 0, rapid.IntRange(0, 3).Draw(t, "lost") == 0
			w.before = time.Duration(rapid.Int64Range(0, int64(leaseCallTimeout)).Draw(t, "before"))
			w.after = time.Duration(rapid.Int64Range(0, int64(leaseCallTimeout-w.before)).Draw(t, "after"))
			w.keeper.turn(context.Background()) //nolint:errcheck // a turn without an answer is what is drawn
			w.clock += time.Duration(rapid.Int64Range(0, int64(2*isolation.Lease)).Draw(t, "pause"))
			if w.book.released("n", 1, w.wall()) && w.keeper.Holds("a") {
				t.Fatalf("at %v the leader calls it released, and the node holds until %v", w.clock, w.keeper.end)
			}
		}
	})
}

func TestConfirmedAreBounded(t *testing.T) {
	w := newLeaseWorld(t.TempDir())
	for i := range 3 * maxConfirmed {
		uid := types.UID(slices.Repeat([]byte{'x'}, i+1))
		w.here, w.wanted[uid] = append(w.here, pods.PodRef{UID: uid}), true
	}
	for turns := 1; turns <= 3; turns++ {
		if err := w.keeper.turn(t.Context()); err != nil {
			t.Fatal(err)
		}
		if got := len(w.keeper.confirmed); got != turns*maxConfirmed {
			t.Errorf("%d are confirmed after %d calls, want %d", got, turns, turns*maxConfirmed)
		}
	}
}
