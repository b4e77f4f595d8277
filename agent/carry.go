package agent

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"time"

	"github.com/podvine/podvine/agent/accept"
)

const (
	// maxCarried bounds the clients' connections that an edge carries at a time; more are closed at once.
	maxCarried = 4096
	// maxServed bounds the connections that a replica serves itself or has carried, at a time. Each agent and each client keeps a few, with
	// all its watches on them: this is for more than a thousand nodes all of whose clients come to one replica.
	maxServed = 4 * maxCarried
	// maxClientAddressBytes bounds the line before a carried connection that says who the client is.
	maxClientAddressBytes = 64
	// carryDialTimeout bounds how long a client waits for a replica that serves it, carryDialPause is between two tries.
	carryDialTimeout = 5 * time.Second
	carryDialPause   = 100 * time.Millisecond
)

// writeClientAddress begins a carried connection: a byte with the length of the client's address, and the address as text.
func writeClientAddress(conn io.Writer, client netip.AddrPort) error {
	text := client.String()
	_, err := conn.Write(append([]byte{byte(len(text))}, text...))
	return err
}

// carriedConn is a connection that came in through an edge: its other end is the client, as the edge says.
type carriedConn struct {
	net.Conn
	client net.Addr
}

// RemoteAddr implements net.Conn.
func (c *carriedConn) RemoteAddr() net.Addr { return c.client }

// acceptCarried reads who the client is.
func acceptCarried(conn net.Conn) (net.Conn, error) {
	if err := conn.SetReadDeadline(time.Now().Add(carryDialTimeout)); err != nil {
		return nil, err
	}
	var length [1]byte
	if _, err := io.ReadFull(conn, length[:]); err != nil {
		return nil, fmt.Errorf("read the client's address: %w", err)
	}
	text := make([]byte, min(int(length[0]), maxClientAddressBytes))
	if _, err := io.ReadFull(conn, text); err != nil {
		return nil, fmt.Errorf("read the client's address: %w", err)
	}
	client, err := netip.ParseAddrPort(string(text))
	if err != nil {
		return nil, fmt.Errorf("read the client's address: %w", err)
	}
	return &carriedConn{conn, net.TCPAddrFromAddrPort(client)}, conn.SetReadDeadline(time.Time{})
}

// carrier serves an edge's API port: it carries each client's TLS connection, as it is, to a replica.
type carrier struct {
	listener net.Listener
	dial     func(ctx context.Context, client netip.AddrPort) (net.Conn, error)
	log      *slog.Logger
}

// run accepts until ctx ends, and ends what it carries then.
func (c *carrier) run(ctx context.Context) error {
	stop := context.AfterFunc(ctx, func() { c.listener.Close() })
	defer stop()
	var group sync.WaitGroup
	defer group.Wait()
	slots := make(chan struct{}, maxCarried)
	for {
		client, err := accept.Next(ctx.Done(), c.listener, func(err error) { c.log.Warn("accept a client", "error", err) })
		if ctx.Err() != nil {
			return nil
		}
		if err != nil {
			return fmt.Errorf("serve the API port: %w", err)
		}
		select {
		case slots <- struct{}{}:
			group.Go(func() {
				defer func() { <-slots }()
				c.carry(ctx, client)
			})
		default:
			_ = client.Close() // beyond the bound
		}
	}
}

func (c *carrier) close() error {
	if err := c.listener.Close(); err != nil && !errors.Is(err, net.ErrClosed) {
		return fmt.Errorf("close the API port: %w", err)
	}
	return nil
}

func (c *carrier) carry(ctx context.Context, client net.Conn) {
	address, _ := netip.ParseAddrPort(client.RemoteAddr().String())
	server, err := persist(ctx, c.dial, address)
	if err != nil {
		c.log.Debug("carry a client", "client", address, "error", err)
		_ = client.Close() // it connects anew, as to any API server that has gone
		return
	}
	carry(ctx, client, server)
}

