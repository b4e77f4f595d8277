// Package crilog writes and reads container logs in the CRI text format: one
// entry a line, "<RFC 3339 time> <stdout|stderr> <F|P> <text>".
//
// Role: the shim owns a Writer for each container and feeds it what it reads
// from the container's pipes; the agent only reads the files. A Writer rotates
// by size and never returns an error to the container: what cannot be written
// is dropped and counted, so that a full disk never blocks or ends a pod.
//
// Concurrency: a Writer may be fed by the stdout and stderr readers at once;
// a Reader belongs to one goroutine.
package crilog

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"sort"
	"sync"
	"time"
)

const (
	// MaxLineBytes is the longest text of one entry; longer lines are written
	// as several entries tagged P (partial).
	MaxLineBytes = 16 << 10
	// DefaultMaxFileBytes is the size at which a log file is rotated.
	DefaultMaxFileBytes = 10 << 20
	// DefaultMaxFiles counts the live file and its rotated predecessors.
	DefaultMaxFiles = 5
	// rotatedStamp is the suffix of a rotated file, as node tools expect it.
	rotatedStamp = "20060102-150405.000000000"
	dirMode      = 0o755
	fileMode     = 0o640
)

// Stream names the two outputs of a container.
type Stream string

// The streams of a container.
const (
	Stdout Stream = "stdout"
	Stderr Stream = "stderr"
)

// Options bound a log on disk.
type Options struct {
	// MaxFileBytes at which the live file is rotated; 0 means the default.
	MaxFileBytes int64
	// MaxFiles kept, the live one included; 0 means the default.
	MaxFiles int
	// Now is the clock; nil means the wall clock.
	Now func() time.Time
}

// Writer appends entries to one log file and rotates it.
type Writer struct {
	path string
	opts Options

	mu sync.Mutex
	// All below is guarded by mu.
	file    *os.File
	size    int64
	partial map[Stream][]byte
	split   map[Stream]bool
	out     bytes.Buffer
	dropped uint64
}

// NewWriter opens (or creates) the log at path, making its folders.
func NewWriter(path string, opts Options) (*Writer, error) {
	if opts.MaxFileBytes <= 0 {
		opts.MaxFileBytes = DefaultMaxFileBytes
	}
	if opts.MaxFiles <= 0 {
		opts.MaxFiles = DefaultMaxFiles
	}
	if opts.Now == nil {
		opts.Now = time.Now
	}
	w := &Writer{path: path, opts: opts, partial: map[Stream][]byte{}, split: map[Stream]bool{}}
	if err := os.MkdirAll(filepath.Dir(path), dirMode); err != nil {
		return nil, fmt.Errorf("make log folder: %w", err)
	}
	if err := w.openLocked(); err != nil {
		return nil, err
	}
	return w, nil
}

// Feed takes output as it was read. Whole lines go to disk at once; the rest
// waits for its newline, for MaxLineBytes, or for Flush.
func (w *Writer) Feed(s Stream, data []byte) {
	w.mu.Lock()
	defer w.mu.Unlock()
	now := w.opts.Now()
	for len(data) > 0 {
		nl := bytes.IndexByte(data, '\n')
		room := MaxLineBytes - len(w.partial[s])
		switch {
		case nl >= 0 && nl <= room:
			w.entryLocked(now, s, append(w.partial[s], data[:nl]...), true)
			w.partial[s] = w.partial[s][:0]
			w.split[s] = false
			data = data[nl+1:]
		case len(data) > room:
			w.entryLocked(now, s, append(w.partial[s], data[:room]...), false)
			w.partial[s] = w.partial[s][:0]
			w.split[s] = true
			data = data[room:]
		default:
			w.partial[s] = append(w.partial[s], data...)
			data = nil
		}
	}
	w.writeLocked()
}

// Flush writes what still waits for a newline on s, as the stream has ended.
func (w *Writer) Flush(s Stream) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.partial[s]) > 0 {
		w.entryLocked(w.opts.Now(), s, w.partial[s], true)
		w.partial[s] = nil
	}
	w.writeLocked()
}

// Dropped counts entries' bytes that could not be written.
func (w *Writer) Dropped() uint64 {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.dropped
}

// Close closes the file.
func (w *Writer) Close() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.file == nil {
		return nil
	}
	err := w.file.Close()
	w.file = nil
	return err
}

func (w *Writer) entryLocked(now time.Time, s Stream, text []byte, full bool) {
	tag := byte('P')
	if full {
		tag = 'F'
	}
	start := w.out.Len()
	w.out.Write(now.UTC().AppendFormat(w.out.AvailableBuffer(), "2006-01-02T15:04:05.000000000Z07:00"))
	w.out.WriteByte(' ')
	w.out.WriteString(string(s))
	w.out.Write([]byte{' ', tag, ' '})
	w.out.Write(text)
	w.out.WriteByte('\n')
	if w.size+int64(w.out.Len()) > w.opts.MaxFileBytes && w.size+int64(start) > 0 {
		entry := bytes.Clone(w.out.Bytes()[start:])
		w.out.Truncate(start)
		w.writeLocked()
		w.rotateLocked()
		w.out.Write(entry)
	}
}

func (w *Writer) writeLocked() {
	if w.out.Len() == 0 {
		return
	}
	defer w.out.Reset()
	if w.file == nil {
		if err := w.openLocked(); err != nil {
			w.dropped += uint64(w.out.Len())
			return
		}
	}
	n, err := w.file.Write(w.out.Bytes())
	w.size += int64(n)
	if err != nil {
		w.dropped += uint64(w.out.Len() - n)
	}
}

func (w *Writer) openLocked() error {
	f, err := os.OpenFile(w.path, os.O_APPEND|os.O_CREATE|os.O_WRONLY, fileMode)
	if err != nil {
		return fmt.Errorf("open log: %w", err)
	}
	st, err := f.Stat()
	if err != nil {
		f.Close()
		return fmt.Errorf("stat log: %w", err)
	}
	w.file, w.size = f, st.Size()
	return nil
}

// rotateLocked moves the live file aside and removes the oldest ones. When a
// step is refused the live file simply goes on growing until the next try.
func (w *Writer) rotateLocked() {
	if err := os.Rename(w.path, w.path+"."+w.opts.Now().UTC().Format(rotatedStamp)); err != nil {
		return
	}
	w.file.Close()
	w.file = nil
	old := Rotated(w.path)
	for len(old) > w.opts.MaxFiles-1 {
		if os.Remove(old[0]) != nil {
			break
		}
		old = old[1:]
	}
	if w.openLocked() != nil {
		w.size = 0
	}
}

// Rotated lists the rotated predecessors of the log at path, oldest first.
func Rotated(path string) []string {
	found, err := filepath.Glob(path + ".*")
	if err != nil {
		return nil
	}
	sort.Strings(found)
	return found
}
