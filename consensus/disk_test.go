package consensus

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hashicorp/raft"
	"golang.org/x/sys/unix"
)

// freezeSecondsEnv makes the freeze longer than the default run's.
const freezeSecondsEnv = "PODVINE_TEST_FREEZE_SECONDS"

// volume is an ext4 image on a loop device.
type volume struct {
	t     *testing.T
	mount string
}

func command(t *testing.T, name string, args ...string) {
	t.Helper()
	if out, err := exec.Command(name, args...).CombinedOutput(); err != nil {
		t.Fatalf("%s %s: %v: %s", name, strings.Join(args, " "), err, out)
	}
}

func newVolume(t *testing.T, megabytes int) *volume {
	t.Helper()
	dir := t.TempDir()
	image, mount := filepath.Join(dir, "image"), filepath.Join(dir, "mount")
	if err := os.Mkdir(mount, 0o700); err != nil {
		t.Fatal(err)
	}
	command(t, "truncate", "-s", strconv.Itoa(megabytes)+"M", image)
	command(t, "mkfs.ext4", "-q", "-m", "0", image)
	command(t, "mount", "-o", "loop", image, mount)
	v := &volume{t: t, mount: mount}
	t.Cleanup(func() {
		_ = exec.Command("fsfreeze", "-u", mount).Run() // fails when it is not frozen, as it should
		if out, err := exec.Command("umount", mount).CombinedOutput(); err != nil {
			t.Errorf("umount: %v: %s", err, out)
		}
	})
	return v
}

func (v *volume) freeze() { v.t.Helper(); command(v.t, "fsfreeze", "-f", v.mount) }
func (v *volume) thaw()   { v.t.Helper(); command(v.t, "fsfreeze", "-u", v.mount) }

// fill takes all space and returns what gives it back.
func (v *volume) fill() (free func()) {
	v.t.Helper()
	path := filepath.Join(v.mount, "junk")
	f, err := os.Create(path)
	if err != nil {
		v.t.Fatal(err)
	}
	for size := 1 << 20; size >= 1<<10; {
		if _, err := f.Write(make([]byte, size)); errors.Is(err, unix.ENOSPC) {
			size /= 2
		} else if err != nil {
			v.t.Fatal(err)
		}
	}
	if err := f.Close(); err != nil {
		v.t.Fatal(err)
	}
	return func() {
		if err := os.Remove(path); err != nil {
			v.t.Fatal(err)
		}
	}
}

// load writes numbered keys until it is stopped, each once, and remembers which were acknowledged.
type load struct {
	r      *Replica
	cancel context.CancelFunc
	done   sync.WaitGroup
	acked  atomic.Int64
	err    atomic.Pointer[error]
}

func startLoad(t *testing.T, r *Replica) *load {
	ctx, cancel := context.WithCancel(t.Context())
	l := &load{r: r, cancel: cancel}
	value := strings.Repeat("v", 8<<10)
	l.done.Go(func() {
		for n := l.acked.Load(); ctx.Err() == nil; n++ {
			_, err := r.Propose(ctx, Proposal{Command: putCommand(fmt.Sprint("load-", n), value, 0)})
			if err != nil && ctx.Err() == nil {
				l.err.Store(&err)
				return
			}
			if err == nil {
				l.acked.Store(n + 1)
			}
		}
	})
	t.Cleanup(func() { cancel(); l.done.Wait() })
	return l
}

// stop ends the load and checks that everything acknowledged is there, now and after reopening.
func (l *load) stop(t *testing.T, cfg Config) {
	t.Helper()
	l.cancel()
	l.done.Wait()
	if err := l.err.Load(); err != nil {
		t.Fatalf("a write failed: %v", *err)
	}
	if err := l.r.Close(); err != nil {
		t.Fatal(err)
	}
	r := open(t, cfg)
	for n := range l.acked.Load() {
		if read(r, fmt.Sprint("load-", n)) == "" {
			t.Fatalf("acknowledged write %d of %d is lost", n, l.acked.Load())
		}
	}
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
}

func hasCondition(r *Replica, kind string) bool {
	for _, c := range r.Conditions() {
		if c.Type == kind {
			return true
		}
	}
	return false
}

