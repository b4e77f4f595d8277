package quorum

import (
	"strings"
	"testing"
	"time"

	"github.com/podvine/podvine/consensus"
)

func TestMayLeave(t *testing.T) {
	now := time.Unix(1000, 0)
	voter := func(id string, silence time.Duration) consensus.Server {
		return consensus.Server{ID: id, Voter: true, Match: 9, Silence: silence}
	}
	standby := func(id string, match uint64) consensus.Server { return consensus.Server{ID: id, Match: match} }
	for _, test := range []struct {
		name    string
		servers []consensus.Server
		leader  string
		nodes   string // letters; capitals live
		node    string
		why     string
	}{
		{name: "one of three voters", servers: []consensus.Server{voter("a", 0), voter("b", 0), voter("c", 0)}, nodes: "ABC", node: "b"},
		{name: "the leader", servers: []consensus.Server{voter("a", 0), voter("b", 0), voter("c", 0)}, nodes: "ABC", node: "a"},
		{name: "an edge", servers: []consensus.Server{voter("a", 0)}, nodes: "AB", node: "b"},
		{name: "the standby of two", servers: []consensus.Server{voter("a", 0), standby("b", 9)}, nodes: "AB", node: "b"},
		{name: "the voter of two", servers: []consensus.Server{voter("a", 0), standby("b", 9)}, nodes: "AB", node: "a"},
		{name: "the voter of two, whose standby is empty", servers: []consensus.Server{voter("a", 0), standby("b", 0)}, nodes: "AB", node: "a", why: "no other machine has all records yet"},
		{name: "the voter before an edge", servers: []consensus.Server{voter("a", 0)}, nodes: "AB", node: "a", why: "no other machine has all records yet"},
		{name: "the only one", servers: []consensus.Server{voter("a", 0)}, nodes: "A", node: "a", why: "no other machine of the cluster is there"},
		{name: "all others are dead", servers: []consensus.Server{voter("a", 0), standby("b", 9)}, nodes: "Ab", node: "a", why: "no other machine of the cluster is there"},
		{name: "of the others one is dead", servers: []consensus.Server{voter("a", 0), voter("b", 0), voter("c", time.Minute)}, nodes: "ABc", node: "b", why: "of the 2 other voters C do not answer"},
		{name: "the dead one", servers: []consensus.Server{voter("a", 0), voter("b", 0), voter("c", time.Minute)}, nodes: "ABc", node: "c"},
		{name: "a standby takes the dead one's place", servers: []consensus.Server{voter("a", 0), voter("b", 0), voter("c", time.Minute), standby("d", 9)}, nodes: "ABcD", node: "b"},
		{name: "nobody leads", servers: []consensus.Server{voter("a", 0), voter("b", 0)}, leader: "-", nodes: "AB", node: "b", why: "the quorum is lost"},
	} {
		t.Run(test.name, func(t *testing.T) {
			view := consensus.View{Node: "a", Leader: "a", LastIndex: 9, Servers: test.servers}
			if test.leader != "" {
				view.Leader = ""
			}
			var members []Member
			for _, letter := range test.nodes {
				id := strings.ToLower(string(letter))
				members = append(members, Member{ID: id, Name: strings.ToUpper(id), Alive: id != string(letter)})
			}
			err := MayLeave(view, members, now, test.node)
			if (err == nil) != (test.why == "") || err != nil && !strings.Contains(err.Error(), test.why) {
				t.Errorf("%v; want %q", err, test.why)
			}
		})
	}
}
