package agent

import "testing"

// Of two sides at most one takes over the other's keys, and the leader's never does.
func TestOneSideOfGossipYields(t *testing.T) {
	var sides []gossipSide
	for _, alive := range []int{1, 2, 5} {
		sides = append(sides, gossipSide{false, false, alive}, gossipSide{true, false, alive}, gossipSide{true, true, alive})
	}
	for _, a := range sides {
		for _, b := range sides {
			if a.yieldsTo(b) && b.yieldsTo(a) {
				t.Errorf("%+v and %+v yield to each other", a, b)
			}
			if a.Leads && a.yieldsTo(b) {
				t.Errorf("%+v leads and yields to %+v", a, b)
			}
			if b.Leads && !a.Leads && !a.yieldsTo(b) {
				t.Errorf("%+v does not yield to the leader", a)
			}
		}
	}
}
