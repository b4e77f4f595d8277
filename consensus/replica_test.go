package consensus

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/raft"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/podvine/podvine/consensus/store"
)

const testTable = "/test/"

func TestMain(m *testing.M) {
	if os.Getenv(crashChildEnv) != "" {
		os.Exit(crashChild())
	}
	os.Exit(m.Run())
}

func testConfig(dir string) Config {
	return Config{
		Dir: dir, NodeID: "node-1", ClusterID: "cluster-1", Logger: slog.New(slog.DiscardHandler),
		SegmentBytes: 1 << 20, ReserveBytes: -1,
	}
}

// open starts a replica that the test's end closes, and waits until it leads.
func open(t testing.TB, cfg Config) *Replica {
	t.Helper()
	r, err := Open(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := r.Close(); err != nil {
			t.Error(err)
		}
	})
	if !cfg.Join {
		ready(t, r)
	}
	return r
}

func ready(t testing.TB, r *Replica) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	if err := r.WaitReady(ctx); err != nil {
		t.Fatal(err)
	}
}

func putCommand(key, value string, expect int64) store.Command {
	return store.Command{Ops: []store.Op{{Kind: store.OpPut, Table: testTable, Key: key, Expect: expect, Value: []byte(value)}}}
}

func write(t testing.TB, r *Replica, key, value string) store.Result {
	t.Helper()
	result, err := r.Propose(t.Context(), Proposal{Command: putCommand(key, value, store.ExpectAny)})
	if err != nil || result.Code != store.CodeCommitted {
		t.Fatalf("write %s: %+v, %v", key, result, err)
	}
	return result
}

func read(r *Replica, key string) string {
	e, _ := r.Store().Get(testTable, key)
	if e == nil {
		return ""
	}
	return string(e.Value)
}

// eventually polls until ok holds.
func eventually(t testing.TB, limit time.Duration, what string, ok func() bool) {
	t.Helper()
	deadline := time.Now().Add(limit)
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		if time.Now().After(deadline) {
			t.Fatalf("not within %v: %s", limit, what)
		}
		<-tick.C
	}
}

func TestWritesSurviveReopening(t *testing.T) {
	cfg := testConfig(t.TempDir())
	r := open(t, cfg)
	for i := range 50 {
		write(t, r, fmt.Sprint(i), "v")
	}
	rev := r.Store().Revision()
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
	r = open(t, cfg)
	got, err := r.ReadRevision(t.Context())
	if err != nil || got != rev || read(r, "49") != "v" {
		t.Fatalf("reopened at %d, %v; want %d", got, err, rev)
	}
}

func TestReopenFromSnapshot(t *testing.T) {
	cfg := testConfig(t.TempDir())
	cfg.SegmentBytes = 32 << 10
	r := open(t, cfg)
	value := strings.Repeat("x", 1000)
	for i := range 300 {
		write(t, r, fmt.Sprint(i), value)
	}
	if err := r.snapshot(); err != nil {
		t.Fatal(err)
	}
	for i := range 10 {
		write(t, r, fmt.Sprint(i), "after")
	}
	if first, err := r.guard.FirstIndex(); err != nil || first < 100 {
		t.Fatalf("the log still begins at %d, %v", first, err)
	}
	var before, after bytes.Buffer
	if err := r.Backup(&before); err != nil {
		t.Fatal(err)
	}
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
	r = open(t, cfg)
	if err := r.Backup(&after); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(before.Bytes(), after.Bytes()) {
		t.Fatal("the state after restart differs")
	}
}

