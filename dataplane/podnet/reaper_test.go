package podnet

import (
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"testing"
)

// The agent's parts end side by side: a teardown may come while the network closes, or after.
func TestReaperCloses(t *testing.T) {
	r := newReaper(slog.New(slog.DiscardHandler))
	var worked atomic.Int64
	var group sync.WaitGroup
	for i := range 4 * removalsLimit {
		group.Go(func() {
			link := fmt.Sprint("link", i)
			r.remove(link, func() error { worked.Add(1); return nil })
			r.wait(link)
		})
	}
	r.close()
	group.Wait()
	done := worked.Load()
	r.remove("late", func() error { t.Error("worked after the end"); return nil })
	r.wait("late")
	if worked.Load() != done {
		t.Error("worked after the end")
	}
}
