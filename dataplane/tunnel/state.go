package tunnel

import (
	"fmt"
	"net/netip"
	"strings"

	"github.com/podvine/podvine/dataplane/tunnel/wireguard"
)

// Mode is how packets get from node to node.
type Mode string

const (
	// WireGuard encrypts, and lets a node send from its own pods' addresses only.
	WireGuard Mode = "wireguard"
	// VXLAN neither encrypts nor authenticates: for networks that are trusted.
	VXLAN Mode = "vxlan"
	// Direct adds nothing: nodes share a link, or the network between them knows the way to pods.
	Direct Mode = "direct"
)

// ParseMode reads a setting; empty means WireGuard.
func ParseMode(text string) (Mode, error) {
	switch mode := Mode(strings.ToLower(text)); mode {
	case "":
		return WireGuard, nil
	case WireGuard, VXLAN, Direct:
		return mode, nil
	}
	return "", fmt.Errorf("tunnel %q is none of %s, %s, %s", text, WireGuard, VXLAN, Direct)
}

const (
	// WireGuardPort and VXLANPort are the customary UDP ports.
	WireGuardPort uint16 = 51820
	VXLANPort     uint16 = 4789
	// vxlanID is our network's number among all that share the port.
	vxlanID = 7076
)

// State is everything that is wanted.
type State struct {
	Mode Mode
	Self Self
	// Peers are all other nodes, those that are believed dead included.
	Peers []Peer
}

// Self is this node.
type Self struct {
	// ID is the node's identity, which outlives its name and address.
	ID string
	// Addrs are the node's own, at most one of each family; the tunnel's packets use the first.
	Addrs []netip.Addr
	// PodCIDRs are the node's ranges; the first address of each must be on the node (package podnet sees to it).
	PodCIDRs []netip.Prefix
	// Port is where this node listens for peers; 0 means the mode's own.
	Port uint16
}

// Peer is another node.
type Peer struct {
	ID string
	// Addrs is where the node is reached, at most one of each family; the tunnel's packets go to the first of the family
	// of this node's own first.
	Addrs []netip.Addr
	// Port is where it listens; 0 means the mode's own. VXLAN has one port for all.
	Port uint16
	// PublicKey is needed for WireGuard alone.
	PublicKey wireguard.Key
	PodCIDRs  []netip.Prefix
}

// PeerError says why a peer is not connected. All others are.
type PeerError struct {
	ID     string
	Reason string
}

func (e *PeerError) Error() string {
	return fmt.Sprintf("node %s is not connected: %s", e.ID, e.Reason)
}

// Overhead is what a mode adds to a packet, in bytes, between nodes that speak the outer family.
func (m Mode) Overhead(outer6 bool) int {
	outer := 20
	if outer6 {
		outer = 40
	}
	switch m {
	case WireGuard:
		return outer + 8 + 32 // UDP; header and authentication
	case VXLAN:
		return outer + 8 + 8 + 14 // UDP; VXLAN; the inner Ethernet header
	}
	return 0
}

func (m Mode) port() uint16 {
	switch m {
	case WireGuard:
		return WireGuardPort
	case VXLAN:
		return VXLANPort
	}
	return 0
}
