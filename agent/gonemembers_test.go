package agent

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/podvine/podvine/gossip"
)

func TestGoneMembers(t *testing.T) {
	now := time.Unix(1000, 0)
	long, short := now.Add(-goneAfter), now.Add(-goneAfter+time.Millisecond)
	members := map[string]gossip.Member{
		"gone":             {State: gossip.StateDead, Since: long},
		"dead a moment":    {State: gossip.StateDead, Since: short},
		"dead, has a name": {State: gossip.StateDead, Since: long},
		"joins":            {State: gossip.StateAlive, Since: long},
		"leaves":           {State: gossip.StateLeaving, Since: long},
		"left":             {State: gossip.StateLeft, Since: now},
		"left, has a name": {State: gossip.StateLeft, Since: long},
	}
	named := func(id string) bool { return strings.HasSuffix(id, "has a name") }
	if gone := slices.Sorted(slices.Values(goneMembers(members, named, now))); !slices.Equal(gone, []string{"gone", "left"}) {
		t.Errorf("forgotten are %v, want who is gone and who has left", gone)
	}
}
