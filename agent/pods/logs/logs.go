// Package logs reads container logs from disk for users: a tail, a follow, a
// time range.
//
// Role: it only reads what the shim writes, in the CRI format, through
// rotations. Concurrency: each call stands alone.
package logs

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"github.com/fsnotify/fsnotify"

	"github.com/podvine/podvine/agent/pods/shim/crilog"
)

// Options choose what of a log is read.
type Options struct {
	// Tail is how many last lines to begin with; negative for all.
	Tail int64
	// Since skips older entries; the zero time skips none.
	Since time.Time
	// LimitBytes ends the output; 0 for no limit.
	LimitBytes int64
	// Timestamps puts each entry's time before its line.
	Timestamps bool
	// Follow goes on until ctx ends or Ended says that no more will come.
	Follow bool
	// Ended is asked while following, whenever there is nothing left to read.
	Ended func() bool
	// Stream selects one of the outputs; "" for both.
	Stream crilog.Stream
}

// followPoll is how often a follower looks for the container's end and for
// rotation in the absence of file events.
const followPoll = time.Second

// errLimit ends a read at LimitBytes.
var errLimit = errors.New("limit reached")

// Read copies the log at path to w. flush is called when the reader has caught
// up; it may be nil.
func Read(ctx context.Context, path string, o Options, w io.Writer, flush func()) error {
	if flush == nil {
		flush = func() {}
	}
	f, err := os.Open(path)
	if err != nil {
		return fmt.Errorf("open log: %w", err)
	}
	defer func() { f.Close() }()
	if o.Tail >= 0 {
		at, err := tailOffset(f, o.Tail)
		if err != nil {
			return err
		}
		if _, err := f.Seek(at, io.SeekStart); err != nil {
			return fmt.Errorf("seek log: %w", err)
		}
	}
	out := &writer{to: w, opts: o}
	var changes *fsnotify.Watcher
	if o.Follow {
		// A host has few watches; a follower without one looks every second.
		if changes, err = fsnotify.NewWatcher(); err == nil {
			defer changes.Close()
			err = changes.Add(filepath.Dir(path))
		}
		if err != nil {
			changes = nil
		}
	}
	var rest []byte
	for {
		ended := o.Follow && o.Ended != nil && o.Ended()
		rest, err = drain(f, rest, out)
		if errors.Is(err, errLimit) {
			flush()
			return nil
		}
		if err != nil {
			return err
		}
		flush()
		if next := rotated(f, path); next != nil {
			f.Close()
			f, rest = next, nil
			continue
		}
		if !o.Follow || ended {
			return nil
		}
		if err := wait(ctx, changes); err != nil {
			return nil
		}
	}
}

func wait(ctx context.Context, changes *fsnotify.Watcher) error {
	t := time.NewTimer(followPoll)
	defer t.Stop()
	var events <-chan fsnotify.Event
	var problems <-chan error
	if changes != nil {
		events, problems = changes.Events, changes.Errors
	}
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-events:
	case <-problems: //nolint:errcheck // looking again is all there is to do
	case <-t.C:
	}
	return nil
}

// maxRotationRaces bounds how often a rotation may come in between before the follower waits for a change again.
const maxRotationRaces = 16

// rotated returns the new file when the one that is open was moved away.
func rotated(f *os.File, path string) *os.File {
	cur, err := os.Stat(path)
	if err != nil {
		return nil
	}
	// Only now: nothing is written to a file that was moved away, so that its size is final.
	old, err := f.Stat()
	if err != nil || os.SameFile(old, cur) {
		return nil
	}
	if at, err := f.Seek(0, io.SeekCurrent); err != nil || at < old.Size() {
		return nil
	}
	for range maxRotationRaces {
		name := successor(old, path)
		next, err := os.Open(name)
		if err != nil {
			return nil
		}
		// The live file may have been moved away between the look and the opening; then it is not the one that follows.
		if successor(old, path) == name {
			return next
		}
		next.Close()
	}
	return nil
}

