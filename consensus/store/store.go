package store

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/tidwall/btree"
)

const (
	// DefaultHistoryAge is how long writes stay readable after they were made.
	DefaultHistoryAge = 5 * time.Minute
	// DefaultHistoryBytes bounds what the history holds beyond the present state.
	DefaultHistoryBytes = 256 << 20

	firstRevision = 1
)

var (
	// ErrCompacted reports a revision whose history is gone.
	ErrCompacted = errors.New("revision is compacted")
	// ErrFuture reports a revision that is not written yet.
	ErrFuture = errors.New("revision is in the future")
)

// Code is the outcome of a command.
type Code uint8

const (
	// CodeCommitted says that every operation was applied.
	CodeCommitted Code = 1
	// CodeConflict says that an expectation failed and nothing was written.
	CodeConflict Code = 2
	// CodeFenced says that the command belongs to another leader's term.
	CodeFenced Code = 3
	// CodeForgotten says that the command's sequence is older than what is remembered: whether it was applied is unknown.
	CodeForgotten Code = 4
)

// Result is what applying a command came to.
type Result struct {
	Code Code
	// Revision is the newest revision that the command wrote, or the store's when it wrote none.
	Revision int64
	// FirstRevision is the revision of the command's first write.
	FirstRevision int64
	// FailedOp is the index of the operation whose expectation failed.
	FailedOp int
	// Current is what the failed operation found, nil when the key is absent. Never replicated.
	Current *Entry
	// Duplicate says that an earlier copy of the command was applied, with this result.
	Duplicate bool
}

// Claim connects an entry to the process that proposed it. The store calls it on the applying goroutine.
type Claim interface {
	// Attach is called before e is visible. It may set e's attachment and replace e.Value by an equal slice; it returns
	// false when it did not replace it, and the store then copies the value out of the log entry.
	Attach(command, op int, e *Entry) bool
	// Deliver gets the results of the group's commands once they are visible.
	Deliver(results []Result)
}

// Options adjusts a store. The zero value is usable.
type Options struct {
	// HistoryAge and HistoryBytes bound the history; zero means the default.
	HistoryAge   time.Duration
	HistoryBytes int64
	// Claim returns the proposer's side of a group, or nil when another process proposed it.
	Claim func(proposer, number uint64) Claim
}

// Store is the state. See the package comment for what may be called from where.
type Store struct {
	opts Options

	mu         sync.RWMutex
	rev        int64
	timeMillis int64
	index      uint64
	term       uint64
	tables     map[string]*table
	history    history
	dedupe     dedupe
	expiring   *btree.BTreeG[expiring]
	// fault is set by an entry that cannot be read; nothing is applied after it.
	fault error
	// advanced is closed when rev next grows; nil when nobody waits.
	advanced chan struct{}
}

// expiring orders the entries that expire. Derived from the tables.
type expiring struct {
	atMillis int64
	table    string
	key      string
	revision int64
}

func lessExpiring(a, b expiring) bool {
	if a.atMillis != b.atMillis {
		return a.atMillis < b.atMillis
	}
	if a.table != b.table {
		return a.table < b.table
	}
	return a.key < b.key
}

// New returns an empty store.
func New(opts Options) *Store {
	if opts.HistoryAge == 0 {
		opts.HistoryAge = DefaultHistoryAge
	}
	if opts.HistoryBytes == 0 {
		opts.HistoryBytes = DefaultHistoryBytes
	}
	s := &Store{opts: opts}
	s.resetLocked()
	return s
}

func (s *Store) resetLocked() {
	s.rev, s.timeMillis = firstRevision, 0
	s.tables = map[string]*table{}
	s.history = history{}
	s.dedupe = newDedupe()
	s.expiring = btree.NewBTreeGOptions(lessExpiring, btree.Options{NoLocks: true})
}

func (s *Store) tableLocked(name string) *table {
	t := s.tables[name]
	if t == nil {
		t = newTable(name, s.history.compacted)
		s.tables[name] = t
	}
	return t
}

// apply applies one log entry. touched collects the tables that changed.
func (s *Store) applyLocked(index, term uint64, data []byte, touched map[*table]struct{}) (*Group, []Result, Claim, error) {
	if s.fault != nil {
		return nil, nil, nil, s.fault
	}
	s.index, s.term = index, term
	g, err := DecodeGroup(data)
	if err != nil {
		s.fault = fmt.Errorf("apply log entry %d: %w", index, err)
		return nil, nil, nil, s.fault
	}
	s.timeMillis = max(s.timeMillis, g.TimeUnixMilli)
	var claim Claim
	if s.opts.Claim != nil {
		claim = s.opts.Claim(g.Proposer, g.Number)
	}
	results := make([]Result, len(g.Commands))
	for i := range g.Commands {
		results[i] = s.commandLocked(term, i, &g.Commands[i], claim, touched)
	}
	s.history.trim(s.timeMillis-s.opts.HistoryAge.Milliseconds(), s.opts.HistoryBytes)
	return g, results, claim, nil
}

