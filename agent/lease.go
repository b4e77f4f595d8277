package agent

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/types"
	authuser "k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/kubernetes/scheme"

	"github.com/podvine/podvine/agent/isolation"
	"github.com/podvine/podvine/agent/pki"
	"github.com/podvine/podvine/agent/pods"
)

const (
	// leasePath is where a node asks for its lease.
	leasePath = "/lease"
	// leaseFile has the end of this node's lease, for the shims.
	leaseFile = runDir + "/lease"
	// maxConfirmed bounds the pods that one call confirms; the rest is confirmed by the next.
	maxConfirmed     = 64
	leaseCallTimeout = 2 * time.Second
)

// leaseCall asks for a lease, and which of the pods may be started under it.
type leaseCall struct {
	// Node is the one that asks, when a replica passes it on to the leader; else it is the caller.
	Node pki.NodeIdentity `json:"node,omitzero"`
	Pods []leasedPod      `json:"pods"`
	// Parting asks for a lease of isolation.PartingLease. Short says that no such lease can last on the node: its end was written anew since.
	Parting bool `json:"parting,omitempty"`
	Short   bool `json:"short,omitempty"`
}

type leasedPod struct {
	Namespace string    `json:"namespace"`
	Name      string    `json:"name"`
	UID       types.UID `json:"uid"`
}

type leaseAnswer struct {
	Wanted []types.UID `json:"wanted"`
}

// leaseBook is what the leader knows of leases, in memory. It is safe for concurrent use.
type leaseBook struct {
	mu     sync.Mutex
	term   uint64
	since  time.Time
	grants map[string]time.Time // by the node's UUID
}

// lead begins a term: leases that another leader granted may last still.
func (b *leaseBook) lead(term uint64, now time.Time) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.term, b.since, b.grants = term, now, map[string]time.Time{}
}

func (b *leaseBook) grant(node string, now time.Time) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.grants == nil {
		b.grants = map[string]time.Time{}
	}
	b.grants[node] = now
}

