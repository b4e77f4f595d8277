// Package collector paces Go's garbage collector by the process's load: an agent that serves many requests collects less
// often, for a bounded price in memory, and an idle one stays as small as Go makes it.
//
// [Pace] owns the process's GOGC from its call until it is stopped; it decides after each collection, on the runtime's own
// goroutine, and costs nothing in between. To see what it does, watch /gc/gogc:percent in /metrics (go_gc_gogc_percent).
package collector

import (
	"os"
	"runtime"
	"runtime/debug"
	"runtime/metrics"
	"sync/atomic"
	"time"
)

const (
	// quietPercent is Go's own default.
	quietPercent = 100
	// busyPercent is the most garbage, as a part of what is alive, that a busy process keeps.
	busyPercent = 400
	// busyBytes bounds that garbage.
	busyBytes = 256 << 20
	// busyBytesPerSecond of allocation make a process busy: about 100 requests a second.
	busyBytesPerSecond = 8 << 20
)

// Pace starts to set GOGC by the load; stop ends that and sets back what was before. It does nothing in a process whose
// environment sets GOGC itself.
func Pace() (stop func()) {
	if os.Getenv("GOGC") != "" {
		return func() {}
	}
	p := &pacer{was: debug.SetGCPercent(quietPercent), percent: quietPercent, at: time.Now()}
	_, p.allocated = read()
	p.arm()
	return func() {
		if p.stopped.CompareAndSwap(false, true) {
			debug.SetGCPercent(p.was)
		}
	}
}

// percentFor is how much garbage to keep, as a part of what is alive, at a rate of allocation in bytes a second.
func percentFor(live, rate uint64) int {
	if rate < busyBytesPerSecond || live == 0 {
		return quietPercent
	}
	return max(quietPercent, min(busyPercent, int(busyBytes*100/live)))
}

// pacer's fields but for stopped belong to the runtime's goroutine of finalizers once it is armed.
type pacer struct {
	was       int
	percent   int
	at        time.Time
	allocated uint64
	stopped   atomic.Bool
}

// sentinel is garbage from the start: it is found to be at the next collection.
type sentinel struct{ p *pacer }

func (p *pacer) arm() {
	runtime.SetFinalizer(&sentinel{p}, func(s *sentinel) {
		if !s.p.stopped.Load() {
			s.p.collected(time.Now())
			s.p.arm()
		}
	})
}

func (p *pacer) collected(now time.Time) {
	live, allocated := read()
	seconds := max(now.Sub(p.at).Seconds(), time.Millisecond.Seconds())
	rate := uint64(float64(allocated-p.allocated) / seconds)
	p.at, p.allocated = now, allocated
	if percent := percentFor(live, rate); percent != p.percent && !p.stopped.Load() {
		debug.SetGCPercent(percent)
		p.percent = percent
	}
}

// read returns the bytes that the last collection found alive, and all that were ever allocated.
func read() (live, allocated uint64) {
	samples := []metrics.Sample{{Name: "/gc/heap/live:bytes"}, {Name: "/gc/heap/allocs:bytes"}}
	metrics.Read(samples)
	return samples[0].Value.Uint64(), samples[1].Value.Uint64()
}
