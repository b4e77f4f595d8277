package agent

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime/schema"
	authuser "k8s.io/apiserver/pkg/authentication/user"

	"github.com/podvine/podvine/agent/backup"
	"github.com/podvine/podvine/agent/join"
	"github.com/podvine/podvine/agent/pki"
)

const (
	// KeysPath is where a member's API tells an administrator of the cluster's keys, as [KeysStatus], and rotates those that a
	// posted [RotateRequest] names.
	KeysPath = "/podvine/keys"

	// replicaKeysPath is where a replica takes the keys that the leader has, rotatePath where the leader takes a RotateRequest.
	replicaKeysPath = "/keys"
	rotatePath      = "/keys/rotate"

	// keysInterval is how often the leader looks for replicas that lack a key, should it not have been told.
	keysInterval = 30 * time.Second
	// keysRetry is the pause after it could not reach one.
	keysRetry = time.Second
	// tokensInterval is how often it removes join tokens that have expired.
	tokensInterval = 10 * time.Minute

	// DefaultTokenOverlap is how long tokens of service accounts that were signed with a key that was rotated stay valid. Pods have
	// theirs renewed before.
	DefaultTokenOverlap = 24 * time.Hour
	maxTokenOverlap     = pki.TokenKeyKeptDays * 24 * time.Hour
)

// The kinds of keys that rotate.
const (
	KeysGossip = "gossip"
	KeysData   = "data"
	KeysTokens = "tokens"
	// KeysCA are the authorities of certificates, which rotate when they are named only: users need new kubeconfigs then.
	KeysCA = "ca"
)

// KeyKinds are all that rotate unless some are named.
func KeyKinds() []string { return []string{KeysGossip, KeysData, KeysTokens} }

// RotateRequest asks for new keys.
type RotateRequest struct {
	Kinds []string `json:"kinds"`
	// OverlapSeconds is how long old tokens of service accounts stay valid, and both authorities of certificates.
	OverlapSeconds int64 `json:"overlapSeconds"`
}

// KeysStatus is what may be said of the cluster's keys.
type KeysStatus struct {
	// Gossip is how many keys this member has.
	Gossip int                  `json:"gossip"`
	Data   []DataKeyStatus      `json:"data"`
	Tokens []pki.TokenKeyStatus `json:"tokens"`
	// Authorities are the cluster's CA, and Rotation is how far its rotation is, if there is one.
	Authorities []pki.AuthorityStatus `json:"authorities"`
	Rotation    *RotationStatus       `json:"rotation,omitempty"`
}

// DataKeyStatus is a key that seals Secrets, or did.
type DataKeyStatus struct {
	backup.KeyPrint
	Made time.Time `json:"made,omitzero"`
	// Seals says that new values are sealed with it, Pending that not all replicas have it yet.
	Seals   bool `json:"seals"`
	Pending bool `json:"pending,omitempty"`
}

// keysCall tells a replica of the keys that rotate.
type keysCall struct {
	Tokens   pki.Bundle      `json:"tokens"`
	DataKeys json.RawMessage `json:"dataKeys"`
}

type keysAnswer struct{}

// keySpreader has all replicas hold the same keys. It belongs to the leader's loop but for trigger.
type keySpreader struct {
	trigger chan struct{}

	// held is by replica the sum of the keys that it is known to have.
	held map[string][sha256.Size]byte
	// resealed is the sum of the keys with which all values are known to be sealed, again that this is known no longer.
	resealed [sha256.Size]byte
	again    atomic.Bool
}

func newKeySpreader() *keySpreader {
	return &keySpreader{trigger: make(chan struct{}, 1), held: map[string][sha256.Size]byte{}}
}

// changed has the leader look at once whether all replicas hold the keys.
func (k *keySpreader) changed() {
	select {
	case k.trigger <- struct{}{}:
	default: // it is told already
	}
}

// restored has the leader look at once for what older keys have sealed.
func (k *keySpreader) restored() {
	k.again.Store(true)
	k.changed()
}

