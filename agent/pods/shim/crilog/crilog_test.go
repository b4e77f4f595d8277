package crilog

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"
)

func fixed() time.Time { return time.Date(2026, 1, 2, 3, 4, 5, 6, time.UTC) }

func newLog(t testing.TB, o Options) (*Writer, string) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "c", "0.log")
	w, err := NewWriter(path, o)
	if err != nil {
		t.Fatal(err)
	}
	return w, path
}

func read(t testing.TB, path string) string {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func TestFormat(t *testing.T) {
	w, path := newLog(t, Options{Now: fixed})
	w.Feed(Stdout, []byte("one\ntw"))
	w.Feed(Stderr, []byte("oops\n"))
	w.Feed(Stdout, []byte("o\nrest"))
	w.Flush(Stdout)
	const at = "2026-01-02T03:04:05.000000006Z "
	if got, want := read(t, path), at+"stdout F one\n"+at+"stderr F oops\n"+at+"stdout F two\n"+at+"stdout F rest\n"; got != want {
		t.Errorf("got\n%swant\n%s", got, want)
	}
}

func TestLongLinesAreSplit(t *testing.T) {
	w, path := newLog(t, Options{Now: fixed})
	w.Feed(Stdout, []byte(strings.Repeat("x", 2*MaxLineBytes+5)+"\n"))
	var tags []string
	for line := range strings.Lines(read(t, path)) {
		tags = append(tags, strings.Fields(line)[2])
	}
	if got := strings.Join(tags, ""); got != "PPF" {
		t.Errorf("tags %s", got)
	}
}

func TestRotationKeepsTheNewest(t *testing.T) {
	tick := fixed()
	w, path := newLog(t, Options{MaxFileBytes: 200, MaxFiles: 3, Now: func() time.Time { tick = tick.Add(time.Millisecond); return tick }})
	for range 40 {
		w.Feed(Stdout, []byte(strings.Repeat("y", 20)+"\n"))
	}
	files := append(Rotated(path), path)
	if len(files) != 3 {
		t.Fatalf("%d files: %v", len(files), files)
	}
	for _, f := range files {
		if n := len(read(t, f)); n > 200 {
			t.Errorf("%s has %d bytes", f, n)
		}
	}
	if w.Dropped() != 0 {
		t.Errorf("dropped %d bytes", w.Dropped())
	}
}

func TestWriterGoesOnInAnExistingFile(t *testing.T) {
	w, path := newLog(t, Options{Now: fixed})
	w.Feed(Stdout, []byte("a\n"))
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	w, err := NewWriter(path, Options{Now: fixed})
	if err != nil {
		t.Fatal(err)
	}
	w.Feed(Stdout, []byte("b\n"))
	if n := strings.Count(read(t, path), "\n"); n != 2 {
		t.Errorf("%d lines", n)
	}
}

// TestNothingIsLost feeds random text in random pieces and puts it together again.
func TestNothingIsLost(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		dir, err := os.MkdirTemp(t.TempDir(), "")
		if err != nil {
			rt.Fatal(err)
		}
		path := filepath.Join(dir, "0.log")
		w, err := NewWriter(path, Options{})
		if err != nil {
			rt.Fatal(err)
		}
		var want strings.Builder
		for _, piece := range rapid.SliceOf(rapid.StringMatching(`[a-z\n]{0,40}`)).Draw(rt, "pieces") {
			big := strings.Repeat(piece, rapid.SampledFrom([]int{1, 1, 1, 900}).Draw(rt, "times"))
			want.WriteString(big)
			w.Feed(Stdout, []byte(big))
		}
		w.Flush(Stdout)
		var got strings.Builder
		for line := range strings.Lines(read(t, path)) {
			f := strings.SplitN(line, " ", 4)
			got.WriteString(strings.TrimSuffix(f[3], "\n"))
			if f[2] == "F" {
				got.WriteString("\n")
			}
		}
		text := want.String()
		if text != "" && !strings.HasSuffix(text, "\n") {
			text += "\n"
		}
		if got.String() != text {
			rt.Fatalf("got %q, want %q", got.String(), text)
		}
	})
}
