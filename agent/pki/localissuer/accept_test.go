package localissuer

import (
	"bytes"
	"context"
	"encoding/json"
	"log/slog"
	"net"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/podvine/podvine/agent/pki"
)

// TestServeOutlivesTooManyOpenFiles lets accept fail for a while: whoever waits is answered afterwards.
func TestServeOutlivesTooManyOpenFiles(t *testing.T) {
	dir := t.TempDir()
	keys, err := pki.Open(pki.Config{Dir: filepath.Join(dir, "pki"), NodeName: "n1"})
	if err != nil {
		t.Fatal(err)
	}
	told := &failures{seen: make(chan struct{})}
	server, err := Listen(filepath.Join(dir, "s"), Config{Issuer: keys, APIServer: "https://127.0.0.1:6443",
		Allowed: func(uint32, uint32) (bool, error) { return true, nil }, Log: slog.New(slog.NewTextHandler(told, nil))})
	if err != nil {
		t.Fatal(err)
	}
	client, err := net.Dial("unix", filepath.Join(dir, "s"))
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()

	restore := noMoreFiles(t)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- server.Serve(ctx) }()
	select {
	case <-told.seen:
	case err := <-ended:
		t.Fatalf("ended: %v", err)
	case <-time.After(10 * time.Second):
		t.Fatal("accepting went on")
	}
	restore()

	if err := client.SetDeadline(time.Now().Add(10 * time.Second)); err != nil {
		t.Fatal(err)
	}
	if err := json.NewEncoder(client).Encode(request{}); err != nil {
		t.Fatal(err)
	}
	var answer response
	if err := json.NewDecoder(client).Decode(&answer); err != nil || answer.Error != "" || len(answer.Kubeconfig) == 0 {
		t.Fatalf("answer %q, %v", answer.Error, err)
	}
	cancel()
	if err := <-ended; err != nil {
		t.Fatal(err)
	}
}

// noMoreFiles keeps this process from opening files until restore is called, or the test ends.
func noMoreFiles(t *testing.T) (restore func()) {
	t.Helper()
	var before unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &before); err != nil {
		t.Fatal(err)
	}
	restore = func() {
		if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &before); err != nil {
			t.Error(err)
		}
	}
	t.Cleanup(restore)
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: 3, Max: before.Max}); err != nil {
		t.Fatal(err)
	}
	return restore
}

// failures closes seen when the log tells of a connection that was not accepted.
type failures struct {
	seen chan struct{}
	once sync.Once
}

func (f *failures) Write(line []byte) (int, error) {
	if bytes.Contains(line, []byte("accept local user")) {
		f.once.Do(func() { close(f.seen) })
	}
	return len(line), nil
}
