package consensus

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"
)

// Protocols by which replicas talk, the names by which a connection asks for them.
const (
	ProtocolRaft  = "podvine-raft"
	ProtocolStore = "podvine-store"
)

const (
	// maxAccepted bounds the connections that a listener holds open: some for each peer, whose number the quorum bounds.
	maxAccepted = 128
	// pooledConnections is how many idle connections raft keeps to a peer: heartbeats and entries take one each.
	pooledConnections = 3
	// raftTimeout bounds one message and its answer, and a dial. A snapshot gets more by its size.
	raftTimeout = 2 * time.Second
)

// DialFunc connects to a node by its UUID, wherever that node is now. The connection must be to that node and no other.
type DialFunc func(ctx context.Context, nodeID, protocol string) (net.Conn, error)

// Network is how a replica reaches others, and they it. A connection that a listener returns should be [Identified].
type Network struct {
	Dial DialFunc
	// Raft and Store accept what peers dial as [ProtocolRaft] and [ProtocolStore]. The replica closes them.
	Raft, Store net.Listener
}

// network is a Network whose connections have exchanged greetings.
type network struct {
	dialer      DialFunc
	membership  *membership
	raft, store *greetedListener
}

func openNetwork(n *Network, m *membership) *network {
	return &network{dialer: n.Dial, membership: m, raft: listenGreeted(n.Raft, m), store: listenGreeted(n.Store, m)}
}

func (n *network) dial(ctx context.Context, node, protocol string) (net.Conn, error) {
	conn, err := n.dialer(ctx, node, protocol)
	if err != nil {
		return nil, err
	}
	deadline := time.Now().Add(greetingTimeout)
	if asked, ok := ctx.Deadline(); ok && asked.Before(deadline) {
		deadline = asked
	}
	if err := n.membership.greet(conn, node, deadline); err != nil {
		return nil, errors.Join(fmt.Errorf("greet %s: %w", node, err), conn.Close())
	}
	return conn, nil
}

// Close ends the listeners and what they accepted.
func (n *network) Close() error { return errors.Join(n.raft.Close(), n.store.Close()) }

// greetedListener accepts connections whose peer belongs here. A peer that is slow to say so holds up nobody else.
type greetedListener struct {
	inner      net.Listener
	membership *membership
	accepted   chan net.Conn
	closing    chan struct{}
	closeOnce  sync.Once
	closeErr   error
	tasks      sync.WaitGroup

	mu   sync.Mutex
	open map[net.Conn]struct{}
}

func listenGreeted(inner net.Listener, m *membership) *greetedListener {
	l := &greetedListener{inner: inner, membership: m, accepted: make(chan net.Conn), closing: make(chan struct{}), open: map[net.Conn]struct{}{}}
	l.tasks.Go(l.run)
	return l
}

func (l *greetedListener) run() {
	for {
		conn, err := l.inner.Accept()
		if err != nil {
			select {
			case <-l.closing:
				return
			case <-time.After(lastRetryWait):
			}
			continue
		}
		if !l.track(conn) {
			drop(conn)
			continue
		}
		l.tasks.Go(func() { l.greet(conn) })
	}
}

func (l *greetedListener) track(conn net.Conn) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	select {
	case <-l.closing:
		return false
	default:
	}
	if len(l.open) >= maxAccepted {
		return false
	}
	l.open[conn] = struct{}{}
	return true
}

func (l *greetedListener) forget(conn net.Conn) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.open, conn)
}

func (l *greetedListener) greet(conn net.Conn) {
	peer, err := l.membership.admit(conn)
	if err != nil {
		l.membership.log.Debug("refuse peer", "peer", peer, "error", err)
		l.forget(conn)
		drop(conn)
		return
	}
	select {
	case l.accepted <- &greetedConn{Conn: conn, peer: peer, listener: l}:
	case <-l.closing:
		l.forget(conn)
		drop(conn)
	}
}

// Accept implements net.Listener.
func (l *greetedListener) Accept() (net.Conn, error) {
	select {
	case conn := <-l.accepted:
		return conn, nil
	case <-l.closing:
		return nil, net.ErrClosed
	}
}

// Close ends the listener and every connection that it accepted.
func (l *greetedListener) Close() error {
	l.closeOnce.Do(func() {
		close(l.closing)
		l.closeErr = l.inner.Close()
		l.mu.Lock()
		for conn := range l.open {
			drop(conn)
		}
		l.mu.Unlock()
		l.tasks.Wait()
	})
	return l.closeErr
}

// Addr implements net.Listener: a replica's address is its node's UUID.
func (l *greetedListener) Addr() net.Addr { return nodeAddr(l.membership.greeting().Node) }

// drop closes a connection that nobody uses any more: whatever it says to that, it is gone.
func drop(conn net.Conn) { _ = conn.Close() }

// nodeAddr is a node's UUID as an address.
type nodeAddr string

func (nodeAddr) Network() string  { return "podvine" }
func (a nodeAddr) String() string { return string(a) }

// greetedConn is a connection that a known peer dialed.
type greetedConn struct {
	net.Conn
	peer     string
	listener *greetedListener
}

// PeerID implements Identified.
func (c *greetedConn) PeerID() string { return c.peer }

// RemoteAddr is the peer's UUID.
func (c *greetedConn) RemoteAddr() net.Addr { return nodeAddr(c.peer) }

// Close implements net.Conn.
func (c *greetedConn) Close() error {
	c.listener.forget(c.Conn)
	return c.Conn.Close()
}

// NewTransport returns raft's transport over connections that dial makes and the listener accepts. Server addresses are
// node UUIDs, so that a node may change its address without a log entry. Connections are pooled, messages have deadlines.
func NewTransport(listener net.Listener, dial DialFunc, logger hclog.Logger) *raft.NetworkTransport {
	return raft.NewNetworkTransportWithConfig(&raft.NetworkTransportConfig{
		Stream: &streamLayer{Listener: listener, dial: dial}, MaxPool: pooledConnections, Timeout: raftTimeout, Logger: logger,
	})
}

// streamLayer is what raft's transport stands on.
type streamLayer struct {
	net.Listener
	dial DialFunc
}

var _ raft.StreamLayer = (*streamLayer)(nil)

// Dial implements raft.StreamLayer.
func (s *streamLayer) Dial(address raft.ServerAddress, timeout time.Duration) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	return s.dial(ctx, string(address), ProtocolRaft)
}
