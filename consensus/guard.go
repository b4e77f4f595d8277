package consensus

import (
	"errors"
	"fmt"
	"log/slog"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/raft"
	"golang.org/x/sys/unix"
)

const (
	guardFirstRetry = 50 * time.Millisecond
	guardLastRetry  = time.Second
	guardProbeEvery = 250 * time.Millisecond
	// guardGoodProbes is how many quick test writes in a row end a disk condition.
	guardGoodProbes = 2
)

var (
	errSlowDisk = errors.New("disk operation takes too long")
	errNoLog    = errors.New("log is not open")
	errStopping = errors.New("replica is closing")
)

// guard stands between raft and its disk. raft panics when a vote cannot be stored and stays a silent leader while an
// append hangs; the guard instead cuts the transport, so that others take the lead, and retries until the disk is back.
type guard struct {
	dir     string
	open    func() (diskLog, error)
	gate    *gate
	reserve *reserve
	slow    time.Duration
	now     func() time.Time
	log     *slog.Logger
	metrics *metrics
	// full is told when the disk is full: a snapshot may let go of log files.
	full func()
	// abdicate asks another voter to take the lead, before this node is cut off.
	abdicate func()

	mu  sync.RWMutex
	cur diskLog

	// failing counts the operations that are being retried or take too long.
	failing atomic.Int32
	// running is false during start-up, when an error is better returned than retried.
	running  atomic.Bool
	stopping chan struct{}
	stopOnce sync.Once

	condMu  sync.Mutex
	cond    *Condition
	healing sync.WaitGroup
}

var (
	_ raft.LogStore          = (*guard)(nil)
	_ raft.StableStore       = (*guard)(nil)
	_ raft.MonotonicLogStore = (*guard)(nil)
)

// IsMonotonic says that the log takes no gaps.
func (g *guard) IsMonotonic() bool { return true }

// do runs op, and again until it succeeds or the replica closes. An error for which final is true is the answer.
func (g *guard) do(what string, final func(error) bool, op func(l diskLog, again bool) error) error {
	done := g.watch(what)
	defer done()
	err := g.once(op, false)
	if err == nil || final(err) || !g.running.Load() {
		return err
	}
	g.failing.Add(1)
	defer g.failing.Add(-1)
	for wait := guardFirstRetry; ; wait = min(2*wait, guardLastRetry) {
		g.trip(what, err)
		if !g.sleep(wait) {
			return errors.Join(errStopping, err)
		}
		g.metrics.diskRetries.Inc()
		if err = g.reopen(); err == nil {
			err = g.once(op, true)
		}
		if err == nil || final(err) {
			return err
		}
	}
}

func (g *guard) once(op func(diskLog, bool) error, again bool) error {
	g.mu.RLock()
	defer g.mu.RUnlock()
	if g.cur == nil {
		return errNoLog
	}
	return op(g.cur, again)
}

// reopen closes the log and opens it again, which drops what a failed write left behind.
func (g *guard) reopen() error {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.cur != nil {
		if err := g.cur.Close(); err != nil {
			g.log.Debug("close log", "error", err)
		}
		g.cur = nil
	}
	cur, err := g.open()
	if err != nil {
		return err
	}
	g.cur = cur
	return nil
}

// watch trips the guard when the operation is not done in time.
func (g *guard) watch(what string) (done func()) {
	start := g.now()
	timer := time.AfterFunc(g.slow, func() {
		g.failing.Add(1)
		g.trip(what, fmt.Errorf("%w: over %v", errSlowDisk, g.slow))
	})
	return func() {
		g.metrics.diskSeconds.WithLabelValues(what).Observe(g.now().Sub(start).Seconds())
		if !timer.Stop() {
			g.failing.Add(-1)
		}
	}
}

func (g *guard) sleep(d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-g.stopping:
		return false
	}
}

// trip cuts the node off and starts to look for the disk's recovery.
func (g *guard) trip(what string, err error) {
	isFull := errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT)
	if isFull {
		g.reserve.release()
		g.full()
	}
	kind := ConditionDiskError
	switch {
	case isFull:
		kind = ConditionDiskFull
	case errors.Is(err, errSlowDisk):
		kind = ConditionDiskSlow
	}
	g.condMu.Lock()
	defer g.condMu.Unlock()
	if g.cond == nil && g.abdicate != nil {
		g.abdicate()
	}
	g.gate.cut()
	if g.cond == nil {
		g.healing.Add(1)
		go g.heal()
	} else if g.cond.Type == kind {
		return
	}
	since := g.now()
	if g.cond != nil {
		since = g.cond.Since
	}
	g.cond = &Condition{Type: kind, Message: fmt.Sprintf("%s in %s: %v", what, g.dir, err), Since: since}
	g.metrics.diskFault.Set(1)
	g.log.Warn("disk does not take the log; this node leaves the lead to others and retries", "what", what, "dir", g.dir, "error", err)
}

