package consensus

import (
	"errors"
	"fmt"
)

var (
	// ErrUnknownOutcome says that a write may or may not happen: it was handed to the log, and the answer was lost with the
	// lead, the deadline or the process. Read before writing again.
	ErrUnknownOutcome = errors.New("outcome of the write is unknown")
	// ErrNotLeader says that this replica does not lead; nothing was written.
	ErrNotLeader = errors.New("this replica does not lead")
	// ErrBusy says that the queue of writes stayed full; nothing was written.
	ErrBusy = errors.New("too many writes are waiting")
	// ErrClosed says that the replica is closed; nothing was written.
	ErrClosed = errors.New("replica is closed")

	errForgotten   = errors.New("it was written too long ago to be remembered")
	errNobodyLeads = fmt.Errorf("%w: nobody took the lead within %v", ErrNotLeader, maxLeaderWait)
)

// ForeignDirError says that a data directory belongs to another node or cluster.
type ForeignDirError struct {
	Dir                   string
	FoundNode, WantNode   string
	FoundCluster, Cluster string
}

func (e *ForeignDirError) Error() string {
	if e.FoundCluster != e.Cluster {
		return fmt.Sprintf("data directory %s belongs to cluster %s, this is cluster %s: move it away or point to another",
			e.Dir, e.FoundCluster, e.Cluster)
	}
	return fmt.Sprintf("data directory %s belongs to node %s, this is node %s: move it away or point to another",
		e.Dir, e.FoundNode, e.WantNode)
}

// unknown wraps the reason for which an answer was lost.
func unknown(reason error) error { return fmt.Errorf("%w: %w", ErrUnknownOutcome, reason) }
