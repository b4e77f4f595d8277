package agent

import (
	"slices"
	"strings"
	"time"

	"github.com/podvine/podvine/agent/pki"
)

// The stages of a rotation of the cluster's authorities; "" is none.
const (
	// stageSpread has all members trust the successor beside the authority of before.
	stageSpread = "spread"
	// stageOverlap has the successor certify users. Members show the certificates of before still, so that one that was away is understood.
	stageOverlap = "overlap"
	// stageCertify has the successor certify members, first the replicas, because they sign for the others.
	stageCertify = "certify"
)

const (
	// authoritySettle is how long both authorities are trusted at least after all members have certificates of the successor: programs that
	// read them from files or objects need a moment.
	authoritySettle = 10 * time.Second
	// certifyPatience bounds how long a member that lives and does not answer keeps the authority of before in trust.
	certifyPatience = 10 * time.Minute
	// maxRetired bounds the authorities of the past that are remembered, the newest first.
	maxRetired = 8
)

// rotation is how far a rotation is. One object holds it (authorityobject.go), which the leader alone writes.
type rotation struct {
	Stage string
	// Predecessor and Successor name the cluster's authorities.
	Predecessor, Successor string
	// Since is when the stage began.
	Since   time.Time
	Overlap time.Duration
	// Retire are the authorities that go at the end, of all kinds; Retired those that went before.
	Retire, Retired []string
	// Waiting are the names of the members that the stage waits for.
	Waiting []string
}

func (r rotation) equal(other rotation) bool {
	return r.Stage == other.Stage && r.Predecessor == other.Predecessor && r.Successor == other.Successor && r.Since.Equal(other.Since) &&
		r.Overlap == other.Overlap && slices.Equal(r.Retire, other.Retire) && slices.Equal(r.Retired, other.Retired) && slices.Equal(r.Waiting, other.Waiting)
}

// due is when the stage ends at the earliest, if all members are ready.
func (r rotation) due() time.Time {
	switch r.Stage {
	case stageOverlap:
		return r.Since.Add(r.Overlap)
	case stageCertify:
		return r.Since.Add(authoritySettle)
	}
	return r.Since
}

// trustOrder is whom members are to trust, by ID. Certifies is the first of the bundle, Also the other one or "".
type trustOrder struct{ Certifies, Also, Users string }

func (o trustOrder) ids() []string {
	if o.Also == "" {
		return []string{o.Certifies}
	}
	return []string{o.Certifies, o.Also}
}

// obeyed tells whether a member does as it was told.
func (o trustOrder) obeyed(state pki.TrustState, replica bool) bool {
	return slices.Equal(state.Trusted, o.ids()) && state.Certified && (!replica || state.Users == o.Users)
}

// trustingMember is a living member, and what it answered last; nil if it was not told yet.
type trustingMember struct {
	ID, Name string
	Replica  bool
	State    *pki.TrustState
}

type rotationView struct {
	Now    time.Time
	Record rotation
	// Trusted are the leader's own authorities, Newest the one of them that was made last.
	Trusted []string
	Newest  string
	// Second are all IDs, of all kinds, that go with the second of Trusted.
	Second  []string
	Members []trustingMember
}

// rotationStep is what the leader does now.
type rotationStep struct {
	Order trustOrder
	// Tell are the members that are told the order.
	Tell []string
	// Record is what is to be recorded, after that has been told to this leader itself.
	Record rotation
	// HandOver says that this leader lacks the successor's key, and another one is to go on.
	HandOver bool
}

// decideRotation decides one step. It is pure, and any step may be repeated.
func decideRotation(view rotationView) rotationStep {
	record := view.Record
	record.Waiting = nil
	switch {
	case record.Stage == "" && len(view.Trusted) > 1 && view.Trusted[0] == view.Newest && !slices.Contains(record.Retired, view.Trusted[1]):
		// The record was lost, as by a restored backup, when members had begun to show the new certificates: go on.
		record.Stage, record.Since = stageCertify, view.Now
		record.Successor, record.Predecessor, record.Retire = view.Trusted[0], view.Trusted[1], view.Second
		return rotationStep{Order: trustOrder{view.Trusted[0], view.Trusted[1], view.Trusted[0]}, Record: record}
	case record.Stage == "":
		return tell(view, record, trustOrder{Certifies: view.Trusted[0], Users: view.Trusted[0]})
	case len(view.Trusted) == 1 && view.Trusted[0] == record.Successor:
		return rotationStep{Order: trustOrder{Certifies: record.Successor, Users: record.Successor}, Record: finished(record)}
	case !slices.Contains(view.Trusted, record.Successor):
		return withoutKey(view, record)
	}
	order := trustOrder{Certifies: record.Predecessor, Also: record.Successor, Users: record.Predecessor}
	switch record.Stage {
	case stageOverlap:
		order.Users = record.Successor
	case stageCertify:
		order = trustOrder{Certifies: record.Successor, Also: record.Predecessor, Users: record.Successor}
	}
	step := tell(view, record, order)
	patient := record.Stage != stageCertify || view.Now.Before(record.Since.Add(certifyPatience))
	if len(step.Record.Waiting) > 0 && patient || view.Now.Before(record.due()) {
		return step
	}
	step.Record.Waiting, step.Record.Since = nil, view.Now
	switch record.Stage {
	case stageSpread:
		step.Record.Stage = stageOverlap
	case stageOverlap:
		step.Record.Stage = stageCertify
	default:
		step.Record = finished(record)
	}
	return step
}

// withoutKey is for a leader that was not told of the successor. Before anything depends on it, the rotation is given up; later another
// replica goes on, and where none is there, all stays as it is.
func withoutKey(view rotationView, record rotation) rotationStep {
	step := rotationStep{Order: trustOrder{Certifies: view.Trusted[0], Users: view.Trusted[0]}, Record: record}
	if record.Stage == stageSpread {
		step.Record = rotation{Retired: record.Retired}
		return step
	}
	step.HandOver = slices.ContainsFunc(view.Members, func(member trustingMember) bool { return member.Replica })
	return step
}

// tell picks who must be told: replicas first where they are to certify the others.
func tell(view rotationView, record rotation, order trustOrder) rotationStep {
	step := rotationStep{Order: order, Record: record}
	var replicas, others []string
	for _, member := range view.Members {
		if member.State != nil && order.obeyed(*member.State, member.Replica) {
			continue
		}
		if record.Stage != "" {
			step.Record.Waiting = append(step.Record.Waiting, member.Name)
		}
		if member.Replica {
			replicas = append(replicas, member.ID)
		} else {
			others = append(others, member.ID)
		}
	}
	slices.SortFunc(step.Record.Waiting, strings.Compare)
	step.Tell = replicas
	if len(replicas) == 0 || record.Stage != stageCertify || !view.Now.Before(record.Since.Add(certifyPatience)) {
		step.Tell = slices.Concat(replicas, others)
	}
	return step
}

func finished(record rotation) rotation {
	retired := slices.Concat(record.Retire, record.Retired)
	if len(retired) > maxRetired {
		retired = retired[:maxRetired]
	}
	return rotation{Retired: retired}
}
