package quorum

import (
	"cmp"
	"slices"

	"github.com/podvine/podvine/consensus"
)

// Action is what a step does.
type Action string

// Actions of a step.
const (
	ActionNone     Action = ""
	ActionAdd      Action = "add"      // let the node open a replica, and feed it
	ActionPromote  Action = "promote"  // give the replica a vote
	ActionDemote   Action = "demote"   // take the replica's vote
	ActionRemove   Action = "remove"   // take the replica out of the configuration
	ActionAssign   Action = "assign"   // tell the node its role again
	ActionHandOver Action = "handover" // give the lead to another voter
)

// Step is one change, safe alone.
type Step struct {
	Action Action
	Node   string
	// Role is what ActionAssign tells.
	Role consensus.Role
	Why  string
}

// Decide returns the next step, which may be none. It is pure.
func Decide(v View) Step {
	s := newSituation(&v)
	for _, rule := range []func() Step{
		s.handOver, s.dropDeadVoter, s.grow, s.releaseVoter, s.spread, s.keepStandbys, s.correctRoles,
	} {
		if step := rule(); step.Action != ActionNone {
			return step
		}
	}
	return Step{}
}

// handOver gives up the lead before the leader's node leaves.
func (s *situation) handOver() Step {
	if !s.members[s.Self].Leaving && !s.members[s.Self].Left {
		return Step{}
	}
	for _, v := range s.voters {
		if !v.self && v.answers() && !v.leaving() {
			return Step{Action: ActionHandOver, Node: s.Self, Why: "the leader's node leaves"}
		}
	}
	return Step{}
}

// dropDeadVoter removes a voter that is lost. When nobody can take its place and an even number would be left, it stays:
// its going would win nothing, and its coming back helps.
func (s *situation) dropDeadVoter() Step {
	var dead []*replica
	for _, v := range s.voters {
		if v.dead(s.Now, deadAfter) {
			dead = append(dead, v)
		}
	}
	slices.SortFunc(dead, func(a, b *replica) int {
		return cmp.Or(-compareBool(a.member.Left, b.member.Left), cmp.Compare(a.ID, b.ID))
	})
	for _, d := range dead {
		left := len(s.voters) - 1
		replaced := slices.ContainsFunc(s.standbys, s.ready)
		if (replaced || d.member.Left || d.forgotten() || left%2 == 1 || len(dead) > 1 || left >= s.target) && s.safeWithout(d) {
			return Step{Action: ActionRemove, Node: d.ID, Why: "the voter is dead"}
		}
	}
	return Step{}
}

func compareBool(a, b bool) int {
	switch {
	case a == b:
		return 0
	case a:
		return 1
	}
	return -1
}

// serving are the voters that are neither dead nor about to leave.
func (s *situation) serving() []*replica {
	return slices.DeleteFunc(slices.Clone(s.voters), func(v *replica) bool {
		return v.leaving() || v.dead(s.Now, deadAfter)
	})
}

// grow gives standbys a vote until there are as many voters as there should be, or the next odd number below.
func (s *situation) grow() Step {
	serving := s.serving()
	var ready []*replica
	for _, r := range s.standbys {
		if s.ready(r) {
			ready = append(ready, r)
		}
	}
	reach := min(s.target, len(serving)+len(ready))
	if reach -= 1 - reach%2; reach <= len(serving) {
		return Step{}
	}
	best := slices.MinFunc(ready, func(a, b *replica) int {
		return cmp.Or(
			cmp.Compare(inZone(serving, a.member.Zone), inZone(serving, b.member.Zone)),
			a.member.Since.Compare(b.member.Since), cmp.Compare(a.ID, b.ID))
	})
	if !s.safeWith(best) {
		return Step{}
	}
	return Step{Action: ActionPromote, Node: best.ID, Why: "more voters are wanted"}
}

func inZone(replicas []*replica, zone string) int {
	n := 0
	for _, r := range replicas {
		if r.member.Zone == zone {
			n++
		}
	}
	return n
}

