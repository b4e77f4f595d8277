package consensus

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"maps"
	"os"
	"path/filepath"
	"sync"

	"github.com/hashicorp/raft-wal/types"
	"golang.org/x/sys/unix"
)

const (
	metaFile = "meta"
	// metaSlotBytes bounds what one slot holds: a hundred bytes a log segment, and raft's three stable values.
	metaSlotBytes  = 256 << 10
	metaSlots      = 2
	metaHeadBytes  = 16
	metaMagic      = "PVM1"
	metaFileBytes  = metaSlotBytes * metaSlots
	metaFilePerm   = 0o600
	metaSlotUnused = 0
)

// metaStore keeps the list of log segments, the term and the vote in two slots of one file that are overwritten in turn. It
// never needs new disk space, so that a full disk cannot block a vote, and is not memory-mapped, so that a broken disk is
// an error and not a signal. The methods may be called concurrently.
type metaStore struct {
	mu         sync.Mutex
	file       *os.File
	generation uint64
	state      metaState
}

type metaState struct {
	WAL    types.PersistentState `json:"wal"`
	Stable map[string][]byte     `json:"stable"`
}

var _ types.MetaStore = (*metaStore)(nil)

// Load opens dir's file, or makes it.
func (m *metaStore) Load(dir string) (types.PersistentState, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.file != nil {
		return m.state.WAL, nil
	}
	f, err := os.OpenFile(filepath.Join(dir, metaFile), os.O_CREATE|os.O_RDWR, metaFilePerm)
	if err != nil {
		return types.PersistentState{}, fmt.Errorf("open log metadata: %w", err)
	}
	if err := m.loadLocked(f, dir); err != nil {
		return types.PersistentState{}, errors.Join(err, f.Close())
	}
	m.file = f
	return m.state.WAL, nil
}

func (m *metaStore) loadLocked(f *os.File, dir string) error {
	m.generation, m.state = 0, metaState{Stable: map[string][]byte{}}
	written := false
	for slot := range int64(metaSlots) {
		buf := make([]byte, metaSlotBytes)
		n, err := f.ReadAt(buf, slot*metaSlotBytes)
		if err != nil && !errors.Is(err, io.EOF) {
			return fmt.Errorf("read log metadata: %w", err)
		}
		for _, b := range buf[:n] {
			written = written || b != metaSlotUnused
		}
		generation, state, err := decodeMeta(buf[:n])
		if err == nil && generation > m.generation {
			m.generation, m.state = generation, state
		}
	}
	if m.generation > 0 {
		return nil
	}
	if written {
		return fmt.Errorf("log metadata %s is damaged in both copies: restore this replica from a backup", f.Name())
	}
	if err := preallocate(f, metaFileBytes); err != nil {
		return fmt.Errorf("create log metadata: %w", err)
	}
	return syncDir(dir)
}

// preallocate fills f with zeroes, so that overwriting it needs no space.
func preallocate(f *os.File, size int64) error {
	if _, err := f.WriteAt(make([]byte, size), 0); err != nil {
		return err
	}
	return f.Sync()
}

func decodeMeta(slot []byte) (uint64, metaState, error) {
	var s metaState
	if len(slot) < metaHeadBytes+4 || string(slot[:4]) != metaMagic {
		return 0, s, errors.New("no metadata")
	}
	size := binary.LittleEndian.Uint32(slot[4:])
	generation := binary.LittleEndian.Uint64(slot[8:])
	if int(size) > len(slot)-metaHeadBytes-4 {
		return 0, s, errors.New("metadata is cut short")
	}
	end := metaHeadBytes + int(size)
	if crc32.ChecksumIEEE(slot[:end]) != binary.LittleEndian.Uint32(slot[end:]) {
		return 0, s, errors.New("metadata checksum is wrong")
	}
	if err := json.Unmarshal(slot[metaHeadBytes:end], &s); err != nil {
		return 0, s, err
	}
	if s.Stable == nil {
		s.Stable = map[string][]byte{}
	}
	return generation, s, nil
}

// commitLocked writes next to the slot that is not the newest and makes it the state.
func (m *metaStore) commitLocked(next metaState) error {
	body, err := json.Marshal(next)
	if err != nil {
		return err
	}
	if len(body)+metaHeadBytes+4 > metaSlotBytes {
		return fmt.Errorf("log metadata of %d bytes exceeds %d", len(body), metaSlotBytes)
	}
	if m.file == nil {
		return unix.EBADF
	}
	generation := m.generation + 1
	buf := make([]byte, 0, len(body)+metaHeadBytes+4)
	buf = append(buf, metaMagic...)
	buf = binary.LittleEndian.AppendUint32(buf, uint32(len(body)))
	buf = binary.LittleEndian.AppendUint64(buf, generation)
	buf = append(buf, body...)
	buf = binary.LittleEndian.AppendUint32(buf, crc32.ChecksumIEEE(buf))
	if _, err := m.file.WriteAt(buf, int64(generation%metaSlots)*metaSlotBytes); err != nil {
		return fmt.Errorf("write log metadata: %w", err)
	}
	if err := unix.Fdatasync(int(m.file.Fd())); err != nil {
		return fmt.Errorf("sync log metadata: %w", err)
	}
	m.generation, m.state = generation, next
	return nil
}

// CommitState replaces the list of segments.
func (m *metaStore) CommitState(s types.PersistentState) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.commitLocked(metaState{WAL: s, Stable: m.state.Stable})
}

// GetStable returns nil for a key that was never set.
func (m *metaStore) GetStable(key []byte) ([]byte, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.state.Stable[string(key)], nil
}

// SetStable stores raft's value durably.
func (m *metaStore) SetStable(key, value []byte) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	next := metaState{WAL: m.state.WAL, Stable: maps.Clone(m.state.Stable)}
	next.Stable[string(key)] = append([]byte{}, value...)
	return m.commitLocked(next)
}

// Close releases the file; Load opens it again.
func (m *metaStore) Close() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.file == nil {
		return nil
	}
	err := m.file.Close()
	m.file = nil
	return err
}
