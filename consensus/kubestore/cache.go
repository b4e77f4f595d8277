package kubestore

import (
	"sync"

	"github.com/podvine/podvine/consensus/store"
)

const (
	// decodedOverheadBytes is what a decoded object is taken to cost beyond its stored size.
	decodedOverheadBytes = 512
	// cachedEvents and cachedEventBytes bound the events whose encodings are kept; slower watchers encode again.
	cachedEvents     = 4096
	cachedEventBytes = 64 << 20
	// eventCopies is how many times the stored size of its objects an event with its encodings is taken to cost.
	eventCopies = 4
	// secondChances bounds how many used entries one addition passes over.
	secondChances = 8
)

// entryCache bounds the decoded objects that hang on entries, by the stored size of the entries. Oldest first, those used
// since are passed over once.
type entryCache struct {
	limit int64

	mu    sync.Mutex
	queue []*store.Entry
	head  int
	bytes int64
}

func newEntryCache(limit int64) *entryCache { return &entryCache{limit: limit} }

func (c *entryCache) enabled() bool { return c.limit > 0 }

func entryCost(e *store.Entry) int64 { return int64(len(e.Value)+len(e.Key)) + decodedOverheadBytes }

// add attaches a to e and makes room.
func (c *entryCache) add(e *store.Entry, a *store.Attachment) {
	if !c.enabled() {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if e.Attachment() == nil {
		c.queue = append(c.queue, e)
		c.bytes += entryCost(e)
	}
	e.Attach(a)
	for passed := 0; c.bytes > c.limit && c.head < len(c.queue); {
		old := c.queue[c.head]
		c.queue[c.head] = nil
		c.head++
		had := old.Attachment()
		if had == nil {
			continue // dropped before
		}
		if passed < secondChances && had.Recent.Swap(false) {
			c.queue = append(c.queue, old)
			passed++
			continue
		}
		old.Attach(nil)
		c.bytes -= entryCost(old)
	}
	if c.head > 1024 && c.head*2 > len(c.queue) {
		c.queue = append([]*store.Entry(nil), c.queue[c.head:]...)
		c.head = 0
	}
}

// drop forgets an entry's decoded form. Its place in the queue stays.
func (c *entryCache) drop(e *store.Entry) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if e.Attachment() != nil {
		c.bytes -= entryCost(e)
		e.Attach(nil)
	}
}

// eventCache bounds the encodings that hang on events, by the events' number and size. Oldest first.
type eventCache struct {
	limit int64

	mu    sync.Mutex
	ring  [cachedEvents]*store.Event
	first int
	count int
	bytes int64
}

func newEventCache(limit int64) *eventCache { return &eventCache{limit: limit} }

func eventCost(ev *store.Event) int64 {
	n := int64(0)
	for _, e := range []*store.Entry{ev.Current, ev.Previous} {
		if e != nil {
			n += int64(len(e.Value))
		}
	}
	return n*eventCopies + decodedOverheadBytes
}

// add attaches a to ev unless another was first, and returns what is attached.
func (c *eventCache) add(ev *store.Event, a *store.Attachment) *store.Attachment {
	kept := ev.AttachOnce(a)
	if kept != a {
		return kept
	}
	cost := eventCost(ev)
	c.mu.Lock()
	defer c.mu.Unlock()
	for c.count > 0 && (c.count == cachedEvents || c.bytes+cost > c.limit) {
		old := c.ring[c.first]
		c.ring[c.first] = nil
		c.first = (c.first + 1) % cachedEvents
		c.count--
		c.bytes -= eventCost(old)
		old.Detach()
	}
	c.ring[(c.first+c.count)%cachedEvents] = ev
	c.count++
	c.bytes += cost
	return a
}

// broadcast wakes everybody who waits.
type broadcast struct {
	mu sync.Mutex
	ch chan struct{}
}

func newBroadcast() *broadcast { return &broadcast{ch: make(chan struct{})} }

func (b *broadcast) wait() <-chan struct{} {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.ch
}

func (b *broadcast) wake() {
	b.mu.Lock()
	defer b.mu.Unlock()
	close(b.ch)
	b.ch = make(chan struct{})
}
