package userspace

import (
	"encoding/binary"
	"sync"
	"sync/atomic"
	"time"

	"golang.zx2c4.com/wireguard/conn"
	"golang.zx2c4.com/wireguard/device"
	"golang.zx2c4.com/wireguard/tun"
)

const (
	// packetsLimit bounds the packets that are inside the library in one direction, at 64 KiB each. What is beyond waits
	// in the link or the socket, where the kernel bounds it too, and where a sender notices.
	packetsLimit = 256
	// stallLimit is how long a reader waits when nothing comes out: what the library drops it does not report, so that
	// the count is wrong then, and begins anew.
	stallLimit = 5 * time.Millisecond
)

// gate counts the packets between a reader and a writer, and holds the reader back when there are too many.
type gate struct {
	held  atomic.Int64
	freed chan struct{}
	ended <-chan struct{}
}

func (g *gate) enter(n int) { g.held.Add(int64(n)) }

func (g *gate) leave(n int) {
	if n == 0 {
		return
	}
	if g.held.Add(-int64(n)) < 0 {
		g.held.Store(0)
	}
	select {
	case g.freed <- struct{}{}:
	default:
	}
}

// wait returns when there is room.
func (g *gate) wait() {
	for g.held.Load() >= packetsLimit {
		timer := time.NewTimer(stallLimit)
		select {
		case <-g.freed:
			timer.Stop()
		case <-g.ended:
			timer.Stop()
			return
		case <-timer.C:
			g.held.Store(0)
		}
	}
}

// gates are those of both directions.
type gates struct {
	out, in gate
	ended   chan struct{}
	once    sync.Once
	// moved counts packets, for the watch over memory.
	moved atomic.Uint64
}

func newGates() *gates {
	g := &gates{ended: make(chan struct{})}
	g.out = gate{freed: make(chan struct{}, 1), ended: g.ended}
	g.in = gate{freed: make(chan struct{}, 1), ended: g.ended}
	return g
}

func (g *gates) close() { g.once.Do(func() { close(g.ended) }) }

// gatedLink is the side of the pods.
type gatedLink struct {
	tun.Device
	gates *gates
}

func (l *gatedLink) Read(buffers [][]byte, sizes []int, offset int) (int, error) {
	l.gates.out.wait()
	n, err := l.Device.Read(buffers, sizes, offset)
	l.gates.out.enter(n)
	l.gates.moved.Add(uint64(n))
	return n, err
}

func (l *gatedLink) Write(buffers [][]byte, offset int) (int, error) {
	n, err := l.Device.Write(buffers, offset)
	l.gates.in.leave(len(buffers))
	l.gates.moved.Add(uint64(len(buffers)))
	return n, err
}

// gatedBind is the side of the peers.
type gatedBind struct {
	conn.Bind
	gates *gates
}

func (b *gatedBind) Open(port uint16) ([]conn.ReceiveFunc, uint16, error) {
	receivers, port, err := b.Bind.Open(port)
	for i, receive := range receivers {
		receivers[i] = func(packets [][]byte, sizes []int, from []conn.Endpoint) (int, error) {
			b.gates.in.wait()
			n, err := receive(packets, sizes, from)
			carried := 0
			for i := range n {
				if carries(packets[i][:sizes[i]]) {
					carried++
				}
				if from[i] != nil {
					// Answers leave as the routes say: an address that this machine lost is not remembered.
					from[i].ClearSrc()
				}
			}
			b.gates.in.enter(carried)
			return n, err
		}
	}
	return receivers, port, err
}

func (b *gatedBind) Send(packets [][]byte, to conn.Endpoint) error {
	err := b.Bind.Send(packets, to)
	carried := 0
	for _, p := range packets {
		if carries(p) {
			carried++
		}
	}
	b.gates.out.leave(carried)
	return err
}

// carries tells a message with a packet in it from handshakes and keepalives.
func carries(message []byte) bool {
	return len(message) > device.MessageKeepaliveSize && binary.LittleEndian.Uint32(message) == device.MessageTransportType
}
