package logs

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/podvine/podvine/agent/pods/shim/crilog"
)

func sample(t *testing.T, o crilog.Options) (*crilog.Writer, string) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "0.log")
	w, err := crilog.NewWriter(path, o)
	if err != nil {
		t.Fatal(err)
	}
	return w, path
}

func TestWhatIsRead(t *testing.T) {
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	w, path := sample(t, crilog.Options{Now: func() time.Time { now = now.Add(time.Second); return now }})
	w.Feed(crilog.Stdout, []byte("one\n"))
	w.Feed(crilog.Stderr, []byte("two\n"))
	w.Feed(crilog.Stdout, []byte(strings.Repeat("x", crilog.MaxLineBytes+1)+"\n"))
	long := strings.Repeat("x", crilog.MaxLineBytes+1) + "\n"
	for name, c := range map[string]struct {
		o    Options
		want string
	}{
		"all":    {Options{Tail: -1}, "one\ntwo\n" + long},
		"none":   {Options{Tail: 0}, ""},
		"tail":   {Options{Tail: 2}, "two\n" + long},
		"more":   {Options{Tail: 99}, "one\ntwo\n" + long},
		"limit":  {Options{Tail: -1, LimitBytes: 5}, "one\nt"},
		"stream": {Options{Tail: -1, Stream: crilog.Stderr}, "two\n"},
		"since":  {Options{Tail: -1, Since: now}, long},
		"times":  {Options{Tail: -1, Timestamps: true, Stream: crilog.Stderr}, "2026-01-02T03:04:07.000000000Z two\n"},
	} {
		var b bytes.Buffer
		if err := Read(context.Background(), path, c.o, &b, nil); err != nil {
			t.Fatal(err)
		}
		if b.String() != c.want {
			t.Errorf("%s: got %d bytes %.60q, want %d bytes %.60q", name, b.Len(), b.String(), len(c.want), c.want)
		}
	}
}

// TestFollowThroughRotation reads every line while the file is rotated away
// again and again.
func TestFollowThroughRotation(t *testing.T) {
	const lines = 300
	w, path := sample(t, crilog.Options{MaxFileBytes: 2000, MaxFiles: 1000})
	r, pw := io.Pipe()
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	go func() { pw.CloseWithError(Read(ctx, path, Options{Tail: -1, Follow: true}, pw, nil)) }()
	feed := func(from, to int) {
		for i := from; i < to; i++ {
			w.Feed(crilog.Stdout, fmt.Appendf(nil, "%04d\n", i))
		}
	}
	feed(0, 1)
	buf := make([]byte, 5)
	for i := range lines {
		if i == 1 { // the follower has the file open: what is rotated away from now on is its business
			go feed(1, lines)
		}
		if _, err := io.ReadFull(r, buf); err != nil || string(buf) != fmt.Sprintf("%04d\n", i) {
			t.Fatalf("line %d: %q, %v", i, buf, err)
		}
	}
}
