package gossip

import (
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"time"

	"github.com/hashicorp/memberlist"
)

const (
	// maxPacketBytes is the largest UDP packet that is read; memberlist sends at most 1,400 bytes of its own.
	maxPacketBytes = 65536
	// packetQueueLength bounds packets read from the socket and not yet taken by memberlist. Beyond it packets are
	// dropped and counted, as the kernel would drop them: gossip repeats what matters.
	packetQueueLength = 1024
	// streamQueueLength bounds accepted connections that memberlist has not taken; beyond it they are closed.
	streamQueueLength = 64
	// errorPause follows a failed accept or read (out of file descriptors or memory, say), which may well fail again.
	errorPause = 100 * time.Millisecond
)

// Transport carries gossip's packets and streams. Package memnet has one in memory; [ListenUDPAndTCP] makes the real one.
type Transport = memberlist.NodeAwareTransport

// socketTransport is gossip over one UDP and one TCP socket on the same port.
type socketTransport struct {
	advertise netip.AddrPort
	packets   *net.UDPConn
	listener  *net.TCPListener
	packetCh  chan *memberlist.Packet
	streamCh  chan net.Conn
	log       *slog.Logger
	closed    chan struct{}
	closeOnce sync.Once
	readers   sync.WaitGroup
}

// ListenUDPAndTCP returns a transport that listens on bind (both protocols; port 0 picks a free one) and tells others to
// reach it at advertise. An invalid advertise address means the bound one.
func ListenUDPAndTCP(bind, advertise netip.AddrPort, log *slog.Logger) (Transport, error) {
	listener, err := net.ListenTCP("tcp", net.TCPAddrFromAddrPort(bind))
	if err != nil {
		return nil, fmt.Errorf("listen for gossip streams on %s: %w", bind, err)
	}
	bound := listener.Addr().(*net.TCPAddr).AddrPort()
	packets, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(bound))
	if err != nil {
		return nil, errors.Join(fmt.Errorf("listen for gossip packets on %s: %w", bound, err), listener.Close())
	}
	if !advertise.IsValid() {
		advertise = bound
	}
	if advertise.Port() == 0 {
		advertise = netip.AddrPortFrom(advertise.Addr(), bound.Port())
	}
	t := &socketTransport{
		advertise: advertise, packets: packets, listener: listener, log: log,
		packetCh: make(chan *memberlist.Packet, packetQueueLength),
		streamCh: make(chan net.Conn, streamQueueLength),
		closed:   make(chan struct{}),
	}
	t.readers.Go(t.readPackets)
	t.readers.Go(t.acceptStreams)
	return t, nil
}

func (t *socketTransport) readPackets() {
	buffer := make([]byte, maxPacketBytes)
	for {
		n, from, err := t.packets.ReadFromUDPAddrPort(buffer)
		received := time.Now()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			t.log.Warn("read gossip packet", "error", err)
			if !t.pause() {
				return
			}
			continue
		}
		packet := &memberlist.Packet{Buf: append([]byte(nil), buffer[:n]...), From: net.UDPAddrFromAddrPort(from), Timestamp: received}
		select {
		case t.packetCh <- packet:
		default: // the queue is full: what matters is gossiped again
		}
	}
}

func (t *socketTransport) acceptStreams() {
	for {
		stream, err := t.listener.AcceptTCP()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			t.log.Warn("accept gossip stream", "error", err)
			if !t.pause() {
				return
			}
			continue
		}
		select {
		case t.streamCh <- stream:
		default:
			closeQuietly(stream, t.log)
		}
	}
}

// pause waits a moment; it reports false when the transport is closed.
func (t *socketTransport) pause() bool {
	select {
	case <-t.closed:
		return false
	case <-time.After(errorPause):
		return true
	}
}

func closeQuietly(stream net.Conn, log *slog.Logger) {
	if err := stream.Close(); err != nil {
		log.Debug("close gossip stream", "error", err)
	}
}

// FinalAdvertiseAddr implements memberlist.Transport.
func (t *socketTransport) FinalAdvertiseAddr(string, int) (net.IP, int, error) {
	return t.advertise.Addr().AsSlice(), int(t.advertise.Port()), nil
}

// WriteTo implements memberlist.Transport.
func (t *socketTransport) WriteTo(packet []byte, address string) (time.Time, error) {
	to, err := netip.ParseAddrPort(address)
	if err != nil {
		return time.Time{}, fmt.Errorf("send gossip packet: %w", err)
	}
	_, err = t.packets.WriteToUDPAddrPort(packet, to)
	return time.Now(), err
}

// WriteToAddress implements memberlist.NodeAwareTransport.
func (t *socketTransport) WriteToAddress(packet []byte, address memberlist.Address) (time.Time, error) {
	return t.WriteTo(packet, address.Addr)
}

// PacketCh implements memberlist.Transport.
func (t *socketTransport) PacketCh() <-chan *memberlist.Packet { return t.packetCh }

// DialTimeout implements memberlist.Transport.
func (t *socketTransport) DialTimeout(address string, timeout time.Duration) (net.Conn, error) {
	return net.DialTimeout("tcp", address, timeout)
}

// DialAddressTimeout implements memberlist.NodeAwareTransport.
func (t *socketTransport) DialAddressTimeout(address memberlist.Address, timeout time.Duration) (net.Conn, error) {
	return t.DialTimeout(address.Addr, timeout)
}

// StreamCh implements memberlist.Transport.
func (t *socketTransport) StreamCh() <-chan net.Conn { return t.streamCh }

// Shutdown implements memberlist.Transport. It is safe to call twice.
func (t *socketTransport) Shutdown() error {
	var err error
	t.closeOnce.Do(func() {
		close(t.closed)
		err = errors.Join(t.listener.Close(), t.packets.Close())
		t.readers.Wait()
		for {
			select {
			case stream := <-t.streamCh:
				closeQuietly(stream, t.log)
			default:
				return
			}
		}
	})
	return err
}
