package agent

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"time"

	authuser "k8s.io/apiserver/pkg/authentication/user"

	"github.com/podvine/podvine/agent/peer"
)

const (
	// aloneAfter is how long a replica that is not ready waits for another that is, before it serves what it has.
	aloneAfter = 5 * time.Second
	// readyPause is between two looks at whether this replica is ready.
	readyPause = 50 * time.Millisecond
)

var (
	// errCarried says that another replica serves the client.
	errCarried = errors.New("another replica serves this client")
	errTooMany = errors.New("too many clients wait for this replica to be ready")
)

// apiGate stands before a replica's API until that has all records and all API services. What comes before is carried to a
// replica that is ready, as an edge does; where there is none it waits. Once open, the gate stays so. It is safe for
// concurrent use.
type apiGate struct {
	dial   func(ctx context.Context, client netip.AddrPort) (net.Conn, error)
	opened chan struct{} // closed when the replica serves by itself
	ended  chan struct{} // closed when the agent ends
	slots  chan struct{} // what is carried and what waits
}

func newAPIGate(dial func(context.Context, netip.AddrPort) (net.Conn, error)) *apiGate {
	return &apiGate{dial: dial, opened: make(chan struct{}), ended: make(chan struct{}), slots: make(chan struct{}, maxCarried)}
}

// open has the replica serve; it is called once.
func (g *apiGate) open() { close(g.opened) }

// close ends what is carried; it is called once.
func (g *apiGate) close() error { close(g.ended); return nil }

// admit returns the connection of a client that this replica is to serve. Of one that another replica served it returns an
// error when that is over.
func (g *apiGate) admit(client net.Conn) (net.Conn, error) {
	select {
	case <-g.opened:
		return client, nil
	default:
	}
	select {
	case g.slots <- struct{}{}:
		defer func() { <-g.slots }()
	default:
		return nil, errTooMany
	}
	address, _ := netip.ParseAddrPort(client.RemoteAddr().String())
	ctx, cancel := until(context.Background(), g.ended)
	defer cancel()
	reaching, stop := until(ctx, g.opened)
	server, err := persist(reaching, g.dial, address)
	stop()
	switch {
	case err == nil:
		carry(ctx, client, server)
		return nil, errCarried
	case ctx.Err() != nil:
		return nil, err
	default: // it is open meanwhile, or nobody else serves
		return client, nil
	}
}

// until is a context that ends with its parent or the channel.
func until(parent context.Context, end <-chan struct{}) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancel(parent)
	go func() {
		select {
		case <-end:
			cancel()
		case <-ctx.Done():
		}
	}()
	return ctx, cancel
}

// openAPIGate makes the way to the API of other replicas, and closes the gate before this one's.
func (n *node) openAPIGate() {
	n.link = n.newLink()
	n.gate = newAPIGate(n.link.dial)
	n.closers = append(n.closers, n.gate.close)
}

// runGate opens the gate when this replica is ready, or when it has waited and no other is; then it serves edges, too. What
// carries clients asks for that protocol and goes on to the next replica when this one does not offer it.
func (n *node) runGate(ctx context.Context) error {
	begun := time.Now()
	for n.ready(ctx) != nil {
		if time.Since(begun) > aloneAfter && n.alone(ctx) {
			n.log.Warn("serve the API before this replica is ready: no other replica serves it", "waited", time.Since(begun).Round(time.Millisecond))
			break
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(readyPause):
		}
	}
	if ctx.Err() != nil {
		return nil
	}
	carried, err := n.peers.Listen(peer.ProtocolAPI, false)
	if err != nil {
		return err
	}
	n.listener.add(carried, acceptCarried)
	n.gate.open()
	<-ctx.Done()
	return nil
}

// ready returns why this replica's API is not ready, by its own word.
func (n *node) ready(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	client := n.client(authuser.APIServerUser, authuser.SystemPrivilegedGroup)
	return client.Discovery().RESTClient().Get().AbsPath("/readyz").Do(ctx).Error()
}

// alone tells whether no other replica serves the API.
func (n *node) alone(ctx context.Context) bool {
	ctx, cancel := context.WithTimeout(ctx, carryDialTimeout)
	defer cancel()
	conn, err := n.link.dial(ctx, netip.AddrPortFrom(n.address, n.config.APIPort))
	if err != nil {
		return true
	}
	_ = conn.Close() // nothing was said on it
	return false
}