// persist dials for a client until somebody serves it, for a while: replicas that start may all be unready for a moment.
func persist(ctx context.Context, dial func(context.Context, netip.AddrPort) (net.Conn, error), client netip.AddrPort) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, carryDialTimeout)
	defer cancel()
	for {
		server, err := dial(ctx, client)
		if err == nil {
			return server, nil
		}
		select {
		case <-ctx.Done():
			return nil, err
		case <-time.After(carryDialPause):
		}
	}
}

// carry copies between the two until either ends or ctx does, and closes both.
func carry(ctx context.Context, client, server net.Conn) {
	stop := context.AfterFunc(ctx, func() { _, _ = server.Close(), client.Close() }) // which ends the copies
	defer stop()
	var group sync.WaitGroup
	group.Go(func() { pipe(server, client) })
	pipe(client, server)
	group.Wait()
}

// pipe copies until its source ends, and ends the destination with it: TLS says by itself when a side is done.
func pipe(to, from net.Conn) {
	_, err := io.Copy(to, from)
	_ = errors.Join(err, to.Close(), from.Close()) // either end hung up, which is how connections end
}

// joinedListener accepts from several listeners. Its connections have a place each, from when they come in until they are closed: while
// one is prepared, which may take as long as another replica serves it, and while it is served.
type joinedListener struct {
	net.Listener // the first, for its address
	conns        chan net.Conn
	places       chan struct{}
	log          *slog.Logger
	done         chan struct{}

	mu  sync.Mutex
	all []net.Listener // nil once closed
}

// joinListeners accepts what is prepared of a listener, and of those that are added, up to so many at a time; more are closed at once.
func joinListeners(first net.Listener, prepare func(net.Conn) (net.Conn, error), places int, log *slog.Logger) *joinedListener {
	j := &joinedListener{
		Listener: first, all: []net.Listener{first}, conns: make(chan net.Conn), places: make(chan struct{}, places), log: log, done: make(chan struct{}),
	}
	go j.pump(first, prepare)
	return j
}

// add accepts of another listener, too, which it closes with the others.
func (j *joinedListener) add(from net.Listener, prepare func(net.Conn) (net.Conn, error)) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.all == nil {
		_ = from.Close() // as were the others
		return
	}
	j.all = append(j.all, from)
	go j.pump(from, prepare)
}

// pump ends with its listener.
func (j *joinedListener) pump(from net.Listener, prepare func(net.Conn) (net.Conn, error)) {
	full := false
	for {
		conn, err := accept.Next(j.done, from, func(err error) { j.log.Warn("accept a client", "error", err) })
		if err != nil {
			return
		}
		select {
		case j.places <- struct{}{}:
			full = false
			go j.serve(&placedConn{Conn: conn, free: sync.OnceFunc(func() { <-j.places })}, prepare)
		default:
			_ = conn.Close() // it finds another replica, or comes again
			if !full {
				j.log.Warn("turn clients away: this replica has as many as it may", "clients", cap(j.places))
			}
			full = true
		}
	}
}

// serve prepares a connection and hands it to who accepts.
func (j *joinedListener) serve(conn *placedConn, prepare func(net.Conn) (net.Conn, error)) {
	prepared, err := prepare(conn)
	if err != nil {
		_ = conn.Close() // an edge that has hung up, or a client that was served elsewhere
		return
	}
	select {
	case j.conns <- prepared:
	case <-j.done:
		_ = prepared.Close() // the server ends
	}
}

// placedConn frees its place when it is closed.
type placedConn struct {
	net.Conn
	free func()
}

// Close implements net.Conn.
func (c *placedConn) Close() error {
	defer c.free()
	return c.Conn.Close()
}

// Accept implements net.Listener.
func (j *joinedListener) Accept() (net.Conn, error) {
	select {
	case conn := <-j.conns:
		return conn, nil
	case <-j.done:
		return nil, net.ErrClosed
	}
}

// Close implements net.Listener.
func (j *joinedListener) Close() error {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.all == nil {
		return nil
	}
	close(j.done)
	var errs []error
	for _, l := range j.all {
		errs = append(errs, l.Close())
	}
	j.all = nil
	return errors.Join(errs...)
}
