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

// openLog opens the log in dir, dropping a torn tail: what was not synced was never acknowledged.
func openLog(dir string, segmentBytes int, logger hclog.Logger) (diskLog, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("create log directory: %w", err)
	}
	meta := &metaStore{}
	if err := finishRotation(dir, segmentBytes, meta); err != nil {
		return nil, errors.Join(fmt.Errorf("open log: %w", err), meta.Close())
	}
	w, err := wal.Open(dir, wal.WithMetaStore(meta), wal.WithSegmentSize(segmentBytes), wal.WithLogger(logger))
	if err != nil {
		return nil, errors.Join(fmt.Errorf("open log: %w", err), meta.Close())
	}
	return w, nil
}

// finishRotation completes the change to a new log file that a crash or a full disk cut short. raft-wal seals a file with
// its last append and lists the next one afterwards; a log found in between would take no more entries.
func finishRotation(dir string, segmentBytes int, meta *metaStore) error {
	state, err := meta.Load(dir)
	if err != nil || len(state.Segments) == 0 {
		return err
	}
	tail := state.Segments[len(state.Segments)-1]
	if !tail.SealTime.IsZero() {
		return nil
	}
	w, err := segment.NewFiler(dir, fs.New()).RecoverTail(tail)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	sealed, indexStart, err := w.Sealed()
	last := w.LastIndex()
	if err = errors.Join(err, w.Close()); err != nil || !sealed {
		return err
	}
	tail.SealTime, tail.MaxIndex, tail.IndexStart = tail.CreateTime, last, indexStart
	next := types.SegmentInfo{
		ID: state.NextSegmentID, BaseIndex: last + 1, MinIndex: last + 1,
		SizeLimit: uint32(segmentBytes), Codec: tail.Codec, CreateTime: tail.CreateTime,
	}
	segments := append([]types.SegmentInfo{}, state.Segments[:len(state.Segments)-1]...)
	return meta.CommitState(types.PersistentState{NextSegmentID: state.NextSegmentID + 1, Segments: append(segments, tail, next)})
}
