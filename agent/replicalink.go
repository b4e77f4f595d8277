package agent

import (
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"net"
	"net/netip"
	"slices"
	"sync"

	"github.com/podvine/podvine/agent/peer"
	"github.com/podvine/podvine/gossip"
)

// replicaLink connects an edge, or a replica that is not ready yet, to the API of a live replica, and ends the connections to one that dies, so that clients
// connect anew as they do with any API server.
type replicaLink struct {
	self string
	// network is called when it is needed: the link is made before the network.
	network func() dialer
	members func() map[string]gossip.Member
	// last are the members of the time before this start, for as long as gossip knows nobody.
	last []gossip.Peer

	mu    sync.Mutex
	conns map[*linkedConn]string // to the UUID of its replica
}

// dialer reaches a node by its UUID.
type dialer interface {
	Dial(ctx context.Context, nodeID, protocol string) (net.Conn, error)
}

type linkedConn struct {
	net.Conn
	link *replicaLink
}

// Close implements net.Conn.
func (c *linkedConn) Close() error {
	c.link.mu.Lock()
	delete(c.link.conns, c)
	c.link.mu.Unlock()
	return c.Conn.Close()
}

// errNoReplica says that nobody serves the API.
var errNoReplica = errors.New("no replica of the cluster's records can be reached")

// dial connects to the first replica that answers, on behalf of the client at that address.
func (l *replicaLink) dial(ctx context.Context, client netip.AddrPort) (net.Conn, error) {
	errs := []error{errNoReplica}
	for _, id := range l.candidates() {
		conn, err := l.network().Dial(ctx, id, peer.ProtocolAPI)
		if err == nil {
			err = writeClientAddress(conn, client)
		}
		if err != nil {
			errs = append(errs, err)
			if conn != nil {
				errs = append(errs, conn.Close())
			}
			continue
		}
		linked := &linkedConn{Conn: conn, link: l}
		l.mu.Lock()
		l.conns[linked] = id
		l.mu.Unlock()
		return linked, nil
	}
	return nil, errors.Join(errs...)
}

// candidates are the replicas in the order in which this node tries them: its own order, so that edges spread.
func (l *replicaLink) candidates() []string {
	var ids []string
	for id, member := range l.members() {
		if member.Tags.Role.Replica() && member.State == gossip.StateAlive && id != l.self {
			ids = append(ids, id)
		}
	}
	if len(ids) == 0 {
		for _, last := range l.last {
			if last.Replica {
				ids = append(ids, last.ID)
			}
		}
	}
	rank := func(id string) uint64 {
		h := fnv.New64a()
		fmt.Fprint(h, l.self, id)
		return h.Sum64()
	}
	slices.SortFunc(ids, func(a, b string) int {
		if rank(a) < rank(b) {
			return -1
		}
		return 1
	})
	return ids
}

// drop ends the connections to replicas that are no longer there.
func (l *replicaLink) drop(members map[string]gossip.Member) {
	l.mu.Lock()
	var ended []*linkedConn
	for conn, id := range l.conns {
		if member, known := members[id]; known && (member.State == gossip.StateDead || member.State == gossip.StateLeft) {
			ended = append(ended, conn)
		}
	}
	l.mu.Unlock()
	for _, conn := range ended {
		_ = conn.Conn.Close() // whoever reads it closes the rest
	}
}