// TestIdleAppendsNothing holds law 2: an idle cluster writes no log entry, and reads write none.
func TestIdleAppendsNothing(t *testing.T) {
	r := open(t, testConfig(t.TempDir()))
	write(t, r, "k", "v")
	last := r.raft.LastIndex()
	for range 100 {
		if _, err := r.ReadRevision(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	timer := time.NewTimer(1500 * time.Millisecond) // three heartbeats
	<-timer.C
	if now := r.raft.LastIndex(); now != last {
		t.Fatalf("an idle replica appended %d entries", now-last)
	}
}

func TestForeignDirectoryIsRefused(t *testing.T) {
	cfg := testConfig(t.TempDir())
	r := open(t, cfg)
	if _, err := Open(t.Context(), cfg); err == nil || !strings.Contains(err.Error(), "in use by another process") {
		t.Fatalf("a directory in use was opened: %v", err)
	}
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
	for _, change := range []func(*Config){
		func(c *Config) { c.NodeID = "node-2" },
		func(c *Config) { c.ClusterID = "cluster-2" },
	} {
		other := cfg
		change(&other)
		_, err := Open(t.Context(), other)
		var foreign *ForeignDirError
		if !errors.As(err, &foreign) || strings.Contains(err.Error(), "\n") {
			t.Fatalf("a foreign directory was opened: %v", err)
		}
	}
	if err := os.Remove(filepath.Join(cfg.Dir, identityFile)); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(t.Context(), cfg); err == nil || !strings.Contains(err.Error(), identityFile) {
		t.Fatalf("a directory without its identity was opened: %v", err)
	}
}

func TestJoiningReplicaFoundsNothing(t *testing.T) {
	cfg := testConfig(t.TempDir())
	cfg.Join = true
	r := open(t, cfg)
	ctx, cancel := context.WithTimeout(t.Context(), 1200*time.Millisecond)
	defer cancel()
	if err := r.WaitReady(ctx); err == nil {
		t.Fatal("an empty replica told to join leads")
	}
	if _, err := r.Propose(ctx, Proposal{Command: putCommand("k", "v", store.ExpectAny)}); !errors.Is(err, ErrNotLeader) {
		t.Fatalf("propose: %v", err)
	}
}

// TestTornTailIsRepaired damages the end of the log as a crash in the middle of a write would.
func TestTornTailIsRepaired(t *testing.T) {
	for name, tear := range map[string]func(t *testing.T, tail string){
		"half a frame": func(t *testing.T, tail string) {
			overwriteAfterData(t, tail, []byte{1, 0, 0, 0, 0xff, 0, 0, 0, 'x', 'y'})
		},
		"garbage": func(t *testing.T, tail string) { overwriteAfterData(t, tail, bytes.Repeat([]byte{0xA5}, 700)) },
	} {
		t.Run(name, func(t *testing.T) {
			cfg := testConfig(t.TempDir())
			r := open(t, cfg)
			for i := range 20 {
				write(t, r, fmt.Sprint(i), "v")
			}
			if err := r.Close(); err != nil {
				t.Fatal(err)
			}
			tear(t, lastSegment(t, cfg.Dir))
			r = open(t, cfg)
			for i := range 20 {
				if read(r, fmt.Sprint(i)) != "v" {
					t.Fatalf("key %d is lost", i)
				}
			}
			write(t, r, "more", "v")
			if err := r.Close(); err != nil {
				t.Fatal(err)
			}
			if r = open(t, cfg); read(r, "more") != "v" {
				t.Fatal("a write after the repair is lost")
			}
		})
	}
}

func lastSegment(t *testing.T, dir string) string {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(dir, "log", "*.wal"))
	if err != nil || len(files) == 0 {
		t.Fatal("no log files", err)
	}
	slices.Sort(files)
	return files[len(files)-1]
}

// overwriteAfterData writes b where the next frame would go.
func overwriteAfterData(t *testing.T, path string, b []byte) {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	end := (len(bytes.TrimRight(data, "\x00")) + 7) / 8 * 8
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteAt(b, int64(end)); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
}

func TestCorruptSnapshotIsRefused(t *testing.T) {
	cfg := testConfig(t.TempDir())
	cfg.SegmentBytes = 32 << 10
	r := open(t, cfg)
	for i := range 400 {
		write(t, r, fmt.Sprint(i), strings.Repeat("v", 500))
	}
	if err := r.snapshot(); err != nil {
		t.Fatal(err)
	}
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
	states, err := filepath.Glob(filepath.Join(cfg.Dir, "snapshots", "*", "state.bin"))
	if err != nil || len(states) != 1 {
		t.Fatal(states, err)
	}
	whole, err := os.ReadFile(states[0])
	if err != nil {
		t.Fatal(err)
	}
	damaged := bytes.Clone(whole)
	damaged[len(damaged)/2] ^= 1
	if err := os.WriteFile(states[0], damaged, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(t.Context(), cfg); err == nil || !strings.Contains(err.Error(), "is corrupt") {
		t.Fatalf("a corrupt snapshot was opened: %v", err)
	}
	if err := os.WriteFile(states[0], whole, 0o600); err != nil {
		t.Fatal(err)
	}
	if r = open(t, cfg); read(r, "399") == "" {
		t.Fatal("the repaired replica lost a key")
	}
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
	if err := os.RemoveAll(filepath.Dir(states[0])); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(t.Context(), cfg); err == nil || !strings.Contains(err.Error(), "there is no snapshot") {
		t.Fatalf("a log with a gap was opened: %v", err)
	}
}

func TestExpiryDeletesInBatches(t *testing.T) {
	r := open(t, testConfig(t.TempDir()))
	at := time.Now().Add(300 * time.Millisecond).UnixMilli()
	for i := range 20 {
		c := putCommand(fmt.Sprint(i), "v", store.ExpectAny)
		c.Ops[0].ExpiresUnixMilli = at
		if _, err := r.Propose(t.Context(), Proposal{Command: c}); err != nil {
			t.Fatal(err)
		}
	}
	keep := putCommand("later", "v", store.ExpectAny)
	keep.Ops[0].ExpiresUnixMilli = time.Now().Add(time.Hour).UnixMilli()
	if _, err := r.Propose(t.Context(), Proposal{Command: keep}); err != nil {
		t.Fatal(err)
	}
	before := r.raft.LastIndex()
	eventually(t, 10*time.Second, "keys expire", func() bool { n, _ := r.Store().TableStats(testTable); return n == 1 })
	if entries := r.raft.LastIndex() - before; entries > 10 {
		t.Fatalf("20 expiries took %d log entries", entries)
	}
	if time.Now().UnixMilli() < at {
		t.Fatal("keys expired early")
	}
}

// TestGroupCommit counts log entries: concurrent writes share them.
func TestGroupCommit(t *testing.T) {
	r := open(t, testConfig(t.TempDir()))
	before := r.raft.LastIndex()
	const writes = 400
	done := make(chan error, writes)
	for i := range writes {
		go func() {
			_, err := r.Propose(t.Context(), Proposal{Command: putCommand(fmt.Sprint(i), "v", store.ExpectAny)})
			done <- err
		}()
	}
	for range writes {
		if err := <-done; err != nil {
			t.Fatal(err)
		}
	}
	if entries := r.raft.LastIndex() - before; entries > writes/2 {
		t.Fatalf("%d writes took %d log entries", writes, entries)
	}
	if n, _ := r.Store().TableStats(testTable); n != writes {
		t.Fatalf("%d keys", n)
	}
}

func TestMetricsAreRegisteredAndLeave(t *testing.T) {
	reg := prometheus.NewRegistry()
	cfg := testConfig(t.TempDir())
	cfg.Registerer = reg
	r := open(t, cfg)
	write(t, r, "k", "v")
	families, err := reg.Gather()
	if err != nil || len(families) < 10 {
		t.Fatalf("%d families, %v", len(families), err)
	}
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
	if families, err = reg.Gather(); err != nil || len(families) != 0 {
		t.Fatalf("%d families stay, %v", len(families), err)
	}
}

// cluster is three voters in one process.
type cluster struct {
	replicas []*Replica
}

func newCluster(t *testing.T) *cluster {
	t.Helper()
	c := &cluster{}
	var transports []*raft.InmemTransport
	for i := range 3 {
		cfg := testConfig(t.TempDir())
		cfg.NodeID = fmt.Sprintf("node-%d", i)
		cfg.Join = i > 0
		_, tr := raft.NewInmemTransportWithTimeout(raft.ServerAddress(cfg.NodeID), 500*time.Millisecond)
		for _, other := range transports {
			tr.Connect(other.LocalAddr(), other)
			other.Connect(tr.LocalAddr(), tr)
		}
		transports = append(transports, tr)
		cfg.Transport = tr
		c.replicas = append(c.replicas, open(t, cfg))
	}
	first := c.replicas[0]
	first.soleVoter.Store(false)
	for _, r := range c.replicas[1:] {
		id := r.cfg.NodeID
		if err := first.raft.AddVoter(raft.ServerID(id), raft.ServerAddress(id), 0, 10*time.Second).Error(); err != nil {
			t.Fatal(err)
		}
	}
	write(t, first, "founded", "v")
	eventually(t, 15*time.Second, "all voters to know each other", func() bool {
		return !slices.ContainsFunc(c.replicas, func(r *Replica) bool { return read(r, "founded") == "" })
	})
	return c
}

func (c *cluster) leader(t *testing.T, not *Replica) *Replica {
	t.Helper()
	var leader *Replica
	eventually(t, 15*time.Second, "a leader", func() bool {
		for _, r := range c.replicas {
			if _, ok := r.Leading(); ok && r != not {
				leader = r
				return true
			}
		}
		return false
	})
	return leader
}

// TestLostLeadIsUnknown cuts a leader off in the middle of a write: it must not say that the write failed, nor answer reads.
func TestLostLeadIsUnknown(t *testing.T) {
	c := newCluster(t)
	old := c.leader(t, nil)
	write(t, old, "k", "before")
	old.gate.cut()
	_, err := old.Propose(t.Context(), Proposal{Command: putCommand("k", "lost", store.ExpectAny)})
	if !errors.Is(err, ErrUnknownOutcome) {
		t.Fatalf("a write of a cut leader: %v", err)
	}
	next := c.leader(t, old)
	write(t, next, "k", "after")
	if _, err := old.ReadRevision(t.Context()); !errors.Is(err, ErrNotLeader) {
		t.Fatalf("a deposed leader answers reads: %v", err)
	}
	old.gate.heal()
	rev, err := next.ReadRevision(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 15*time.Second)
	defer cancel()
	for _, r := range c.replicas {
		if err := r.Store().WaitRevision(ctx, rev); err != nil {
			t.Fatal(err)
		}
		if got := read(r, "k"); got != "after" {
			t.Fatalf("%s has %q", r.cfg.NodeID, got)
		}
	}
}

// TestBrokenDiskGivesUpTheLead breaks the leader's disk: another takes over, and the first comes back.
func TestBrokenDiskGivesUpTheLead(t *testing.T) {
	c := newCluster(t)
	old := c.leader(t, nil)
	write(t, old, "k", "before")
	old.guard.failing.Add(1)
	old.guard.trip("append", errSlowDisk)
	next := c.leader(t, old)
	write(t, next, "k", "after")
	if len(old.Conditions()) != 1 {
		t.Fatal("no condition")
	}
	old.guard.failing.Add(-1)
	eventually(t, 10*time.Second, "the disk's recovery", func() bool { return len(old.Conditions()) == 0 })
	eventually(t, 10*time.Second, "the old leader follows", func() bool { return read(old, "k") == "after" })
}
