package store

import (
	"cmp"
	"slices"
)

// Get returns the entry of key, nil when there is none, and the store's revision at that moment.
func (s *Store) Get(table, key string) (*Entry, int64) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if t := s.tables[table]; t != nil {
		return t.get(key), s.rev
	}
	return nil, s.rev
}

// View returns the table as it is. It costs the same whatever the table's size. keep remembers the view, so that
// [Store.ViewAt] finds it again without rebuilding it.
func (s *Store) View(table string, keep bool) View {
	s.mu.RLock()
	t := s.tables[table]
	if t == nil || t.fresh != nil && !keep {
		v := View{Revision: s.rev}
		if t != nil {
			v.tree = t.fresh
		}
		s.mu.RUnlock()
		return v
	}
	s.mu.RUnlock()
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.viewLocked(t, keep)
}

func (s *Store) viewLocked(t *table, keep bool) View {
	if t.fresh == nil {
		t.fresh = t.tree.Copy()
	}
	v := View{Revision: s.rev, tree: t.fresh}
	if keep {
		t.keep(v)
	}
	return v
}

// ViewAt returns the table as it was at rev, or [ErrCompacted], or [ErrFuture].
func (s *Store) ViewAt(table string, rev int64) (View, error) {
	base, undo, err := s.viewBase(table, rev)
	if err != nil || len(undo) == 0 {
		return base, err
	}
	for _, ev := range slices.Backward(undo) {
		if ev.Previous != nil {
			base.tree.Set(ev.Previous)
		} else {
			base.tree.Delete(ev.Current)
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if t := s.tables[table]; t != nil && rev >= t.floor {
		t.keep(base)
	}
	return base, nil
}

// viewBase returns the nearest version at or after rev that is at hand, private to the caller when there are events to undo.
func (s *Store) viewBase(table string, rev int64) (View, []*Event, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if rev > s.rev {
		return View{}, nil, ErrFuture
	}
	t := s.tables[table]
	if t == nil {
		if rev < s.history.compacted {
			return View{}, nil, ErrCompacted
		}
		return View{Revision: rev}, nil, nil
	}
	if rev < t.floor {
		return View{}, nil, ErrCompacted
	}
	base := View{Revision: s.rev, tree: t.tree}
	if rev >= t.last {
		v := s.viewLocked(t, false)
		v.Revision = rev
		return v, nil, nil
	}
	i, found := slices.BinarySearchFunc(t.kept, rev, func(k View, r int64) int { return cmp.Compare(k.Revision, r) })
	if found {
		return t.kept[i], nil, nil
	}
	if i < len(t.kept) {
		base = t.kept[i]
	}
	undo := t.after(rev, len(t.events))
	for len(undo) > 0 && undo[len(undo)-1].Revision > base.Revision {
		undo = undo[:len(undo)-1]
	}
	return View{Revision: rev, tree: base.tree.Copy()}, undo, nil
}

// maxEventsAtOnce bounds what one call of [Store.Changes] copies.
const maxEventsAtOnce = 256

// Changes is what happened to a table after a revision.
type Changes struct {
	// Events are the oldest ones; ask again after the last.
	Events []*Event
	// Revision is the store's. When there are no events, nothing happened to the table up to it.
	Revision int64
	// Changed is closed by the table's next write. It is set only when there are no events.
	Changed <-chan struct{}
}

// Changes returns the table's events after rev, or [ErrCompacted].
func (s *Store) Changes(table string, rev int64) (Changes, error) {
	s.mu.RLock()
	t := s.tables[table]
	if t != nil && (rev < t.last || t.notify != nil) {
		defer s.mu.RUnlock()
		return s.changesLocked(t, rev)
	}
	s.mu.RUnlock()
	s.mu.Lock()
	defer s.mu.Unlock()
	if t = s.tables[table]; t == nil {
		t = s.tableLocked(table)
	}
	if t.notify == nil && rev >= t.last {
		t.notify = make(chan struct{})
	}
	return s.changesLocked(t, rev)
}

func (s *Store) changesLocked(t *table, rev int64) (Changes, error) {
	if rev < t.floor {
		return Changes{}, ErrCompacted
	}
	c := Changes{Revision: s.rev, Events: t.after(rev, maxEventsAtOnce)}
	if len(c.Events) == 0 {
		c.Changed = t.notify
	}
	return c, nil
}

// CompactedRevision returns the newest revision that history was dropped up to; 0 when none was. A table that nothing was
// dropped from can still be read below it.
func (s *Store) CompactedRevision() int64 {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.history.compacted
}

// Compact drops the history up to and including rev in every table of this replica.
func (s *Store) Compact(rev int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.history.dropThrough(min(rev, s.rev))
	for _, t := range s.tables {
		t.floor = max(t.floor, s.history.compacted)
		t.kept = nil
	}
}

// HistoryBytes returns what the history holds beyond the present state.
func (s *Store) HistoryBytes() int64 {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.history.bytes
}
