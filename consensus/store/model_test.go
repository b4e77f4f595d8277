package store

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"slices"
	"testing"

	"github.com/hashicorp/raft"
	"pgregory.net/rapid"
)

// modelEntry is what the plain map remembers of a key.
type modelEntry struct {
	value    string
	revision int64
	created  int64
	expires  int64
}

// model is the store as one would write it without caring about speed: a map, and a copy of it for each revision.
type model struct {
	rev    int64
	tables map[string]map[string]modelEntry
	past   map[int64]map[string]map[string]modelEntry
	events []string
}

func newModel() *model {
	m := &model{rev: firstRevision, tables: map[string]map[string]modelEntry{}, past: map[int64]map[string]map[string]modelEntry{}}
	m.remember()
	return m
}

func (m *model) remember() {
	copied := map[string]map[string]modelEntry{}
	for n, t := range m.tables {
		copied[n] = maps.Clone(t)
	}
	m.past[m.rev] = copied
}

func (m *model) apply(term uint64, c Command) Result {
	if c.Term != 0 && c.Term != term {
		return Result{Code: CodeFenced, Revision: m.rev}
	}
	for i, op := range c.Ops {
		cur, exists := m.tables[op.Table][op.Key]
		if op.Expect == ExpectAbsent && exists || op.Expect > 0 && cur.revision != op.Expect {
			return Result{Code: CodeConflict, Revision: m.rev, FailedOp: i}
		}
	}
	first := m.rev + 1
	for _, op := range c.Ops {
		cur, exists := m.tables[op.Table][op.Key]
		switch {
		case op.Kind == OpPut:
			m.rev++
			created := m.rev
			if exists {
				created = cur.created
			}
			if m.tables[op.Table] == nil {
				m.tables[op.Table] = map[string]modelEntry{}
			}
			m.tables[op.Table][op.Key] = modelEntry{string(op.Value), m.rev, created, op.ExpiresUnixMilli}
			m.events = append(m.events, fmt.Sprintf("%d %s %s=%s", m.rev, op.Table, op.Key, op.Value))
		case op.Kind == OpDelete && exists:
			m.rev++
			delete(m.tables[op.Table], op.Key)
			m.events = append(m.events, fmt.Sprintf("%d %s %s deleted", m.rev, op.Table, op.Key))
		default:
			continue
		}
		m.remember()
	}
	return Result{Code: CodeCommitted, Revision: m.rev, FirstRevision: first}
}

func drawCommand(t *rapid.T, m *model) Command {
	var c Command
	if rapid.IntRange(0, 9).Draw(t, "fence") == 0 {
		c.Term = uint64(rapid.IntRange(1, 2).Draw(t, "term"))
	}
	for range rapid.IntRange(1, 4).Draw(t, "ops") {
		op := Op{
			Kind:  OpKind(rapid.IntRange(1, 3).Draw(t, "kind")),
			Table: rapid.SampledFrom([]string{"/a/", "/b/"}).Draw(t, "table"),
			Key:   rapid.StringMatching(`/[ab]/[a-e]{1,2}`).Draw(t, "key"),
		}
		switch rapid.IntRange(0, 3).Draw(t, "expect") {
		case 0:
			op.Expect = ExpectAny
		case 1:
			op.Expect = ExpectAbsent
		case 2:
			op.Expect = m.tables[op.Table][op.Key].revision
		default:
			op.Expect = rapid.Int64Range(1, m.rev).Draw(t, "revision")
		}
		if op.Kind == OpPut {
			op.Value = []byte(rapid.StringN(0, 8, 16).Draw(t, "value"))
			op.ExpiresUnixMilli = rapid.Int64Range(0, 3).Draw(t, "expires")
		}
		if !slices.ContainsFunc(c.Ops, func(o Op) bool { return o.Table == op.Table && o.Key == op.Key }) {
			c.Ops = append(c.Ops, op)
		}
	}
	return c
}