func diskConfig(v *volume) Config {
	cfg := testConfig(filepath.Join(v.mount, "data"))
	cfg.SegmentBytes = 1 << 20
	cfg.ReserveBytes = 4 << 20
	return cfg
}

func TestFullDisk(t *testing.T) {
	v := newVolume(t, 48)
	cfg := diskConfig(v)
	r := open(t, cfg)
	l := startLoad(t, r)
	eventually(t, 10*time.Second, "first writes", func() bool { return l.acked.Load() > 20 })
	free := v.fill()
	eventually(t, 30*time.Second, "the condition", func() bool { return hasCondition(r, ConditionDiskFull) })
	if _, err := os.Stat(filepath.Join(cfg.Dir, reserveFile)); !errors.Is(err, os.ErrNotExist) {
		t.Fatalf("the reserve is not given back: %v", err)
	}
	refill := v.fillAgain()
	var last int64
	eventually(t, 30*time.Second, "writes to stall", func() bool {
		stalled := l.acked.Load() == last && hasCondition(r, ConditionDiskFull) && r.guard.failing.Load() > 0
		last = l.acked.Load()
		return stalled
	})
	if rev, err := r.ReadRevision(t.Context()); err != nil || rev == 0 {
		t.Fatalf("reads of a full disk: %v", err)
	}
	free()
	refill()
	stalled := l.acked.Load()
	eventually(t, 20*time.Second, "writes to go on", func() bool { return l.acked.Load() > stalled+20 })
	eventually(t, 20*time.Second, "the condition's end", func() bool { return len(r.Conditions()) == 0 })
	if _, err := os.Stat(filepath.Join(cfg.Dir, reserveFile)); err != nil {
		t.Fatalf("the reserve is not held back again: %v", err)
	}
	l.stop(t, cfg)
}

// fillAgain takes what the reserve gave back.
func (v *volume) fillAgain() func() {
	v.t.Helper()
	path := filepath.Join(v.mount, "junk")
	if err := os.Rename(path, path+"-first"); err != nil {
		v.t.Fatal(err)
	}
	second := v.fill()
	if err := os.Rename(path, path+"-second"); err != nil {
		v.t.Fatal(err)
	}
	if err := os.Rename(path+"-first", path); err != nil {
		v.t.Fatal(err)
	}
	_ = second
	return func() {
		if err := os.Remove(path + "-second"); err != nil {
			v.t.Fatal(err)
		}
	}
}

func TestFrozenDisk(t *testing.T) {
	freeze := 2500 * time.Millisecond
	if s := os.Getenv(freezeSecondsEnv); s != "" {
		n, err := strconv.Atoi(s)
		if err != nil {
			t.Fatal(err)
		}
		freeze = time.Duration(n) * time.Second
	}
	v := newVolume(t, 48)
	cfg := diskConfig(v)
	r := open(t, cfg)
	l := startLoad(t, r)
	eventually(t, 10*time.Second, "first writes", func() bool { return l.acked.Load() > 20 })
	v.freeze()
	thaw := time.NewTimer(freeze)
	eventually(t, 5*time.Second, "the condition", func() bool { return hasCondition(r, ConditionDiskSlow) })
	if !r.gate.isCut.Load() {
		t.Fatal("the transport is not cut")
	}
	if rev, err := r.ReadRevision(t.Context()); err != nil || rev == 0 {
		t.Fatalf("reads of a frozen disk: %v", err)
	}
	<-thaw.C
	stalled := l.acked.Load()
	v.thaw()
	eventually(t, 10*time.Second, "writes to go on", func() bool { return l.acked.Load() > stalled+20 })
	eventually(t, 10*time.Second, "the condition's end", func() bool { return len(r.Conditions()) == 0 && !r.gate.isCut.Load() })
	l.stop(t, cfg)
}

