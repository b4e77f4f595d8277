package consensus

import (
	"errors"
	"testing"
)

// TestReadWaitsForTheBarrierOfItsTerm reads while raft leads but what was acknowledged before may not be applied yet.
func TestReadWaitsForTheBarrierOfItsTerm(t *testing.T) {
	r := open(t, testConfig(t.TempDir()))
	ready(t, r)
	term, _ := r.Leading()
	for _, before := range []uint64{0, term - 1} {
		r.lead.set(before)
		round := &verifyRound{}
		if r.verify(round); !errors.Is(round.err, ErrNotLeader) {
			t.Fatalf("a read before the barrier: %v", round.err)
		}
	}
	r.lead.set(term)
	round := &verifyRound{}
	if r.verify(round); round.err != nil || round.revision != r.Store().Revision() {
		t.Fatalf("a read after the barrier: %+v", round)
	}
}
