package consensus

import (
	"errors"
	"log/slog"
	"time"

	"github.com/hashicorp/raft"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/podvine/podvine/consensus/store"
)

const (
	// heartbeatInterval is how long a follower waits for its leader, and a candidate for votes.
	heartbeatInterval = 500 * time.Millisecond
	// commitInterval is how often, up to half as often, a follower is told what is committed and sent what it lacks when nothing
	// else is written. What is committed its leader tells it at once over the store protocol; this is for when it cannot.
	commitInterval = 500 * time.Millisecond
	// maxAppendEntries bounds the log entries of one disk write and of one message.
	maxAppendEntries = 256
	// maxGroupBytes and maxGroupCommands bound one log entry; a single larger command still gets one.
	maxGroupBytes    = 1 << 20
	maxGroupCommands = 512
	// maxWaitingProposals bounds the writes that wait for a group.
	maxWaitingProposals = 8192
	// maxInflightGroups lets one group be written while the one before is applied.
	maxInflightGroups = 2
	// slowGroup is how long groups take on a disk that is worth waiting for company; they wait a lingerPart of that, and
	// maxLinger at most.
	slowGroup  = 2 * time.Millisecond
	lingerPart = 10
	maxLinger  = 2 * time.Millisecond

	// A snapshot is taken after this many log entries or bytes.
	snapshotAfterEntries = 16384
	snapshotAfterBytes   = 128 << 20
	// Entries that stay in the log behind a snapshot, for followers that lag.
	trailingEntriesMax = 10240
	trailingEntriesMin = 64
	trailingBytes      = 64 << 20
	retainedSnapshots  = 2

	defaultSegmentBytes = 64 << 20
	defaultReserveBytes = 96 << 20
	// defaultSlowAppend is how long a disk operation may take before the node gives up the lead.
	defaultSlowAppend = time.Second
)

// Config describes a replica. Dir, NodeID and ClusterID are required.
type Config struct {
	// Dir is the data directory, on a file system that keeps what fsync was told.
	Dir string
	// NodeID is the node's UUID, its identity and raft address.
	NodeID string
	// ClusterID is the cluster's UUID.
	ClusterID string
	// Join keeps an empty replica from founding a cluster: it waits to be added by another.
	Join bool
	// Epoch is the cluster's, as the leader that wants this replica to join told it; 0 when it is not known.
	Epoch uint64
	// Network connects the replica with others; nil when it is alone.
	Network *Network
	// Transport carries raft's messages when Network is nil, for tests; nil is one without peers.
	Transport raft.Transport

	Logger     *slog.Logger
	Registerer prometheus.Registerer
	// Now is the node's clock, time.Now when nil.
	Now func() time.Time

	// HistoryAge and HistoryBytes bound how far watches and pages reach back; zero means five minutes and 256 MiB.
	HistoryAge   time.Duration
	HistoryBytes int64
	// SegmentBytes is the size of a log file, ReserveBytes of what a full disk gives back (negative: nothing).
	// Zero means 64 and 96 MiB.
	SegmentBytes int
	ReserveBytes int64
	// SlowAppend is how long a disk operation may take; zero means a second.
	SlowAppend time.Duration

	// wrapFSM, wrapLog and wrapDisk let tests stop or break the replica at a chosen point: around the state machine, above
	// and below the disk guard.
	wrapFSM  func(raft.BatchingFSM) raft.BatchingFSM
	wrapLog  func(raft.LogStore) raft.LogStore
	wrapDisk func(diskLog) diskLog
	// snapshotAfter replaces snapshotAfterEntries in tests.
	snapshotAfter int64
}

func (c *Config) setDefaults() error {
	if c.Dir == "" || c.NodeID == "" || c.ClusterID == "" {
		return errors.New("open replica: Dir, NodeID and ClusterID are required")
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.SegmentBytes == 0 {
		c.SegmentBytes = defaultSegmentBytes
	}
	if c.ReserveBytes == 0 {
		c.ReserveBytes = defaultReserveBytes
	}
	if c.snapshotAfter == 0 {
		c.snapshotAfter = snapshotAfterEntries
	}
	if c.SlowAppend == 0 {
		c.SlowAppend = defaultSlowAppend
	}
	return nil
}

func (c *Config) raftConfig() *raft.Config {
	rc := raft.DefaultConfig()
	rc.LocalID = raft.ServerID(c.NodeID)
	rc.HeartbeatTimeout = heartbeatInterval
	rc.ElectionTimeout = heartbeatInterval
	rc.LeaderLeaseTimeout = heartbeatInterval
	rc.CommitTimeout = commitInterval
	rc.MaxAppendEntries = maxAppendEntries
	rc.BatchApplyCh = true
	rc.ShutdownOnRemove = false // a removed replica stays readable until its node closes it
	rc.TrailingLogs = trailingEntriesMax
	rc.SnapshotThreshold = 1 << 62 // the replica decides itself, by bytes too
	rc.NoLegacyTelemetry = true
	rc.Logger = newRaftLogger(c.Logger)
	return rc
}

func (c *Config) storeOptions() store.Options {
	return store.Options{HistoryAge: c.HistoryAge, HistoryBytes: c.HistoryBytes}
}
