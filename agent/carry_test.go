package agent

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"sync/atomic"
	"testing"
	"time"

	"github.com/podvine/podvine/gossip"
)

func loopbackListener(t *testing.T) net.Listener {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = listener.Close() }) // most tests have closed it
	return listener
}

// dialsTo stands in for the network of peers: each node's UUID leads to a listener, or nowhere.
type dialsTo map[string]net.Listener

func (d dialsTo) Dial(ctx context.Context, id, _ string) (net.Conn, error) {
	if d[id] == nil {
		return nil, errors.New("nobody is there")
	}
	return new(net.Dialer).DialContext(ctx, "tcp", d[id].Addr().String())
}

func alive(ids ...string) map[string]gossip.Member {
	members := map[string]gossip.Member{}
	for _, id := range ids {
		members[id] = gossip.Member{ID: id, State: gossip.StateAlive, Tags: gossip.Tags{Role: gossip.RoleVoter}}
	}
	return members
}

// greet serves, on each connection, the client's address as a line, and then what the client says.
func greet(listener net.Listener) {
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			go func() {
				fmt.Fprintln(conn, conn.RemoteAddr())
				_, _ = io.Copy(conn, conn) // until either side hangs up
				_ = conn.Close()
			}()
		}
	}()
}

// A client of an edge reaches a replica that lives, which sees the client's address; when the replica dies, the client's
// connection ends.
func TestEdgeCarriesClientsToALiveReplica(t *testing.T) {
	direct, carried, front := loopbackListener(t), loopbackListener(t), loopbackListener(t)
	served := joinListeners(direct, func(conn net.Conn) (net.Conn, error) { return conn, nil }, maxServed, slog.New(slog.DiscardHandler))
	served.add(carried, acceptCarried)
	greet(served)
	defer served.Close()
	members := alive("dead", "living")
	link := &replicaLink{
		self: "edge", network: func() dialer { return dialsTo{"living": carried} },
		members: func() map[string]gossip.Member { return members }, conns: map[*linkedConn]string{},
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() {
		done <- (&carrier{listener: front, dial: link.dial, log: slog.New(slog.DiscardHandler)}).run(ctx)
	}()
	defer func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	}()

	for _, through := range []net.Listener{front, direct} {
		client, err := net.Dial("tcp", through.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer client.Close()
		if err := client.SetDeadline(time.Now().Add(10 * time.Second)); err != nil {
			t.Fatal(err)
		}
		lines := bufio.NewReader(client)
		if said, err := lines.ReadString('\n'); err != nil || said != client.LocalAddr().String()+"\n" {
			t.Fatalf("the server saw %q, %v; the client is %v", said, err, client.LocalAddr())
		}
		fmt.Fprintln(client, "hello")
		if said, err := lines.ReadString('\n'); err != nil || said != "hello\n" {
			t.Fatalf("the echo is %q, %v", said, err)
		}
		if through == direct {
			continue
		}
		link.drop(map[string]gossip.Member{"living": {ID: "living", State: gossip.StateDead}})
		if _, err := lines.ReadByte(); err == nil {
			t.Error("the connection outlives its replica")
		}
	}
}

// A replica that is not ready has another serve its clients, keeps them waiting while there is none, and serves them itself
// once it is ready.
func TestUnreadyReplicaServesNobodyItself(t *testing.T) {
	other, carried, own := loopbackListener(t), loopbackListener(t), loopbackListener(t)
	ready := joinListeners(other, func(conn net.Conn) (net.Conn, error) { return conn, nil }, maxServed, slog.New(slog.DiscardHandler))
	ready.add(carried, acceptCarried)
	defer ready.Close()
	greet(ready)
	var there atomic.Bool
	tried := make(chan struct{}, 1)
	gate := newAPIGate(func(ctx context.Context, client netip.AddrPort) (net.Conn, error) {
		if !there.Load() {
			select {
			case tried <- struct{}{}:
			default:
			}
			return nil, errNoReplica
		}
		conn, err := dialsTo{"other": carried}.Dial(ctx, "other", "")
		if err == nil {
			err = writeClientAddress(conn, client)
		}
		return conn, err
	})
	served := joinListeners(own, gate.admit, maxServed, slog.New(slog.DiscardHandler))
	defer served.Close()
	connect := func() (*net.TCPConn, *bufio.Reader) {
		client, err := net.Dial("tcp", own.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { client.Close() })
		if err := client.SetDeadline(time.Now().Add(10 * time.Second)); err != nil {
			t.Fatal(err)
		}
		return client.(*net.TCPConn), bufio.NewReader(client)
	}
	expect := func(client net.Conn, lines *bufio.Reader) {
		t.Helper()
		if said, err := lines.ReadString('\n'); err != nil || said != client.LocalAddr().String()+"\n" {
			t.Fatalf("the server saw %q, %v; the client is %v", said, err, client.LocalAddr())
		}
	}
	// Nobody accepts of served yet: who answers is the other.
	early, lines := connect()
	<-tried
	there.Store(true)
	expect(early, lines)

	there.Store(false)
	held, heldLines := connect()
	<-tried
	<-tried
	greet(served)
	gate.open()
	expect(held, heldLines)
	select {
	case <-tried: // the last try before it was open
	default:
	}
	late, lateLines := connect()
	expect(late, lateLines)
	if len(tried) > 0 {
		t.Error("an open gate looks for other replicas")
	}
	if err := gate.close(); err != nil {
		t.Fatal(err)
	}
	if _, err := lines.ReadByte(); err == nil {
		t.Error("what is carried outlives the agent")
	}
}

func TestEdgesTryReplicasInAnOrderOfTheirOwn(t *testing.T) {
	members := alive("a", "b", "c", "d", "e")
	members["edge"] = gossip.Member{ID: "edge", State: gossip.StateAlive, Tags: gossip.Tags{Role: gossip.RoleEdge}}
	members["gone"] = gossip.Member{ID: "gone", State: gossip.StateDead, Tags: gossip.Tags{Role: gossip.RoleVoter}}
	first := map[string]int{}
	for i := range 100 {
		link := &replicaLink{self: fmt.Sprint("edge", i), members: func() map[string]gossip.Member { return members }}
		order := link.candidates()
		if len(order) != 5 {
			t.Fatalf("candidates are %v", order)
		}
		first[order[0]]++
	}
	for id, count := range first {
		if len(first) != 5 || count > 50 {
			t.Errorf("%d of 100 edges begin with %s: %v", count, id, first)
		}
	}
	link := &replicaLink{
		self: "edge", members: func() map[string]gossip.Member { return nil },
		last: []gossip.Peer{{ID: "before", Replica: true}, {ID: "an edge"}},
	}
	if order := link.candidates(); len(order) != 1 || order[0] != "before" {
		t.Errorf("before gossip knows anybody the candidates are %v", order)
	}
}

func TestStrangeBeginningsAreNotCarried(t *testing.T) {
	for what, sent := range map[string]string{"no address": "\x05hello", "an end": "", "a short one": "\x20127.0.0.1:1"} {
		ours, theirs := net.Pipe()
		go func() {
			_, _ = io.WriteString(theirs, sent)
			_ = theirs.Close()
		}()
		if conn, err := acceptCarried(ours); err == nil {
			t.Errorf("%s: carried for %v", what, conn.RemoteAddr())
		}
		_ = ours.Close()
	}
	if err := writeClientAddress(io.Discard, netip.MustParseAddrPort("[2001:db8:1234:5678:9abc:def0:1234:5678]:65535")); err != nil {
		t.Error(err)
	}
}

// A replica turns clients away when it has as many as it may, and has room again when one of them goes.
func TestReplicaTurnsClientsAway(t *testing.T) {
	own := loopbackListener(t)
	served := joinListeners(own, func(conn net.Conn) (net.Conn, error) { return conn, nil }, 1, slog.New(slog.DiscardHandler))
	defer served.Close()
	greet(served)
	connect := func() (net.Conn, error) {
		client, err := net.Dial("tcp", own.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		if err := client.SetDeadline(time.Now().Add(10 * time.Second)); err != nil {
			t.Fatal(err)
		}
		_, err = bufio.NewReader(client).ReadString('\n')
		return client, err
	}
	first, err := connect()
	if err != nil {
		t.Fatal(err)
	}
	second, err := connect()
	if err == nil {
		t.Error("a second client is served")
	}
	_, _ = first.Close(), second.Close()
	// The server has to notice that the first has gone.
	for deadline := time.Now().Add(10 * time.Second); ; {
		third, err := connect()
		_ = third.Close()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("there is no room after all have gone: %v", err)
		}
	}
}
