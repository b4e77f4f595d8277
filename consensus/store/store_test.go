package store

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/raft"
)

// feeder applies commands as a log of one would.
type feeder struct {
	t     testing.TB
	fsm   *FSM
	index uint64
}

func newFeeder(t testing.TB, opts Options) (*Store, *feeder) {
	s := New(opts)
	return s, &feeder{t: t, fsm: NewFSM(s)}
}

func (f *feeder) apply(term uint64, timeMillis int64, commands ...Command) []Result {
	f.t.Helper()
	f.index++
	g := Group{TimeUnixMilli: timeMillis, Commands: commands}
	answer := f.fsm.Apply(&raft.Log{Index: f.index, Term: term, Data: g.Encode(nil)})
	if err, ok := answer.(error); ok {
		f.t.Fatal(err)
	}
	return answer.([]Result)
}

func put(key, value string) Command {
	return Command{Ops: []Op{{Kind: OpPut, Table: "/t/", Key: key, Expect: ExpectAny, Value: []byte(value)}}}
}

func create(key string) Command {
	return Command{Ops: []Op{{Kind: OpPut, Table: "/t/", Key: key, Expect: ExpectAbsent, Value: []byte("x")}}}
}

func TestGroupRoundTrip(t *testing.T) {
	g := Group{TimeUnixMilli: -5, Proposer: 1 << 63, Number: 7, Commands: []Command{
		{Ops: []Op{{Kind: OpPut, Table: "/t/", Key: "k", Expect: 9, Value: []byte("v"), ExpiresUnixMilli: 77}}},
		{Term: 3, Member: "m", Sequence: 4, Ops: []Op{
			{Kind: OpDelete, Table: "/t/", Key: "k", Expect: ExpectAny}, {Kind: OpCheck, Table: "/t/", Key: "l", Expect: ExpectAbsent},
		}},
	}}
	data := g.Encode(nil)
	got, err := DecodeGroup(data)
	if err != nil {
		t.Fatal(err)
	}
	if fmt.Sprintf("%+v", *got) != fmt.Sprintf("%+v", g) {
		t.Fatalf("got %+v, want %+v", *got, g)
	}
	for i := range data {
		if _, err := DecodeGroup(data[:i]); !errors.Is(err, ErrMalformed) {
			t.Fatalf("an entry cut at %d decodes: %v", i, err)
		}
	}
}

func FuzzDecodeGroup(f *testing.F) {
	g := Group{Commands: []Command{put("k", "v")}}
	f.Add(g.Encode(nil))
	f.Fuzz(func(t *testing.T, data []byte) {
		g, err := DecodeGroup(data)
		if err != nil {
			return
		}
		again, err := DecodeGroup(g.Encode(nil))
		if err != nil || len(again.Commands) != len(g.Commands) {
			t.Fatalf("a decoded group does not encode: %v", err)
		}
	})
}

// TestNewerFormatStopsTheStore keeps an old program from skipping what it cannot read and going on differently.
func TestNewerFormatStopsTheStore(t *testing.T) {
	s, f := newFeeder(t, Options{})
	f.apply(1, 1, put("a", "1"))
	if err, ok := f.fsm.Apply(&raft.Log{Index: 2, Term: 1, Data: []byte{groupVersion + 1}}).(error); !ok || !errors.Is(err, ErrMalformed) {
		t.Fatalf("a newer entry was applied: %v", err)
	}
	g := Group{Commands: []Command{put("a", "2")}}
	if _, ok := f.fsm.Apply(&raft.Log{Index: 3, Term: 1, Data: g.Encode(nil)}).(error); !ok || s.Fault() == nil {
		t.Fatal("the store went on after an entry that it cannot read")
	}
	if _, err := f.fsm.Snapshot(); err == nil {
		t.Fatal("a faulty store makes snapshots")
	}
}

func TestDuplicateIsAppliedOnce(t *testing.T) {
	s, f := newFeeder(t, Options{})
	c := create("k")
	c.Member, c.Sequence = "m1", 1
	first := f.apply(1, 1, c)[0]
	second := f.apply(2, 1, c)[0]
	if second.Code != CodeCommitted || !second.Duplicate || second.Revision != first.Revision {
		t.Fatalf("a retry got %+v, want the first answer %+v", second, first)
	}
	other := create("k")
	other.Member, other.Sequence = "m2", 1
	if r := f.apply(2, 1, other)[0]; r.Code != CodeConflict || r.Duplicate {
		t.Fatalf("another member's command got %+v, want a conflict", r)
	}
	for i := range uint64(DedupeCommandsPerMember) {
		p := put("l", "x")
		p.Member, p.Sequence = "m1", i+2
		f.apply(2, 1, p)
	}
	before := s.Revision()
	if r := f.apply(2, 1, c)[0]; r.Code != CodeForgotten || s.Revision() != before {
		t.Fatalf("a command from before the window got %+v", r)
	}
}

