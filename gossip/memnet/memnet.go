// Package memnet is a network in memory for gossip: packets and streams between members of one process, with members
// that can be cut off. It blocks on nothing but its own mutex and on stream reads, so it works in virtual time
// (testing/synctest), and it counts what it carries.
package memnet

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"time"

	"github.com/hashicorp/memberlist"
)

const (
	packetQueueLength = 1024 // packets beyond it are dropped, as a socket's buffer would
	streamQueueLength = 64   // streams beyond it are refused
)

// Network connects the transports that it made. The zero value is ready.
type Network struct {
	mu         sync.Mutex
	transports map[string]*Transport
	bytes      int64
	packets    int64
}

// Transport is one member's end. It implements memberlist.NodeAwareTransport.
type Transport struct {
	network *Network
	address netip.AddrPort
	packets chan *memberlist.Packet
	streams chan net.Conn

	cut    bool // guarded by network.mu
	closed bool // guarded by network.mu
}

// Listen returns a transport at address. A second one at the same address takes the place of the first.
func (n *Network) Listen(address netip.AddrPort) *Transport {
	t := &Transport{
		network: n, address: address,
		packets: make(chan *memberlist.Packet, packetQueueLength), streams: make(chan net.Conn, streamQueueLength),
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.transports == nil {
		n.transports = map[string]*Transport{}
	}
	n.transports[address.String()] = t
	return t
}

// Carried returns how many packets, and how many bytes in packets and streams, were sent so far, dropped ones included.
func (n *Network) Carried() (packets, bytes int64) {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.packets, n.bytes
}

// SetCut cuts the transport off from all others, or connects it again.
func (t *Transport) SetCut(cut bool) {
	t.network.mu.Lock()
	defer t.network.mu.Unlock()
	t.cut = cut
}

// peer returns the transport at address where it can be reached from t now.
func (t *Transport) peer(address string, payload int) *Transport {
	t.network.mu.Lock()
	defer t.network.mu.Unlock()
	t.network.packets++
	t.network.bytes += int64(payload)
	peer := t.network.transports[address]
	if peer == nil || t.cut || t.closed || peer.cut || peer.closed {
		return nil
	}
	return peer
}

// FinalAdvertiseAddr implements memberlist.Transport.
func (t *Transport) FinalAdvertiseAddr(string, int) (net.IP, int, error) {
	return t.address.Addr().AsSlice(), int(t.address.Port()), nil
}

// WriteTo implements memberlist.Transport. A packet to nobody is lost without an error, as on a network.
func (t *Transport) WriteTo(packet []byte, address string) (time.Time, error) {
	now := time.Now()
	if peer := t.peer(address, len(packet)); peer != nil {
		sent := &memberlist.Packet{Buf: append([]byte(nil), packet...), From: net.UDPAddrFromAddrPort(t.address), Timestamp: now}
		select {
		case peer.packets <- sent:
		default:
		}
	}
	return now, nil
}

// WriteToAddress implements memberlist.NodeAwareTransport.
func (t *Transport) WriteToAddress(packet []byte, address memberlist.Address) (time.Time, error) {
	return t.WriteTo(packet, address.Addr)
}

// PacketCh implements memberlist.Transport.
func (t *Transport) PacketCh() <-chan *memberlist.Packet { return t.packets }

// DialTimeout implements memberlist.Transport. Dialling a member that is cut off takes the whole timeout.
func (t *Transport) DialTimeout(address string, timeout time.Duration) (net.Conn, error) {
	peer := t.peer(address, 0)
	if peer == nil {
		time.Sleep(timeout)
		return nil, fmt.Errorf("dial %s: timed out", address)
	}
	mine, theirs := t.network.stream()
	select {
	case peer.streams <- theirs:
		return mine, nil
	default:
		return nil, errors.Join(fmt.Errorf("dial %s: its queue is full", address), mine.Close(), theirs.Close())
	}
}

// stream makes a stream whose bytes count.
func (n *Network) stream() (a, b net.Conn) {
	a, b = net.Pipe()
	return counted{a, n}, counted{b, n}
}

// counted is one end of a stream.
type counted struct {
	net.Conn
	network *Network
}

// Write implements net.Conn.
func (c counted) Write(content []byte) (int, error) {
	written, err := c.Conn.Write(content)
	c.network.mu.Lock()
	defer c.network.mu.Unlock()
	c.network.bytes += int64(written)
	return written, err
}

// DialAddressTimeout implements memberlist.NodeAwareTransport.
func (t *Transport) DialAddressTimeout(address memberlist.Address, timeout time.Duration) (net.Conn, error) {
	return t.DialTimeout(address.Addr, timeout)
}

// StreamCh implements memberlist.Transport.
func (t *Transport) StreamCh() <-chan net.Conn { return t.streams }

// Shutdown implements memberlist.Transport.
func (t *Transport) Shutdown() error {
	t.network.mu.Lock()
	defer t.network.mu.Unlock()
	t.closed = true
	return nil
}