// runKeySpreader keeps the replicas' keys the same, and removes expired join tokens, while this replica leads.
func (n *node) runKeySpreader(ctx context.Context) error {
	var (
		tokens time.Time
		pause  time.Duration
		said   bool
	)
	for {
		if !n.awaitTurn(ctx, pause, n.spreader.trigger, func() { n.spreader.held = map[string][sha256.Size]byte{} }) {
			return nil
		}
		pause = keysInterval
		if _, leads := n.replica.Leading(); !leads {
			continue
		}
		err := n.spreadKeys(ctx)
		switch {
		case err == nil:
			said = false
		case !said && ctx.Err() == nil:
			n.log.Info("not all replicas hold all keys yet", "error", err)
			said = true
		}
		if err != nil {
			pause = keysRetry
		}
		if now := time.Now(); now.Sub(tokens) >= tokensInterval {
			tokens = now
			n.removeExpiredTokens(ctx, now)
		}
	}
}

// spreadKeys gives each replica of the quorum the keys that it lacks. A data key that all of them have begins to seal; then what older ones
// sealed is sealed anew.
func (n *node) spreadKeys(ctx context.Context) error {
	for {
		tokens, err := n.keys.ExportTokenKeys()
		if err != nil {
			return err
		}
		data, pending, err := n.dataKeys.export()
		if err != nil {
			return err
		}
		wanted := keysCall{tokens, data}
		content, err := json.Marshal(wanted)
		if err != nil {
			return err
		}
		sum := sha256.Sum256(content)
		if err := n.giveKeys(ctx, wanted, sum); err != nil {
			return err
		}
		if len(pending) == 0 {
			return n.reseal(ctx, sum)
		}
		if err := n.dataKeys.settle(pending); err != nil {
			return err
		}
		n.log.Info("Secrets are sealed with a new key")
	}
}

func (n *node) giveKeys(ctx context.Context, wanted keysCall, sum [sha256.Size]byte) error {
	var (
		mu    sync.Mutex
		errs  []error
		calls sync.WaitGroup
	)
	var given []string
	for _, server := range n.replica.View(ctx).Servers { // bounded by the quorum's size
		if server.ID == n.dir.NodeID || n.spreader.held[server.ID] == sum {
			continue
		}
		calls.Go(func() {
			_, err := call[keysCall, keysAnswer](ctx, n.peers, server.ID, replicaKeysPath, wanted)
			mu.Lock()
			defer mu.Unlock()
			if err != nil {
				errs = append(errs, err)
				return
			}
			given = append(given, server.ID)
		})
	}
	calls.Wait()
	for _, id := range given {
		n.spreader.held[id] = sum
	}
	return errors.Join(errs...)
}

// reseal seals with the first key what others have sealed; each set of keys is looked at once.
func (n *node) reseal(ctx context.Context, sum [sha256.Size]byte) error {
	again := n.spreader.again.Swap(false)
	if n.spreader.resealed == sum && !again {
		return nil
	}
	written, err := n.backend.Reseal(ctx, schema.GroupResource{Resource: "secrets"})
	if err != nil {
		n.spreader.again.Store(true)
		return err
	}
	if written > 0 {
		n.log.Info("sealed Secrets anew", "count", written)
	}
	n.spreader.resealed = sum
	return nil
}

// takeKeys takes what the leader has.
func (n *node) takeKeys(_ context.Context, caller pki.NodeIdentity, given keysCall) (keysAnswer, error) {
	if !caller.Replica {
		return keysAnswer{}, fmt.Errorf("node %s is no replica and has no say in keys", caller.Name)
	}
	return keysAnswer{}, errors.Join(n.keys.AdoptTokenKeys(given.Tokens), n.dataKeys.adopt(given.DataKeys))
}

// rotate makes new keys, on the leader.
func (n *node) rotate(ctx context.Context, wanted RotateRequest) error {
	if _, leads := n.replica.Leading(); !leads {
		return errors.New("rotate keys: this replica does not lead")
	}
	overlap := time.Duration(wanted.OverlapSeconds) * time.Second
	if overlap < 0 || overlap > maxTokenOverlap {
		return apierrors.NewBadRequest(fmt.Sprintf("rotate keys: an overlap of %s is not between 0 and %s", overlap, maxTokenOverlap))
	}
	var failed []error
	for _, kind := range wanted.Kinds {
		var err error
		switch kind {
		case KeysGossip:
			err = n.mesh.RotateKey()
		case KeysData:
			err = n.dataKeys.add(time.Now())
		case KeysTokens:
			err = n.keys.Tokens().Rotate(time.Now(), overlap)
		case KeysCA:
			err = n.beginAuthorities(ctx, overlap)
		default:
			err = apierrors.NewBadRequest(fmt.Sprintf("rotate keys: %q is none of %s, %s", kind, strings.Join(KeyKinds(), ", "), KeysCA))
		}
		if err != nil {
			failed = append(failed, err) // the others are rotated all the same
			continue
		}
		n.log.Info("rotate keys", "kind", kind)
	}
	n.spreader.changed()
	return errors.Join(failed...)
}