func TestDedupeForgetsTheMemberThatWroteLongestAgo(t *testing.T) {
	_, f := newFeeder(t, Options{})
	for i := range DedupeMembers + 1 {
		c := put("k", "x")
		c.Member, c.Sequence = fmt.Sprintf("m%03d", i), 1
		f.apply(1, 1, c)
		if i == DedupeMembers-1 {
			c.Member, c.Sequence = "m000", 2
			f.apply(1, 1, c)
		}
	}
	kept := f.fsm.store.dedupe.members
	if len(kept) != DedupeMembers || kept["m000"] == nil || kept["m001"] != nil {
		t.Fatalf("kept %d members, m000 %v, m001 %v", len(kept), kept["m000"] != nil, kept["m001"] != nil)
	}
}

func TestFenceKeepsAnOldLeaderOut(t *testing.T) {
	s, f := newFeeder(t, Options{})
	c := put("k", "x")
	c.Term = 4
	if r := f.apply(5, 1, c)[0]; r.Code != CodeFenced {
		t.Fatalf("a command of term 4 got %+v in term 5", r)
	}
	if e, _ := s.Get("/t/", "k"); e != nil {
		t.Fatal("a fenced command wrote")
	}
	if r := f.apply(4, 1, c)[0]; r.Code != CodeCommitted {
		t.Fatalf("a command of term 4 got %+v in term 4", r)
	}
}

func TestTransactionIsAllOrNothing(t *testing.T) {
	s, f := newFeeder(t, Options{})
	f.apply(1, 1, put("taken", "x"))
	c := create("free")
	c.Ops = append(c.Ops, create("taken").Ops...)
	if r := f.apply(1, 1, c)[0]; r.Code != CodeConflict || r.FailedOp != 1 || r.Current == nil {
		t.Fatalf("got %+v", r)
	}
	if e, _ := s.Get("/t/", "free"); e != nil {
		t.Fatal("half a transaction was applied")
	}
}

// TestHistoryAgesByTheProposersClock drops what is older than the newest entry's time allows, whatever the local clock says.
func TestHistoryAgesByTheProposersClock(t *testing.T) {
	s, f := newFeeder(t, Options{HistoryAge: time.Minute})
	f.apply(1, 0, put("a", "1"))
	old := s.Revision()
	f.apply(1, time.Minute.Milliseconds(), put("a", "2"))
	if _, err := s.ViewAt("/t/", old); err != nil {
		t.Fatal(err)
	}
	f.apply(1, time.Minute.Milliseconds()+1, put("a", "3"))
	if _, err := s.ViewAt("/t/", old-1); !errors.Is(err, ErrCompacted) {
		t.Fatalf("history of over a minute is there: %v", err)
	}
	f.apply(1, 2*time.Minute.Milliseconds()+2, put("a", "4"))
	if _, err := s.Changes("/t/", old); !errors.Is(err, ErrCompacted) {
		t.Fatalf("changes of over a minute are there: %v", err)
	}
	f.apply(1, 0, put("a", "5"))
	if _, err := s.ViewAt("/t/", s.Revision()-1); err != nil {
		t.Fatalf("a clock that went back dropped history: %v", err)
	}
}

func TestHistoryIsBoundedInBytes(t *testing.T) {
	const limit = 64 << 10
	s, f := newFeeder(t, Options{HistoryBytes: limit})
	value := strings.Repeat("x", 1<<10)
	for i := range 1000 {
		f.apply(1, 1, put(fmt.Sprint(i%10), value))
		if s.HistoryBytes() > limit {
			t.Fatalf("history holds %d bytes", s.HistoryBytes())
		}
	}
	if _, err := s.ViewAt("/t/", 2); !errors.Is(err, ErrCompacted) {
		t.Fatal(err)
	}
	if _, err := s.ViewAt("/t/", s.Revision()-20); err != nil {
		t.Fatal(err)
	}
	f.apply(1, 1, Command{Ops: []Op{{Kind: OpPut, Table: "/idle/", Key: "k", Expect: ExpectAny, Value: []byte("x")}}})
	if _, err := s.ViewAt("/t/", s.Revision()+1); !errors.Is(err, ErrFuture) {
		t.Fatal(err)
	}
}

