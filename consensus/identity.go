package consensus

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

const (
	identityFile   = "identity.json"
	identityFormat = 1
	lockFile       = "lock"
)

// identity says whose a data directory is.
type identity struct {
	Format  int    `json:"format"`
	Node    string `json:"node"`
	Cluster string `json:"cluster"`
	// Epoch counts the recoveries of the cluster's quorum, from 1; 0 is a replica that has met no other yet.
	Epoch uint64 `json:"epoch"`
	// Recovering is set while [Recover] rewrites the directory.
	Recovering bool `json:"recovering,omitempty"`
}

// claimDir locks dir for this process and makes sure that it is this node's; want is what an empty one becomes. The
// returned file holds the lock.
func claimDir(dir string, want identity) (*os.File, identity, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, want, fmt.Errorf("create data directory: %w", err)
	}
	lock, err := os.OpenFile(filepath.Join(dir, lockFile), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, want, fmt.Errorf("open data directory: %w", err)
	}
	if err := unix.Flock(int(lock.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		return nil, want, errors.Join(fmt.Errorf("data directory %s is in use by another process: end it first", dir), lock.Close())
	}
	found, err := checkIdentity(dir, want)
	if err != nil {
		return nil, want, errors.Join(err, lock.Close())
	}
	return lock, found, nil
}

func checkIdentity(dir string, want identity) (identity, error) {
	path := filepath.Join(dir, identityFile)
	want.Format = identityFormat
	data, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		if _, err := os.Stat(filepath.Join(dir, "log", metaFile)); err == nil {
			return want, fmt.Errorf("data directory %s has a log but no %s: restore the file or move the directory away", dir, identityFile)
		}
		return want, writeIdentity(dir, want)
	}
	if err != nil {
		return want, fmt.Errorf("read identity: %w", err)
	}
	found := identity{Epoch: firstEpoch} // directories from before epochs do not name theirs
	if err := json.Unmarshal(data, &found); err != nil {
		return want, fmt.Errorf("read %s: %w: move the directory away or restore the file", path, err)
	}
	if found.Format > identityFormat {
		return want, fmt.Errorf("data directory %s has format %d, this program reads up to %d: upgrade it", dir, found.Format, identityFormat)
	}
	if found.Node != want.Node || found.Cluster != want.Cluster {
		return want, &ForeignDirError{Dir: dir, FoundNode: found.Node, WantNode: want.Node, FoundCluster: found.Cluster, Cluster: want.Cluster}
	}
	return found, nil
}

// writeIdentity replaces dir's identity.
func writeIdentity(dir string, id identity) error {
	path := filepath.Join(dir, identityFile)
	data, err := json.Marshal(id)
	if err != nil {
		return err
	}
	if err := writeFileSynced(path+".new", append(data, '\n')); err != nil {
		return fmt.Errorf("write identity: %w", err)
	}
	if err := os.Rename(path+".new", path); err != nil {
		return fmt.Errorf("write identity: %w", err)
	}
	return syncDir(dir)
}

func writeFileSynced(path string, data []byte) error {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	return errors.Join(err, f.Sync(), f.Close())
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
