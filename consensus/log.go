package consensus

import (
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"
	wal "github.com/hashicorp/raft-wal"
	"github.com/hashicorp/raft-wal/fs"
	"github.com/hashicorp/raft-wal/segment"
	"github.com/hashicorp/raft-wal/types"
)

// diskLog is the replicated log and raft's stable values on this node's disk.
type diskLog interface {
	raft.LogStore
	raft.StableStore
	io.Closer
}

// walLog is raft-wal with the metadata file that it leaves open.
type walLog struct {
	*wal.WAL
	meta *metaStore
}

// Close closes both.
func (l *walLog) Close() error { return errors.Join(l.WAL.Close(), l.meta.Close()) }

// openLog opens the log in dir, dropping a torn tail: what was not synced was never acknowledged.
func openLog(dir string, segmentBytes int, logger hclog.Logger) (diskLog, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("create log directory: %w", err)
	}
	meta := &metaStore{}
	if err := repairSegments(dir, segmentBytes, meta); err != nil {
		return nil, errors.Join(fmt.Errorf("open log: %w", err), meta.Close())
	}
	w, err := wal.Open(dir, wal.WithMetaStore(meta), wal.WithSegmentSize(segmentBytes), wal.WithLogger(logger))
	if err != nil {
		return nil, errors.Join(fmt.Errorf("open log: %w", err), meta.Close())
	}
	return &walLog{w, meta}, nil
}

// repairSegments completes what raft-wal begins and does not finish when it is opened again.
//
// It seals a log file with its last append and lists the next one afterwards: a log found in between would take no more
// entries. And it lists a file as sealed when its end is truncated, but writes no index into it: its entries could not be
// found again.
func repairSegments(dir string, segmentBytes int, meta *metaStore) error {
	state, err := meta.Load(dir)
	if err != nil {
		return err
	}
	filer := segment.NewFiler(dir, fs.New())
	segments := append([]types.SegmentInfo{}, state.Segments...)
	changed := false
	for i := range segments {
		s := &segments[i]
		switch {
		case s.SealTime.IsZero():
			last, indexStart, err := sealedTail(filer, *s)
			if err != nil || indexStart == 0 {
				return errors.Join(err, commitIf(changed, meta, state.NextSegmentID, segments))
			}
			s.SealTime, s.MaxIndex, s.IndexStart = s.CreateTime, last, indexStart
			segments = append(segments, types.SegmentInfo{
				ID: state.NextSegmentID, BaseIndex: last + 1, MinIndex: last + 1,
				SizeLimit: uint32(segmentBytes), Codec: s.Codec, CreateTime: s.CreateTime,
			})
			return meta.CommitState(types.PersistentState{NextSegmentID: state.NextSegmentID + 1, Segments: segments})
		case s.IndexStart == 0:
			if s.IndexStart, err = indexSegment(filer, *s); err != nil {
				return err
			}
			changed = true
		}
	}
	return commitIf(changed, meta, state.NextSegmentID, segments)
}

func commitIf(changed bool, meta *metaStore, next uint64, segments []types.SegmentInfo) error {
	if !changed {
		return nil
	}
	return meta.CommitState(types.PersistentState{NextSegmentID: next, Segments: segments})
}

// sealedTail returns the last entry and the index of a tail that is sealed already; 0 for one that is not.
func sealedTail(filer *segment.Filer, tail types.SegmentInfo) (last, indexStart uint64, err error) {
	w, err := filer.RecoverTail(tail)
	if errors.Is(err, os.ErrNotExist) {
		return 0, 0, nil
	}
	if err != nil {
		return 0, 0, err
	}
	_, indexStart, err = w.Sealed()
	last = w.LastIndex()
	return last, indexStart, errors.Join(err, w.Close())
}

// indexSegment makes a file write its index: that comes with the entry that exceeds its size, which is set to nothing. The
// entry lies behind the segment's end and is never seen.
func indexSegment(filer *segment.Filer, s types.SegmentInfo) (indexStart uint64, err error) {
	s.SizeLimit = 1
	w, err := filer.RecoverTail(s)
	if err != nil {
		return 0, err
	}
	sealed, indexStart, err := w.Sealed()
	if err == nil && !sealed {
		if err = w.Append([]types.LogEntry{{Index: w.LastIndex() + 1, Data: []byte{0}}}); err == nil {
			_, indexStart, err = w.Sealed()
		}
	}
	if err = errors.Join(err, w.Close()); err == nil && indexStart == 0 {
		err = fmt.Errorf("log file %d got no index", s.ID)
	}
	return indexStart, err
}
