package consensus

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/hashicorp/raft"

	"github.com/podvine/podvine/consensus/store"
)

const (
	crashChildEnv = "PODVINE_CRASH_DIR"
	crashPointEnv = "PODVINE_CRASH_POINT"
	crashAfterEnv = "PODVINE_CRASH_AFTER"
	crashWriters  = 4
	crashKills    = 200
	crashLanes    = 4
)

// crashPoints are the moments at which a child kills itself; "" waits for the parent's signal.
func crashPoints() []string {
	return []string{"", "before append", "after append", "before apply", "after apply"}
}

// countdown kills the process when it is called for the n-th time.
type countdown struct{ left atomic.Int64 }

func (c *countdown) tick() {
	if c.left.Add(-1) == 0 {
		if err := syscall.Kill(os.Getpid(), syscall.SIGKILL); err != nil {
			panic(err)
		}
		select {}
	}
}

type crashLog struct {
	raft.LogStore
	before, after func()
}

func (l *crashLog) StoreLogs(logs []*raft.Log) error {
	l.before()
	err := l.LogStore.StoreLogs(logs)
	l.after()
	return err
}

func (l *crashLog) IsMonotonic() bool { return true }

type crashFSM struct {
	raft.BatchingFSM
	before, after func()
}

func (f *crashFSM) ApplyBatch(logs []*raft.Log) []any {
	f.before()
	answers := f.BatchingFSM.ApplyBatch(logs)
	f.after()
	return answers
}

// crashChild opens the replica, checks what its predecessors acknowledged (on standard input) and writes until it dies.
func crashChild() int {
	fail := func(format string, args ...any) int {
		fmt.Printf("fail "+format+"\n", args...)
		return 1
	}
	cfg := testConfig(os.Getenv(crashChildEnv))
	cfg.SegmentBytes = 16 << 10
	cfg.snapshotAfter = 60
	n, err := strconv.ParseInt(os.Getenv(crashAfterEnv), 10, 64)
	if err != nil {
		return fail("%v", err)
	}
	var c countdown
	c.left.Store(n)
	at := func(point string) func() {
		if os.Getenv(crashPointEnv) == point {
			return c.tick
		}
		return func() {}
	}
	cfg.wrapLog = func(l raft.LogStore) raft.LogStore { return &crashLog{l, at("before append"), at("after append")} }
	cfg.wrapFSM = func(f raft.BatchingFSM) raft.BatchingFSM {
		return &crashFSM{f, at("before apply"), at("after apply")}
	}
	ctx := context.Background()
	r, err := Open(ctx, cfg)
	if err != nil {
		return fail("open: %v", err)
	}
	if err := r.WaitReady(ctx); err != nil {
		return fail("ready: %v", err)
	}
	counters, err := checkAcknowledged(r)
	if err != nil {
		return fail("%v", err)
	}
	for w, n := range counters {
		fmt.Printf("ack %d %d\n", w, n) // a write whose answer was lost is seen now
	}
	fmt.Println("ready")
	var wg sync.WaitGroup
	for w := range crashWriters {
		wg.Go(func() { crashWriter(r, w, counters[w]) })
	}
	wg.Wait()
	return fail("writers ended")
}

// checkAcknowledged compares the store with the parent's list: a counter may be one ahead, never behind.
func checkAcknowledged(r *Replica) ([]int, error) {
	counters := make([]int, crashWriters)
	in := bufio.NewScanner(os.Stdin)
	for in.Scan() {
		var w, acked int
		if _, err := fmt.Sscan(in.Text(), &w, &acked); err != nil {
			return nil, err
		}
		value := read(r, fmt.Sprint("counter-", w))
		if value == "" {
			value = "0"
		}
		have, err := strconv.Atoi(strings.TrimSpace(value))
		if err != nil {
			return nil, err
		}
		if have < acked || have > acked+1 {
			return nil, fmt.Errorf("writer %d was told %d, the store has %d", w, acked, have)
		}
		for i := max(1, acked-20); i <= acked; i++ {
			if got := read(r, fmt.Sprintf("item-%d-%d", w, i)); got != fmt.Sprint(i) {
				return nil, fmt.Errorf("writer %d lost item %d, has %q", w, i, got)
			}
		}
		counters[w] = have
	}
	return counters, in.Err()
}

