package consensus

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/hashicorp/raft"

	"github.com/podvine/podvine/consensus/store"
)

const (
	// probeTimeout bounds the attempt to reach one voter.
	probeTimeout = 3 * time.Second
	// putAwaySuffix names what [PutAway] leaves.
	putAwaySuffix = ".superseded"
)

// RecoverConfig describes a recovery. Dir, NodeID and ClusterID are required and name the replica that stays.
type RecoverConfig struct {
	Dir, NodeID, ClusterID string
	// Alive tells whether a node is believed to live; nil believes nothing.
	Alive func(nodeID string) bool
	// Dial reaches voters directly; nil reaches none.
	Dial   DialFunc
	Logger *slog.Logger
	// SegmentBytes as in [Config].
	SegmentBytes int
}

// Recovery is what a recovery came to.
type Recovery struct {
	Epoch    uint64
	Revision int64
	// Lost are the voters that the cluster goes on without.
	Lost []string
}

// MajorityError says that a recovery is refused, because a majority of the voters may live.
type MajorityError struct {
	Voters, Living []string
}

func (e *MajorityError) Error() string {
	return fmt.Sprintf("%d of %d voters may live (%s): they are a quorum, or become one when they reach each other; recover only when they are gone",
		len(e.Living), len(e.Voters), strings.Join(e.Living, ", "))
}

// Recover makes this voter or standby the only voter of a cluster that lost the majority of its voters for good. The
// replica must be closed. What the lost voters acknowledged and never sent here is lost with them; what they sent is kept,
// whether they acknowledged it or not. The revision leaps. A new epoch begins, so that a lost voter that comes back is
// refused and joins as a fresh replica. It refuses with a [MajorityError] while a majority may live. When it is
// interrupted, the replica opens only after it has run again.
func Recover(ctx context.Context, cfg RecoverConfig) (Recovery, error) {
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	if cfg.SegmentBytes == 0 {
		cfg.SegmentBytes = defaultSegmentBytes
	}
	if _, err := os.Stat(filepath.Join(cfg.Dir, identityFile)); err != nil {
		return Recovery{}, fmt.Errorf("recover: no replica in %s: %w", cfg.Dir, err)
	}
	lock, id, err := claimDir(cfg.Dir, identity{Node: cfg.NodeID, Cluster: cfg.ClusterID})
	if err != nil {
		return Recovery{}, fmt.Errorf("recover: %w", err)
	}
	done, err := recoverDir(ctx, cfg, id)
	if err = errors.Join(err, lock.Close()); err != nil {
		return done, fmt.Errorf("recover: %w", err)
	}
	return done, nil
}

func recoverDir(ctx context.Context, cfg RecoverConfig, id identity) (Recovery, error) {
	logger := newRaftLogger(cfg.Logger)
	log, err := openLog(filepath.Join(cfg.Dir, "log"), cfg.SegmentBytes, logger)
	if err != nil {
		return Recovery{}, err
	}
	snaps, err := raft.NewFileSnapshotStoreWithLogger(cfg.Dir, retainedSnapshots, logger)
	if err == nil {
		err = checkSnapshots(snaps, log, cfg.Logger)
	}
	if err != nil {
		return Recovery{}, errors.Join(err, log.Close())
	}
	done, err := recoverLog(ctx, cfg, id, log, snaps)
	return done, errors.Join(err, log.Close())
}

