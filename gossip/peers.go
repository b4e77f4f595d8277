package gossip

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"time"
)

const (
	// rejoinPause is how long a node waits before it tries its last peers again.
	rejoinPause = time.Second
	// maxPeers bounds the addresses that are kept; any one that answers is enough.
	maxPeers = 256
)

// peersFile holds the addresses of the members that this node knew last.
func peersFile(dir string) string { return filepath.Join(dir, "gossip-peers.json") }

// loadPeers reads the addresses; a node that never met anybody has none.
func loadPeers(dir string) ([]netip.AddrPort, error) {
	content, err := os.ReadFile(peersFile(dir))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	var peers []netip.AddrPort
	if err == nil {
		err = json.Unmarshal(content, &peers)
	}
	if err != nil {
		return nil, fmt.Errorf("read gossip peers: %w", err)
	}
	return peers, nil
}

// savePeers keeps the addresses of all members but this one, also of dead ones: they may be back before this node is. It
// keeps the last list while it knows of nobody.
func (m *Mesh) savePeers() error {
	var peers []netip.AddrPort
	for _, member := range m.Members() {
		if member.ID != m.id && member.State != StateLeft && len(peers) < maxPeers {
			peers = append(peers, member.Address)
		}
	}
	if len(peers) == 0 {
		return nil
	}
	content, err := json.Marshal(peers)
	if err != nil {
		return fmt.Errorf("encode gossip peers: %w", err)
	}
	path := peersFile(m.dir)
	if err := os.WriteFile(path+".new", content, 0o600); err != nil {
		return fmt.Errorf("keep gossip peers: %w", err)
	}
	if err := os.Rename(path+".new", path); err != nil {
		return fmt.Errorf("keep gossip peers: %w", err)
	}
	return nil
}

// rejoin contacts the last peers until one answers, or somebody has found this node, or the mesh is closed.
func (m *Mesh) rejoin(peers []netip.AddrPort) {
	addresses := make([]string, len(peers))
	for i, peer := range peers {
		addresses[i] = peer.String()
	}
	for m.serf.NumNodes() < 2 {
		if _, err := m.serf.Join(addresses, true); err != nil {
			m.log.Debug("look for the last peers", "error", err)
		}
		select {
		case <-m.serf.ShutdownCh():
			return
		case <-time.After(rejoinPause):
		}
	}
}
