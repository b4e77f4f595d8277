// Package peer carries bytes between the members of a cluster: mutual TLS on one port, with a protocol for each purpose
// (Raft, the store, the API of edges, images, the agents' own calls), chosen by ALPN.
//
// Role: who a peer is comes from its certificate alone, never from its address: [Network.Dial] reaches a node by its UUID at
// the address that the caller's Resolve knows now, and refuses whoever answers there as somebody else. A protocol may be
// kept to replicas, whose certificates an edge cannot have.
//
// Ownership: a Network owns its listener and every connection that it accepted and nobody has taken. [Network.Run] ends
// with its context, and all listeners with it.
//
// Concurrency: all methods may be called from any goroutine.
package peer

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/podvine/podvine/agent/accept"
	"github.com/podvine/podvine/agent/pki"
)

// The protocols of a peer port.
const (
	// ProtocolRaft and ProtocolStore are consensus's own; replicas only.
	ProtocolRaft  = "podvine-raft"
	ProtocolStore = "podvine-store"
	// ProtocolAPI carries a client's TLS connection from an edge to a replica.
	ProtocolAPI = "podvine-api"
	// ProtocolAgent is HTTP between agents.
	ProtocolAgent = "podvine-agent"
	// ProtocolImage is HTTP for parts of images, by digest, between any members.
	ProtocolImage = "podvine-image"
)

const (
	dialTimeout      = 3 * time.Second
	handshakeTimeout = 5 * time.Second
	// maxHandshakes bounds connections that have not said yet who they are; more wait in the kernel's queue.
	maxHandshakes = 256
	// waitingConns bounds the accepted connections of a protocol that its server has not taken; more are closed.
	waitingConns = 64
	// keepAlivePeriod and keepAliveCount end a connection to a machine that is gone, should gossip not have done so.
	keepAlivePeriod = time.Second
	keepAliveCount  = 5
)

// ErrUnknown says that no address is known of the node.
var ErrUnknown = errors.New("no address of the node is known")

// Config describes a [Network]. All fields are required.
type Config struct {
	Listener net.Listener
	// Certificate is this node's certificate; it may change.
	Certificate func() (*tls.Certificate, error)
	// Authority is the cluster's CA; it is asked for each connection.
	Authority func() *x509.CertPool
	// Resolve returns where the peer port of a node is now.
	Resolve func(nodeID string) (netip.AddrPort, bool)
	Log     *slog.Logger
}

// Network is this node's end of all connections between members.
type Network struct {
	config Config

	mu        sync.Mutex
	listeners map[string]*listener // by protocol
	closed    bool
	// exclusive are the connections of protocols that are for replicas only.
	exclusive map[*Conn]struct{}
}

// New returns a network that accepts nothing yet; Listen comes next, then Run.
func New(config Config) *Network {
	return &Network{config: config, listeners: map[string]*listener{}, exclusive: map[*Conn]struct{}{}}
}

// Conn is a connection to a verified peer.
type Conn struct {
	*tls.Conn
	Peer    pki.NodeIdentity
	network *Network
}

// Close implements net.Conn.
func (c *Conn) Close() error {
	c.network.mu.Lock()
	delete(c.network.exclusive, c)
	c.network.mu.Unlock()
	if err := c.Conn.Close(); err != nil {
		return fmt.Errorf("close the connection to node %s: %w", c.Peer.Name, err)
	}
	return nil
}

// keep makes a verified connection one of the network's.
func (n *Network) keep(conn *tls.Conn, who pki.NodeIdentity, exclusive bool) *Conn {
	kept := &Conn{Conn: conn, Peer: who, network: n}
	if exclusive {
		n.mu.Lock()
		n.exclusive[kept] = struct{}{}
		n.mu.Unlock()
	}
	return kept
}

// Recheck ends the connections of replicas whose certificate counts no more, because its authority is trusted no more. Other
// connections give their peer no more than a new one would, or are as short as a call.
func (n *Network) Recheck() {
	n.mu.Lock()
	conns := slices.Collect(maps.Keys(n.exclusive))
	n.mu.Unlock()
	authority := n.config.Authority()
	for _, conn := range conns {
		if _, err := conn.ConnectionState().PeerCertificates[0].Verify(x509.VerifyOptions{
			Roots: authority, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny},
		}); err != nil {
			n.config.Log.Info("end the connection to a replica: its certificate counts no more", "node", conn.Peer.Name, "error", errors.Join(err, conn.Close()))
		}
	}
}

// PeerID is the peer's node UUID, from its certificate.
func (c *Conn) PeerID() string { return c.Peer.ID }

// Listen returns the listener of a protocol. Its connections are [*Conn]. With replicasOnly, no other peer gets through. A
// protocol has one listener at a time: a second call is an error until the first is closed.
func (n *Network) Listen(protocol string, replicasOnly bool) (net.Listener, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.closed {
		return nil, fmt.Errorf("listen for %s: %w", protocol, net.ErrClosed)
	}
	if n.listeners[protocol] != nil {
		return nil, fmt.Errorf("listen for %s: it has a listener", protocol)
	}
	l := &listener{network: n, protocol: protocol, replicasOnly: replicasOnly, conns: make(chan net.Conn, waitingConns), closed: make(chan struct{})}
	n.listeners[protocol] = l
	return l, nil
}

