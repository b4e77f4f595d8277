package kubestore

import (
	"testing"

	"github.com/podvine/podvine/consensus/store"
)

// TestEventCacheStaysBounded keeps encodings by number and by size: those of the oldest events go.
func TestEventCacheStaysBounded(t *testing.T) {
	const largeBytes = 1 << 20
	for name, c := range map[string]struct{ valueBytes, events, keeps int }{
		"many small": {1, cachedEvents + 10, cachedEvents},
		"few large":  {largeBytes, 40, cachedEventBytes / (eventCopies*largeBytes + decodedOverheadBytes)},
		"one huge":   {cachedEventBytes, 3, 1},
	} {
		t.Run(name, func(t *testing.T) {
			value := make([]byte, c.valueBytes)
			cache := newEventCache(cachedEventBytes)
			events := make([]*store.Event, c.events)
			for i := range events {
				events[i] = &store.Event{Current: &store.Entry{Value: value}}
				a := &store.Attachment{}
				if cache.add(events[i], a) != a || cache.add(events[i], &store.Attachment{}) != a {
					t.Fatal("an event keeps what was attached first")
				}
			}
			for i, ev := range events {
				if kept, want := ev.Attachment() != nil, i >= c.events-c.keeps; kept != want {
					t.Fatalf("event %d of %d is kept: %t", i, c.events, kept)
				}
			}
		})
	}
}
