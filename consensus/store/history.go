package store

// history is the queue of all tables' events, oldest first, by which they are dropped. Guarded by Store.mu. It is not part
// of the replicated state: a replica that restored a snapshot knows less of the past.
type history struct {
	events []*Event
	head   int
	bytes  int64
	// compacted is the highest revision that was dropped.
	compacted int64
}

func (h *history) add(ev *Event) {
	h.events = append(h.events, ev)
	h.bytes += ev.sizeBytes()
}

// trim drops what is older than beforeMillis, and the oldest while there is more than maxBytes.
func (h *history) trim(beforeMillis, maxBytes int64) {
	for h.head < len(h.events) && (h.events[h.head].timeMillis < beforeMillis || h.bytes > maxBytes) {
		h.drop()
	}
	h.shrink()
}

// dropThrough drops all events up to and including rev.
func (h *history) dropThrough(rev int64) {
	for h.head < len(h.events) && h.events[h.head].Revision <= rev {
		h.drop()
	}
	h.compacted = max(h.compacted, rev)
	h.shrink()
}

func (h *history) drop() {
	ev := h.events[h.head]
	h.events[h.head] = nil
	h.head++
	h.bytes -= ev.sizeBytes()
	h.compacted = ev.Revision
	ev.table.forget(ev)
}

// shrink gives back the front of the slice once half of it is unused.
func (h *history) shrink() {
	if h.head > 1024 && h.head*2 > len(h.events) {
		h.events = append([]*Event(nil), h.events[h.head:]...)
		h.head = 0
	}
}