// Run accepts connections until ctx ends, then closes all listeners.
func (n *Network) Run(ctx context.Context) error {
	stop := context.AfterFunc(ctx, func() { n.close() })
	defer stop()
	var group sync.WaitGroup
	defer group.Wait()
	slots := make(chan struct{}, maxHandshakes)
	for {
		conn, err := accept.Next(ctx.Done(), n.config.Listener, func(err error) { n.config.Log.Warn("accept a peer", "error", err) })
		if err != nil {
			return nil //nolint:nilerr // ctx has ended, or Close was called
		}
		slots <- struct{}{}
		group.Go(func() {
			defer func() { <-slots }()
			n.welcome(ctx, conn)
		})
	}
}

// Close ends the listeners; Run returns. It is for a network that never ran, too.
func (n *Network) Close() error { return n.close() }

func (n *Network) close() error {
	n.mu.Lock()
	listeners := n.listeners
	n.listeners, n.closed = map[string]*listener{}, true
	n.mu.Unlock()
	for _, l := range listeners {
		l.shut()
	}
	if err := n.config.Listener.Close(); err != nil && !errors.Is(err, net.ErrClosed) {
		return fmt.Errorf("close the peer port: %w", err)
	}
	return nil
}

// welcome shakes hands and gives the connection to its protocol's listener.
func (n *Network) welcome(ctx context.Context, raw net.Conn) {
	keepAlive(raw)
	conn := tls.Server(raw, n.serverTLS())
	ctx, cancel := context.WithTimeout(ctx, handshakeTimeout)
	defer cancel()
	err := conn.HandshakeContext(ctx)
	if err == nil {
		err = n.deliver(conn)
	}
	if err != nil {
		n.config.Log.Debug("refuse a peer", "address", raw.RemoteAddr(), "error", errors.Join(err, raw.Close()))
	}
}

func (n *Network) deliver(conn *tls.Conn) error {
	state := conn.ConnectionState()
	who, err := pki.NodeOf(state.PeerCertificates[0])
	if err != nil {
		return err
	}
	n.mu.Lock()
	l := n.listeners[state.NegotiatedProtocol]
	n.mu.Unlock()
	switch {
	case l == nil:
		return fmt.Errorf("%s is not served here", state.NegotiatedProtocol)
	case l.replicasOnly && !who.Replica:
		return fmt.Errorf("node %s is no replica and may not use %s", who.Name, state.NegotiatedProtocol)
	}
	kept := n.keep(conn, who, l.replicasOnly)
	if err := l.offer(kept); err != nil {
		return errors.Join(err, kept.Close())
	}
	return nil
}

func (n *Network) serverTLS() *tls.Config {
	n.mu.Lock()
	defer n.mu.Unlock()
	config := &tls.Config{
		MinVersion: tls.VersionTLS13, ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: n.config.Authority(),
		GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return n.config.Certificate() },
	}
	for protocol := range n.listeners {
		config.NextProtos = append(config.NextProtos, protocol)
	}
	return config
}

// Dial connects to a node. The connection is a [*Conn].
func (n *Network) Dial(ctx context.Context, nodeID, protocol string) (net.Conn, error) {
	address, known := n.config.Resolve(nodeID)
	if !known {
		return nil, fmt.Errorf("reach node %s: %w", nodeID, ErrUnknown)
	}
	ctx, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	raw, err := new(net.Dialer).DialContext(ctx, "tcp", address.String())
	if err != nil {
		return nil, fmt.Errorf("reach node %s: %w", nodeID, err)
	}
	keepAlive(raw)
	conn := tls.Client(raw, n.clientTLS(nodeID, protocol))
	if err := conn.HandshakeContext(ctx); err != nil {
		return nil, errors.Join(fmt.Errorf("reach node %s at %s for %s: %w", nodeID, address, protocol, err), raw.Close())
	}
	who, err := pki.NodeOf(conn.ConnectionState().PeerCertificates[0])
	if err != nil {
		return nil, errors.Join(err, raw.Close())
	}
	n.mu.Lock()
	l := n.listeners[protocol]
	n.mu.Unlock()
	return n.keep(conn, who, l != nil && l.replicasOnly), nil
}

// clientTLS verifies the chain and the node's ID in place of a host name.
func (n *Network) clientTLS(nodeID, protocol string) *tls.Config {
	return &tls.Config{
		MinVersion: tls.VersionTLS13, NextProtos: []string{protocol},
		InsecureSkipVerify: true, //nolint:gosec // VerifyConnection does more: the CA and the node's identity
		GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
			return n.config.Certificate()
		},
		VerifyConnection: func(state tls.ConnectionState) error {
			leaf := state.PeerCertificates[0]
			if _, err := leaf.Verify(x509.VerifyOptions{Roots: n.config.Authority(), KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}}); err != nil {
				return fmt.Errorf("verify peer: %w", err)
			}
			who, err := pki.NodeOf(leaf)
			if err == nil && who.ID != nodeID {
				err = fmt.Errorf("verify peer: it is node %s (%s), not %s", who.ID, who.Name, nodeID)
			}
			return err
		},
	}
}

func keepAlive(conn net.Conn) {
	if tcp, ok := conn.(*net.TCPConn); ok {
		_ = tcp.SetKeepAliveConfig(net.KeepAliveConfig{Enable: true, Idle: keepAlivePeriod, Interval: keepAlivePeriod, Count: keepAliveCount}) // best effort: gossip ends it too
	}
}
