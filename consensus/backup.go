package consensus

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/hashicorp/raft"

	"github.com/podvine/podvine/consensus/store"
)

const (
	restoreFile = "restore.tmp"
	// RevisionJump is how far a restored or recovered cluster's revision leaps: beyond whatever a client may have seen of
	// writes that are gone, so that no revision means two things.
	RevisionJump = 1 << 20
)

// BackupInfo is what a backup holds.
type BackupInfo struct {
	Revision int64
	// Keys counts the keys of each table.
	Keys map[string]int
}

// Backup writes a consistent, checksummed copy of the whole state to w while writes go on. What was sealed stays sealed.
func (r *Replica) Backup(w io.Writer) error { return r.store.Snapshot(w) }

// CheckBackup reads a whole backup and returns what it holds, or an error that wraps [store.ErrCorrupt].
func CheckBackup(backup io.Reader) (BackupInfo, error) {
	_, info, err := loadBackup(backup)
	return info, err
}

func loadBackup(backup io.Reader) (*store.Store, BackupInfo, error) {
	s := store.New(store.Options{})
	if err := s.Restore(backup); err != nil {
		return nil, BackupInfo{}, err
	}
	info := BackupInfo{Revision: s.Revision(), Keys: map[string]int{}}
	for _, table := range s.Tables() {
		info.Keys[table], _ = s.TableStats(table)
	}
	return s, info, nil
}

// Restore replaces the cluster's whole state by a backup's, on the leader. The backup is read and checked to its end before
// anything changes. The revision leaps beyond every one that was ever given out; watches end with 410. Writes in flight
// have an unknown outcome.
func (r *Replica) Restore(ctx context.Context, backup io.Reader) (BackupInfo, error) {
	if _, leads := r.Leading(); !leads {
		return BackupInfo{}, fmt.Errorf("restore: %w", ErrNotLeader)
	}
	loaded, info, err := loadBackup(backup)
	if err != nil {
		return info, err
	}
	loaded.Leap(max(info.Revision, r.store.Revision()) + RevisionJump)
	if !r.restoring.TryLock() {
		return info, errors.New("restore: another one is under way")
	}
	defer r.restoring.Unlock()
	path := filepath.Join(r.cfg.Dir, restoreFile)
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR|os.O_TRUNC, 0o600)
	if err != nil {
		return info, fmt.Errorf("restore: %w", err)
	}
	err = errors.Join(r.restoreFrom(ctx, f, loaded), f.Close(), os.Remove(path))
	if err != nil {
		return info, fmt.Errorf("restore: %w", err)
	}
	info.Revision = loaded.Revision()
	return info, nil
}

// restoreFrom spools the state to f, because raft wants its size first.
func (r *Replica) restoreFrom(ctx context.Context, f *os.File, loaded *store.Store) error {
	if err := loaded.Snapshot(f); err != nil {
		return err
	}
	size, err := f.Seek(0, io.SeekCurrent)
	if err != nil {
		return err
	}
	if _, err := f.Seek(0, io.SeekStart); err != nil {
		return err
	}
	done := make(chan error, 1)
	meta := &raft.SnapshotMeta{Version: raft.SnapshotVersionMax, Size: size}
	go func() { done <- r.raft.Restore(meta, f, configTimeout(ctx)) }()
	select {
	case err := <-done:
		r.expiry.wrote(r.store)
		return err
	case <-r.down:
		return ErrClosed
	}
}