// successor is the file that was begun when old was moved away: the rotated one
// after it, or the live one.
func successor(old os.FileInfo, path string) string {
	found := false
	all := crilog.Rotated(path)
	for _, name := range all {
		if found {
			return name
		}
		st, err := os.Stat(name)
		found = err == nil && os.SameFile(st, old)
	}
	if !found && len(all) > 0 {
		return all[0] // ours is gone, and this is the oldest that is left
	}
	return path
}

// drain reads whole entries to the end of the file; what is not whole yet is
// returned.
func drain(f *os.File, rest []byte, out *writer) ([]byte, error) {
	r := bufio.NewReaderSize(io.MultiReader(bytes.NewReader(rest), f), 64<<10)
	for {
		line, err := r.ReadBytes('\n')
		if err == io.EOF {
			return line, nil
		}
		if err != nil {
			return nil, fmt.Errorf("read log: %w", err)
		}
		if err := out.entry(line); err != nil {
			return nil, err
		}
	}
}

type writer struct {
	to      io.Writer
	opts    Options
	written int64
	partial bool
}

// entry parses one line of the file and writes its text.
func (w *writer) entry(line []byte) error {
	stamp, rest, ok1 := bytes.Cut(line, []byte{' '})
	stream, rest, ok2 := bytes.Cut(rest, []byte{' '})
	tag, text, ok3 := bytes.Cut(rest, []byte{' '})
	if !ok1 || !ok2 || !ok3 {
		return nil // torn by a crash of the machine
	}
	if w.opts.Stream != "" && string(stream) != string(w.opts.Stream) {
		return nil
	}
	if !w.opts.Since.IsZero() {
		at, err := time.Parse(time.RFC3339Nano, string(stamp))
		if err == nil && at.Before(w.opts.Since) {
			return nil
		}
	}
	var out []byte
	if w.opts.Timestamps && !w.partial {
		out = append(append(out, stamp...), ' ')
	}
	w.partial = len(tag) > 0 && tag[0] == 'P'
	if w.partial {
		text = bytes.TrimSuffix(text, []byte{'\n'})
	}
	out = append(out, text...)
	if l := w.opts.LimitBytes; l > 0 && w.written+int64(len(out)) >= l {
		out = out[:l-w.written]
		if _, err := w.to.Write(out); err != nil {
			return fmt.Errorf("deliver log: %w", err)
		}
		return errLimit
	}
	w.written += int64(len(out))
	if _, err := w.to.Write(out); err != nil {
		return fmt.Errorf("deliver log: %w", err)
	}
	return nil
}

// tailOffset finds where the last n lines begin. A line that was split into
// several entries counts once and is given from its last entry.
func tailOffset(f *os.File, n int64) (int64, error) {
	st, err := f.Stat()
	if err != nil {
		return 0, fmt.Errorf("stat log: %w", err)
	}
	if n == 0 {
		return st.Size(), nil
	}
	const block = 32 << 10
	buf := make([]byte, block)
	end := st.Size()
	for end > 0 {
		start := max(end-block, 0)
		chunk := buf[:end-start]
		if _, err := f.ReadAt(chunk, start); err != nil && err != io.EOF {
			return 0, fmt.Errorf("read log: %w", err)
		}
		for i := len(chunk) - 1; i >= 0; i-- {
			if chunk[i] != '\n' {
				continue
			}
			at := start + int64(i) + 1
			if at == st.Size() || !full(f, at) {
				continue
			}
			if n--; n == 0 {
				return at, nil
			}
		}
		end = start
	}
	return 0, nil
}

// full tells whether the entry at offset at ends a line.
func full(f *os.File, at int64) bool {
	head := make([]byte, 64)
	n, err := f.ReadAt(head, at)
	if err != nil && err != io.EOF {
		return true
	}
	parts := bytes.SplitN(head[:n], []byte{' '}, 4)
	return len(parts) < 4 || len(parts[2]) == 0 || parts[2][0] != 'P'
}

// Tail returns the last lines of a log, at most bytes long.
func Tail(path string, lines, bytesMax int64) (string, error) {
	var b bytes.Buffer
	if err := Read(context.Background(), path, Options{Tail: lines}, &b, nil); err != nil {
		return "", err
	}
	out := b.Bytes()
	if int64(len(out)) > bytesMax {
		out = out[int64(len(out))-bytesMax:]
	}
	return string(out), nil
}
