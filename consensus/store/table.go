package store

import (
	"cmp"
	"slices"
	"sort"
	"sync/atomic"

	"github.com/tidwall/btree"
)

// Attachment is what a reader keeps beside an entry or an event: a decoded form, say. The store never looks inside, never
// copies it to a snapshot and drops it with its entry.
type Attachment struct {
	// Object is the decoded form, shared and read-only.
	Object any
	// Plain is the value before encryption, where it differs from the stored one.
	Plain []byte
	// Owner tells readers of different codecs apart.
	Owner any
	// Stale is set when the value was encrypted with a key that is no longer the first.
	Stale bool
	// Recent is set by use, for the cache's eviction.
	Recent atomic.Bool
	// Encoding is what the owner found out about the value's encoded form; 0 is nothing yet.
	Encoding atomic.Uint32
}

// Entry is one version of one key. It does not change once it is visible.
type Entry struct {
	Key            string
	Value          []byte
	CreateRevision int64
	Revision       int64
	// ExpiresUnixMilli is 0 when the key does not expire.
	ExpiresUnixMilli int64

	aux atomic.Pointer[Attachment]
}

// Attachment returns what was last attached, or nil.
func (e *Entry) Attachment() *Attachment { return e.aux.Load() }

// Attach keeps a beside the entry; nil drops what was there.
func (e *Entry) Attach(a *Attachment) { e.aux.Store(a) }

// Event is one write. Current is nil for a deletion, Previous for a creation.
type Event struct {
	Revision int64
	Current  *Entry
	Previous *Entry

	timeMillis int64
	table      *table
	aux        atomic.Pointer[Attachment]
}

// Key returns the key that was written.
func (e *Event) Key() string {
	if e.Current != nil {
		return e.Current.Key
	}
	return e.Previous.Key
}

// Attachment returns what was last attached, or nil.
func (e *Event) Attachment() *Attachment { return e.aux.Load() }

// AttachOnce keeps a beside the event unless another was first, and returns the one that is kept.
func (e *Event) AttachOnce(a *Attachment) *Attachment {
	if e.aux.CompareAndSwap(nil, a) {
		return a
	}
	if kept := e.aux.Load(); kept != nil {
		return kept
	}
	return a
}

// Detach drops the attachment.
func (e *Event) Detach() { e.aux.Store(nil) }

const eventOverheadBytes = 160

func (e *Event) sizeBytes() int64 {
	n := eventOverheadBytes + len(e.Key())
	if e.Previous != nil {
		n += len(e.Previous.Value)
	}
	return int64(n)
}

// View is a table as it was at one revision.
type View struct {
	// Revision is the store's revision that the view shows.
	Revision int64
	tree     *btree.BTreeG[*Entry]
}

// Len returns how many keys the view holds.
func (v View) Len() int {
	if v.tree == nil {
		return 0
	}
	return v.tree.Len()
}

// Get returns the entry of key, or nil.
func (v View) Get(key string) *Entry {
	if v.tree == nil {
		return nil
	}
	e, _ := v.tree.Get(&Entry{Key: key})
	return e
}

// Count returns how many entries have keys from from on and below to, without looking at most of them.
func (v View) Count(from, to string) int { return max(0, v.below(to)-v.below(from)) }

// below returns how many entries have smaller keys.
func (v View) below(key string) int {
	return sort.Search(v.Len(), func(i int) bool {
		e, _ := v.tree.GetAt(i)
		return e.Key >= key
	})
}

// Ascend calls visit for every entry from key on, in order, until visit returns false.
func (v View) Ascend(key string, visit func(*Entry) bool) {
	if v.tree != nil {
		v.tree.Ascend(&Entry{Key: key}, visit)
	}
}

// keptViewsPerTable bounds how many old versions a table keeps whole, so that pages of one list need not be rebuilt.
const keptViewsPerTable = 8

// table holds one resource. All fields are guarded by Store.mu.
type table struct {
	name  string
	tree  *btree.BTreeG[*Entry]
	bytes int64
	// last is the revision of the newest write.
	last int64
	// events has the writes after floor, oldest first.
	events []*Event
	floor  int64
	// fresh is a copy of tree that later writes do not touch; nil after a write.
	fresh *btree.BTreeG[*Entry]
	kept  []View
	// notify is closed by the next write; nil when nobody waits.
	notify chan struct{}
}

func newTree() *btree.BTreeG[*Entry] {
	return btree.NewBTreeGOptions(func(a, b *Entry) bool { return a.Key < b.Key }, btree.Options{NoLocks: true})
}

func newTable(name string, floor int64) *table {
	return &table{name: name, tree: newTree(), floor: floor}
}

func (t *table) get(key string) *Entry {
	e, _ := t.tree.Get(&Entry{Key: key})
	return e
}

// write replaces what is at ev's key and records ev.
func (t *table) write(ev *Event) {
	if ev.Current != nil {
		t.tree.Set(ev.Current)
		t.bytes += int64(len(ev.Current.Value))
	} else {
		t.tree.Delete(ev.Previous)
	}
	if ev.Previous != nil {
		t.bytes -= int64(len(ev.Previous.Value))
	}
	t.last = ev.Revision
	t.fresh = nil
	t.events = append(t.events, ev)
}

// wake tells the waiters that the table changed.
func (t *table) wake() {
	if t.notify != nil {
		close(t.notify)
		t.notify = nil
	}
}

// forget drops the oldest event, which must be ev.
func (t *table) forget(ev *Event) {
	t.events[0] = nil
	t.events = t.events[1:]
	t.floor = ev.Revision
	for len(t.kept) > 0 && t.kept[0].Revision < t.floor {
		t.kept = slices.Delete(t.kept, 0, 1)
	}
}

// after returns up to limit of the events with a revision above rev, in a slice of the caller's own.
func (t *table) after(rev int64, limit int) []*Event {
	i, found := slices.BinarySearchFunc(t.events, rev, func(e *Event, r int64) int { return cmp.Compare(e.Revision, r) })
	if found {
		i++
	}
	return slices.Clone(t.events[i:min(len(t.events), i+limit)])
}

// keep remembers v for later pages, ordered by revision.
func (t *table) keep(v View) {
	i, found := slices.BinarySearchFunc(t.kept, v.Revision, func(k View, r int64) int { return cmp.Compare(k.Revision, r) })
	if found {
		return
	}
	t.kept = slices.Insert(t.kept, i, v)
	if len(t.kept) > keptViewsPerTable {
		t.kept = slices.Delete(t.kept, 0, 1)
	}
}
