package quorum

import (
	"testing"
	"time"

	"github.com/podvine/podvine/consensus"
)

// A voter whose machine was installed anew is no member any more, and never comes back: it goes although an even number is left,
// and does not count as a node.
func TestForgottenVoterGoes(t *testing.T) {
	now := time.Unix(1000, 0)
	for _, test := range []struct {
		name    string
		silence time.Duration
		member  bool
		want    Action
	}{
		{name: "forgotten", silence: muteAfter, want: ActionRemove},
		{name: "not met yet", silence: deadAfter},
		{name: "dead, and may come back", silence: time.Hour, member: true},
	} {
		t.Run(test.name, func(t *testing.T) {
			view := View{Now: now, Self: "a", Since: now.Add(-time.Hour), LastIndex: 9, Tracks: map[string]Track{}, Voters: 5}
			for _, id := range []string{"a", "b", "c", "d", "gone"} {
				server := consensus.Server{ID: id, Voter: true, Match: 9}
				alive := id != "gone"
				if !alive {
					server.Silence = test.silence
				}
				view.Servers = append(view.Servers, server)
				if alive || test.member {
					view.Members = append(view.Members, Member{ID: id, Alive: alive, Since: view.Since, Role: consensus.RoleVoter})
				}
			}
			if step := Decide(view); step.Action != test.want || test.want != ActionNone && step.Node != "gone" {
				t.Errorf("the step is %+v", step)
			}
		})
	}
}
