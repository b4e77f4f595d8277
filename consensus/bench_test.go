package consensus

import (
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hashicorp/raft"

	"github.com/podvine/podvine/consensus/store"
)

// slowDisk adds to each append what a disk without a write cache takes.
type slowDisk struct {
	diskLog
	delay time.Duration
	syncs *atomic.Int64
}

func (d *slowDisk) StoreLogs(logs []*raft.Log) error {
	d.syncs.Add(1)
	if d.delay > 0 {
		timer := time.NewTimer(d.delay)
		<-timer.C
	}
	return d.diskLog.StoreLogs(logs)
}

// BenchmarkPropose writes 1 KiB values from 1 and 32 clients, at this disk and with 5 ms added to each append.
func BenchmarkPropose(b *testing.B) {
	for _, delay := range []time.Duration{0, 5 * time.Millisecond} {
		for _, clients := range []int{1, 32} {
			b.Run(fmt.Sprintf("added=%v/clients=%d", delay, clients), func(b *testing.B) {
				var syncs atomic.Int64
				cfg := testConfig(b.TempDir())
				cfg.SegmentBytes = defaultSegmentBytes
				cfg.wrapDisk = func(l diskLog) diskLog { return &slowDisk{l, delay, &syncs} }
				benchPropose(b, open(b, cfg), clients, &syncs)
			})
		}
	}
}

func benchPropose(b *testing.B, r *Replica, clients int, syncs *atomic.Int64) {
	value := strings.Repeat("v", 1<<10)
	var next atomic.Int64
	var wg sync.WaitGroup
	syncs.Store(0)
	b.ReportAllocs()
	b.ResetTimer()
	for range clients {
		wg.Go(func() {
			for n := next.Add(1); n <= int64(b.N); n = next.Add(1) {
				key := fmt.Sprintf("/test/%08d", n%10000)
				if _, err := r.Propose(b.Context(), Proposal{Command: putCommand(key, value, store.ExpectAny)}); err != nil {
					b.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "op/s")
	b.ReportMetric(float64(b.N)/float64(max(syncs.Load(), 1)), "op/sync")
}

func BenchmarkReadRevision(b *testing.B) {
	r := open(b, testConfig(b.TempDir()))
	for b.Loop() {
		if _, err := r.ReadRevision(b.Context()); err != nil {
			b.Fatal(err)
		}
	}
}
