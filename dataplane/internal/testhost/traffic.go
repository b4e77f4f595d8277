package testhost

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/podvine/podvine/dataplane/internal/nsrun"
)

// exchangeLimit bounds a question and its answer.
const exchangeLimit = 3 * time.Second

// ServeTCP answers each connection with the server's name and the address it saw ("name 10.0.0.1"), then whatever the
// client sends, until the client closes. It ends with the test.
func ServeTCP(t testing.TB, netns string, addr netip.AddrPort, name string) {
	t.Helper()
	var listener net.Listener
	must(t, nsrun.In(netns, func() (err error) {
		listener, err = net.Listen("tcp", addr.String())
		return err
	}))
	var group sync.WaitGroup
	var mu sync.Mutex
	open := map[net.Conn]bool{}
	group.Go(func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			mu.Lock()
			open[conn] = true
			mu.Unlock()
			group.Go(func() {
				serveConn(conn, name)
				mu.Lock()
				delete(open, conn)
				mu.Unlock()
			})
		}
	})
	t.Cleanup(func() {
		must(t, listener.Close())
		mu.Lock()
		for conn := range open {
			_ = conn.Close()
		}
		mu.Unlock()
		group.Wait()
	})
}

func serveConn(conn net.Conn, name string) {
	defer conn.Close()
	source := conn.RemoteAddr().(*net.TCPAddr).AddrPort().Addr().Unmap()
	if _, err := fmt.Fprintf(conn, "%s %s\n", name, source); err != nil {
		return
	}
	// The echo ends with the connection, however that ends.
	_, _ = io.Copy(conn, conn)
}

// ServeUDP answers each datagram with the server's name and the address it saw.
func ServeUDP(t testing.TB, netns string, addr netip.AddrPort, name string) {
	t.Helper()
	var conn *net.UDPConn
	must(t, nsrun.In(netns, func() (err error) {
		conn, err = net.ListenUDP("udp", net.UDPAddrFromAddrPort(addr))
		return err
	}))
	done := make(chan struct{})
	go func() {
		defer close(done)
		buffer := make([]byte, 1500)
		for {
			_, from, err := conn.ReadFromUDPAddrPort(buffer)
			if errors.Is(err, net.ErrClosed) {
				return
			}
			if err != nil {
				continue
			}
			// A client that has gone is none of the server's business.
			_, _ = conn.WriteToUDPAddrPort(fmt.Appendf(nil, "%s %s\n", name, from.Addr().Unmap()), from)
		}
	}()
	t.Cleanup(func() {
		must(t, conn.Close())
		<-done
	})
}

// Answer is what a server of this package told.
type Answer struct {
	Server string
	// Source is the client's address as the server saw it.
	Source netip.Addr
	// Peer is the server's address as the client sees it.
	Peer netip.AddrPort
}

// AskTCP connects from a network namespace ("" for the host) and returns the answer.
func AskTCP(netns string, to netip.AddrPort) (Answer, error) {
	conn, err := DialTCP(netns, to)
	if err != nil {
		return Answer{}, err
	}
	defer conn.Close()
	return ReadAnswer(conn)
}

// DialTCP connects from a network namespace, or from a machine outside.
func DialTCP(netns string, to netip.AddrPort) (net.Conn, error) {
	if path, ok := strings.CutPrefix(netns, outsidePrefix); ok {
		return dialOutside(path, "tcp", to.String())
	}
	var conn net.Conn
	err := nsrun.In(netns, func() (err error) {
		dialer := net.Dialer{Timeout: exchangeLimit}
		conn, err = dialer.Dial("tcp", to.String())
		return err
	})
	return conn, err
}

// ReadAnswer reads the first line that a server sends.
func ReadAnswer(conn net.Conn) (Answer, error) {
	if err := conn.SetDeadline(time.Now().Add(exchangeLimit)); err != nil {
		return Answer{}, err
	}
	buffer := make([]byte, 256)
	n, err := conn.Read(buffer)
	if err != nil {
		return Answer{}, err
	}
	answer, err := parseAnswer(buffer[:n])
	if err != nil {
		return Answer{}, err
	}
	answer.Peer = netip.MustParseAddrPort(conn.RemoteAddr().String())
	return answer, nil
}

// AskUDP asks with a connected socket.
func AskUDP(netns string, to netip.AddrPort) (Answer, error) {
	conn, err := DialUDP(netns, to)
	if err != nil {
		return Answer{}, err
	}
	defer conn.Close()
	if _, err := conn.Write([]byte("?")); err != nil {
		return Answer{}, err
	}
	return ReadAnswer(conn)
}

// DialUDP makes a connected UDP socket in a network namespace, or on a machine outside.
func DialUDP(netns string, to netip.AddrPort) (net.Conn, error) {
	if path, ok := strings.CutPrefix(netns, outsidePrefix); ok {
		return dialOutside(path, "udp", to.String())
	}
	var conn net.Conn
	err := nsrun.In(netns, func() (err error) {
		conn, err = net.Dial("udp", to.String())
		return err
	})
	return conn, err
}

// ListenUDP makes an unconnected UDP socket in a network namespace.
func ListenUDP(netns string) (*net.UDPConn, error) {
	var conn *net.UDPConn
	err := nsrun.In(netns, func() (err error) {
		conn, err = net.ListenUDP("udp", nil)
		return err
	})
	return conn, err
}

// AskFrom asks over an unconnected socket; Peer is where the answer came from.
func AskFrom(conn *net.UDPConn, to netip.AddrPort) (Answer, error) {
	if err := conn.SetDeadline(time.Now().Add(exchangeLimit)); err != nil {
		return Answer{}, err
	}
	if _, err := conn.WriteToUDPAddrPort([]byte("?"), to); err != nil {
		return Answer{}, err
	}
	buffer := make([]byte, 256)
	n, from, err := conn.ReadFromUDPAddrPort(buffer)
	if err != nil {
		return Answer{}, err
	}
	answer, err := parseAnswer(buffer[:n])
	answer.Peer = netip.AddrPortFrom(from.Addr().Unmap(), from.Port())
	return answer, err
}

func parseAnswer(line []byte) (Answer, error) {
	var name, source string
	if _, err := fmt.Sscan(string(line), &name, &source); err != nil {
		return Answer{}, fmt.Errorf("parse answer %q: %w", line, err)
	}
	addr, err := netip.ParseAddr(source)
	return Answer{Server: name, Source: addr}, err
}
