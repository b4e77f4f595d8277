package consensus

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/raft"

	"github.com/podvine/podvine/consensus/store"
)

// closeWait bounds how long Close waits for a disk that does not answer.
const closeWait = 5 * time.Second

// wakeTimeout bounds how long an opened replica asks others for their epoch.
const wakeTimeout = heartbeatInterval

// outsideInterval is how often a replica that was removed asks whether that is so still.
const outsideInterval = 10 * time.Second

// closeHandOver bounds how long Close tries to give the lead to another voter.
const closeHandOver = time.Second

// Replica is this node's copy of the cluster's records. See the package comment.
type Replica struct {
	cfg     Config
	log     *slog.Logger
	store   *store.Store
	raft    *raft.Raft
	gate    *gate
	guard   *guard
	snaps   raft.SnapshotStore
	lock    *os.File
	metrics *metrics

	queue    chan *proposal
	inflight chan *group
	slots    chan struct{}
	// groupLatency is how long groups take lately, in nanoseconds.
	groupLatency atomic.Int64
	// drained is closed when every write that left the queue has its outcome.
	drained  chan struct{}
	proposer *proposer

	lead     leadership
	verifier verifier
	reach    reach

	// membership says in which epoch of which cluster this replica is. network is nil without peers.
	membership *membership
	network    *network
	// remote lets readers share the questions to the leader, forwarding bounds the writes on their way there.
	remote     verifier
	forwarding chan struct{}
	sequence   atomic.Uint64
	sessionsMu sync.Mutex
	sessions   map[string]*session

	// soleVoter is set while the configuration has no other voter. Whoever adds a voter clears it first; configuring counts
	// those who are about to change the configuration.
	soleVoter   atomic.Bool
	configMu    sync.Mutex
	configuring int

	expiry  expiry
	compact compaction

	// woken is closed once the replica may lead.
	woken   chan struct{}
	closing chan struct{}
	// down is closed when raft has ended.
	down chan struct{}
	// restoring is held while a backup takes the place of the state.
	restoring sync.Mutex
	closeOnce sync.Once
	closeErr  error
	tasks     sync.WaitGroup
}

// Open starts the replica in cfg.Dir. An empty directory founds a cluster of this one voter unless cfg.Join is set. ctx
// bounds the opening only. The replica answers before it leads; see [Replica.WaitReady].
func Open(ctx context.Context, cfg Config) (*Replica, error) {
	if err := cfg.setDefaults(); err != nil {
		return nil, err
	}
	if err := ctx.Err(); err != nil {
		return nil, fmt.Errorf("open replica: %w", err)
	}
	want := identity{Node: cfg.NodeID, Cluster: cfg.ClusterID, Epoch: firstEpoch}
	if cfg.Join {
		want.Epoch = cfg.Epoch
	}
	lock, found, err := claimDir(cfg.Dir, want)
	if err != nil {
		return nil, err
	}
	if found.Recovering {
		return nil, errors.Join(fmt.Errorf("open replica in %s: its recovery did not end: recover again", cfg.Dir), lock.Close())
	}
	r := &Replica{
		cfg: cfg, log: cfg.Logger, lock: lock, metrics: newMetrics(cfg.Registerer),
		membership: newMembership(cfg.Dir, found, cfg.Logger),
		forwarding: make(chan struct{}, maxForwarded), sessions: map[string]*session{},
		reach: reach{lostSince: time.Now(), look: make(chan struct{}, 1)},
		queue: make(chan *proposal, maxWaitingProposals), inflight: make(chan *group, maxInflightGroups),
		slots:    make(chan struct{}, maxInflightGroups),
		drained:  make(chan struct{}),
		proposer: newProposer(rand.Uint64()),
		woken:    make(chan struct{}),
		closing:  make(chan struct{}),
		down:     make(chan struct{}),
		lead:     leadership{changed: make(chan struct{})},
		expiry:   expiry{kick: make(chan struct{}, 1)},
		compact:  compaction{after: cfg.snapshotAfter, kick: make(chan struct{}, 1)},
	}
	opts := cfg.storeOptions()
	opts.Claim = r.proposer.claim
	r.store = store.New(opts)
	if err := r.open(); err != nil {
		return nil, errors.Join(err, r.Close())
	}
	return r, nil
}

