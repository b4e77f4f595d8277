package wireguard

import (
	"encoding/hex"
	"errors"
	"fmt"
	"net/netip"
	"strconv"
	"strings"
	"time"
)

// ParseStatus reads what a device tells in WireGuard's configuration protocol. The private key that is in there is not
// kept.
func ParseStatus(text string) (Status, error) {
	var status Status
	var peer *PeerStatus
	for line := range strings.Lines(text) {
		key, value, ok := strings.Cut(strings.TrimSpace(line), "=")
		if !ok || key == "private_key" {
			continue
		}
		if key == "public_key" {
			raw, err := hex.DecodeString(value)
			if err != nil || len(raw) != KeyBytes {
				return Status{}, errors.New("read status of the tunnel: a peer without a key")
			}
			status.Peers = append(status.Peers, PeerStatus{Peer: Peer{PublicKey: Key(raw)}})
			peer = &status.Peers[len(status.Peers)-1]
			continue
		}
		if err := status.parse(peer, key, value); err != nil {
			return Status{}, fmt.Errorf("read status of the tunnel: %s: %w", key, err)
		}
	}
	return status, nil
}

func (s *Status) parse(peer *PeerStatus, key, value string) (err error) {
	if peer == nil {
		if key == "listen_port" {
			port, err := strconv.ParseUint(value, 10, 16)
			s.Port = uint16(port)
			return err
		}
		return nil
	}
	switch key {
	case "endpoint":
		peer.Endpoint, err = netip.ParseAddrPort(value)
	case "allowed_ip":
		var r netip.Prefix
		r, err = netip.ParsePrefix(value)
		peer.AllowedIPs = append(peer.AllowedIPs, r)
	case "rx_bytes":
		peer.ReceivedBytes, err = strconv.ParseUint(value, 10, 64)
	case "tx_bytes":
		peer.SentBytes, err = strconv.ParseUint(value, 10, 64)
	case "last_handshake_time_sec":
		var seconds int64
		if seconds, err = strconv.ParseInt(value, 10, 64); seconds > 0 {
			peer.LastHandshake = time.Unix(seconds, 0)
		}
	}
	return err
}
