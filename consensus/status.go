package consensus

import "time"

// Types of conditions.
const (
	ConditionDiskFull   = "DiskFull"
	ConditionDiskError  = "DiskError"
	ConditionDiskSlow   = "DiskSlow"
	ConditionStoreFault = "StoreFault"
)

// Condition is something that is wrong with this replica now.
type Condition struct {
	Type    string
	Message string
	Since   time.Time
}

// Status is a replica's state for people.
type Status struct {
	// State is raft's: Leader, Follower, Candidate or Shutdown.
	State        string
	LeaderID     string
	Term         uint64
	LastIndex    uint64
	AppliedIndex uint64
	Revision     int64
}

// Status returns the replica's state.
func (r *Replica) Status() Status {
	_, leader := r.raft.LeaderWithID()
	applied, _ := r.store.Applied()
	return Status{
		State: r.raft.State().String(), LeaderID: string(leader), Term: r.raft.CurrentTerm(),
		LastIndex: r.raft.LastIndex(), AppliedIndex: applied, Revision: r.store.Revision(),
	}
}

// Conditions returns what is wrong with the replica, nothing in most lives.
func (r *Replica) Conditions() []Condition {
	var all []Condition
	if c := r.guard.condition(); c != nil {
		all = append(all, *c)
	}
	if err := r.store.Fault(); err != nil {
		all = append(all, Condition{Type: ConditionStoreFault, Message: err.Error()})
	}
	return all
}
