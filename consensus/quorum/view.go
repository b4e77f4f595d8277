package quorum

import (
	"time"

	"github.com/podvine/podvine/consensus"
)

const (
	// contactFresh is how lately a replica must have answered the leader to count for a majority.
	contactFresh = time.Second
	// deadAfter is how long a voter must be believed dead, and say nothing to the leader, before it is replaced; muteAfter is
	// for one that is believed alive and says nothing, as one with a broken disk.
	deadAfter = 2 * time.Second
	muteAfter = 15 * time.Second
	// standbyDeadAfter is how long a dead standby keeps its place while another node could have it.
	standbyDeadAfter = 10 * time.Second
	// stableAfter is how long a node must live before it votes; each death in flapWindow doubles it, maxFlaps times.
	stableAfter = 3 * time.Second
	flapWindow  = 10 * time.Minute
	maxFlaps    = 6
	// maxLagEntries is how far a standby may be behind and still become a voter.
	maxLagEntries = 512
	// assignAgainAfter is the pause before a node is told the same again, or asked again after it failed.
	assignAgainAfter = 10 * time.Second
	// wantStandbys is how many replicas without a vote there are where nodes are left.
	wantStandbys = 2
	// maxTracks bounds what is remembered of nodes.
	maxTracks = 10000
)

// Member is a node as the member list knows it.
type Member struct {
	ID, Name string
	Alive    bool
	// Since is when Alive last changed.
	Since time.Time
	Zone  string
	// Role is what the node says that it is.
	Role consensus.Role
	// Leaving is set when the node wants out: it lives until its replica is not needed. Left is set when it is gone for
	// good.
	Leaving, Left bool
	Version       string
}

// Track is what is remembered of a node while this replica leads.
type Track struct {
	Alive bool
	// Deaths are when the node was seen to die, oldest first.
	Deaths []time.Time
	// Asked is when it was last told its role.
	Asked time.Time
}

// View is all that a decision rests on.
type View struct {
	Now time.Time
	// Self is the leader, which decides; Since is when it took the lead.
	Self  string
	Since time.Time
	// LastIndex is the leader's newest log entry.
	LastIndex uint64
	Servers   []consensus.Server
	Members   []Member
	Tracks    map[string]Track
	// Voters is the setting; 0 follows the number of nodes.
	Voters int
}

// Observe returns tracks with what members say now. It does not change its argument.
func Observe(tracks map[string]Track, members []Member, now time.Time) map[string]Track {
	next := make(map[string]Track, len(members))
	for _, m := range members {
		if m.Left || len(next) >= maxTracks {
			continue
		}
		t, known := tracks[m.ID]
		if known && t.Alive && !m.Alive {
			t.Deaths = append(append([]time.Time{}, t.Deaths...), now)
		}
		for len(t.Deaths) > maxFlaps || len(t.Deaths) > 0 && now.Sub(t.Deaths[0]) > flapWindow {
			t.Deaths = t.Deaths[1:]
		}
		t.Alive = m.Alive
		next[m.ID] = t
	}
	return next
}

// replica is a server with what is known of its node.
type replica struct {
	consensus.Server
	member  Member
	known   bool
	self    bool
	silence time.Duration
}

// answers tells whether the replica counts for a majority now.
func (r *replica) answers() bool { return r.self || r.silence < contactFresh }

// forgotten tells whether the replica's node is no member any more: another machine has its name, say.
func (r *replica) forgotten() bool { return !r.known && !r.self && r.silence >= muteAfter }

func (r *replica) leaving() bool { return r.member.Leaving || r.member.Left }

// dead tells whether the replica is lost: nobody hears of it, or it is mute for long.
func (r *replica) dead(now time.Time, after time.Duration) bool {
	if r.self || r.answers() {
		return false
	}
	believed := r.member.Left || r.known && !r.member.Alive && now.Sub(r.member.Since) >= after
	return believed && r.silence >= after || r.silence >= max(muteAfter, after)
}

// situation is a view, sorted out.
type situation struct {
	*View
	members  map[string]Member
	voters   []*replica
	standbys []*replica
	// free are living nodes without a replica in the configuration.
	free []Member
	// target is how many voters there should be.
	target int
}

func newSituation(v *View) *situation {
	s := &situation{View: v, members: make(map[string]Member, len(v.Members))}
	nodes := 0
	for _, m := range v.Members {
		s.members[m.ID] = m
		if !m.Left && !m.Leaving {
			nodes++
		}
	}
	placed := map[string]bool{}
	for _, server := range v.Servers {
		placed[server.ID] = true
		r := &replica{Server: server, self: server.ID == v.Self, silence: server.Silence}
		r.member, r.known = s.members[server.ID]
		if server.Silence < 0 {
			r.silence = v.Now.Sub(v.Since)
		}
		if !r.known && !r.forgotten() {
			nodes++ // the member list may be younger than the configuration
		}
		if server.Voter {
			s.voters = append(s.voters, r)
		} else {
			s.standbys = append(s.standbys, r)
		}
	}
	for _, m := range v.Members {
		if !placed[m.ID] && m.Alive && !m.Left && !m.Leaving {
			s.free = append(s.free, m)
		}
	}
	s.target = Target(nodes, v.Voters)
	return s
}

// Target returns how many voters a cluster of so many nodes has. setting is what was asked for; 0 is nothing.
func Target(nodes, setting int) int {
	target := 5
	switch {
	case setting > 0:
		target = setting
	case nodes <= 2:
		target = 1
	case nodes <= 4:
		target = 3
	}
	target = min(target, max(nodes, 1))
	return target - 1 + target%2 // the odd number at or below it
}

// majority tells whether those of the replicas that answer are a majority of them.
func majority(voters []*replica) bool {
	answering := 0
	for _, v := range voters {
		if v.answers() {
			answering++
		}
	}
	return answering > len(voters)/2
}

// safeWithout tells whether the voters but one could go on deciding.
func (s *situation) safeWithout(out *replica) bool {
	var rest []*replica
	for _, v := range s.voters {
		if v != out {
			rest = append(rest, v)
		}
	}
	return len(rest) > 0 && majority(rest)
}

// safeWith tells whether the voters and one more could go on deciding, also if that one is lost at once.
func (s *situation) safeWith(*replica) bool {
	answering := 0
	for _, v := range s.voters {
		if v.answers() {
			answering++
		}
	}
	return answering+1 > (len(s.voters)+1)/2
}

// stable tells whether the node has lived long enough to vote.
func (s *situation) stable(m Member) bool {
	need := stableAfter << min(len(s.Tracks[m.ID].Deaths), maxFlaps)
	return m.Alive && s.Now.Sub(m.Since) >= need
}

// ready tells whether a standby could vote now.
func (s *situation) ready(r *replica) bool {
	return r.known && !r.leaving() && r.answers() && s.stable(r.member) &&
		r.Match > 0 && r.Match+maxLagEntries >= s.LastIndex
}

// askable tells whether a node may be told its role now.
func (s *situation) askable(node string) bool {
	asked := s.Tracks[node].Asked
	return asked.IsZero() || s.Now.Sub(asked) >= assignAgainAfter
}