// TestSlowDisk lets the disk through for moments only: every few appends one takes over a second.
func TestSlowDisk(t *testing.T) {
	v := newVolume(t, 48)
	cfg := diskConfig(v)
	r := open(t, cfg)
	l := startLoad(t, r)
	for range 3 {
		before := l.acked.Load()
		eventually(t, 10*time.Second, "writes between two stops", func() bool { return l.acked.Load() > before })
		v.freeze()
		eventually(t, 5*time.Second, "the condition", func() bool { return hasCondition(r, ConditionDiskSlow) })
		v.thaw()
	}
	eventually(t, 10*time.Second, "the condition's end", func() bool { return len(r.Conditions()) == 0 })
	l.stop(t, cfg)
}

// TestCloseOnFullDisk must not hang, nor lose what was acknowledged before.
func TestCloseOnFullDisk(t *testing.T) {
	v := newVolume(t, 32)
	cfg := diskConfig(v)
	cfg.ReserveBytes = -1
	r := open(t, cfg)
	l := startLoad(t, r)
	eventually(t, 10*time.Second, "first writes", func() bool { return l.acked.Load() > 5 })
	free := v.fill()
	eventually(t, 20*time.Second, "an operation to fail", func() bool { return r.guard.failing.Load() > 0 })
	l.cancel()
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
	l.done.Wait()
	free()
	again := open(t, cfg)
	for n := range l.acked.Load() {
		if read(again, fmt.Sprint("load-", n)) == "" {
			t.Fatalf("acknowledged write %d is lost", n)
		}
	}
	if err := again.Close(); err != nil {
		t.Fatal(err)
	}
}

// flakyDisk fails operations, before or after it has carried them out.
type flakyDisk struct {
	diskLog
	plan *flakyPlan
}

type flakyPlan struct {
	mu        sync.Mutex
	before    int
	after     int
	votes     int
	reads     int
	lastError error
}

func (p *flakyPlan) take(n *int) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if *n == 0 {
		return nil
	}
	*n--
	p.lastError = fmt.Errorf("disk: %w", unix.EIO)
	return p.lastError
}

func (d *flakyDisk) StoreLogs(logs []*raft.Log) error {
	if err := d.plan.take(&d.plan.before); err != nil {
		return err
	}
	if err := d.diskLog.StoreLogs(logs); err != nil {
		return err
	}
	return d.plan.take(&d.plan.after)
}

func (d *flakyDisk) SetUint64(key []byte, value uint64) error {
	if err := d.plan.take(&d.plan.votes); err != nil {
		return err
	}
	return d.diskLog.SetUint64(key, value)
}

func (d *flakyDisk) GetLog(index uint64, out *raft.Log) error {
	if err := d.plan.take(&d.plan.reads); err != nil {
		return err
	}
	return d.diskLog.GetLog(index, out)
}

// TestBrokenDisk fails appends, also after they were written, votes and reads with EIO: nothing is lost, and nothing is there
// twice.
func TestBrokenDisk(t *testing.T) {
	plan := &flakyPlan{}
	cfg := testConfig(t.TempDir())
	cfg.wrapDisk = func(l diskLog) diskLog { return &flakyDisk{l, plan} }
	r := open(t, cfg)
	write(t, r, "first", "v")
	for i, fail := range []*int{&plan.before, &plan.after} {
		plan.mu.Lock()
		*fail = 2
		plan.mu.Unlock()
		rev := r.Store().Revision()
		result := write(t, r, fmt.Sprint("broken-", i), "v")
		if result.Revision != rev+1 {
			t.Fatalf("a retried append was applied as %+v after %d", result, rev)
		}
	}
	eventually(t, 10*time.Second, "the condition's end", func() bool { return len(r.Conditions()) == 0 })
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
	plan.mu.Lock()
	plan.votes, plan.reads = 0, 0
	plan.mu.Unlock()
	r = open(t, cfg)
	if read(r, "broken-0") != "v" || read(r, "broken-1") != "v" {
		t.Fatal("a retried write is lost")
	}
	plan.mu.Lock()
	plan.votes = 3
	plan.mu.Unlock()
	if err := r.guard.SetUint64([]byte("test"), 7); err != nil {
		t.Fatal(err)
	}
	plan.mu.Lock()
	plan.reads = 2
	plan.mu.Unlock()
	var entry raft.Log
	if err := r.guard.GetLog(1, &entry); err != nil || entry.Index != 1 {
		t.Fatal(err)
	}
}
