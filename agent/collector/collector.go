// Package collector paces Go's garbage collector by the process's load: an agent that serves many requests collects less
// often, for a bounded price in memory, and one that has become idle gives back what it needed before.
//
// [Pace] owns the process's GOGC from its call until it is stopped; it decides after each collection, on the runtime's own
// goroutine, and looks every [lookInterval] whether the load has gone, because an idle process does not collect for minutes and the
// runtime returns memory to the kernel slowly. To see what it does, watch /gc/gogc:percent in /metrics (go_gc_gogc_percent).
package collector

import (
	"os"
	"runtime"
	"runtime/debug"
	"runtime/metrics"
	"sync"
	"sync/atomic"
	"time"
)

const (
	// quietPercent is Go's own default, idlePercent what a process keeps that allocates next to nothing.
	quietPercent = 100
	idlePercent  = 50
	// busyPercent is the most garbage, as a part of what is alive, that a busy process keeps.
	busyPercent = 400
	// busyBytes bounds that garbage.
	busyBytes = 256 << 20
	// busyBytesPerSecond of allocation make a process busy: about 100 requests a second.
	busyBytesPerSecond = 8 << 20
	// idleBytesPerSecond of allocation, or less, in idleLooks looks one after the other, make it idle.
	idleBytesPerSecond = 1 << 20
	lookInterval       = 5 * time.Second
	idleLooks          = 3
	// worthFreeing is how much of its heap a process must hold free before that is given back. It costs a collection.
	worthFreeing = 24 << 20
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
	end := make(chan struct{})
	go p.watch(end)
	return func() {
		if p.stopped.CompareAndSwap(false, true) {
			close(end)
			p.mu.Lock()
			defer p.mu.Unlock()
			debug.SetGCPercent(p.was)
		}
	}
}

// percentFor is how much garbage to keep, as a part of what is alive, at a rate of allocation in bytes a second.
func percentFor(live, rate uint64) int {
	switch {
	case rate <= idleBytesPerSecond:
		return idlePercent
	case rate < busyBytesPerSecond || live == 0:
		return quietPercent
	}
	return max(quietPercent, min(busyPercent, int(busyBytes*100/live)))
}

type pacer struct {
	was     int
	stopped atomic.Bool

	mu        sync.Mutex // the runtime's goroutine of finalizers and watch meet
	percent   int
	at        time.Time
	allocated uint64
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
	p.mu.Lock()
	defer p.mu.Unlock()
	live, allocated := read()
	seconds := max(now.Sub(p.at).Seconds(), time.Millisecond.Seconds())
	rate := uint64(float64(allocated-p.allocated) / seconds)
	p.at, p.allocated = now, allocated
	p.setLocked(percentFor(live, rate))
}

func (p *pacer) setLocked(percent int) {
	if percent != p.percent && !p.stopped.Load() {
		debug.SetGCPercent(percent)
		p.percent = percent
	}
}

// watch gives memory back when the load has gone, until end is closed.
func (p *pacer) watch(end <-chan struct{}) {
	tick := time.NewTicker(lookInterval)
	defer tick.Stop()
	var idle idleness
	_, idle.allocated = read()
	for {
		select {
		case <-end:
			return
		case <-tick.C:
		}
		_, allocated := read()
		if idle.look(allocated, free()) {
			p.mu.Lock()
			p.setLocked(idlePercent)
			p.mu.Unlock()
			// Twice: pools keep what they hold over one collection.
			debug.FreeOSMemory()
			debug.FreeOSMemory()
		}
	}
}

// idleness finds out when a process has become idle. The zero value has not looked yet.
type idleness struct {
	allocated uint64
	looks     int
}

// look takes the bytes that were ever allocated and those that the heap holds free, and tells whether these are to be given back now:
// once, when it has become idle.
func (i *idleness) look(allocated, free uint64) bool {
	grown := allocated - i.allocated
	i.allocated = allocated
	if grown > uint64(idleBytesPerSecond*lookInterval.Seconds()) {
		i.looks = 0
		return false
	}
	i.looks++
	return i.looks == idleLooks && free >= worthFreeing
}

// read returns the bytes that the last collection found alive, and all that were ever allocated.
func read() (live, allocated uint64) {
	samples := []metrics.Sample{{Name: "/gc/heap/live:bytes"}, {Name: "/gc/heap/allocs:bytes"}}
	metrics.Read(samples)
	return samples[0].Value.Uint64(), samples[1].Value.Uint64()
}

// free returns the bytes that the heap has from the kernel and nothing is in, and what the next collection would find dead at least.
func free() uint64 {
	samples := []metrics.Sample{{Name: "/memory/classes/heap/free:bytes"}, {Name: "/memory/classes/heap/objects:bytes"}, {Name: "/gc/heap/live:bytes"}}
	metrics.Read(samples)
	unused, objects, live := samples[0].Value.Uint64(), samples[1].Value.Uint64(), samples[2].Value.Uint64()
	return unused + max(objects, live) - live
}
