package store

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"

	"github.com/tidwall/btree"
)

// A snapshot is a magic string and frames: payload length, CRC-32C of the payload (both 32 bits, little-endian), payload.
// The payloads joined are: revision, time, dedupe windows, tables with their entries in key order. A frame of length 0
// whose checksum covers all payloads ends it.
const (
	snapshotMagic      = "PODVINE\x01"
	snapshotFrameBytes = 256 << 10
)

// ErrCorrupt reports a snapshot that is damaged or cut short.
var ErrCorrupt = errors.New("snapshot is corrupt")

// capture is the state at one moment.
type capture struct {
	rev        int64
	timeMillis int64
	dedupe     dedupe
	names      []string
	trees      []*btree.BTreeG[*Entry]
}

func (s *Store) capture() *capture {
	s.mu.Lock()
	defer s.mu.Unlock()
	c := &capture{rev: s.rev, timeMillis: s.timeMillis, dedupe: s.dedupe.clone()}
	for _, n := range s.tableNamesLocked() {
		// A table without keys may exist here and not on another replica: a reader makes it.
		if t := s.tables[n]; t.tree.Len() > 0 {
			c.names = append(c.names, n)
			c.trees = append(c.trees, s.viewLocked(t, false).tree)
		}
	}
	return c
}

// Snapshot writes the whole state to w.
func (s *Store) Snapshot(w io.Writer) error { return s.capture().write(w) }

func (c *capture) write(w io.Writer) error {
	if _, err := io.WriteString(w, snapshotMagic); err != nil {
		return fmt.Errorf("write snapshot: %w", err)
	}
	f := &frameWriter{w: w}
	f.varint(c.rev)
	f.varint(c.timeMillis)
	c.writeDedupe(f)
	f.uvarint(uint64(len(c.names)))
	for i, name := range c.names {
		f.string(name)
		f.uvarint(uint64(c.trees[i].Len()))
		c.trees[i].Scan(func(e *Entry) bool {
			f.string(e.Key)
			f.varint(e.CreateRevision)
			f.varint(e.Revision)
			f.varint(e.ExpiresUnixMilli)
			f.uvarint(uint64(len(e.Value)))
			f.bytes(e.Value)
			return f.err == nil
		})
	}
	if err := f.finish(); err != nil {
		return fmt.Errorf("write snapshot: %w", err)
	}
	return nil
}

func (c *capture) writeDedupe(f *frameWriter) {
	f.uvarint(c.dedupe.clock)
	f.uvarint(uint64(len(c.dedupe.members)))
	for _, name := range c.dedupe.names() {
		m := c.dedupe.members[name]
		f.string(name)
		f.uvarint(m.touched)
		f.uvarint(m.forgotten)
		f.uvarint(uint64(len(m.results)))
		for _, r := range m.results {
			f.uvarint(r.sequence)
			f.uvarint(uint64(r.result.Code))
			f.varint(r.result.Revision)
			f.varint(r.result.FirstRevision)
			f.uvarint(uint64(r.result.FailedOp))
		}
	}
}

