// Package netsim is a network in memory for tests of replicas: hosts named by node UUID that dial each other by protocol,
// and the faults that a real network has.
//
// Role. [New] makes a network, [Network.Host] a host on it, whose Dial and Listen fit consensus.Network. A cut link swallows
// what is sent over it; connections that lost something break when it heals, as TCP's do in the end. A killed host refuses.
//
// Concurrency. All methods may be called from any goroutine. The package reads no clock, so that it works in a
// testing/synctest bubble; every connection of a network lives in the bubble in which it was dialed.
//
// Test with `go test ./consensus/netsim`.
package netsim

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"time"
)

// ErrRefused says that nobody listens there.
var ErrRefused = errors.New("connection refused")

// acceptBacklog is how many dialed connections wait to be accepted.
const acceptBacklog = 64

type link struct{ from, to string }

type address struct{ node, protocol string }

// Network connects hosts. The zero value is not usable; see [New].
type Network struct {
	mu        sync.Mutex
	cut       map[link]struct{}
	dead      map[string]struct{}
	listeners map[address]*Listener
	conns     map[*conn]struct{}
	dials     int
	written   int
	delay     func() time.Duration
	writes    sync.WaitGroup
	closed    bool
}

// New returns a network without hosts.
func New() *Network {
	return &Network{cut: map[link]struct{}{}, dead: map[string]struct{}{}, listeners: map[address]*Listener{}, conns: map[*conn]struct{}{}}
}

// Host is one node's place on the network.
type Host struct {
	net  *Network
	node string
}

// Host returns the node's place, alive.
func (n *Network) Host(node string) *Host {
	n.mu.Lock()
	defer n.mu.Unlock()
	delete(n.dead, node)
	return &Host{net: n, node: node}
}

// Dials returns how many connections were dialed so far.
func (n *Network) Dials() int {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.dials
}

// Written returns how many writes to connections there were so far.
func (n *Network) Written() int {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.written
}

// Delay makes every write wait for as long as the function says, which may be called from any goroutine.
func (n *Network) Delay(delay func() time.Duration) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.delay = delay
}

// Cut swallows everything between each two of the nodes, both ways.
func (n *Network) Cut(nodes ...string) {
	for _, a := range nodes {
		for _, b := range nodes {
			if a != b {
				n.CutOneWay(a, b)
			}
		}
	}
}

// CutOneWay swallows what from sends to to.
func (n *Network) CutOneWay(from, to string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.cut[link{from, to}] = struct{}{}
}

// Split swallows everything between the two groups, both ways.
func (n *Network) Split(one, other []string) {
	for _, a := range one {
		for _, b := range other {
			n.Cut(a, b)
		}
	}
}

// Heal ends all cuts. Connections that lost something break.
func (n *Network) Heal() {
	n.mu.Lock()
	defer n.mu.Unlock()
	clear(n.cut)
	for c := range n.conns {
		if c.lost.Load() {
			c.breakLocked()
		}
	}
}

// Kill breaks all connections of a node and lets nobody reach it until it is made a Host again.
func (n *Network) Kill(node string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.dead[node] = struct{}{}
	for c := range n.conns {
		if c.from == node || c.to == node {
			c.breakLocked()
		}
	}
	for a := range n.listeners {
		if a.node == node {
			delete(n.listeners, a)
		}
	}
}

// Close breaks all connections and waits until no write is on its way any more. No host may be in use after it.
func (n *Network) Close() {
	n.mu.Lock()
	n.closed = true
	for c := range n.conns {
		c.breakLocked()
	}
	n.mu.Unlock()
	n.writes.Wait()
}

