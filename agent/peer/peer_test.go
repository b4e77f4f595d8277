package peer_test

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/podvine/podvine/agent/peer"
	"github.com/podvine/podvine/agent/pki"
)

// cluster is some members on loopback with certificates of one CA.
type cluster struct {
	t       *testing.T
	founder *pki.PKI

	mu        sync.Mutex
	addresses map[string]netip.AddrPort
}

func newCluster(t *testing.T) *cluster {
	t.Helper()
	founder, err := pki.Open(pki.Config{Dir: t.TempDir(), NodeName: "founder", NodeID: "id-founder"})
	if err != nil {
		t.Fatal(err)
	}
	return &cluster{t: t, founder: founder, addresses: map[string]netip.AddrPort{}}
}

// edge is the keys of a member that the founder has certified.
func (c *cluster) edge(name string) *pki.PKI {
	c.t.Helper()
	dir := c.t.TempDir()
	request, key, err := pki.NewRequest()
	if err != nil {
		c.t.Fatal(err)
	}
	// What the request claims does not count: the certificate never makes a replica.
	cert, err := c.founder.SignNode(pki.NodeIdentity{Name: name, ID: "id-" + name, Replica: true}, request, time.Now())
	if err != nil {
		c.t.Fatal(err)
	}
	if err := pki.Enrol(dir, c.founder.Cluster().CertPEM(), cert, key); err != nil {
		c.t.Fatal(err)
	}
	keys, err := pki.Open(pki.Config{Dir: dir, NodeName: name, NodeID: "id-" + name, Sign: func(request []byte) ([]byte, error) {
		return nil, errors.New("nothing is due")
	}})
	if err != nil {
		c.t.Fatal(err)
	}
	return keys
}

// network starts the member's end; at is whose ID its address is known by.
func (c *cluster) network(keys *pki.PKI, at string) *peer.Network {
	c.t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		c.t.Fatal(err)
	}
	c.mu.Lock()
	c.addresses[at] = listener.Addr().(*net.TCPAddr).AddrPort()
	c.mu.Unlock()
	network := peer.New(peer.Config{
		Listener: listener, Certificate: keys.Peer().TLS, Authority: c.founder.Cluster().Pool, Log: slog.New(slog.DiscardHandler),
		Resolve: func(id string) (netip.AddrPort, bool) {
			c.mu.Lock()
			defer c.mu.Unlock()
			address, known := c.addresses[id]
			return address, known
		},
	})
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- network.Run(ctx) }()
	c.t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			c.t.Error(err)
		}
	})
	return network
}

// echo answers each connection with the name of its peer.
func echo(t *testing.T, network *peer.Network, protocol string, replicasOnly bool) {
	t.Helper()
	listener, err := network.Listen(protocol, replicasOnly)
	if err != nil {
		t.Fatal(err)
	}
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			_, _ = io.WriteString(conn, conn.(*peer.Conn).Peer.Name)
			_ = conn.Close()
		}
	}()
}

