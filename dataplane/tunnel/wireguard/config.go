package wireguard

import (
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"
)

// PeersLimit bounds the peers of a device: a cluster has no more nodes.
const PeersLimit = 10_000

// Config is the whole wanted state of a device. Its JSON form goes to netd and to netd's disk; the private key does not,
// only the path of its file.
type Config struct {
	// Link names the device.
	Link string `json:"link"`
	// MTU of the link in bytes when it is made; later ones are set on the link.
	MTU int `json:"mtu"`
	// KeyFile holds the private key of PublicKey.
	KeyFile   string `json:"keyFile"`
	PublicKey Key    `json:"publicKey"`
	// Port is the UDP port to listen on.
	Port  uint16 `json:"port"`
	Peers []Peer `json:"peers"`
}

// Peer is another node.
type Peer struct {
	PublicKey Key `json:"publicKey"`
	// Endpoint is where the peer listens, as far as we know; a peer that speaks from elsewhere is followed.
	Endpoint netip.AddrPort `json:"endpoint"`
	// AllowedIPs are the sources that the peer may send from, and what is sent to it.
	AllowedIPs []netip.Prefix `json:"allowedIPs"`
}

// Status is what a device tells.
type Status struct {
	PublicKey Key          `json:"publicKey"`
	Port      uint16       `json:"port"`
	Peers     []PeerStatus `json:"peers"`
}

// PeerStatus is a peer as the device sees it.
type PeerStatus struct {
	Peer
	// LastHandshake is zero before the first.
	LastHandshake time.Time `json:"lastHandshake"`
	ReceivedBytes uint64    `json:"receivedBytes"`
	SentBytes     uint64    `json:"sentBytes"`
}

// Check refuses a configuration that no device could carry out.
func (c *Config) Check() error {
	if c.Link == "" || c.KeyFile == "" || c.PublicKey.IsZero() || c.Port == 0 {
		return errors.New("a tunnel needs a link, a key and a port")
	}
	if len(c.Peers) > PeersLimit {
		return fmt.Errorf("%d peers, the limit is %d", len(c.Peers), PeersLimit)
	}
	keys, ranges := map[Key]bool{}, map[netip.Prefix]Key{}
	for _, p := range c.Peers {
		if p.PublicKey.IsZero() || !p.Endpoint.IsValid() || keys[p.PublicKey] {
			return fmt.Errorf("peer %s at %s: no key, no endpoint, or a key named twice", p.PublicKey, p.Endpoint)
		}
		keys[p.PublicKey] = true
		for _, r := range p.AllowedIPs {
			if other, taken := ranges[r]; taken {
				return fmt.Errorf("peers %s and %s both claim range %s", other, p.PublicKey, r)
			}
			ranges[r] = p.PublicKey
		}
	}
	return nil
}

// Change is what has to be done to one peer.
type Change struct {
	Peer   Peer
	Remove bool
	// Endpoint and AllowedIPs tell which of the two have to be written. A peer of which neither changes keeps its session.
	Endpoint, AllowedIPs bool
}

// Diff lists, in a stable order, what turns the peers that a device has into the ones that it should have: removals first,
// so that ranges are free for others.
func Diff(have, want []Peer) []Change {
	had := make(map[Key]Peer, len(have))
	for _, p := range have {
		had[p.PublicKey] = p
	}
	var changes []Change
	for _, p := range want {
		old, known := had[p.PublicKey]
		delete(had, p.PublicKey)
		change := Change{
			Peer: p, Endpoint: !known || old.Endpoint != p.Endpoint, AllowedIPs: !known || !sameRanges(old.AllowedIPs, p.AllowedIPs),
		}
		if change.Endpoint || change.AllowedIPs {
			changes = append(changes, change)
		}
	}
	for _, p := range had {
		changes = append(changes, Change{Peer: Peer{PublicKey: p.PublicKey}, Remove: true})
	}
	slices.SortFunc(changes, func(a, b Change) int {
		if a.Remove != b.Remove {
			if a.Remove {
				return -1
			}
			return 1
		}
		return bytes.Compare(a.Peer.PublicKey[:], b.Peer.PublicKey[:])
	})
	return changes
}

func sameRanges(a, b []netip.Prefix) bool {
	return slices.Equal(sortedRanges(a), sortedRanges(b))
}

func sortedRanges(ranges []netip.Prefix) []netip.Prefix {
	out := slices.Clone(ranges)
	slices.SortFunc(out, netip.Prefix.Compare)
	return out
}

// FormatPeers writes changes of peers as WireGuard's configuration protocol wants them
// (https://www.wireguard.com/xplatform/).
func FormatPeers(changes []Change) string {
	var out strings.Builder
	for _, c := range changes {
		fmt.Fprintf(&out, "public_key=%s\n", hex.EncodeToString(c.Peer.PublicKey[:]))
		if c.Remove {
			out.WriteString("remove=true\n")
			continue
		}
		if c.Endpoint {
			fmt.Fprintf(&out, "endpoint=%s\n", c.Peer.Endpoint)
		}
		if c.AllowedIPs {
			out.WriteString("replace_allowed_ips=true\n")
			for _, r := range c.Peer.AllowedIPs {
				fmt.Fprintf(&out, "allowed_ip=%s\n", r)
			}
		}
	}
	return out.String()
}
