package agent

import (
	"context"
	"errors"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
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
	if b.released("a", 1, at(time.Hour), false) {
		t.Error("released by one that never led")
	}
	b.grant("a", at(0)) // may come before the new leader's loops begin
	b.lead(1, at(0))
	for _, test := range []struct {
		name    string
		term    uint64
		at      time.Duration
		parting bool
		want    bool
	}{
		{"just leads: another's lease may last", 1, leaderMemory - 1, false, false},
		{"no lease can last", 1, leaderMemory, false, true},
		{"one of an agent that ended on purpose may last", 1, isolation.PartingReleaseAfter - 1, true, false},
		{"no such lease can last", 1, isolation.PartingReleaseAfter, true, true},
		{"of another term", 2, time.Hour, false, false},
	} {
		if got := b.released("a", test.term, at(test.at), test.parting); got != test.want {
			t.Errorf("%s: %t", test.name, got)
		}
	}
	b.grant("a", at(time.Minute))
	if b.released("a", 1, at(time.Minute+leaderMemory-1), false) || !b.released("a", 1, at(time.Minute+leaderMemory), false) || !b.released("b", 1, at(time.Minute), false) {
		t.Error("a grant counts for its node, until it is over")
	}
	b.lead(2, at(2*time.Minute))
	if b.released("a", 2, at(2*time.Minute), false) {
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
	// parting is what the Node object says.
	parting bool
}

// shimHolds is what a shim reads.
func (w *leaseWorld) shimHolds(t *rapid.T) bool {
	content, err := os.ReadFile(w.keeper.file)
	if errors.Is(err, fs.ErrNotExist) {
		return false
	}
	end, parseErr := strconv.ParseInt(strings.TrimSpace(string(content)), 10, 64)
	if err := errors.Join(err, parseErr); err != nil {
		t.Fatal(err)
	}
	return w.clock < time.Duration(end)
}

func newLeaseWorld(folder string) *leaseWorld {
	w := &leaseWorld{clock: time.Hour, wanted: map[types.UID]bool{}}
	w.book.lead(1, w.wall())
	w.keeper = &leaseKeeper{file: filepath.Join(folder, "lease"), log: slog.New(slog.DiscardHandler), ask: w.ask,
		here: func() []pods.PodRef { return w.here }, changed: func() { w.changes++ }, now: func() (time.Duration, error) { return w.clock, nil }}
	return w
}

func (w *leaseWorld) wall() time.Time { return time.Unix(0, 0).Add(w.clock) }

func (w *leaseWorld) ask(_ context.Context, asked leaseCall) (answered []types.UID, err error) {
	unanswered := errors.New("no answer")
	if w.cut {
		w.clock += leaseCallTimeout
		return nil, unanswered
	}
	w.clock += w.before
	w.parting = w.parting || asked.Parting
	w.book.grant("n", w.wall())
	w.parting = w.parting && !asked.Short
	for _, pod := range asked.Pods {
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
		if err := isolation.WriteEnd(w.keeper.file, 0); err != nil {
			t.Fatal(err)
		}
		for range rapid.IntRange(1, 20).Draw(t, "turns") {
			w.cut, w.lost = rapid.IntRange(0, 3).Draw(t, "cut") == 0, rapid.IntRange(0, 3).Draw(t, "lost") == 0
			w.before = time.Duration(rapid.Int64Range(0, int64(leaseCallTimeout)).Draw(t, "before"))
			w.after = time.Duration(rapid.Int64Range(0, int64(leaseCallTimeout-w.before)).Draw(t, "after"))
			w.keeper.turn(context.Background())            //nolint:errcheck // a turn without an answer is what is drawn
			if rapid.IntRange(0, 5).Draw(t, "ends") == 0 { // another agent follows
				w.keeper.part()
				again := newLeaseWorld(folder)
				again.keeper.ask, again.keeper.here, again.keeper.now = w.keeper.ask, w.keeper.here, w.keeper.now
				w.keeper = again.keeper
			}
			longest := 2 * isolation.Lease
			if rapid.IntRange(0, 3).Draw(t, "long") == 0 {
				longest = 2 * isolation.PartingLease
			}
			w.clock += time.Duration(rapid.Int64Range(0, int64(longest)).Draw(t, "pause"))
			if w.book.released("n", 1, w.wall(), w.parting) && (w.keeper.Holds("a") || w.shimHolds(t)) {
				t.Fatalf("at %v the leader calls it released, and the node holds until %v", w.clock, w.keeper.end)
			}
		}
	})
}

// An agent that ends on purpose leaves its pods a longer lease; the next one goes on with the usual.
func TestPartingLease(t *testing.T) {
	w := newLeaseWorld(t.TempDir())
	w.keeper.part()
	if _, err := os.Stat(w.keeper.file); !errors.Is(err, fs.ErrNotExist) || w.parting {
		t.Fatalf("a node without such pods has a lease: %v", err)
	}
	w.here, w.wanted["a"] = []pods.PodRef{{Namespace: "default", Name: "a", UID: "a"}}, true
	w.keeper.part()
	if !w.parting || !w.keeper.parted {
		t.Fatal("it got none")
	}
	if err := w.keeper.turn(t.Context()); err != nil || w.keeper.Holds("a") {
		t.Errorf("it asks on: %v", err)
	}
	next := newLeaseWorld(filepath.Dir(w.keeper.file)).keeper
	next.ask, next.here, next.now = w.keeper.ask, w.keeper.here, w.keeper.now
	for i := range 2 {
		if err := next.turn(t.Context()); err != nil || !next.Holds("a") {
			t.Fatal(err)
		}
		if w.parting != (i == 0) {
			t.Errorf("after %d turns the longer lease counts: %v", i+1, w.parting)
		}
	}
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
