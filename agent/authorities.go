package agent

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/util/duration"
	authuser "k8s.io/apiserver/pkg/authentication/user"

	"github.com/podvine/podvine/agent/pki"
)

const (
	// authoritiesPath is where a member takes whom to trust from the leader, as a pki.Trust, and answers with its pki.TrustState.
	authoritiesPath = "/authorities"
	// authoritiesPause is between two steps of a rotation.
	authoritiesPause = time.Second
	// maxTrustCalls bounds the members that are told at a time.
	maxTrustCalls = 16
)

// authorityKeeper is what the leader knows of its members' trust. It belongs to the leader's loop but for trigger and mu.
type authorityKeeper struct {
	trigger chan struct{}
	// mu is held while authorities are made or a step is done: one at a time.
	mu sync.Mutex
	// answers are what members did with which order, since when they live.
	answers map[string]trustAnswer
}

type trustAnswer struct {
	order trustOrder
	since time.Time
	state pki.TrustState
}

func newAuthorityKeeper() *authorityKeeper {
	return &authorityKeeper{trigger: make(chan struct{}, 1), answers: map[string]trustAnswer{}}
}

// changed has the leader look at once.
func (k *authorityKeeper) changed() {
	select {
	case k.trigger <- struct{}{}:
	default: // it is told already
	}
}

// runAuthorities carries rotations of the cluster's authorities on while this replica leads, and has each member that appears trust what
// is to be trusted. Every step may be repeated, by this leader or the next.
func (n *node) runAuthorities(ctx context.Context) error {
	// Before the API is ready the loop could neither read nor write the record.
	if err := retry(ctx, n.ready); err != nil {
		return err
	}
	err := retry(ctx, func(ctx context.Context) error {
		record, err := getRotation(ctx, n.client(authuser.APIServerUser, authuser.SystemPrivilegedGroup))
		if err == nil {
			n.keys.SetRetired(record.Retired)
		}
		return err
	})
	if err != nil {
		return err
	}
	pause, said := time.Duration(0), false
	for {
		if !n.awaitTurn(ctx, pause, n.authorities.trigger, n.authorities.forget) {
			return nil
		}
		pause = keysInterval
		if _, leads := n.replica.Leading(); !leads {
			continue
		}
		busy, err := n.rotateAuthorities(ctx)
		if err != nil && !said && ctx.Err() == nil {
			n.log.Warn("not all members trust the cluster's authorities yet", "error", err)
		}
		said = err != nil
		if busy || err != nil {
			pause = authoritiesPause
		}
	}
}

// forget is for a leader that begins, or has another begin: members are asked anew.
func (k *authorityKeeper) forget() {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.answers = map[string]trustAnswer{}
}

// rotateAuthorities does one step. busy says that there is another soon.
func (n *node) rotateAuthorities(ctx context.Context) (busy bool, err error) {
	n.authorities.mu.Lock()
	defer n.authorities.mu.Unlock()
	client := n.client(authuser.APIServerUser, authuser.SystemPrivilegedGroup)
	record, err := getRotation(ctx, client)
	if err != nil {
		return true, err
	}
	held, err := n.keys.Trust()
	if err != nil {
		return true, err
	}
	view := rotationView{Now: time.Now(), Record: record.rotation, Trusted: held.IDs(), Newest: held.Newest(), Members: n.trustingMembers(ctx)}
	if len(view.Trusted) > 1 {
		kept, err := held.Ordered(view.Trusted[0], "", view.Trusted[0])
		if err != nil {
			return true, err
		}
		view.Second = slices.DeleteFunc(held.AllIDs(), func(id string) bool { return slices.Contains(kept.AllIDs(), id) })
	}
	step := decideRotation(view)
	if step.HandOver {
		n.log.Warn("this leader lacks the key of the authority that follows: another one is to lead")
		return true, n.replica.HandOver(ctx)
	}
	trust, err := held.Ordered(step.Order.Certifies, step.Order.Also, step.Order.Users)
	if err != nil {
		return true, err
	}
	trust.Retired = record.Retired
	if err := n.adoptTrust(trust); err != nil {
		return true, err
	}
	told := n.tellTrust(ctx, step, trust)
	if !record.equal(step.Record) {
		if err := record.put(ctx, client, step.Record); err != nil {
			return true, errors.Join(err, told)
		}
		if record.Stage != step.Record.Stage {
			n.log.Info("the rotation of authorities goes on", "from", record.Stage, "to", step.Record.Stage)
		}
		return true, told
	}
	return record.Stage != "", told
}

// trustingMembers are the other members that live, with what they answered.
func (n *node) trustingMembers(ctx context.Context) []trustingMember {
	replicas := n.replicaIDs(ctx)
	var living []trustingMember
	all := n.directory.all()
	for id, member := range all {
		if id == n.dir.NodeID || !answers(member) {
			continue
		}
		one := trustingMember{ID: id, Name: n.directory.name(id), Replica: replicas[id]}
		if one.Name == "" {
			one.Name = id
		}
		if known, ok := n.authorities.answers[id]; ok && known.since.Equal(member.Since) {
			one.State = &known.state
		}
		living = append(living, one)
	}
	for id := range n.authorities.answers {
		if _, known := all[id]; !known {
			delete(n.authorities.answers, id)
		}
	}
	return living
}