// releaseVoter takes the vote of a node that leaves, or of one too many: from where most of them are.
func (s *situation) releaseVoter() Step {
	serving := s.serving()
	for _, v := range s.voters {
		if v.leaving() && !v.self && len(s.voters) > 1 && s.safeWithout(v) {
			return Step{Action: ActionDemote, Node: v.ID, Why: "the node leaves"}
		}
	}
	if len(serving) <= s.target {
		return Step{}
	}
	others := slices.DeleteFunc(slices.Clone(serving), func(v *replica) bool { return v.self })
	slices.SortFunc(others, func(a, b *replica) int {
		return cmp.Or(
			cmp.Compare(inZone(serving, b.member.Zone), inZone(serving, a.member.Zone)),
			compareBool(a.answers(), b.answers()), b.member.Since.Compare(a.member.Since), cmp.Compare(b.ID, a.ID))
	})
	for _, v := range others {
		if s.safeWithout(v) {
			return Step{Action: ActionDemote, Node: v.ID, Why: "fewer voters are wanted"}
		}
	}
	return Step{}
}

// spread gives a standby a vote when its zone has two voters fewer than another: the one too many then goes from there.
func (s *situation) spread() Step {
	serving := s.serving()
	if len(serving) != s.target || len(serving) != len(s.voters) || s.target == 1 {
		return Step{}
	}
	crowd := 0
	for _, v := range serving {
		if !v.answers() {
			return Step{}
		}
		crowd = max(crowd, inZone(serving, v.member.Zone))
	}
	var best *replica
	for _, r := range s.standbys {
		if s.ready(r) && inZone(serving, r.member.Zone) <= crowd-2 && (best == nil || r.ID < best.ID) {
			best = r
		}
	}
	if best == nil || !s.safeWith(best) {
		return Step{}
	}
	return Step{Action: ActionPromote, Node: best.ID, Why: "its zone has too few voters"}
}

// keepStandbys removes replicas without a vote that are of no use, and lets other nodes have one where some are missing.
func (s *situation) keepStandbys() Step {
	var useful, lost []*replica
	for _, r := range s.standbys {
		switch {
		case r.leaving():
			return Step{Action: ActionRemove, Node: r.ID, Why: "the node leaves"}
		case r.dead(s.Now, standbyDeadAfter):
			lost = append(lost, r)
		default:
			useful = append(useful, r)
		}
	}
	want := wantStandbys + max(s.target-len(s.serving()), 0)
	if len(useful) > want {
		worst := slices.MaxFunc(useful, func(a, b *replica) int {
			return cmp.Or(compareBool(!a.answers(), !b.answers()), a.member.Since.Compare(b.member.Since), cmp.Compare(a.ID, b.ID))
		})
		return Step{Action: ActionRemove, Node: worst.ID, Why: "fewer standbys are wanted"}
	}
	candidates := slices.DeleteFunc(slices.Clone(s.free), func(m Member) bool { return !s.askable(m.ID) })
	if len(useful) == want || len(candidates) == 0 {
		return Step{}
	}
	if len(lost) > 0 && len(useful)+len(lost) >= want {
		return Step{Action: ActionRemove, Node: lost[0].ID, Why: "the standby is dead, and another node can stand by"}
	}
	all := append(s.serving(), useful...)
	best := slices.MinFunc(candidates, func(a, b Member) int {
		return cmp.Or(
			cmp.Compare(len(s.Tracks[a.ID].Deaths), len(s.Tracks[b.ID].Deaths)),
			cmp.Compare(inZone(all, a.Zone), inZone(all, b.Zone)),
			a.Since.Compare(b.Since), cmp.Compare(a.ID, b.ID))
	})
	return Step{Action: ActionAdd, Node: best.ID, Why: "more standbys are wanted"}
}

// correctRoles tells nodes again what they are when they say otherwise.
func (s *situation) correctRoles() Step {
	for _, r := range append(slices.Clone(s.voters), s.standbys...) {
		if r.known && r.member.Alive && !r.leaving() && r.member.Role == consensus.RoleEdge && !r.answers() && s.askable(r.ID) {
			return Step{Action: ActionAssign, Node: r.ID, Role: consensus.RoleStandby, Why: "the node has no replica and should"}
		}
	}
	for _, m := range s.Members {
		placed := slices.ContainsFunc(s.Servers, func(server consensus.Server) bool { return server.ID == m.ID })
		if !placed && m.Alive && !m.Left && !m.Leaving && m.Role != consensus.RoleEdge && m.Role != "" && s.askable(m.ID) {
			return Step{Action: ActionAssign, Node: m.ID, Role: consensus.RoleEdge, Why: "the node has a replica and should not"}
		}
	}
	return Step{}
}