// Restore replaces the state by what r holds. On an error, which wraps [ErrCorrupt] when the content is at fault, the state
// is as it was.
func (s *Store) Restore(r io.Reader) error {
	next := New(s.opts)
	if err := next.load(r); err != nil {
		return fmt.Errorf("restore snapshot: %w", err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	touched := map[*table]struct{}{}
	for _, t := range s.tables {
		touched[t] = struct{}{}
	}
	s.rev, s.timeMillis, s.dedupe = next.rev, next.timeMillis, next.dedupe
	s.tables, s.history, s.expiring = next.tables, next.history, next.expiring
	s.fault = nil
	s.wakeLocked(touched)
	if s.advanced != nil { // also when there was no table before
		close(s.advanced)
		s.advanced = nil
	}
	return nil
}

// Leap raises the revision to rev and drops the history, on a store that is not part of a log.
func (s *Store) Leap(rev int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.rev = max(s.rev, rev)
	s.history.compacted = s.rev
	for _, t := range s.tables {
		t.floor, t.last = s.rev, s.rev
	}
}

func (s *Store) load(r io.Reader) error {
	magic := make([]byte, len(snapshotMagic))
	if _, err := io.ReadFull(r, magic); err != nil || string(magic) != snapshotMagic {
		return fmt.Errorf("%w: not a snapshot of this version", ErrCorrupt)
	}
	frames := &frameReader{r: r}
	d := &snapshotDecoder{r: bufio.NewReaderSize(frames, 64<<10)}
	s.rev, s.timeMillis = d.varint(), d.varint()
	s.history.compacted = s.rev
	d.dedupe(&s.dedupe)
	last := ""
	for n := d.uvarint(); n > 0 && d.err == nil; n-- {
		name := d.string()
		if d.err == nil && name <= last {
			d.err = fmt.Errorf("%w: tables out of order", ErrCorrupt)
		}
		last = name
		t := newTable(name, s.rev)
		t.last = s.rev
		s.tables[name] = t
		d.table(s, t)
	}
	if d.err != nil {
		return d.err
	}
	if _, err := d.r.ReadByte(); !errors.Is(err, io.EOF) {
		if err == nil {
			err = fmt.Errorf("%w: data after the last table", ErrCorrupt)
		}
		return err
	}
	return nil
}

func (d *snapshotDecoder) table(s *Store, t *table) {
	last := ""
	for n := d.uvarint(); n > 0 && d.err == nil; n-- {
		e := &Entry{Key: d.string(), CreateRevision: d.varint(), Revision: d.varint(), ExpiresUnixMilli: d.varint()}
		e.Value = d.blob(MaxValueBytes)
		if d.err != nil {
			return
		}
		if e.Key <= last || e.Revision > s.rev {
			d.err = fmt.Errorf("%w: key %q out of order", ErrCorrupt, e.Key)
			return
		}
		last = e.Key
		t.tree.Load(e)
		t.bytes += int64(len(e.Value))
		s.expiryLocked(t.name, &Event{Current: e})
	}
}

func (d *snapshotDecoder) dedupe(out *dedupe) {
	out.clock = d.uvarint()
	for n := d.uvarint(); n > 0 && d.err == nil; n-- {
		name := d.string()
		m := &memberWindow{touched: d.uvarint(), forgotten: d.uvarint()}
		for k := d.uvarint(); k > 0 && d.err == nil; k-- {
			r := dedupedResult{sequence: d.uvarint()}
			r.result.Code = Code(d.uvarint())
			r.result.Revision = d.varint()
			r.result.FirstRevision = d.varint()
			r.result.FailedOp = int(d.uvarint())
			m.results = append(m.results, r)
		}
		out.members[name] = m
	}
}

// snapshotDecoder reads a snapshot's payload; after the first fault it returns zero values.
type snapshotDecoder struct {
	r   *bufio.Reader
	err error
}

func (d *snapshotDecoder) fail(err error) {
	if d.err == nil {
		if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
			err = fmt.Errorf("%w: cut short", ErrCorrupt)
		}
		d.err = err
	}
}

func (d *snapshotDecoder) varint() int64 {
	if d.err != nil {
		return 0
	}
	v, err := binary.ReadVarint(d.r)
	if err != nil {
		d.fail(err)
	}
	return v
}

func (d *snapshotDecoder) uvarint() uint64 {
	if d.err != nil {
		return 0
	}
	v, err := binary.ReadUvarint(d.r)
	if err != nil {
		d.fail(err)
	}
	return v
}

func (d *snapshotDecoder) string() string { return string(d.blob(MaxKeyBytes)) }

func (d *snapshotDecoder) blob(limit uint64) []byte {
	n := d.uvarint()
	if n > limit {
		d.fail(fmt.Errorf("%w: field of %d bytes", ErrCorrupt, n))
	}
	if d.err != nil {
		return nil
	}
	b := make([]byte, n)
	if _, err := io.ReadFull(d.r, b); err != nil {
		d.fail(err)
	}
	return b
}

// frameWriter cuts a stream into frames. After the first error it does nothing.
type frameWriter struct {
	w   io.Writer
	buf []byte
	sum uint32
	err error
}

func (f *frameWriter) varint(v int64) { f.buf = binary.AppendVarint(f.buf, v); f.flushFull() }

func (f *frameWriter) uvarint(v uint64) { f.buf = binary.AppendUvarint(f.buf, v); f.flushFull() }

func (f *frameWriter) string(s string) { f.buf = appendBytes(f.buf, s); f.flushFull() }

func (f *frameWriter) bytes(b []byte) { f.buf = append(f.buf, b...); f.flushFull() }

func (f *frameWriter) flushFull() {
	if len(f.buf) >= snapshotFrameBytes {
		f.flush()
	}
}

func (f *frameWriter) flush() {
	f.sum = crc32.Update(f.sum, castagnoli(), f.buf)
	f.frame(f.buf, crc32.Checksum(f.buf, castagnoli()))
	f.buf = f.buf[:0]
}

func (f *frameWriter) frame(payload []byte, sum uint32) {
	if f.err != nil {
		return
	}
	var head [8]byte
	binary.LittleEndian.PutUint32(head[:], uint32(len(payload)))
	binary.LittleEndian.PutUint32(head[4:], sum)
	if _, f.err = f.w.Write(head[:]); f.err == nil {
		_, f.err = f.w.Write(payload)
	}
}

func (f *frameWriter) finish() error {
	if len(f.buf) > 0 {
		f.flush()
	}
	f.frame(nil, f.sum)
	return f.err
}

// frameReader joins the payloads of frames that have the right checksum.
type frameReader struct {
	r    io.Reader
	rest []byte
	buf  []byte
	sum  uint32
	n    int
	done bool
}

func (f *frameReader) Read(p []byte) (int, error) {
	for len(f.rest) == 0 {
		if f.done {
			return 0, io.EOF
		}
		if err := f.next(); err != nil {
			return 0, err
		}
	}
	n := copy(p, f.rest)
	f.rest = f.rest[n:]
	return n, nil
}

func (f *frameReader) next() error {
	var head [8]byte
	f.n++
	if _, err := io.ReadFull(f.r, head[:]); err != nil {
		return fmt.Errorf("%w: ends before frame %d", ErrCorrupt, f.n)
	}
	size, sum := binary.LittleEndian.Uint32(head[:]), binary.LittleEndian.Uint32(head[4:])
	if size == 0 {
		if sum != f.sum {
			return fmt.Errorf("%w: checksum of the whole is wrong", ErrCorrupt)
		}
		f.done = true
		return nil
	}
	if size > MaxValueBytes+2*snapshotFrameBytes {
		return fmt.Errorf("%w: frame %d claims %d bytes", ErrCorrupt, f.n, size)
	}
	if cap(f.buf) < int(size) {
		f.buf = make([]byte, size)
	}
	f.rest = f.buf[:size]
	if _, err := io.ReadFull(f.r, f.rest); err != nil {
		return fmt.Errorf("%w: ends within frame %d", ErrCorrupt, f.n)
	}
	if crc32.Checksum(f.rest, castagnoli()) != sum {
		return fmt.Errorf("%w: checksum of frame %d is wrong", ErrCorrupt, f.n)
	}
	f.sum = crc32.Update(f.sum, castagnoli(), f.rest)
	return nil
}

func castagnoli() *crc32.Table { return crc32.MakeTable(crc32.Castagnoli) }
