package gossip

import (
	"fmt"
	"strconv"
)

// Role is the part of a node in the quorum that keeps the cluster's records.
type Role byte

// The roles, by the letter that travels in the tags.
const (
	RoleEdge    Role = 'e' // no replica of the store
	RoleStandby Role = 's' // a full replica without a vote
	RoleVoter   Role = 'v' // a full replica with a vote
)

// String is the role's name as the command line prints it.
func (r Role) String() string {
	switch r {
	case RoleEdge:
		return "edge"
	case RoleStandby:
		return "standby"
	case RoleVoter:
		return "voter"
	}
	return "unknown"
}

// Replica tells whether a member of the role holds a replica of the store.
func (r Role) Replica() bool { return r == RoleVoter || r == RoleStandby }

// Tags are what a member says of itself. They ride on every membership message, so all of them together stay below
// [MaxTagsBytes]; everything larger or worth protecting belongs in the Node object.
type Tags struct {
	Role Role
	// APIPort serves the Kubernetes API.
	APIPort uint16
	// PeerPort serves the peers: Raft, forwarding, images.
	PeerPort uint16
	// TunnelKey is the public key of the node's tunnel in base64; empty without a tunnel.
	TunnelKey string
	// Leaving says that the node is about to leave for good, and lives until the others can do without it.
	Leaving bool
	// Version is the release of the binary ("v0.3.1").
	Version string
}

// MaxTagsBytes bounds the encoded tags. Serf would take 512; half of that leaves room for what later versions add.
const MaxTagsBytes = 256

// The names of the tags are single letters because each travels in every message.
const (
	tagRole      = "r"
	tagAPIPort   = "a"
	tagPeerPort  = "p"
	tagTunnelKey = "k"
	tagVersion   = "v"
	tagLeaving   = "l"
)

// encode returns the tags as serf takes them, or an error when they are too long.
func (t Tags) encode() (map[string]string, error) {
	encoded := map[string]string{
		tagRole:     string(rune(t.Role)),
		tagAPIPort:  strconv.Itoa(int(t.APIPort)),
		tagPeerPort: strconv.Itoa(int(t.PeerPort)),
		tagVersion:  t.Version,
	}
	if t.TunnelKey != "" {
		encoded[tagTunnelKey] = t.TunnelKey
	}
	if t.Leaving {
		encoded[tagLeaving] = "1"
	}
	if n := encodedBytes(encoded); n > MaxTagsBytes {
		return nil, fmt.Errorf("encode gossip tags: %d bytes, the limit is %d", n, MaxTagsBytes)
	}
	return encoded, nil
}

// encodedBytes bounds from above what serf's message pack encoding takes: three bytes a string and a few for the map.
func encodedBytes(tags map[string]string) int {
	const perString, perMap = 3, 4
	n := perMap
	for name, value := range tags {
		n += len(name) + len(value) + 2*perString
	}
	return n
}

// decodeTags reads what another member sent. A tag that is missing or makes no sense is left at its zero value: a
// member of another version must stay visible.
func decodeTags(tags map[string]string) Tags {
	decoded := Tags{TunnelKey: tags[tagTunnelKey], Version: tags[tagVersion], Leaving: tags[tagLeaving] != ""}
	if role := tags[tagRole]; len(role) == 1 {
		decoded.Role = Role(role[0])
	}
	decoded.APIPort = decodePort(tags[tagAPIPort])
	decoded.PeerPort = decodePort(tags[tagPeerPort])
	return decoded
}

func decodePort(text string) uint16 {
	port, err := strconv.ParseUint(text, 10, 16)
	if err != nil {
		return 0
	}
	return uint16(port)
}