// heal ends the condition once nothing is failing and the disk takes test writes quickly.
func (g *guard) heal() {
	defer g.healing.Done()
	for good := 0; ; {
		if !g.sleep(guardProbeEvery) {
			return
		}
		if g.failing.Load() > 0 || !g.probe() {
			good = 0
			continue
		}
		if good++; good < guardGoodProbes {
			continue
		}
		g.reserve.fill()
		if g.recovered() {
			return
		}
		good = 0
	}
}

// recovered ends the condition unless an operation failed meanwhile. Whoever fails is counted before it trips the guard.
func (g *guard) recovered() bool {
	g.condMu.Lock()
	defer g.condMu.Unlock()
	if g.failing.Load() > 0 {
		return false
	}
	g.log.Warn("disk takes the log again", "dir", g.dir, "after", g.now().Sub(g.cond.Since))
	g.cond = nil
	g.gate.heal()
	g.metrics.diskFault.Set(0)
	return true
}

func (g *guard) probe() bool {
	start := g.now()
	err := writeFileSynced(g.dir+"/probe", make([]byte, 4096))
	return err == nil && g.now().Sub(start) < g.slow
}

// condition returns what is wrong with the disk, or nil.
func (g *guard) condition() *Condition {
	g.condMu.Lock()
	defer g.condMu.Unlock()
	return g.cond
}

// stop makes retries end. The transport must be closed before: raft may not act on what it could not store.
func (g *guard) stop() { g.stopOnce.Do(func() { close(g.stopping) }) }

// close closes the log.
func (g *guard) close() error {
	g.stop()
	g.healing.Wait()
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.cur == nil {
		return nil
	}
	err := g.cur.Close()
	g.cur = nil
	return err
}

// must ends the calling goroutine, which is raft's, when the replica closes before the disk is back: raft would take the
// error for a reason to panic.
func (g *guard) must(err error) error {
	if errors.Is(err, errStopping) {
		runtime.Goexit()
	}
	return err
}

func never(error) bool { return false }

func notFound(err error) bool { return errors.Is(err, raft.ErrLogNotFound) }

// FirstIndex implements raft.LogStore.
func (g *guard) FirstIndex() (index uint64, err error) {
	err = g.do("read log", never, func(l diskLog, _ bool) error {
		index, err = l.FirstIndex()
		return err
	})
	return index, err
}

// LastIndex implements raft.LogStore.
func (g *guard) LastIndex() (index uint64, err error) {
	err = g.do("read log", never, func(l diskLog, _ bool) error {
		index, err = l.LastIndex()
		return err
	})
	return index, err
}

// GetLog implements raft.LogStore.
func (g *guard) GetLog(index uint64, out *raft.Log) error {
	return g.must(g.do("read log", notFound, func(l diskLog, _ bool) error { return l.GetLog(index, out) }))
}

// StoreLog implements raft.LogStore.
func (g *guard) StoreLog(l *raft.Log) error { return g.StoreLogs([]*raft.Log{l}) }

// StoreLogs implements raft.LogStore.
func (g *guard) StoreLogs(logs []*raft.Log) error {
	return g.do("append", never, func(l diskLog, again bool) error {
		if again && len(logs) > 0 {
			if err := dropUnsynced(l, logs[0].Index); err != nil {
				return err
			}
		}
		return l.StoreLogs(logs)
	})
}

// dropUnsynced removes what a failed append may have left in the page cache: a failed sync says nothing about the disk.
func dropUnsynced(l diskLog, from uint64) error {
	last, err := l.LastIndex()
	if err != nil || last < from {
		return err
	}
	return l.DeleteRange(from, last)
}

// DeleteRange implements raft.LogStore.
func (g *guard) DeleteRange(lowest, highest uint64) error {
	return g.do("truncate", notFound, func(l diskLog, _ bool) error { return l.DeleteRange(lowest, highest) })
}

// Set implements raft.StableStore.
func (g *guard) Set(key, value []byte) error {
	return g.must(g.do("store vote", never, func(l diskLog, _ bool) error { return l.Set(key, value) }))
}

// Get implements raft.StableStore.
func (g *guard) Get(key []byte) (value []byte, err error) {
	err = g.do("read vote", never, func(l diskLog, _ bool) error {
		value, err = l.Get(key)
		return err
	})
	return value, g.must(err)
}

// SetUint64 implements raft.StableStore.
func (g *guard) SetUint64(key []byte, value uint64) error {
	return g.must(g.do("store term", never, func(l diskLog, _ bool) error { return l.SetUint64(key, value) }))
}

// GetUint64 implements raft.StableStore.
func (g *guard) GetUint64(key []byte) (value uint64, err error) {
	err = g.do("read term", never, func(l diskLog, _ bool) error {
		value, err = l.GetUint64(key)
		return err
	})
	return value, g.must(err)
}
