package quorum

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/podvine/podvine/consensus"
)

// ErrLastNode says that a node must not leave because no other is there.
var ErrLastNode = errors.New("no other machine of the cluster is there: with this one its records would be gone")

// MayLeave returns nil when the others can go on without the node, and else why not. seen is the leader's view. It is pure.
func MayLeave(seen consensus.View, members []Member, now time.Time, node string) error {
	if seen.Leader == "" || seen.Leader != seen.Node {
		return errors.New("there is no leader that could let it go: the quorum is lost")
	}
	s := newSituation(&View{Now: now, Self: seen.Leader, Since: now, LastIndex: seen.LastIndex, Servers: seen.Servers, Members: members})
	if !slices.ContainsFunc(members, func(m Member) bool { return m.ID != node && m.Alive && !m.Leaving && !m.Left }) {
		return ErrLastNode
	}
	if !slices.ContainsFunc(s.voters, func(v *replica) bool { return v.ID == node }) {
		return nil
	}
	// The others vote on without it, those who can take its place among them.
	var rest []*replica
	for _, r := range slices.Concat(s.voters, s.standbys) {
		standsIn := r.Voter || r.known && r.answers() && r.Match > 0 && r.Match+maxLagEntries >= seen.LastIndex
		if r.ID != node && !r.leaving() && standsIn {
			rest = append(rest, r)
		}
	}
	if len(rest) > 0 && majority(rest) {
		return nil
	}
	var silent []string
	for _, r := range rest {
		if !r.answers() {
			silent = append(silent, nameOf(members, r.ID))
		}
	}
	if len(rest) == 0 {
		return errors.New("the quorum would be lost: no other machine has all records yet; try again in some seconds")
	}
	return fmt.Errorf("the quorum would be lost: of the %d other voters %s do not answer", len(rest), strings.Join(silent, ", "))
}
