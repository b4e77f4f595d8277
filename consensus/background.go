package consensus

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/raft"

	"github.com/podvine/podvine/consensus/store"
)

const (
	// expiryBatch bounds the deletions that one sweep, and so a second, writes.
	expiryBatch = 2048
	// expiryGranularity is how much later than asked a key may expire, so that expiries share log entries.
	expiryGranularity = time.Second
	expiryTimeout     = 30 * time.Second
)

// meteredFSM is the state machine with the replica's own bookkeeping around it.
type meteredFSM struct {
	*store.FSM
	r *Replica
}

// ApplyBatch implements raft.BatchingFSM.
func (f *meteredFSM) ApplyBatch(logs []*raft.Log) []any {
	start := time.Now()
	answers := f.FSM.ApplyBatch(logs)
	f.r.metrics.applySeconds.Observe(time.Since(start).Seconds())
	size := 0
	for _, l := range logs {
		size += len(l.Data)
	}
	f.r.compact.wrote(len(logs), size)
	f.r.expiry.wrote(f.r.store)
	return answers
}

// expiry deletes what has expired, on the leader, in batches.
type expiry struct {
	// armedMillis is when the next sweep is due; 0 when none is.
	armedMillis atomic.Int64
	kick        chan struct{}
}

// wrote wakes the sweep when a key expires before the next one.
func (x *expiry) wrote(s *store.Store) {
	next := s.NextExpiry()
	armed := x.armedMillis.Load()
	if next != 0 && (armed == 0 || next < armed) {
		select {
		case x.kick <- struct{}{}:
		default:
		}
	}
}

func (r *Replica) runExpiry() {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		changed := r.LeadershipChanged()
		select {
		case <-timer.C:
		case <-r.expiry.kick:
		case <-changed:
		case <-r.closing:
			return
		}
		term, leads := r.Leading()
		if !leads {
			r.expiry.armedMillis.Store(0)
			continue
		}
		next := r.sweep(term)
		r.expiry.armedMillis.Store(next)
		r.expiry.wrote(r.store) // a key written during the sweep was compared with the sweep before
		if next != 0 {
			wait := time.UnixMilli(next).Add(expiryGranularity).Sub(r.cfg.Now())
			timer.Reset(max(wait, expiryGranularity))
		}
	}
}

// sweep deletes what has expired and returns when to look again, in milliseconds; 0 is never. After deletions that is at
// once: there may be more, and some may have failed.
func (r *Replica) sweep(term uint64) int64 {
	ops, next := r.store.Expired(r.cfg.Now().UnixMilli(), expiryBatch)
	if len(ops) == 0 {
		return next
	}
	ctx, cancel := context.WithTimeout(context.Background(), expiryTimeout)
	defer cancel()
	var wg sync.WaitGroup
	for _, op := range ops {
		wg.Go(func() {
			_, err := r.Propose(ctx, Proposal{Command: store.Command{Term: term, Ops: []store.Op{op}}})
			if err != nil {
				r.log.Debug("expire key", "table", op.Table, "key", op.Key, "error", err)
			}
		})
	}
	wg.Wait()
	return 1
}

// compaction decides when to take a snapshot.
type compaction struct {
	after   int64
	entries atomic.Int64
	bytes   atomic.Int64
	kick    chan struct{}
}

func (c *compaction) wrote(entries, bytes int) {
	if c.entries.Add(int64(entries)) >= c.after || c.bytes.Add(int64(bytes)) >= snapshotAfterBytes {
		c.soon()
	}
}

func (c *compaction) soon() {
	select {
	case c.kick <- struct{}{}:
	default:
	}
}

func (r *Replica) runCompaction() {
	for {
		select {
		case <-r.compact.kick:
		case <-r.closing:
			return
		}
		if err := r.snapshot(); err != nil {
			r.metrics.snapshots.WithLabelValues("failed").Inc()
			r.log.Debug("take snapshot", "error", err)
			continue
		}
		r.metrics.snapshots.WithLabelValues("taken").Inc()
	}
}

// snapshot writes the state beside the log and drops the entries that it covers, but for a tail for followers that lag.
func (r *Replica) snapshot() error {
	entries, bytes := r.compact.entries.Swap(0), r.compact.bytes.Swap(0)
	rc := r.raft.ReloadableConfig()
	rc.TrailingLogs = trailingFor(entries, bytes)
	if r.soleVoter.Load() {
		rc.TrailingLogs = trailingEntriesMin
	}
	if err := r.raft.ReloadConfig(rc); err != nil {
		return err
	}
	err := r.await(r.raft.Snapshot())
	if errors.Is(err, raft.ErrNothingNewToSnapshot) {
		return nil
	}
	return err
}

// trailingFor returns how many entries of the present average size make up the tail that is kept.
func trailingFor(entries, bytes int64) uint64 {
	if entries == 0 || bytes == 0 {
		return trailingEntriesMin
	}
	return uint64(min(max(trailingBytes/max(bytes/entries, 1), trailingEntriesMin), trailingEntriesMax))
}

// checkSnapshots refuses a directory whose newest snapshot is damaged, unless an older one and the log make up for it.
func checkSnapshots(snaps raft.SnapshotStore, logs raft.LogStore, log *slog.Logger) error {
	list, err := snaps.List()
	if err != nil {
		return fmt.Errorf("list snapshots: %w", err)
	}
	first, err := logs.FirstIndex()
	if err != nil {
		return fmt.Errorf("read log: %w", err)
	}
	var damage error
	for _, s := range list {
		_, body, err := snaps.Open(s.ID)
		if err != nil {
			damage = errors.Join(damage, fmt.Errorf("snapshot %s is corrupt: %w", s.ID, err))
			continue
		}
		if err := body.Close(); err != nil {
			return fmt.Errorf("read snapshot: %w", err)
		}
		if first == 0 && damage == nil || first != 0 && first <= s.Index+1 {
			if damage != nil {
				log.Warn("using an older snapshot", "id", s.ID, "error", damage)
			}
			return nil
		}
		damage = errors.Join(damage, fmt.Errorf("the log begins at entry %d, after snapshot %s", first, s.ID))
	}
	if damage == nil && first > 1 {
		damage = fmt.Errorf("the log begins at entry %d and there is no snapshot", first)
	}
	if damage != nil {
		return fmt.Errorf("open snapshots: %w: restore this replica from a backup", damage)
	}
	return nil
}
