package consensus

import (
	"testing"
	"time"
)

// TestLostQuorumIsLookedForWithoutReaders lets reads find that the quorum is lost, and then nobody reads any more: the replica must
// find by itself that the quorum is back, or it would answer with what it knew for ever.
func TestLostQuorumIsLookedForWithoutReaders(t *testing.T) {
	r := open(t, testConfig(t.TempDir()))
	ready(t, r)
	for range 3 {
		r.reach.lost(time.Now())
		deadline := time.After(10 * time.Second)
		for !r.Available() {
			select {
			case <-deadline:
				t.Fatal("the quorum answers, and the replica says that it is lost")
			case <-time.After(5 * time.Millisecond):
			}
		}
	}
}

// TestOldFailureDoesNotHideTheQuorum has a read that began before others succeeded fail after them.
func TestOldFailureDoesNotHideTheQuorum(t *testing.T) {
	q := reach{look: make(chan struct{}, 1)}
	began := time.Now()
	q.confirm()
	if q.lost(began); !q.since().IsZero() {
		t.Error("a read that is older than the last success says that the quorum is lost")
	}
	if q.lost(time.Now()); q.since().IsZero() {
		t.Error("a newer failure does not count")
	}
}