// takeRotate is the leader's answer to another replica, which has seen to it that an administrator asks.
func (n *node) takeRotate(ctx context.Context, caller pki.NodeIdentity, wanted RotateRequest) (keysAnswer, error) {
	if !caller.Replica {
		return keysAnswer{}, fmt.Errorf("node %s is no replica and has no say in keys", caller.Name)
	}
	return keysAnswer{}, n.rotate(ctx, wanted)
}

// heldKeys asks to rotate what only replicas hold.
func heldKeys() RotateRequest {
	return RotateRequest{Kinds: []string{KeysData, KeysTokens}, OverlapSeconds: int64(DefaultTokenOverlap / time.Second)}
}

// formerReplicas are nodes for which this leader has rotated the keys that they know. It is safe for concurrent use.
type formerReplicas struct {
	mu   sync.Mutex
	done map[string]bool // by UUID
}

// rotated calls rotate for the node unless that has succeeded before.
func (f *formerReplicas) rotated(nodeID string, rotate func() error) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.done[nodeID] {
		return nil
	}
	if err := rotate(); err != nil {
		return err
	}
	if f.done == nil {
		f.done = map[string]bool{}
	}
	f.done[nodeID] = true
	return nil
}

// again is for a node that gets the keys anew.
func (f *formerReplicas) again(nodeID string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.done, nodeID)
}

// rotateHeld rotates what a node holds that is a replica no more, once.
func (n *node) rotateHeld(ctx context.Context, nodeID string) error {
	return n.former.rotated(nodeID, func() error {
		n.log.Info("a replica is to be one no more: rotate the keys that it has", "node", n.directory.name(nodeID))
		return n.rotate(ctx, heldKeys())
	})
}

// serveKeys answers [KeysPath].
func (n *node) serveKeys(w http.ResponseWriter, r *http.Request) error {
	if r.Method == http.MethodPost {
		var wanted RotateRequest
		if err := json.NewDecoder(http.MaxBytesReader(nil, r.Body, maxCallBytes)).Decode(&wanted); err != nil {
			return apierrors.NewBadRequest("read the request: " + err.Error())
		}
		if err := n.rotateAtLeader(r.Context(), wanted); err != nil {
			return err
		}
	}
	serveJSON(func(r *http.Request) (KeysStatus, error) { return n.keysStatus(r.Context()) })(w, r)
	return nil
}

func (n *node) rotateAtLeader(ctx context.Context, wanted RotateRequest) error {
	switch leader := n.replica.Status().LeaderID; leader {
	case "":
		return errors.New("rotate keys: there is no leader: the quorum is lost")
	case n.dir.NodeID:
		return n.rotate(ctx, wanted)
	default:
		_, err := call[RotateRequest, keysAnswer](ctx, n.peers, leader, rotatePath, wanted)
		return err
	}
}

func (n *node) keysStatus(ctx context.Context) (status KeysStatus, err error) {
	status = KeysStatus{
		Gossip: len(n.mesh.Keys()), Data: n.dataKeys.status(), Tokens: n.keys.Tokens().Status(), Authorities: n.keys.Cluster().Status(),
	}
	status.Rotation, err = n.rotationStatus(ctx)
	return status, err
}

func (k *dataKeys) status() []DataKeyStatus {
	k.mu.Lock()
	defer k.mu.Unlock()
	all := make([]DataKeyStatus, len(k.stored))
	for i, key := range k.stored {
		all[i] = DataKeyStatus{KeyPrint: backup.PrintOf(key.Number, key.Secret), Made: key.Made, Seals: i == 0, Pending: key.Pending}
	}
	return all
}

// removeExpiredTokens removes join tokens that let nobody in any more.
func (n *node) removeExpiredTokens(ctx context.Context, now time.Time) {
	removed, err := join.RemoveExpired(ctx, n.client(authuser.APIServerUser, authuser.SystemPrivilegedGroup), now)
	if err != nil && ctx.Err() == nil {
		n.log.Warn("remove expired join tokens", "error", err)
	}
	if len(removed) > 0 {
		n.log.Info("removed expired join tokens", "tokens", slices.Sorted(slices.Values(removed)))
	}
}