func (r *Replica) open() error {
	inner := r.cfg.Transport
	switch {
	case r.cfg.Network != nil:
		r.network = openNetwork(r.cfg.Network, r.membership)
		inner = NewTransport(r.network.raft, r.network.dial, newRaftLogger(r.log))
	case inner == nil:
		_, inner = raft.NewInmemTransport(raft.ServerAddress(r.cfg.NodeID))
	}
	r.gate = newGate(inner)
	r.gate.waking.Store(r.network != nil)
	if err := r.openDisk(); err != nil {
		return err
	}
	if err := r.startRaft(); err != nil {
		return err
	}
	if r.network != nil {
		r.tasks.Go(r.serve)
	}
	r.tasks.Go(r.wake)
	if err := r.metrics.register(r); err != nil {
		return err
	}
	for _, task := range []func(){r.runProposer, r.runCompleter, r.runLeadership, r.runReach, r.runExpiry, r.runCompaction} {
		r.tasks.Go(task)
	}
	return nil
}

// wake asks all replicas of the configuration which epoch is theirs before this one votes or leads: the cluster may have
// been recovered while it was away. Those that cannot be reached in time are not waited for. A sole voter then leads at once.
func (r *Replica) wake() {
	defer close(r.woken)
	outside := r.network != nil && r.removed()
	if r.membership.isOver() {
		r.gate.retire()
		return
	}
	if outside {
		r.log.Info("the quorum went on without this replica: it asks for no vote until a leader speaks to it")
		r.gate.outside.Store(true)
		r.tasks.Go(r.stayOutside)
	}
	r.gate.waking.Store(false)
	if r.soleVoter.Load() {
		r.gate.elect()
	}
}

// removed greets all replicas of the configuration, and tells whether one of them, which has a leader, knows a newer one without this
// replica.
func (r *Replica) removed() bool {
	ctx, cancel := context.WithTimeout(context.Background(), wakeTimeout)
	defer cancel()
	var (
		asked   sync.WaitGroup
		outside atomic.Bool
	)
	term := r.raft.CurrentTerm()
	for _, s := range r.servers() {
		if id := string(s.ID); id != r.cfg.NodeID {
			asked.Go(func() {
				view, err := r.viewOf(ctx, id)
				here := func(server Server) bool { return server.ID == r.cfg.NodeID }
				if err == nil && view.Leader != "" && view.Term >= term && !slices.ContainsFunc(view.Servers, here) {
					outside.Store(true)
				}
			})
		}
	}
	asked.Wait()
	return outside.Load()
}

// stayOutside asks again, should those who said so have been wrong: what is not committed can be undone.
func (r *Replica) stayOutside() {
	ticker := time.NewTicker(outsideInterval)
	defer ticker.Stop()
	for r.gate.outside.Load() {
		select {
		case <-r.closing:
			return
		case <-ticker.C:
		}
		if !r.removed() {
			r.gate.outside.Store(false)
		}
	}
}

func (r *Replica) openDisk() error {
	dir := filepath.Join(r.cfg.Dir, "log")
	logger := newRaftLogger(r.log)
	open := func() (diskLog, error) {
		l, err := openLog(dir, r.cfg.SegmentBytes, logger)
		if err == nil && r.cfg.wrapDisk != nil {
			l = r.cfg.wrapDisk(l)
		}
		return l, err
	}
	held := &reserve{path: filepath.Join(r.cfg.Dir, reserveFile), bytes: r.cfg.ReserveBytes, log: r.log}
	r.guard = &guard{
		dir: r.cfg.Dir, open: open, gate: r.gate, reserve: held, slow: r.cfg.SlowAppend, now: time.Now,
		log: r.log, metrics: r.metrics, full: r.compact.soon, abdicate: r.abdicate, stopping: make(chan struct{}),
	}
	if err := r.guard.reopen(); err != nil {
		return err
	}
	held.fill()
	var err error
	if r.snaps, err = raft.NewFileSnapshotStoreWithLogger(r.cfg.Dir, retainedSnapshots, logger); err != nil {
		return fmt.Errorf("open snapshots: %w", err)
	}
	return checkSnapshots(r.snaps, r.guard, r.log)
}