// tellTrust tells members whom to trust; replicas get the keys, too.
func (n *node) tellTrust(ctx context.Context, step rotationStep, trust pki.Trust) error {
	members := n.directory.all()
	replica := n.replicaIDs(ctx)
	var (
		mu    sync.Mutex
		errs  []error
		calls sync.WaitGroup
	)
	slots := make(chan struct{}, maxTrustCalls)
	for _, id := range step.Tell {
		slots <- struct{}{}
		calls.Go(func() {
			defer func() { <-slots }()
			tell, given := call[pki.Trust, pki.TrustState], trust.Public()
			if replica[id] {
				tell, given = callReplica[pki.Trust, pki.TrustState], trust
			}
			state, err := tell(ctx, n.peers, id, authoritiesPath, given)
			mu.Lock()
			defer mu.Unlock()
			if err != nil {
				errs = append(errs, err)
				return
			}
			n.authorities.answers[id] = trustAnswer{step.Order, members[id].Since, state}
		})
	}
	calls.Wait()
	return errors.Join(errs...)
}

// takeAuthorities has this member trust whom the leader says.
func (n *node) takeAuthorities(_ context.Context, caller pki.NodeIdentity, trust pki.Trust) (pki.TrustState, error) {
	if !caller.Replica {
		return pki.TrustState{}, fmt.Errorf("node %s is no replica and has no say in authorities", caller.Name)
	}
	err := n.adoptTrust(trust)
	return n.keys.TrustState(), err
}

// adoptTrust makes it this node's, for every connection from now on.
func (n *node) adoptTrust(trust pki.Trust) error {
	before := n.keys.TrustState()
	changed, err := n.keys.Adopt(trust, time.Now())
	if after := n.keys.TrustState(); !changed && after.Certified == before.Certified {
		return err
	}
	n.peers.Recheck()
	if n.access != nil {
		n.access.renew()
	}
	if n.api != nil {
		n.connector.renew()
		if kubeconfigErr := n.writeKubeconfig(); kubeconfigErr != nil {
			n.log.Error("renew the administrator's kubeconfig", "error", kubeconfigErr)
		}
	}
	if n.control != nil {
		n.control.CAChanged()
	}
	return err
}

// beginAuthorities begins a rotation, on the leader. All living replicas hold the successor's key before it is recorded, so that whoever
// leads next can go on.
func (n *node) beginAuthorities(ctx context.Context, overlap time.Duration) error {
	n.authorities.mu.Lock()
	defer n.authorities.mu.Unlock()
	defer n.authorities.changed()
	client := n.client(authuser.APIServerUser, authuser.SystemPrivilegedGroup)
	record, err := getRotation(ctx, client)
	if err != nil {
		return err
	}
	held, err := n.keys.Trust()
	if err != nil {
		return err
	}
	if record.Stage != "" || len(held.IDs()) > 1 {
		return apierrors.NewBadRequest("rotate the CA: a rotation goes on already: `podvine keys` shows how far it is")
	}
	trust, err := held.WithSuccessor(time.Now())
	if err != nil {
		return err
	}
	ids := trust.IDs()
	trust.Retired = record.Retired
	if err := n.adoptTrust(trust); err != nil {
		return err
	}
	step := rotationStep{Order: trustOrder{Certifies: ids[0], Also: ids[1], Users: ids[0]}}
	for _, member := range n.trustingMembers(ctx) {
		if member.Replica {
			step.Tell = append(step.Tell, member.ID)
		}
	}
	if err := n.tellTrust(ctx, step, trust); err != nil {
		return fmt.Errorf("rotate the CA: all living replicas must have the new key first: %w", err)
	}
	return record.put(ctx, client, rotation{
		Stage: stageSpread, Predecessor: ids[0], Successor: ids[1], Since: time.Now(), Overlap: overlap, Retire: held.AllIDs(), Retired: record.Retired,
	})
}

// RotationStatus is how far a rotation of the authorities is.
type RotationStatus struct {
	Stage string    `json:"stage"`
	Since time.Time `json:"since"`
	// Due is when the stage ends at the earliest, Waiting the members that it waits for.
	Due     time.Time `json:"due"`
	Waiting []string  `json:"waiting,omitempty"`
}

// rotationStatus tells how far a rotation is; nil where there is none.
func (n *node) rotationStatus(ctx context.Context) (*RotationStatus, error) {
	record, err := getRotation(ctx, n.client(authuser.APIServerUser, authuser.SystemPrivilegedGroup))
	if err != nil || record.Stage == "" {
		return nil, err
	}
	return &RotationStatus{Stage: record.Stage, Since: record.Since, Due: record.due(), Waiting: record.Waiting}, nil
}

// String is a line for an operator.
func (r RotationStatus) String() string {
	what := map[string]string{
		stageSpread: "all members are to trust the new authority", stageOverlap: "both authorities are trusted, the new one certifies users",
		stageCertify: "all members are to have certificates of the new authority",
	}[r.Stage]
	if len(r.Waiting) > 0 {
		what += "; waits for " + strings.Join(r.Waiting, ", ")
	} else if left := time.Until(r.Due); left > 0 {
		what += "; goes on in " + duration.HumanDuration(left)
	}
	return what
}