func (s *Store) commandLocked(term uint64, n int, c *Command, claim Claim, touched map[*table]struct{}) Result {
	if c.Term != 0 && c.Term != term {
		return Result{Code: CodeFenced, Revision: s.rev}
	}
	if c.Member == "" {
		return s.opsLocked(n, c, claim, touched)
	}
	if r, ok := s.dedupe.lookup(c.Member, c.Sequence); ok {
		return r
	}
	r := s.opsLocked(n, c, claim, touched)
	s.dedupe.remember(c.Member, c.Sequence, r)
	return r
}

func (s *Store) opsLocked(n int, c *Command, claim Claim, touched map[*table]struct{}) Result {
	for i := range c.Ops {
		op := &c.Ops[i]
		if op.Expect == ExpectAny {
			continue
		}
		cur := s.tableLocked(op.Table).get(op.Key)
		if op.Expect == ExpectAbsent && cur != nil || op.Expect > 0 && (cur == nil || cur.Revision != op.Expect) {
			return Result{Code: CodeConflict, Revision: s.rev, FailedOp: i, Current: cur}
		}
	}
	first := s.rev + 1
	for i := range c.Ops {
		s.writeLocked(n, i, &c.Ops[i], claim, touched)
	}
	return Result{Code: CodeCommitted, Revision: s.rev, FirstRevision: first}
}

func (s *Store) writeLocked(n, i int, op *Op, claim Claim, touched map[*table]struct{}) {
	if op.Kind == OpCheck {
		return
	}
	t := s.tableLocked(op.Table)
	prev := t.get(op.Key)
	if op.Kind == OpDelete && prev == nil {
		return
	}
	s.rev++
	ev := &Event{Revision: s.rev, Previous: prev, timeMillis: s.timeMillis, table: t}
	if op.Kind == OpPut {
		e := &Entry{Key: op.Key, Value: op.Value, CreateRevision: s.rev, Revision: s.rev, ExpiresUnixMilli: op.ExpiresUnixMilli}
		if prev != nil {
			e.CreateRevision, e.Key = prev.CreateRevision, prev.Key
		}
		if claim == nil || !claim.Attach(n, i, e) {
			e.Value = bytes.Clone(op.Value)
		}
		ev.Current = e
	}
	t.write(ev)
	s.history.add(ev)
	s.expiryLocked(t.name, ev)
	touched[t] = struct{}{}
}

func (s *Store) expiryLocked(table string, ev *Event) {
	if p := ev.Previous; p != nil && p.ExpiresUnixMilli != 0 {
		s.expiring.Delete(expiring{atMillis: p.ExpiresUnixMilli, table: table, key: p.Key})
	}
	if c := ev.Current; c != nil && c.ExpiresUnixMilli != 0 {
		s.expiring.Set(expiring{atMillis: c.ExpiresUnixMilli, table: table, key: c.Key, revision: c.Revision})
	}
}

func (s *Store) wakeLocked(touched map[*table]struct{}) {
	for t := range touched {
		t.wake()
	}
	if len(touched) > 0 && s.advanced != nil {
		close(s.advanced)
		s.advanced = nil
	}
}

// Revision returns the newest revision.
func (s *Store) Revision() int64 {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.rev
}

// Applied returns the newest applied log entry's index and term.
func (s *Store) Applied() (index, term uint64) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.index, s.term
}

// Fault returns why the store stopped applying, or nil.
func (s *Store) Fault() error {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.fault
}

// Advanced returns a channel that is closed when the revision next grows.
func (s *Store) Advanced() <-chan struct{} {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.advanced == nil {
		s.advanced = make(chan struct{})
	}
	return s.advanced
}

// WaitRevision returns once the store has reached rev.
func (s *Store) WaitRevision(ctx context.Context, rev int64) error {
	for {
		s.mu.Lock()
		if s.rev >= rev {
			s.mu.Unlock()
			return nil
		}
		if s.advanced == nil {
			s.advanced = make(chan struct{})
		}
		ch := s.advanced
		s.mu.Unlock()
		select {
		case <-ch:
		case <-ctx.Done():
			return fmt.Errorf("wait for revision %d: %w", rev, ctx.Err())
		}
	}
}

// Expired returns up to limit operations that delete what expired before nowMillis, and when the next key expires after
// these (0 when none does).
func (s *Store) Expired(nowMillis int64, limit int) (ops []Op, nextMillis int64) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	s.expiring.Scan(func(x expiring) bool {
		if x.atMillis > nowMillis || len(ops) == limit {
			nextMillis = x.atMillis
			return false
		}
		ops = append(ops, Op{Kind: OpDelete, Table: x.table, Key: x.key, Expect: x.revision})
		return true
	})
	return ops, nextMillis
}

// NextExpiry returns when the next key expires, in milliseconds since 1970; 0 when none does.
func (s *Store) NextExpiry() int64 {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if x, ok := s.expiring.Min(); ok {
		return x.atMillis
	}
	return 0
}

// TableStats returns how many keys a table has and how many bytes their values take.
func (s *Store) TableStats(table string) (keys int, valueBytes int64) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if t := s.tables[table]; t != nil {
		return t.tree.Len(), t.bytes
	}
	return 0, 0
}

// Tables returns the names of all tables, sorted.
func (s *Store) Tables() []string {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.tableNamesLocked()
}

func (s *Store) tableNamesLocked() []string {
	names := make([]string, 0, len(s.tables))
	for n := range s.tables {
		names = append(names, n)
	}
	slices.Sort(names)
	return names
}
