package agent

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"

	"github.com/podvine/podvine/agent/peer"
	"github.com/podvine/podvine/agent/pki"
	"github.com/podvine/podvine/consensus"
	"github.com/podvine/podvine/gossip"
)

// Recover makes this machine's replica the only voter of a cluster that has lost the majority of its voters for good. The
// agent must be stopped. It asks every voter directly first, and refuses while a majority may live.
func Recover(ctx context.Context, config Config, log *slog.Logger) (consensus.Recovery, error) {
	dir, err := openDataDir(config.DataDir, config.NodeName)
	if err != nil {
		return consensus.Recovery{}, err
	}
	defer dir.Close()
	switch {
	case dir.NodeID == "":
		return consensus.Recovery{}, fmt.Errorf("recover the quorum: %s belongs to no cluster", config.DataDir)
	case dir.Edge:
		return consensus.Recovery{}, errors.New("recover the quorum: this node is an edge and has no copy of the records: run this on a voter or a standby")
	}
	dial, err := dialLastPeers(dir, log)
	if err != nil {
		return consensus.Recovery{}, err
	}
	return consensus.Recover(ctx, consensus.RecoverConfig{
		Dir: dir.join("raft"), NodeID: dir.NodeID, ClusterID: dir.ClusterID, Dial: dial, Logger: log,
	})
}

// dialLastPeers reaches members where they were when this node last ran.
func dialLastPeers(dir *dataDir, log *slog.Logger) (consensus.DialFunc, error) {
	last, err := gossip.LastPeers(dir.path)
	if err != nil {
		return nil, err
	}
	peers, err := peersOnDisk(dir, func(id string) (netip.AddrPort, bool) { return lastAddress(last, id) }, log)
	if err != nil {
		return nil, err
	}
	return peers.Dial, nil
}

// lastAddress is where the peer port of a member was.
func lastAddress(last []gossip.Peer, id string) (netip.AddrPort, bool) {
	for _, member := range last {
		if member.ID == id && member.PeerPort != 0 {
			return netip.AddrPortFrom(member.Address.Addr(), member.PeerPort), true
		}
	}
	return netip.AddrPort{}, false
}

// peersOnDisk is a network of peers that only dials, with the certificate that lies on the disk, whatever it says of this node's
// role.
func peersOnDisk(dir *dataDir, resolve func(id string) (netip.AddrPort, bool), log *slog.Logger) (*peer.Network, error) {
	authority, certificate, err := pki.OnDisk(dir.join("pki"))
	if err != nil {
		return nil, err
	}
	return peer.New(peer.Config{
		Certificate: func() (*tls.Certificate, error) { return certificate, nil }, Authority: func() *x509.CertPool { return authority }, Resolve: resolve, Log: log,
	}), nil
}