func (r *Replica) startRaft() (err error) {
	rc := r.cfg.raftConfig()
	existing, err := raft.HasExistingState(r.guard, r.guard, r.snaps)
	if err != nil {
		return fmt.Errorf("read log: %w", err)
	}
	if !existing && !r.cfg.Join {
		self := raft.Server{ID: rc.LocalID, Address: raft.ServerAddress(r.cfg.NodeID)}
		first := raft.Configuration{Servers: []raft.Server{self}}
		if err := raft.BootstrapCluster(rc, r.guard, r.guard, r.snaps, r.gate, first); err != nil {
			return fmt.Errorf("found cluster: %w", err)
		}
	}
	fsm := r.cfg.wrapFSM
	if fsm == nil {
		fsm = func(f raft.BatchingFSM) raft.BatchingFSM { return f }
	}
	logs := raft.LogStore(r.guard)
	if r.cfg.wrapLog != nil {
		logs = r.cfg.wrapLog(logs)
	}
	defer func() {
		if p := recover(); p != nil { // raft panics when an entry of the log cannot be read
			err = fmt.Errorf("start raft: %v", p)
		}
	}()
	r.raft, err = raft.NewRaft(rc, fsm(&meteredFSM{FSM: store.NewFSM(r.store), r: r}), logs, r.guard, r.snaps, r.gate)
	if err != nil {
		return fmt.Errorf("start raft: %w", err)
	}
	r.guard.running.Store(true)
	return r.readVoters()
}

// readVoters finds out whether this replica is the only voter.
func (r *Replica) readVoters() error {
	f := r.raft.GetConfiguration()
	if err := f.Error(); err != nil {
		return fmt.Errorf("read raft configuration: %w", err)
	}
	voters := 0
	self := false
	for _, s := range f.Configuration().Servers {
		if s.Suffrage == raft.Voter {
			voters++
			self = self || s.ID == raft.ServerID(r.cfg.NodeID)
		}
	}
	r.configMu.Lock()
	defer r.configMu.Unlock()
	r.soleVoter.Store(self && voters == 1 && r.configuring == 0)
	return nil
}

// Store returns the local state for reading. It may lag behind the cluster; see [Replica.ReadRevision].
func (r *Replica) Store() *store.Store { return r.store }

// Now returns the node's clock.
func (r *Replica) Now() time.Time { return r.cfg.Now() }

// Close ends the replica. Waiting writes get [ErrClosed], or [ErrUnknownOutcome] when they are in the log already.
// A leader hands the lead to another voter first, if there is one that takes it within [closeHandOver].
func (r *Replica) Close() error {
	r.closeOnce.Do(func() { r.closeErr = r.close() })
	return r.closeErr
}

func (r *Replica) close() error {
	if r.raft != nil && !r.soleVoter.Load() {
		ctx, cancel := context.WithTimeout(context.Background(), closeHandOver)
		if err := r.HandOver(ctx); err != nil {
			r.log.Debug("hand over the lead", "error", err)
		}
		cancel()
	}
	close(r.closing)
	r.metrics.unregister()
	done := make(chan error, 1)
	go func() { done <- r.closeParts() }()
	timer := time.NewTimer(closeWait)
	defer timer.Stop()
	select {
	case err := <-done:
		return err
	case <-timer.C:
		return fmt.Errorf("close replica: disk of %s does not answer", r.cfg.Dir)
	}
}

func (r *Replica) closeParts() error {
	var errs []error
	if r.gate != nil {
		r.gate.cut()
	}
	if r.guard != nil {
		r.guard.stop()
	}
	if r.raft != nil {
		errs = append(errs, r.raft.Shutdown().Error())
	}
	close(r.down)
	r.closeSessions()
	if r.network != nil {
		errs = append(errs, r.network.Close())
	}
	if r.gate != nil {
		errs = append(errs, r.gate.Close())
	}
	r.tasks.Wait()
	if r.guard != nil {
		errs = append(errs, r.guard.close())
	}
	return errors.Join(append(errs, r.lock.Close())...)
}
