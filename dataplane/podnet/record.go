package podnet

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"

	"github.com/vishvananda/netlink"
)

const (
	recordsFolder = "pods"
	recordSuffix  = ".json"
	// linkPrefix begins the name of every link that this package makes.
	linkPrefix = "pv"
	// linkHashChars of a pod's hash make its link's name unique and no longer than the kernel's 15 characters.
	linkHashChars = 12
)

// record is what the node keeps of a pod, on disk.
type record struct {
	ID    string        `json:"id"`
	Addrs []netip.Addr  `json:"addrs"`
	Ports []PortMapping `json:"ports,omitempty"`
	// Netns is the path of the pod's network namespace; records of older versions lack it.
	Netns string `json:"netns,omitempty"`
}

func linkName(id string) string { return linkPrefix + hash(id)[:linkHashChars] }

// isPodLink tells a pod's link from those of others whose names begin alike.
func isPodLink(l netlink.Link) bool {
	digits, ok := strings.CutPrefix(l.Attrs().Name, linkPrefix)
	return ok && l.Type() == "veth" && len(digits) == linkHashChars && strings.Trim(digits, "0123456789abcdef") == ""
}

func hash(id string) string {
	sum := sha256.Sum256([]byte(id))
	return hex.EncodeToString(sum[:])
}

// macs derives the hardware addresses of a pod's link pair: locally administered, stable over restarts.
func macs(id string) (pod, host [6]byte) {
	sum := sha256.Sum256([]byte(id))
	copy(pod[1:], sum[:5])
	copy(host[1:], sum[5:10])
	pod[0], host[0] = 0x02, 0x06
	return pod, host
}

func (n *Network) recordPath(id string) string {
	return filepath.Join(n.config.StateDir, recordsFolder, hash(id)+recordSuffix)
}

// save replaces the record atomically.
func (n *Network) save(r *record) error {
	data, err := json.Marshal(r)
	if err != nil {
		return fmt.Errorf("encode record of pod %s: %w", r.ID, err)
	}
	return writeFile(n.recordPath(r.ID), data)
}

func writeFile(path string, data []byte) error {
	temporary := path + ".new"
	if err := os.WriteFile(temporary, data, 0o600); err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	if err := os.Rename(temporary, path); err != nil {
		return fmt.Errorf("replace %s: %w", path, err)
	}
	return nil
}

func (n *Network) forget(id string) error {
	if err := os.Remove(n.recordPath(id)); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("remove record of pod %s: %w", id, err)
	}
	return nil
}

// loadRecords reads all records. One that cannot be read (the machine died while it was written) is dropped: its pod is
// set up anew.
func (n *Network) loadRecords() ([]*record, error) {
	folder := filepath.Join(n.config.StateDir, recordsFolder)
	if err := os.MkdirAll(folder, 0o700); err != nil {
		return nil, fmt.Errorf("make folder of pod records: %w", err)
	}
	entries, err := os.ReadDir(folder)
	if err != nil {
		return nil, fmt.Errorf("list pod records: %w", err)
	}
	var records []*record
	for _, e := range entries {
		path := filepath.Join(folder, e.Name())
		r, err := loadRecord(path)
		if err != nil {
			n.log.Warn("drop unreadable pod record", "path", path, "err", err)
			if err := os.Remove(path); err != nil {
				return nil, fmt.Errorf("remove unreadable pod record: %w", err)
			}
			continue
		}
		records = append(records, r)
	}
	return records, nil
}

func loadRecord(path string) (*record, error) {
	if !strings.HasSuffix(path, recordSuffix) {
		return nil, errors.New("a write that was not finished")
	}
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	r := &record{}
	if err := json.Unmarshal(data, r); err != nil {
		return nil, err
	}
	if r.ID == "" || len(r.Addrs) == 0 {
		return nil, errors.New("record without pod or address")
	}
	return r, nil
}