func TestPeersKnowEachOther(t *testing.T) {
	c := newCluster(t)
	founder, edge := c.network(c.founder, "id-founder"), c.network(c.edge("edge"), "id-edge")
	echo(t, founder, peer.ProtocolAPI, false)
	echo(t, founder, peer.ProtocolRaft, true)
	echo(t, edge, peer.ProtocolAgent, false)

	for _, try := range []struct {
		what         string
		from         *peer.Network
		to, protocol string
		answer, err  string
	}{
		{"an edge asks for the API", edge, "id-founder", peer.ProtocolAPI, "edge", ""},
		{"a replica calls an edge", founder, "id-edge", peer.ProtocolAgent, "founder", ""},
		{"a replica speaks Raft", founder, "id-founder", peer.ProtocolRaft, "founder", ""},
		{"an edge speaks Raft", edge, "id-founder", peer.ProtocolRaft, "", ""},
		{"a protocol that is not served", founder, "id-edge", peer.ProtocolRaft, "", "no application protocol"},
		{"nobody", founder, "id-nobody", peer.ProtocolAPI, "", "no address of the node is known"},
	} {
		t.Run(try.what, func(t *testing.T) {
			conn, err := try.from.Dial(t.Context(), try.to, try.protocol)
			if try.err != "" {
				if err == nil || !strings.Contains(err.Error(), try.err) {
					t.Errorf("got %v, want %q", err, try.err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			answer, err := io.ReadAll(conn)
			if string(answer) != try.answer || try.answer != "" && err != nil {
				t.Errorf("answered %q, %v; want %q", answer, err, try.answer)
			}
		})
	}
}

// An address that changed hands leads to somebody else: no byte may reach him.
func TestAnotherNodeAtTheAddressIsRefused(t *testing.T) {
	c := newCluster(t)
	founder := c.network(c.founder, "id-founder")
	echo(t, c.network(c.edge("other"), "id-edge"), peer.ProtocolAgent, false)
	if _, err := founder.Dial(t.Context(), "id-edge", peer.ProtocolAgent); err == nil || !strings.Contains(err.Error(), "id-other") {
		t.Errorf("another node at the address got a connection: %v", err)
	}
}

func TestStrangersAreRefused(t *testing.T) {
	c, foreign := newCluster(t), newCluster(t)
	founder := c.network(c.founder, "id-founder")
	echo(t, founder, peer.ProtocolAPI, false)
	for name, certificates := range map[string][]tls.Certificate{"with another cluster's certificate": {*pair(t, foreign.founder)}, "without a certificate": nil} {
		conn, err := tls.Dial("tcp", c.addresses["id-founder"].String(), &tls.Config{
			InsecureSkipVerify: true, NextProtos: []string{peer.ProtocolAPI}, Certificates: certificates,
		})
		if err == nil { // TLS 1.3 tells the client of a refusal when it first reads
			_, err = io.ReadAll(conn)
			conn.Close()
		}
		if err == nil {
			t.Errorf("a stranger %s got through", name)
		}
	}
}

func pair(t *testing.T, keys *pki.PKI) *tls.Certificate {
	t.Helper()
	pair, err := keys.Peer().TLS()
	if err != nil {
		t.Fatal(err)
	}
	return pair
}

func TestAListenerIsOneAtATime(t *testing.T) {
	c := newCluster(t)
	network := c.network(c.founder, "id-founder")
	first, err := network.Listen(peer.ProtocolAPI, false)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := network.Listen(peer.ProtocolAPI, false); err == nil {
		t.Error("a second listener was opened")
	}
	if err := first.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := first.Accept(); !errors.Is(err, net.ErrClosed) {
		t.Errorf("a closed listener says %v", err)
	}
	if _, err := network.Listen(peer.ProtocolAPI, false); err != nil {
		t.Errorf("after the first was closed: %v", err)
	}
}

// When an authority is dropped, connections of replicas that it certified end, on both sides; others go on.
func TestRecheckEndsWhatCountsNoMore(t *testing.T) {
	c := newCluster(t)
	at, other := c.network(c.founder, "id-founder"), c.network(c.founder, "id-other")
	kept := map[string]net.Conn{}
	for protocol, exclusive := range map[string]bool{peer.ProtocolRaft: true, peer.ProtocolAPI: false} {
		listener, err := at.Listen(protocol, exclusive)
		if err != nil {
			t.Fatal(err)
		}
		go func() {
			for {
				conn, err := listener.Accept()
				if err != nil {
					return
				}
				go func() { _, _ = io.Copy(conn, conn) }()
			}
		}()
		// The certificate is the founder's own, so that it is the founder that is asked.
		if kept[protocol], err = other.Dial(t.Context(), "id-founder", protocol); err != nil {
			t.Fatal(err)
		}
	}
	works := func(protocol string) bool {
		conn := kept[protocol]
		if err := conn.SetDeadline(time.Now().Add(10 * time.Second)); err != nil {
			return false
		}
		_, err := io.WriteString(conn, "x")
		if err == nil {
			_, err = io.ReadFull(conn, make([]byte, 1))
		}
		return err == nil
	}
	at.Recheck()
	if !works(peer.ProtocolRaft) || !works(peer.ProtocolAPI) {
		t.Fatal("a connection that counts was ended")
	}
	trust, err := c.founder.Trust()
	if err != nil {
		t.Fatal(err)
	}
	both, err := trust.WithSuccessor(time.Now())
	if err != nil {
		t.Fatal(err)
	}
	ids := both.IDs()
	for _, also := range []string{ids[0], ""} {
		next, err := both.Ordered(ids[1], also, ids[1])
		if err != nil {
			t.Fatal(err)
		}
		if _, err := c.founder.Adopt(next, time.Now()); err != nil {
			t.Fatal(err)
		}
		at.Recheck()
		if raft := works(peer.ProtocolRaft); raft != (also != "") || !works(peer.ProtocolAPI) {
			t.Errorf("trusting also %q, the connection of a replica works: %v", also, raft)
		}
	}
	if conn, err := other.Dial(t.Context(), "id-founder", peer.ProtocolRaft); err != nil {
		t.Errorf("with certificates of the new authority: %v", err)
	} else if err := conn.Close(); err != nil {
		t.Error(err)
	}
}
