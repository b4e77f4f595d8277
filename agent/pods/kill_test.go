package pods

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"k8s.io/client-go/kubernetes/fake"
	"k8s.io/client-go/tools/record"

	"github.com/podvine/podvine/agent/pods/internal/podtest"
	"github.com/podvine/podvine/agent/pods/lifecycle"
	"github.com/podvine/podvine/agent/pods/logs"
	"github.com/podvine/podvine/agent/pods/sandbox"
	"github.com/podvine/podvine/agent/pods/shim/crilog"
)

const (
	// childEnv tells a re-executed test binary to be an agent in these folders.
	childEnv = "PODVINE_PODS_CHILD"
	// kills is how often the agent is killed under the pod.
	kills = 20
	// countRate is the log's rate in bytes a second.
	countRate = 1 << 20
	echoPort  = "7777"
	// saidRecorded is what the child prints when a container is on record, saidReady when all run.
	saidRecorded, saidReady = "recorded", "ready"
	// childPatience is how long the child waits for the pod before it says what there is of it.
	childPatience = 20 * time.Second
	// earlyKills is how often the agent is killed while it starts a pod.
	earlyKills = 5
)

// killDirs are the folders of the agent that is killed.
func killDirs(root string) podtest.Dirs {
	return podtest.Dirs{Root: root, Cgroup: "podvine-test-" + filepath.Base(root)}
}

// runChild is an agent that ends only by a kill.
func runChild(root string) int {
	fail := func(err error) int {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	programs = podtest.Programs{Shim: os.Getenv("PODVINE_SHIM"), Runc: os.Getenv("PODVINE_RUNC"), Box: os.Getenv("PODVINE_BOX")}
	cfg := nodeConfig(killDirs(root))
	cfg.Client = fake.NewSimpleClientset(newPod("kept", box("echo", "echo", "127.0.0.1:"+echoPort), box("count", "count", strconv.Itoa(countRate))))
	cfg.Network, cfg.Recorder = &loopNet{}, record.NewFakeRecorder(100000)
	cfg.MaxLogBytes, cfg.MaxLogFiles = 256<<10, 10000
	cfg.Log = slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelWarn}))
	a, err := New(cfg)
	if err != nil {
		return fail(err)
	}
	ctx := context.Background()
	if _, have, err := a.images.Find(ctx, podtest.Image); err == nil && !have {
		archive, err := podtest.Archive(programs.Box, podtest.Image, nil)
		if err != nil {
			return fail(err)
		}
		if _, err := a.images.Import(ctx, archive); err != nil {
			return fail(err)
		}
	}
	go func() {
		recorded, late := false, time.Now().Add(childPatience)
		for range time.Tick(time.Millisecond / 4) {
			w := a.worker("uid-kept")
			if w == nil {
				continue
			}
			if time.Now().After(late) {
				w.mu.Lock()
				fmt.Printf("not all run: %+v\n", w.rec.Containers)
				w.mu.Unlock()
				return
			}
			if !recorded && w.anyRecorded() {
				recorded = true
				fmt.Println(saidRecorded)
			}
			if ended := w.failure(); ended != "" {
				fmt.Println(ended)
				return
			}
			if w.allRunning(2) {
				fmt.Println(saidReady)
				return
			}
		}
	}()
	return fail(a.Run(ctx))
}

// allRunning tells whether n containers run, their probes having begun, and none was ever restarted.
func (w *worker) allRunning(n int) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, c := range w.rec.Containers {
		if c.Phase == lifecycle.Running && c.Ready && c.Restarts == 0 {
			n--
		}
	}
	return n == 0 && w.sandbox.Ready
}

// anyRecorded tells whether a container is on record as running, whether it is started yet or not.
func (w *worker) anyRecorded() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, c := range w.rec.Containers {
		if c.Phase == lifecycle.Running {
			return true
		}
	}
	return false
}

// failure says how a container ended that should not have, on one line.
func (w *worker) failure() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, c := range w.rec.Containers {
		if c.Last != nil || c.Phase == lifecycle.Exited {
			return fmt.Sprintf("container %s ended: %+v, last %+v", c.Name, c, c.Last)
		}
	}
	return ""
}

// startChild runs an agent until it says what is awaited of the pod; the returned function kills it.
func startChild(t *testing.T, root, await string) (kill func()) {
	t.Helper()
	cmd := exec.Command(os.Args[0], "-test.run=^$")
	cmd.Env = append(os.Environ(), childEnv+"="+root, "PODVINE_SHIM="+programs.Shim, "PODVINE_RUNC="+programs.Runc, "PODVINE_BOX="+programs.Box)
	var errs bytes.Buffer
	cmd.Stderr = &errs
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	// A test that fails leaves no agent behind; one that was killed already is not found.
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	said := bufio.NewScanner(out)
	for said.Scan() && said.Text() != await {
		if said.Text() != saidRecorded {
			t.Fatalf("child said %q: %s", said.Text(), errs.String())
		}
	}
	if said.Text() != await {
		t.Fatalf("child ended, %v: %s", said.Err(), errs.String())
	}
	return func() {
		if err := cmd.Process.Kill(); err != nil {
			t.Error(err)
		}
		// Its exit status is the kill.
		_ = cmd.Wait()
	}
}

