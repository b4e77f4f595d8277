package quorum_test

import (
	"fmt"
	"testing"

	"github.com/podvine/podvine/consensus"
	"github.com/podvine/podvine/consensus/quorum"
)

func TestWantsReplica(t *testing.T) {
	for _, c := range []struct {
		nodes, replicas, setting int
		want                     bool
	}{
		{1, 1, 0, true}, {2, 2, 0, true}, {2, 1, 0, true}, // three nodes: three voters
		{4, 4, 0, true}, {5, 5, 0, true}, {6, 6, 0, true}, // up to five voters and two standbys
		{7, 7, 0, false}, {100, 7, 0, false}, {100, 6, 0, true},
		{3, 3, 1, false}, {2, 2, 1, true}, // one voter by setting, two standbys
	} {
		var view consensus.View
		for i := range c.replicas {
			view.Servers = append(view.Servers, consensus.Server{ID: fmt.Sprint(i)})
		}
		var members []quorum.Member
		for i := range c.nodes {
			members = append(members, quorum.Member{ID: fmt.Sprint(i), Alive: true})
		}
		members = append(members, quorum.Member{ID: "gone", Left: true})
		if got := quorum.WantsReplica(view, members, c.setting); got != c.want {
			t.Errorf("%d nodes with %d replicas, %d voters asked for: %v, want %v", c.nodes, c.replicas, c.setting, got, c.want)
		}
	}
}