// compare checks the present, every past revision and the events.
func compare(t *rapid.T, s *Store, m *model) {
	if s.Revision() != m.rev {
		t.Fatalf("revision %d, want %d", s.Revision(), m.rev)
	}
	for rev, tables := range m.past {
		for _, name := range []string{"/a/", "/b/"} {
			v, err := s.ViewAt(name, rev)
			if err != nil {
				t.Fatalf("view at %d: %v", rev, err)
			}
			compareView(t, v, tables[name], rev)
		}
	}
	var events []string
	for _, name := range []string{"/a/", "/b/"} {
		for _, ev := range allEvents(t, s, name) {
			if ev.Current == nil {
				events = append(events, fmt.Sprintf("%d %s %s deleted", ev.Revision, name, ev.Key()))
				continue
			}
			events = append(events, fmt.Sprintf("%d %s %s=%s", ev.Revision, name, ev.Key(), ev.Current.Value))
		}
	}
	want := slices.Sorted(slices.Values(m.events))
	if slices.Sort(events); !slices.Equal(events, want) {
		t.Fatalf("events %q, want %q", events, want)
	}
}

func allEvents(t *rapid.T, s *Store, table string) []*Event {
	var all []*Event
	for rev := int64(firstRevision); ; {
		changes, err := s.Changes(table, rev)
		if err != nil {
			t.Fatal(err)
		}
		if len(changes.Events) == 0 {
			return all
		}
		all = append(all, changes.Events...)
		rev = all[len(all)-1].Revision
	}
}

func compareView(t *rapid.T, v View, want map[string]modelEntry, rev int64) {
	if v.Len() != len(want) || v.Revision != rev {
		t.Fatalf("view at %d has %d keys at %d, want %d", rev, v.Len(), v.Revision, len(want))
	}
	last := ""
	v.Ascend("", func(e *Entry) bool {
		w, ok := want[e.Key]
		if !ok || e.Key <= last || string(e.Value) != w.value || e.Revision != w.revision || e.CreateRevision != w.created || e.ExpiresUnixMilli != w.expires {
			t.Fatalf("at %d: entry %q %+v, want %+v", rev, e.Key, e, w)
		}
		last = e.Key
		if v.Get(e.Key) != e {
			t.Fatalf("get %q differs from the scan", e.Key)
		}
		return true
	})
}

// TestStoreEqualsMap applies random groups to the store and to a plain map, and now and then continues from a snapshot.
func TestStoreEqualsMap(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s, m := New(Options{}), newModel()
		fsm := NewFSM(s)
		var index uint64
		for range rapid.IntRange(1, 20).Draw(t, "groups") {
			g := Group{TimeUnixMilli: 1000}
			var want []Result
			for range rapid.IntRange(1, 4).Draw(t, "commands") {
				c := drawCommand(t, m)
				g.Commands = append(g.Commands, c)
				want = append(want, m.apply(1, c))
			}
			index++
			got, ok := fsm.Apply(&raft.Log{Index: index, Term: 1, Data: g.Encode(nil)}).([]Result)
			if !ok {
				t.Fatal("entry was not applied")
			}
			for i := range got {
				got[i].Current = nil
				if got[i] != want[i] {
					t.Fatalf("result %+v of %+v, want %+v", got[i], g.Commands[i], want[i])
				}
			}
		}
		compare(t, s, m)
		checkSnapshot(t, s, m)
	})
}

// checkSnapshot restores a snapshot elsewhere and expects the same state, to the byte.
func checkSnapshot(t *rapid.T, s *Store, m *model) {
	var first, second bytes.Buffer
	if err := s.Snapshot(&first); err != nil {
		t.Fatal(err)
	}
	restored := New(Options{})
	if err := restored.Restore(bytes.NewReader(first.Bytes())); err != nil {
		t.Fatal(err)
	}
	if err := restored.Snapshot(&second); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(first.Bytes(), second.Bytes()) {
		t.Fatal("the snapshot of a restored store differs")
	}
	for _, name := range []string{"/a/", "/b/"} {
		compareView(t, restored.View(name, false), m.tables[name], m.rev)
	}
	if _, err := restored.ViewAt("/a/", m.rev-1); m.rev > firstRevision && !errors.Is(err, ErrCompacted) {
		t.Fatalf("a restored store shows revision %d: %v", m.rev-1, err)
	}
	ops, next := s.Expired(2, 100)
	restoredOps, restoredNext := restored.Expired(2, 100)
	if next != restoredNext || !slices.EqualFunc(ops, restoredOps, func(a, b Op) bool { return a.Key == b.Key && a.Expect == b.Expect }) {
		t.Fatal("a restored store expires other keys")
	}
}
