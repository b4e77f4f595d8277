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
}

// claimDir locks dir for this process and makes sure that it is this node's. The returned file holds the lock.
func claimDir(dir, node, cluster string) (*os.File, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("create data directory: %w", err)
	}
	lock, err := os.OpenFile(filepath.Join(dir, lockFile), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open data directory: %w", err)
	}
	if err := unix.Flock(int(lock.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		return nil, errors.Join(fmt.Errorf("data directory %s is in use by another process: end it first", dir), lock.Close())
	}
	if err := checkIdentity(dir, identity{Format: identityFormat, Node: node, Cluster: cluster}); err != nil {
		return nil, errors.Join(err, lock.Close())
	}
	return lock, nil
}

func checkIdentity(dir string, want identity) error {
	path := filepath.Join(dir, identityFile)
	data, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return writeIdentity(dir, path, want)
	}
	if err != nil {
		return fmt.Errorf("read identity: %w", err)
	}
	var found identity
	if err := json.Unmarshal(data, &found); err != nil {
		return fmt.Errorf("read %s: %w: move the directory away or restore the file", path, err)
	}
	if found.Format > identityFormat {
		return fmt.Errorf("data directory %s has format %d, this program reads up to %d: upgrade it", dir, found.Format, identityFormat)
	}
	if found.Node != want.Node || found.Cluster != want.Cluster {
		return &ForeignDirError{Dir: dir, FoundNode: found.Node, WantNode: want.Node, FoundCluster: found.Cluster, Cluster: want.Cluster}
	}
	return nil
}

func writeIdentity(dir, path string, id identity) error {
	if _, err := os.Stat(filepath.Join(dir, "log", metaFile)); err == nil {
		return fmt.Errorf("data directory %s has a log but no %s: restore the file or move the directory away", dir, identityFile)
	}
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