// containerPids lists the pod's processes by container.
func containerPids(t *testing.T, d podtest.Dirs) string {
	t.Helper()
	dirs, err := filepath.Glob("/sys/fs/cgroup/pids/" + d.Cgroup + "/besteffort/poduid-kept/*/cgroup.procs")
	if err != nil {
		t.Fatal(err)
	}
	var all []string
	for _, f := range dirs {
		b, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, filepath.Base(filepath.Dir(f))+"="+strings.TrimSpace(string(b)))
	}
	return strings.Join(all, " ")
}

// TestAgentKills kills the agent twenty times under a pod that logs 1 MB/s and
// holds a TCP stream: the same processes go on, no line and no byte is lost.
func TestAgentKills(t *testing.T) {
	d := podtest.NewDirs(t)
	kill := startChild(t, d.Root, saidReady)
	before := containerPids(t, d)
	stream := openStream(t, filepath.Join(d.Root, "run", "pods", "uid-kept", "ns", "net"))
	for i := range kills {
		kill()
		kill = startChild(t, d.Root, saidReady)
		if now := containerPids(t, d); now != before {
			t.Fatalf("after kill %d: %s, before %s", i, now, before)
		}
	}
	if n := stream.stop(); n < kills {
		t.Errorf("the stream carried only %d messages", n)
	}
	kill()
	d.Reboot(t) // the log must stand still while it is checked
	checkCount(t, filepath.Join(d.Root, "log", "pods", "default_kept_uid-kept", "count", "0.log"))
}

// TestKilledWhileStarting kills the agent at about the time that it starts the containers: the next one finishes what
// was begun, and no container counts as having ended.
func TestKilledWhileStarting(t *testing.T) {
	for range earlyKills {
		d := podtest.NewDirs(t)
		startChild(t, d.Root, saidRecorded)()
		startChild(t, d.Root, saidReady)()
		d.Reboot(t)
	}
}

// echoStream sends numbered messages through one TCP connection all the time.
type echoStream struct {
	t    *testing.T
	n    atomic.Int64
	quit chan struct{}
	done chan error
}

func openStream(t *testing.T, netns string) *echoStream {
	t.Helper()
	var conn net.Conn
	podtest.Wait(t, "the echo server listens", func() bool {
		return sandbox.Enter(netns, func() (err error) {
			conn, err = net.Dial("tcp", "127.0.0.1:"+echoPort)
			return err
		}) == nil
	})
	s := &echoStream{t: t, quit: make(chan struct{}), done: make(chan error, 1)}
	go func() {
		defer conn.Close()
		r := bufio.NewReader(conn)
		for range time.Tick(5 * time.Millisecond) {
			select {
			case <-s.quit:
				s.done <- nil
				return
			default:
			}
			msg := fmt.Sprintf("message %d\n", s.n.Add(1))
			if _, err := io.WriteString(conn, msg); err != nil {
				s.done <- err
				return
			}
			if got, err := r.ReadString('\n'); err != nil || got != msg {
				s.done <- fmt.Errorf("got %q, want %q: %w", got, msg, errors.Join(err, errors.New("not echoed")))
				return
			}
		}
	}()
	return s
}

func (s *echoStream) stop() int64 {
	s.t.Helper()
	close(s.quit)
	if err := <-s.done; err != nil {
		s.t.Errorf("TCP stream: %v", err)
	}
	return s.n.Load()
}

// checkCount reads the log with its rotated predecessors: every number once.
func checkCount(t *testing.T, path string) {
	t.Helper()
	next, files := 0, append(crilog.Rotated(path), path)
	if len(files) < 3 {
		t.Errorf("the log was rotated %d times only", len(files)-1)
	}
	for _, f := range files {
		var b bytes.Buffer
		if err := logs.Read(context.Background(), f, logs.Options{Tail: -1}, &b, nil); err != nil {
			t.Fatal(err)
		}
		for line := range strings.Lines(b.String()) {
			n, err := strconv.Atoi(strings.Fields(line)[0])
			if err != nil || n != next {
				t.Fatalf("%s: line %q, want number %d", f, line, next)
			}
			next++
		}
	}
	t.Logf("%d lines in %d files", next, len(files))
}