// Dial connects to a node's listener for the protocol.
func (h *Host) Dial(ctx context.Context, node, protocol string) (net.Conn, error) {
	n := h.net
	n.mu.Lock()
	n.dials++
	_, there := n.cut[link{h.node, node}]
	_, back := n.cut[link{node, h.node}]
	_, selfDead := n.dead[h.node]
	l := n.listeners[address{node, protocol}]
	n.mu.Unlock()
	if there || back {
		<-ctx.Done()
		return nil, fmt.Errorf("dial %s: %w", node, ctx.Err())
	}
	if l == nil || selfDead {
		return nil, fmt.Errorf("dial %s: %w", node, ErrRefused)
	}
	a, b := net.Pipe()
	near := &conn{Conn: a, net: n, from: h.node, to: node}
	far := &conn{Conn: b, net: n, from: node, to: h.node}
	near.other, far.other = far, near
	n.mu.Lock()
	n.conns[near], n.conns[far] = struct{}{}, struct{}{}
	n.mu.Unlock()
	select {
	case l.accepted <- far:
		return near, nil
	case <-l.closed:
	case <-ctx.Done():
	}
	return nil, errors.Join(fmt.Errorf("dial %s: %w", node, ErrRefused), near.Close())
}

// Listen accepts what others dial to this node by the protocol. It replaces an earlier listener.
func (h *Host) Listen(protocol string) *Listener {
	l := &Listener{host: h, at: address{h.node, protocol}, accepted: make(chan net.Conn, acceptBacklog), closed: make(chan struct{})}
	h.net.mu.Lock()
	defer h.net.mu.Unlock()
	h.net.listeners[l.at] = l
	return l
}

// Listener is a net.Listener on a network.
type Listener struct {
	host     *Host
	at       address
	accepted chan net.Conn
	closed   chan struct{}
	once     sync.Once
}

// Accept implements net.Listener.
func (l *Listener) Accept() (net.Conn, error) {
	select {
	case c := <-l.accepted:
		return c, nil
	case <-l.closed:
		return nil, net.ErrClosed
	}
}

// Close implements net.Listener.
func (l *Listener) Close() error {
	l.once.Do(func() {
		close(l.closed)
		l.host.net.mu.Lock()
		if l.host.net.listeners[l.at] == l {
			delete(l.host.net.listeners, l.at)
		}
		l.host.net.mu.Unlock()
		for {
			select {
			case c := <-l.accepted:
				_ = c.Close() // a pipe's Close has no error
			default:
				return
			}
		}
	})
	return nil
}

// Addr implements net.Listener.
func (l *Listener) Addr() net.Addr { return nodeAddr(l.at.node) }

type nodeAddr string

func (nodeAddr) Network() string  { return "netsim" }
func (a nodeAddr) String() string { return string(a) }

// conn is one end of a connection.
type conn struct {
	net.Conn
	net      *Network
	other    *conn
	from, to string
	lost     atomic.Bool
}

// PeerID returns the other side's node, as a certificate would.
func (c *conn) PeerID() string { return c.to }

// Write implements net.Conn. Over a cut link everything is lost, and what follows it too.
func (c *conn) Write(p []byte) (int, error) {
	c.net.mu.Lock()
	if c.net.closed {
		c.net.mu.Unlock()
		return 0, net.ErrClosed
	}
	c.net.writes.Add(1)
	c.net.written++
	defer c.net.writes.Done()
	delay := c.net.delay
	c.net.mu.Unlock()
	if delay != nil {
		time.Sleep(delay())
	}
	c.net.mu.Lock()
	_, cut := c.net.cut[link{c.from, c.to}]
	c.net.mu.Unlock()
	if cut {
		c.lost.Store(true)
	}
	if c.lost.Load() {
		return len(p), nil
	}
	return c.Conn.Write(p)
}

// Close implements net.Conn.
func (c *conn) Close() error {
	c.net.mu.Lock()
	defer c.net.mu.Unlock()
	if _, cut := c.net.cut[link{c.from, c.to}]; cut {
		c.lost.Store(true) // the other side does not learn of it before the cut heals
		return c.SetDeadline(time.Unix(1, 0))
	}
	delete(c.net.conns, c)
	return c.Conn.Close()
}

func (c *conn) breakLocked() {
	delete(c.net.conns, c)
	delete(c.net.conns, c.other)
	_ = c.Conn.Close() // a pipe's Close has no error
	_ = c.other.Conn.Close()
}
