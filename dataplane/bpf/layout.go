package bpf

import (
	"encoding/binary"
	"net/netip"
)

// Protocol numbers as the maps hold them.
const (
	ProtocolTCP uint8 = 6
	ProtocolUDP uint8 = 17
)

// Algorithms of a [Set].
const (
	AlgorithmRandom     uint8 = 0
	AlgorithmRoundRobin uint8 = 1
	AlgorithmMaglev     uint8 = 2
	AlgorithmLeast      uint8 = 3
)

// SetDropWhenEmpty makes packets to an empty set vanish instead of being refused. Connections that start on the node
// are refused either way.
const SetDropWhenEmpty uint16 = 1 << 0

// SlotLocal marks a backend on this node: packets from outside reach it with their own source address.
const SlotLocal uint16 = 1 << 0

// Addr is an address in a map: 16 bytes, IPv4 in its IPv6-mapped form.
type Addr [16]byte

// Port is a port in network byte order.
type Port [2]byte

// MakeAddr converts an address; the zero netip.Addr becomes "::".
func MakeAddr(a netip.Addr) Addr {
	if !a.IsValid() {
		return Addr{}
	}
	return a.As16()
}

// Netip converts back; IPv6-mapped addresses become plain IPv4.
func (a Addr) Netip() netip.Addr { return netip.AddrFrom16(a).Unmap() }

// MakePort converts a port to network byte order.
func MakePort(p uint16) Port {
	var out Port
	binary.BigEndian.PutUint16(out[:], p)
	return out
}

// Uint16 converts back to host byte order.
func (p Port) Uint16() uint16 { return binary.BigEndian.Uint16(p[:]) }

// Endpoint is the key of the frontends: what a client asks for. The unspecified address of a family stands for every
// local address of it.
type Endpoint struct {
	Addr  Addr
	Port  Port
	Proto uint8
	Pad   uint8
}

// Frontend names the sets of backends behind an [Endpoint]: for what starts on this node, and for the outside.
type Frontend struct {
	InnerSet uint32
	OuterSet uint32
	Flags    uint32
}

// FrontendGuarded lets only clients of the sources listed for the outer set in.
const FrontendGuarded uint32 = 1 << 0

// SourceKey is a range of clients' addresses that a set serves. PrefixBits count the set's 32 too.
type SourceKey struct {
	PrefixBits uint32
	Set        uint32
	Addr       Addr
}

// Set is the head of a set of backends; its members are the slots 0 to Count-1.
type Set struct {
	Count           uint32
	AffinitySeconds uint32
	Flags           uint16
	Algorithm       uint8
	Pad             uint8
}

// SlotKey addresses a slot of a set.
type SlotKey struct {
	Set   uint32
	Index uint32
}

// Slot is a backend.
type Slot struct {
	Addr  Addr
	Port  Port
	Flags uint16
}

// MemberKey asks whether a backend belongs to a set.
type MemberKey struct {
	Set  uint32
	Addr Addr
	Port Port
	Pad  uint16
}

// Pod is where a pod of this node is reached.
type Pod struct {
	Ifindex uint32
	MAC     [6]byte
	HostMAC [6]byte
}

// RemoteKey is a range of pods of another node. Bits count from the front of the mapped address, so that those of an
// IPv4 range are 96 more than its own.
type RemoteKey struct {
	Bits uint32
	Addr Addr
}

// MakeRemoteKey converts a range.
func MakeRemoteKey(p netip.Prefix) RemoteKey {
	bits := p.Bits()
	if p.Addr().Is4() {
		bits += 96
	}
	return RemoteKey{Bits: uint32(bits), Addr: MakeAddr(p.Masked().Addr())}
}

// Prefix converts back.
func (k RemoteKey) Prefix() netip.Prefix {
	addr, bits := k.Addr.Netip(), int(k.Bits)
	if addr.Is4() {
		bits -= 96
	}
	return netip.PrefixFrom(addr, bits)
}

// Remote is the link that leads to a range of pods of another node.
type Remote struct {
	Ifindex uint32
	Pad     uint32
}

// Settings are what the programs know of their node.
type Settings struct {
	HostNetns uint64
	NAT4      Addr
	NAT6      Addr
	PodNAT4   Addr
	PodNAT6   Addr
	// RejectMark is the bit of a packet's mark that asks for a refusal.
	RejectMark uint32
	// SNATPortFirst and SNATPorts are the span of source ports for flows whose source is translated.
	SNATPortFirst uint16
	SNATPorts     uint16
	// How long a silent flow is kept: one that has not been answered, one at work, one that has ended, one of UDP.
	TCPOpeningSeconds uint32
	TCPIdleSeconds    uint32
	TCPClosedSeconds  uint32
	UDPIdleSeconds    uint32
}

// Tuple identifies a flow of packets.
type Tuple struct {
	Source      Addr
	Destination Addr
	SourcePort  Port
	DestPort    Port
	Proto       uint8
	Pad         [3]uint8
}

// Invert returns the tuple of the other direction.
func (t Tuple) Invert() Tuple {
	return Tuple{Source: t.Destination, Destination: t.Source, SourcePort: t.DestPort, DestPort: t.SourcePort, Proto: t.Proto}
}

// Flags of the entry of a flow's way back.
const (
	FlowClientFIN uint32 = 1 << iota
	FlowBackendFIN
	FlowReset
	FlowAnswered
	FlowCounted
)

// Flow is how packets of a [Tuple] leave. Set is 0 in the entry of the way back, which holds the state of the flow:
// SeenNS (of the monotonic clock) and Flags.
type Flow struct {
	SeenNS    uint64
	Rewritten Tuple
	Set       uint32
	Flags     uint32
	Pad       [2]uint32
}

// Counter is an index of the counters' map.
type Counter uint32

// The counters that the programs keep.
const (
	CounterSocketTranslated Counter = iota
	CounterSocketRefused
	CounterFlowOpened
	CounterFlowRejected
	CounterFlowDropped
	CounterPodRedirected
	CounterFlowExhausted
	CounterFlowReclaimed
	CounterErrorTranslated
	CounterTooBigSent
	CounterSourceDenied
	CounterRemoteRedirected
	CounterLimit
)

func (c Counter) String() string {
	names := [...]string{
		"socket_translated", "socket_refused", "flow_opened", "flow_rejected", "flow_dropped", "pod_redirected",
		"flow_exhausted", "flow_reclaimed", "error_translated", "too_big_sent", "source_denied", "remote_redirected",
	}
	if int(c) < len(names) {
		return names[c]
	}
	return "unknown"
}
