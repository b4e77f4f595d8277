package agent

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
)

// identity is what makes a node itself, whatever its name and address. It is written once, when the node founds or joins a
// cluster.
type identity struct {
	NodeID    string `json:"nodeID"`
	ClusterID string `json:"clusterID"`
	NodeName  string `json:"nodeName"`
	// Edge says that the node holds no replica of the store.
	Edge bool `json:"edge,omitempty"`
	// Joined says that the node never founds a cluster: as a replica it waits to be fed by others.
	Joined bool `json:"joined,omitempty"`
	// Left says that the node is out of its cluster, and that only its traces are to be removed.
	Left bool `json:"left,omitempty"`
	// Epoch is that of the quorum when the node was last told its role.
	Epoch uint64 `json:"epoch,omitempty"`
}

const identityFile = "node.json"

// dataDir is the locked folder with everything that a node keeps.
type dataDir struct {
	path string
	lock *os.File
	// identity is empty while the machine is no member of a cluster.
	identity
}

// openDataDir locks the folder and reads who this node is.
func openDataDir(path, nodeName string) (*dataDir, error) {
	if err := os.MkdirAll(path, 0o700); err != nil {
		return nil, fmt.Errorf("make the data folder: %w", err)
	}
	lock, err := os.OpenFile(filepath.Join(path, "lock"), os.O_CREATE|os.O_RDWR|syscall.O_CLOEXEC, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open the data folder: %w", err)
	}
	if err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		if errors.Is(err, syscall.EWOULDBLOCK) {
			err = errors.New("another agent uses it: stop that one, or choose another folder with --data-dir")
		}
		return nil, errors.Join(fmt.Errorf("lock the data folder %s: %w", path, err), lock.Close())
	}
	d := &dataDir{path: path, lock: lock}
	if err := d.identify(nodeName); err != nil {
		return nil, errors.Join(err, lock.Close())
	}
	return d, nil
}

func (d *dataDir) identify(nodeName string) error {
	file := d.join(identityFile)
	content, err := os.ReadFile(file)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err == nil {
		err = json.Unmarshal(content, &d.identity)
	}
	if err != nil {
		return fmt.Errorf("read who this node is: %w", err)
	}
	if d.NodeID == "" || d.ClusterID == "" {
		return fmt.Errorf("read who this node is: %s names no node or no cluster", file)
	}
	if d.NodeName != nodeName {
		return fmt.Errorf("the data folder %s belongs to node %q, and this is %q: choose another folder with --data-dir, the old name with --node-name, or remove the old node's data with `podvine agent reset`", d.path, d.NodeName, nodeName)
	}
	return nil
}

// become makes the node durably who it is from now on.
func (d *dataDir) become(who identity) error {
	if err := writeJSON(d.join(identityFile), who); err != nil {
		return err
	}
	d.identity = who
	return nil
}

// join is a path below the folder.
func (d *dataDir) join(elements ...string) string {
	return filepath.Join(append([]string{d.path}, elements...)...)
}

// Close lets another agent at the folder.
func (d *dataDir) Close() error { return d.lock.Close() }

// writeJSON makes the file appear at once, whole and durable.
func writeJSON(path string, value any) error {
	content, err := json.MarshalIndent(value, "", "  ")
	if err != nil {
		return fmt.Errorf("encode %s: %w", path, err)
	}
	return writeSecret(path, content)
}

// writeSecret does so with content as it is, for root alone to read.
func writeSecret(path string, content []byte) error {
	temporary := path + ".new"
	file, err := os.OpenFile(temporary, os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o600)
	if err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	_, err = file.Write(content)
	if err := errors.Join(err, file.Sync(), file.Close()); err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	if err := os.Rename(temporary, path); err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	folder, err := os.Open(filepath.Dir(path))
	if err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	if err := errors.Join(folder.Sync(), folder.Close()); err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	return nil
}

// readJSON reads what writeJSON wrote; a file that is not there leaves the value alone.
func readJSON(path string, value any) error {
	content, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err == nil {
		err = json.Unmarshal(content, value)
	}
	if err != nil {
		return fmt.Errorf("read %s: %w", path, err)
	}
	return nil
}