func recoverLog(ctx context.Context, cfg RecoverConfig, id identity, log diskLog, snaps raft.SnapshotStore) (Recovery, error) {
	_, transport := raft.NewInmemTransport(raft.ServerAddress(cfg.NodeID))
	rc := (&Config{NodeID: cfg.NodeID, Logger: cfg.Logger}).raftConfig()
	inner := store.NewFSM(store.New(store.Options{}))
	before, err := raft.GetConfiguration(rc, inner, log, log, snaps, transport)
	if err != nil {
		return Recovery{}, fmt.Errorf("read configuration: %w", err)
	}
	voters := votersOf(before)
	if len(voters) == 0 {
		return Recovery{}, errors.New("this replica never learnt who the voters are: it has nothing to recover from")
	}
	if !id.Recovering {
		living, err := livingVoters(ctx, cfg, id, voters)
		if err != nil {
			return Recovery{}, err
		}
		if len(living) > len(voters)/2 {
			return Recovery{}, &MajorityError{Voters: voters, Living: living}
		}
		id.Epoch, id.Recovering = max(id.Epoch, firstEpoch)+1, true
		if err := writeIdentity(cfg.Dir, id); err != nil {
			return Recovery{}, err
		}
	}
	rc = (&Config{NodeID: cfg.NodeID, Logger: cfg.Logger}).raftConfig()
	state := store.New(store.Options{})
	alone := raft.Configuration{Servers: []raft.Server{{ID: rc.LocalID, Address: raft.ServerAddress(cfg.NodeID)}}}
	if err := raft.RecoverCluster(rc, leapingFSM{store.NewFSM(state), state}, log, log, snaps, transport, alone); err != nil {
		return Recovery{}, err
	}
	id.Recovering = false
	lost := slices.DeleteFunc(voters, func(v string) bool { return v == cfg.NodeID })
	return Recovery{Epoch: id.Epoch, Revision: state.Revision(), Lost: lost}, writeIdentity(cfg.Dir, id)
}

// leapingFSM raises the revision before the state is written.
type leapingFSM struct {
	*store.FSM
	state *store.Store
}

// Snapshot implements raft.FSM.
func (f leapingFSM) Snapshot() (raft.FSMSnapshot, error) {
	f.state.Leap(f.state.Revision() + RevisionJump)
	return f.FSM.Snapshot()
}

func votersOf(c raft.Configuration) []string {
	var voters []string
	for _, s := range c.Servers {
		if s.Suffrage == raft.Voter {
			voters = append(voters, string(s.ID))
		}
	}
	return voters
}

// livingVoters returns the voters that are believed to live or answer a connection, this one included.
func livingVoters(ctx context.Context, cfg RecoverConfig, id identity, voters []string) ([]string, error) {
	answers := make([]bool, len(voters))
	m := newMembership(cfg.Dir, id, cfg.Logger)
	var probes sync.WaitGroup
	for i, v := range voters {
		switch {
		case v == cfg.NodeID, cfg.Alive != nil && cfg.Alive(v):
			answers[i] = true
		case cfg.Dial != nil:
			probes.Go(func() { answers[i] = probe(ctx, cfg.Dial, m, v) })
		}
	}
	probes.Wait()
	if m.isOver() {
		return nil, fmt.Errorf("%w: put its directory away and join again", ErrSuperseded)
	}
	var living []string
	for i, v := range voters {
		if answers[i] {
			living = append(living, v)
		}
	}
	return living, nil
}

// probe tells whether a node's replica answers. One that is of another cluster or epoch does not count.
func probe(ctx context.Context, dial DialFunc, m *membership, node string) bool {
	ctx, cancel := context.WithTimeout(ctx, probeTimeout)
	defer cancel()
	n := &network{dialer: dial, membership: m}
	conn, err := n.dial(ctx, node, ProtocolStore)
	if err != nil {
		return false
	}
	drop(conn)
	return true
}

// PutAway moves the directory of a replica that was superseded, or removed from the quorum, beside itself, so that the
// node can join again as a fresh one. It replaces what an earlier call left. The replica must be closed.
func PutAway(dir string) error {
	aside := dir + putAwaySuffix
	if err := os.RemoveAll(aside); err != nil {
		return fmt.Errorf("put away replica: %w", err)
	}
	if err := os.Rename(dir, aside); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("put away replica: %w", err)
	}
	return syncDir(filepath.Dir(dir))
}