// crashWriter writes a counter and an item of its own in one transaction, and tells the parent after each.
func crashWriter(r *Replica, w, counter int) {
	padding := strings.Repeat(" ", 200)
	for {
		counter++
		c := putCommand(fmt.Sprint("counter-", w), fmt.Sprint(counter)+padding, store.ExpectAny)
		c.Ops = append(c.Ops, putCommand(fmt.Sprintf("item-%d-%d", w, counter), fmt.Sprint(counter), store.ExpectAbsent).Ops...)
		result, err := r.Propose(context.Background(), Proposal{Command: c})
		if err != nil || result.Code != store.CodeCommitted {
			fmt.Printf("fail write %d of %d: %+v %v\n", counter, w, result, err)
			os.Exit(1)
		}
		fmt.Printf("ack %d %d\n", w, counter)
	}
}

// TestKillLosesNothing kills a writing process again and again, at random moments and in and between append and apply,
// with small log files and frequent snapshots. What was acknowledged must be there.
func TestKillLosesNothing(t *testing.T) {
	for lane := range crashLanes {
		t.Run(fmt.Sprint(lane), func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			acked := make([]int, crashWriters)
			rng := rand.New(rand.NewPCG(uint64(lane), 1))
			for kill := range crashKills / crashLanes {
				point := crashPoints()[rng.IntN(len(crashPoints()))]
				crashOnce(t, dir, acked, point, rng, kill)
			}
			if acked[0] == 0 {
				t.Fatal("no child wrote anything")
			}
			if snapshots, err := filepath.Glob(filepath.Join(dir, "snapshots", "*", "state.bin")); err != nil || len(snapshots) == 0 {
				t.Fatalf("no child took a snapshot: %v", err)
			}
		})
	}
}

func crashOnce(t *testing.T, dir string, acked []int, point string, rng *rand.Rand, kill int) {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), crashChildEnv+"="+dir, crashPointEnv+"="+point, crashAfterEnv+"="+fmt.Sprint(1+rng.IntN(60)))
	cmd.Stderr = os.Stderr
	var expected strings.Builder
	for w, n := range acked {
		fmt.Fprintln(&expected, w, n)
	}
	cmd.Stdin = strings.NewReader(expected.String())
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	watchdog := time.AfterFunc(20*time.Second, func() { t.Errorf("kill %d at %q: child hangs", kill, point); _ = cmd.Process.Kill() })
	defer watchdog.Stop()
	followChild(t, cmd, out, acked, point, time.Duration(rng.IntN(40))*time.Millisecond)
	if state, err := cmd.Process.Wait(); err != nil || state.Sys().(syscall.WaitStatus).Signal() != syscall.SIGKILL {
		t.Fatalf("kill %d at %q: child ended with %v, %v", kill, point, state, err)
	}
}

// followChild reads acknowledgements until the child is dead.
func followChild(t *testing.T, cmd *exec.Cmd, out io.Reader, acked []int, point string, delay time.Duration) {
	t.Helper()
	lines := bufio.NewScanner(out)
	for lines.Scan() {
		line := lines.Text()
		var w, n int
		switch {
		case line == "ready":
			if point == "" {
				timer := time.AfterFunc(delay, func() { _ = cmd.Process.Kill() })
				defer timer.Stop()
			}
		case strings.HasPrefix(line, "fail "):
			t.Errorf("child: %s", line)
		default:
			if _, err := fmt.Sscanf(line, "ack %d %d", &w, &n); err != nil {
				t.Errorf("child said %q", line)
				continue
			}
			acked[w] = n
		}
	}
}
