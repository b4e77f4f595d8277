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

// Peer is where a member was last. It is kept on disk, so that a node that starts finds the others, and reaches a replica
// before gossip has told who is there.
type Peer struct {
	ID      string         `json:"id"`
	Address netip.AddrPort `json:"address"`
	// PeerPort is the port of the peers at the same address.
	PeerPort uint16 `json:"peerPort"`
	// Replica says that the member held a replica of the store.
	Replica bool `json:"replica,omitempty"`
}

// Prepare lays down what a node that joins has got: the keys, the first of which encrypts, and the members. The mesh that is
// then started at dir finds them by itself.
func Prepare(dir string, keys [][]byte, peers []Peer) error {
	if err := writeKeyring(keyringFile(dir), keys); err != nil {
		return err
	}
	return writePeers(dir, peers)
}

// LastPeers are the members that the node at dir knew last.
func LastPeers(dir string) ([]Peer, error) { return loadPeers(dir) }

// peersFile holds the addresses of the members that this node knew last.
func peersFile(dir string) string { return filepath.Join(dir, "gossip-peers.json") }

// loadPeers reads the addresses; a node that never met anybody has none.
func loadPeers(dir string) ([]Peer, error) {
	content, err := os.ReadFile(peersFile(dir))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	var peers []Peer
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
	var peers []Peer
	for _, member := range m.Members() {
		if member.ID != m.id && member.State != StateLeft && len(peers) < maxPeers {
			peers = append(peers, Peer{ID: member.ID, Address: member.Address, PeerPort: member.Tags.PeerPort, Replica: member.Tags.Role.Replica()})
		}
	}
	if len(peers) == 0 {
		return nil
	}
	return writePeers(m.dir, peers)
}

func writePeers(dir string, peers []Peer) error {
	content, err := json.Marshal(peers)
	if err != nil {
		return fmt.Errorf("encode gossip peers: %w", err)
	}
	path := peersFile(dir)
	if err := os.WriteFile(path+".new", content, 0o600); err != nil {
		return fmt.Errorf("keep gossip peers: %w", err)
	}
	if err := os.Rename(path+".new", path); err != nil {
		return fmt.Errorf("keep gossip peers: %w", err)
	}
	return nil
}

// rejoin contacts the last peers until one answers, or somebody has found this node, or the mesh is closed.
func (m *Mesh) rejoin(peers []Peer) {
	addresses := make([]string, len(peers))
	for i, peer := range peers {
		addresses[i] = peer.Address.String()
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
