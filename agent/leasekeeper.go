package agent

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"time"

	"k8s.io/apimachinery/pkg/types"

	"github.com/podvine/podvine/agent/isolation"
	"github.com/podvine/podvine/agent/pki"
	"github.com/podvine/podvine/agent/pods"
)

const (
	// leaseFile has the end of this node's lease, for the shims.
	leaseFile        = runDir + "/lease"
	leaseCallTimeout = 2 * time.Second
)

// leaseKeeper keeps this node's lease while it has pods that need one. It implements pods.Lease.
type leaseKeeper struct {
	file string
	// ask asks the leader, here are the pods here that need a lease, changed is called when others may start.
	ask     func(context.Context, leaseCall) ([]types.UID, error)
	here    func() []pods.PodRef
	changed func()
	// now is the time since the machine's start.
	now func() (time.Duration, error)
	log *slog.Logger

	// turns is held while a lease is asked for; parted and short are what has been written: an end after which this agent asks no more,
	// one that is no parting one's.
	turns         sync.Mutex
	parted, short bool

	mu        sync.Mutex
	end       time.Duration // since the machine's start
	confirmed map[types.UID]bool
}

// Holds implements pods.Lease.
func (k *leaseKeeper) Holds(pod types.UID) bool {
	now, err := k.now()
	k.mu.Lock()
	defer k.mu.Unlock()
	return err == nil && now < k.end && k.confirmed[pod]
}

// File implements pods.Lease.
func (k *leaseKeeper) File() string { return k.file }

// run renews the lease until ctx ends.
func (k *leaseKeeper) run(ctx context.Context) error {
	if err := os.MkdirAll(filepath.Dir(k.file), 0o755); err != nil {
		return fmt.Errorf("make the run folder: %w", err)
	}
	tick := time.NewTicker(isolation.Renew)
	defer tick.Stop()
	said := false
	for {
		switch err := k.turn(ctx); {
		case err == nil:
			said = false
		case !said && ctx.Err() == nil:
			k.log.Warn("renew the lease of pods that stop when this node is cut off", "error", err)
			said = true
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

// turn renews the lease once. What was confirmed before a lease that has ended is to be confirmed anew.
func (k *leaseKeeper) turn(ctx context.Context) error {
	k.turns.Lock()
	defer k.turns.Unlock()
	here := k.here()
	if len(here) == 0 || k.parted {
		return nil
	}
	begun, err := k.now()
	if err != nil {
		return err
	}
	asked := k.unconfirmed(here, begun)
	ctx, cancel := context.WithTimeout(ctx, leaseCallTimeout)
	defer cancel()
	wanted, err := k.ask(ctx, leaseCall{Pods: asked, Short: k.short})
	if err != nil {
		return err
	}
	if err := isolation.WriteEnd(k.file, begun+isolation.Lease); err != nil {
		return err
	}
	k.short = true
	k.mu.Lock()
	k.end = begun + isolation.Lease
	for _, uid := range wanted {
		k.confirmed[uid] = true
	}
	k.mu.Unlock()
	if len(wanted) > 0 {
		k.changed()
	}
	return nil
}

// part asks, once and for a bounded time, for a lease that lasts until the next agent is there. Without one the pods have what is left of
// the usual.
func (k *leaseKeeper) part() {
	k.turns.Lock()
	defer k.turns.Unlock()
	if len(k.here()) == 0 || k.parted {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), leaseCallTimeout)
	defer cancel()
	begun, err := k.now()
	if err == nil {
		_, err = k.ask(ctx, leaseCall{Parting: true})
	}
	if err == nil {
		err = isolation.WriteEnd(k.file, begun+isolation.PartingLease)
	}
	if err != nil {
		k.log.Warn("get a longer lease for pods that stop when this node is cut off, for the time until the next agent", "error", err)
		return
	}
	k.parted = true
}

// unconfirmed are the pods here that may not start yet; those that have gone are forgotten.
func (k *leaseKeeper) unconfirmed(here []pods.PodRef, now time.Duration) (asked []leasedPod) {
	k.mu.Lock()
	defer k.mu.Unlock()
	kept := map[types.UID]bool{}
	for _, pod := range here {
		switch {
		case now < k.end && k.confirmed[pod.UID]:
			kept[pod.UID] = true
		case len(asked) < maxConfirmed:
			asked = append(asked, leasedPod{pod.Namespace, pod.Name, pod.UID})
		}
	}
	k.confirmed = kept
	return asked
}

// newLeaseKeeper keeps this node's lease; the node's pods come later.
func newLeaseKeeper(n *node) *leaseKeeper {
	return &leaseKeeper{
		file: leaseFile, log: n.log.With("part", "lease"), ask: n.askForLease,
		here: func() []pods.PodRef { return n.pods.Leased() }, changed: func() { n.pods.LeaseChanged() }, now: isolation.Now,
	}
}

// askForLease asks the leader, through this node's own replica or any other.
func (n *node) askForLease(ctx context.Context, asked leaseCall) ([]types.UID, error) {
	if n.replica != nil {
		own := pki.NodeIdentity{Name: n.dir.NodeName, ID: n.dir.NodeID, Replica: true}
		answered, err := n.takeLease(ctx, own, asked)
		return answered.Wanted, err
	}
	errs := []error{errNoReplica}
	for _, id := range n.link.candidates() {
		answered, err := callReplica[leaseCall, leaseAnswer](ctx, n.peers, id, leasePath, asked)
		if err == nil {
			return answered.Wanted, nil
		}
		errs = append(errs, err)
	}
	return nil, errors.Join(errs...)
}