func TestViewsDoNotMove(t *testing.T) {
	s, f := newFeeder(t, Options{})
	for i := range 500 {
		f.apply(1, 1, put(fmt.Sprintf("k%03d", i), "1"))
	}
	v := s.View("/t/", true)
	for i := range 500 {
		f.apply(1, 1, Command{Ops: []Op{{Kind: OpDelete, Table: "/t/", Key: fmt.Sprintf("k%03d", i), Expect: ExpectAny}}})
	}
	n := 0
	v.Ascend("", func(*Entry) bool { n++; return true })
	if n != 500 || v.Len() != 500 || s.View("/t/", false).Len() != 0 {
		t.Fatalf("the view has %d keys", n)
	}
	at, err := s.ViewAt("/t/", v.Revision)
	if err != nil || at.Len() != 500 {
		t.Fatalf("the kept view is gone: %v", err)
	}
}

func TestChangesWakesAWaiter(t *testing.T) {
	s, f := newFeeder(t, Options{})
	c, err := s.Changes("/t/", s.Revision())
	if err != nil || len(c.Events) != 0 {
		t.Fatal(c, err)
	}
	f.apply(1, 1, Command{Ops: []Op{{Kind: OpPut, Table: "/other/", Key: "k", Expect: ExpectAny}}})
	select {
	case <-c.Changed:
		t.Fatal("a write to another table woke the waiter")
	default:
	}
	done := make(chan error, 1)
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	rev := s.Revision()
	go func() { done <- s.WaitRevision(ctx, rev+1) }()
	f.apply(1, 1, put("k", "v"))
	<-c.Changed
	if err := <-done; err != nil {
		t.Fatal(err)
	}
}

func TestCorruptSnapshotIsRefused(t *testing.T) {
	s, f := newFeeder(t, Options{})
	for i := range 200 {
		c := put(fmt.Sprintf("k%03d", i), strings.Repeat("v", 5000))
		c.Member, c.Sequence = "m", uint64(i+1)
		f.apply(1, 1, c)
	}
	var b bytes.Buffer
	if err := s.Snapshot(&b); err != nil {
		t.Fatal(err)
	}
	whole := b.Bytes()
	target, g := newFeeder(t, Options{})
	g.apply(1, 1, put("mine", "1"))
	for at := 0; at < len(whole); at += 997 {
		damaged := bytes.Clone(whole)
		damaged[at] ^= 0x40
		if err := target.Restore(bytes.NewReader(damaged)); !errors.Is(err, ErrCorrupt) {
			t.Fatalf("a snapshot damaged at %d: %v", at, err)
		}
		if err := target.Restore(bytes.NewReader(whole[:at])); !errors.Is(err, ErrCorrupt) {
			t.Fatalf("a snapshot cut at %d: %v", at, err)
		}
	}
	if e, _ := target.Get("/t/", "mine"); e == nil {
		t.Fatal("a refused snapshot changed the state")
	}
	if err := target.Restore(bytes.NewReader(whole)); err != nil {
		t.Fatal(err)
	}
	if n, _ := target.TableStats("/t/"); n != 200 || target.Revision() != s.Revision() {
		t.Fatalf("restored %d keys at %d", n, target.Revision())
	}
}

func BenchmarkApply(b *testing.B) {
	_, f := newFeeder(b, Options{})
	value := strings.Repeat("v", 1<<10)
	for i := 0; b.Loop(); i++ {
		f.apply(1, int64(i), put(fmt.Sprintf("/t/ns/%08d", i), value))
	}
}

func BenchmarkGet(b *testing.B) {
	s, f := newFeeder(b, Options{})
	for i := range 30000 {
		f.apply(1, 1, put(fmt.Sprintf("/t/ns/%08d", i), "v"))
	}
	for b.Loop() {
		s.Get("/t/", "/t/ns/00012345")
	}
}

func BenchmarkViewAtOldRevision(b *testing.B) {
	s, f := newFeeder(b, Options{})
	for i := range 30000 {
		f.apply(1, 1, put(fmt.Sprintf("/t/ns/%08d", i), "v"))
	}
	for i := 0; b.Loop(); i++ {
		if _, err := s.ViewAt("/t/", 20000+int64(i%100)); err != nil {
			b.Fatal(err)
		}
	}
}

func TestCountIsWhatAscendMeets(t *testing.T) {
	s, f := newFeeder(t, Options{})
	const keys = 700 // several levels of the tree
	for i := range keys {
		f.apply(1, 1, put(fmt.Sprintf("k%03d", i), "1"))
	}
	v := s.View("/t/", false)
	bounds := []string{"", "k", "k000", "k001", "k0015", "k350", "k699", "k6990", "l"}
	for _, from := range bounds {
		for _, to := range bounds {
			met := 0
			v.Ascend(from, func(e *Entry) bool {
				if e.Key < to {
					met++
				}
				return true
			})
			if got := v.Count(from, to); got != met {
				t.Errorf("%q to %q: %d keys, %d wanted", from, to, got, met)
			}
		}
	}
	if n := (View{}).Count("", "z"); n != 0 {
		t.Errorf("a view of nothing has %d keys", n)
	}
}