// released tells whether no lease of the node can last, whoever granted it. parting says that it may be one of an agent that ended on
// purpose.
func (b *leaseBook) released(node string, term uint64, now time.Time, parting bool) bool {
	wait := isolation.ReleaseAfter
	if parting {
		wait = isolation.PartingReleaseAfter
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if term != b.term || now.Sub(b.since) < wait {
		return false
	}
	granted, known := b.grants[node]
	return !known || now.Sub(granted) >= wait
}

// released tells whether a node has stopped its pods that stop when it is cut off. Only the leader knows.
func (n *node) released(name string) bool {
	term, leads := n.replica.Leading()
	id := n.directory.id(name)
	return leads && id != "" && n.leases.released(id, term, time.Now(), n.parting(name))
}

// parting tells whether a node's agent may have ended with a longer lease. Not knowing is a yes.
func (n *node) parting(name string) bool {
	found, err := n.nodeLister().Get(name)
	return err != nil || found.Annotations[isolation.PartingAnnotation] != ""
}

// part notes, for this leader and those that follow, that a node's agent may end with a longer lease.
func (n *node) part(ctx context.Context, node string) error {
	return n.patchNode(ctx, node, map[string]any{"annotations": map[string]any{isolation.PartingAnnotation: isolation.PartingLease.String()}})
}

// unpart notes that the node has no such lease any more, unless the node has changed since that was seen.
func (n *node) unpart(ctx context.Context, node string) error {
	found, err := n.nodeLister().Get(node)
	if err != nil {
		return fmt.Errorf("note the lease of node %s: %w", node, err)
	}
	return n.patchNode(ctx, node, map[string]any{
		"resourceVersion": found.ResourceVersion, "annotations": map[string]any{isolation.PartingAnnotation: nil},
	})
}

func (n *node) patchNode(ctx context.Context, node string, metadata map[string]any) error {
	patch, err := json.Marshal(map[string]any{"metadata": metadata})
	if err == nil {
		_, err = n.client(authuser.APIServerUser, authuser.SystemPrivilegedGroup).CoreV1().Nodes().
			Patch(ctx, node, types.MergePatchType, patch, metav1.PatchOptions{})
	}
	if err != nil {
		return fmt.Errorf("note the lease of node %s: %w", node, err)
	}
	return nil
}

// takeLease grants a lease, or has the leader do so.
func (n *node) takeLease(ctx context.Context, caller pki.NodeIdentity, asked leaseCall) (leaseAnswer, error) {
	node := caller
	if asked.Node.ID != "" {
		if !caller.Replica {
			return leaseAnswer{}, fmt.Errorf("node %s is no replica and asks for itself only", caller.Name)
		}
		node = asked.Node
	}
	term, leads := n.replica.Leading()
	if !leads {
		leader := n.replica.Status().LeaderID
		if leader == "" || leader == n.dir.NodeID || asked.Node.ID != "" {
			return leaseAnswer{}, errors.New("grant a lease: there is no leader")
		}
		return call[leaseCall, leaseAnswer](ctx, n.peers, leader, leasePath, leaseCall{Node: node, Pods: asked.Pods, Parting: asked.Parting, Short: asked.Short})
	}
	// Another may lead already: then this one must not grant. The node counts from before it asked, and so from before this.
	if _, err := n.replica.ReadRevision(ctx); err != nil {
		return leaseAnswer{}, fmt.Errorf("grant a lease: %w", err)
	}
	if now, still := n.replica.Leading(); !still || now != term {
		return leaseAnswer{}, errors.New("grant a lease: the lead is lost")
	}
	if asked.Parting {
		// It is known to every leader before the node may count on it.
		if err := n.part(ctx, node.Name); err != nil {
			return leaseAnswer{}, err
		}
	}
	// Written down before the pods are looked at: from now on none of them is removed, and those that were to be are terminating.
	n.leases.grant(node.ID, time.Now())
	if asked.Short && n.parting(node.Name) {
		if err := n.unpart(ctx, node.Name); err != nil {
			return leaseAnswer{}, err
		}
	}
	return n.confirmPods(ctx, node, asked.Pods)
}

// confirmPods tells which of the pods are the node's still, and are not about to go.
func (n *node) confirmPods(ctx context.Context, node pki.NodeIdentity, asked []leasedPod) (answered leaseAnswer, err error) {
	client := n.client(authuser.APIServerUser, authuser.SystemPrivilegedGroup)
	for _, pod := range asked[:min(len(asked), maxConfirmed)] {
		known, err := client.CoreV1().Pods(pod.Namespace).Get(ctx, pod.Name, metav1.GetOptions{})
		switch {
		case apierrors.IsNotFound(err):
		case err != nil:
			return answered, fmt.Errorf("look for pod %s/%s: %w", pod.Namespace, pod.Name, err)
		case known.UID == pod.UID && known.Spec.NodeName == node.Name && known.DeletionTimestamp == nil:
			answered.Wanted = append(answered.Wanted, pod.UID)
		}
	}
	return answered, nil
}

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

// confirmPod asks the API whether a pod is this node's. It lists, because a node may not get a pod that is not its own.
func (n *node) confirmPod(client kubernetes.Interface) func(context.Context, pods.PodRef) (pods.Confirmation, error) {
	return func(ctx context.Context, ref pods.PodRef) (pods.Confirmation, error) {
		selector := fields.AndSelectors(fields.OneTermEqualSelector("spec.nodeName", n.dir.NodeName), fields.OneTermEqualSelector(metav1.ObjectNameField, ref.Name))
		result := client.CoreV1().RESTClient().Get().Namespace(ref.Namespace).Resource("pods").
			VersionedParams(&metav1.ListOptions{FieldSelector: selector.String()}, scheme.ParameterCodec).Do(ctx)
		found := &corev1.PodList{}
		if err := result.Into(found); err != nil {
			return pods.Unconfirmed, fmt.Errorf("ask for pod %s/%s: %w", ref.Namespace, ref.Name, err)
		}
		stale := len(result.Warnings()) > 0 // a list of pods has no other
		if len(found.Items) == 0 {
			return pods.Answer(ref, nil, stale), nil
		}
		return pods.Answer(ref, &found.Items[0], stale), nil
	}
}
