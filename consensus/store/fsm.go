package store

import (
	"errors"
	"io"

	"github.com/hashicorp/raft"
)

// FSM makes a [Store] raft's state machine. raft calls it from one goroutine.
type FSM struct {
	store *Store
}

var _ raft.BatchingFSM = (*FSM)(nil)

// NewFSM returns s for raft.
func NewFSM(s *Store) *FSM { return &FSM{store: s} }

// Apply applies one entry; the answer is a []Result, or an error when the entry cannot be read.
func (f *FSM) Apply(l *raft.Log) any { return f.ApplyBatch([]*raft.Log{l})[0] }

// ApplyBatch applies entries under one lock, so that readers and watchers see the batch at once.
func (f *FSM) ApplyBatch(logs []*raft.Log) []any {
	answers := make([]any, len(logs))
	claims := make([]Claim, len(logs))
	touched := map[*table]struct{}{}
	s := f.store
	s.mu.Lock()
	for i, l := range logs {
		if l.Type != raft.LogCommand {
			continue
		}
		_, results, claim, err := s.applyLocked(l.Index, l.Term, l.Data, touched)
		claims[i] = claim
		if err != nil {
			answers[i] = err
			continue
		}
		answers[i] = results
	}
	s.wakeLocked(touched)
	s.mu.Unlock()
	for i, c := range claims {
		if c != nil {
			c.Deliver(answers[i].([]Result))
		}
	}
	return answers
}

// Snapshot captures the state in constant time a table.
func (f *FSM) Snapshot() (raft.FSMSnapshot, error) {
	if err := f.store.Fault(); err != nil {
		return nil, err
	}
	return fsmSnapshot{f.store.capture()}, nil
}

// Restore replaces the state by a snapshot's. A snapshot that is damaged leaves the state as it was.
func (f *FSM) Restore(r io.ReadCloser) error {
	return errors.Join(f.store.Restore(r), r.Close())
}

type fsmSnapshot struct{ c *capture }

func (s fsmSnapshot) Persist(sink raft.SnapshotSink) error {
	if err := s.c.write(sink); err != nil {
		return errors.Join(err, sink.Cancel())
	}
	return sink.Close()
}

func (s fsmSnapshot) Release() {}
