package stream

import (
	"encoding/binary"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"sync"
)

// HubOptions tell a Hub what to do with its clients.
type HubOptions struct {
	// Lossless makes Publish wait for the clients (exec sessions, whose whole
	// output matters). Without it a client that lags is cut off.
	Lossless bool
	// CloseInputOnDetach ends the process's input when a client goes.
	CloseInputOnDetach bool
	// Input receives what clients type; nil when the process has no stdin.
	Input func([]byte) error
	// CloseInput ends the process's input.
	CloseInput func()
	// Resize sets the terminal's size.
	Resize func(cols, rows uint16)
}

// Hub fans one process's output out to the clients of its socket.
type Hub struct {
	opts HubOptions
	ln   net.Listener
	dir  string

	mu sync.Mutex
	// All below is guarded by mu.
	clients map[*client]struct{}
	closed  bool
	wg      sync.WaitGroup
}

type client struct {
	conn *Conn
	out  chan frame
	last chan struct{} // closed when nothing more is published
	gone chan struct{}
	once sync.Once
}

type frame struct {
	kind Kind
	data []byte
}

func (c *client) drop() {
	c.once.Do(func() {
		close(c.gone)
		c.conn.Close()
	})
}

// Serve listens in dir until Close.
func Serve(dir string, opts HubOptions) (*Hub, error) {
	h := &Hub{opts: opts, dir: dir, clients: map[*client]struct{}{}}
	err := withSocketPath(dir, func(path string) error {
		if err := os.RemoveAll(filepath.Join(dir, SocketName)); err != nil {
			return fmt.Errorf("remove old stream socket: %w", err)
		}
		ln, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
		if err != nil {
			return fmt.Errorf("listen for streams: %w", err)
		}
		ln.SetUnlinkOnClose(false)
		h.ln = ln
		return nil
	})
	if err != nil {
		return nil, err
	}
	go h.accept()
	return h, nil
}

func (h *Hub) accept() {
	for {
		nc, err := h.ln.Accept()
		if err != nil {
			return
		}
		c := &client{conn: &Conn{c: nc}, out: make(chan frame, ClientBufferFrames), last: make(chan struct{}), gone: make(chan struct{})}
		h.mu.Lock()
		if h.closed {
			h.mu.Unlock()
			nc.Close()
			return
		}
		h.clients[c] = struct{}{}
		h.wg.Add(1)
		h.mu.Unlock()
		go h.write(c)
		go h.read(c)
	}
}

func (h *Hub) write(c *client) {
	defer h.wg.Done()
	defer h.forget(c)
	for {
		select {
		case f := <-c.out:
			if c.conn.Send(f.kind, f.data) != nil {
				return
			}
		case <-c.last:
			h.finish(c)
			return
		case <-c.gone:
			return
		}
	}
}

// finish sends what is still queued.
func (h *Hub) finish(c *client) {
	for {
		select {
		case f := <-c.out:
			if c.conn.Send(f.kind, f.data) != nil {
				return
			}
		default:
			return
		}
	}
}

func (h *Hub) read(c *client) {
	defer func() {
		c.drop()
		if h.opts.CloseInputOnDetach && h.opts.CloseInput != nil {
			h.opts.CloseInput()
		}
	}()
	for {
		kind, data, err := c.conn.Receive()
		if err != nil {
			return
		}
		switch kind {
		case In:
			if h.opts.Input != nil && h.opts.Input(data) != nil {
				continue
			}
		case InEOF:
			if h.opts.CloseInput != nil {
				h.opts.CloseInput()
			}
		case Resize:
			if h.opts.Resize != nil && len(data) == 4 {
				h.opts.Resize(binary.BigEndian.Uint16(data), binary.BigEndian.Uint16(data[2:]))
			}
		}
	}
}

func (h *Hub) forget(c *client) {
	h.mu.Lock()
	delete(h.clients, c)
	h.mu.Unlock()
	c.drop()
}

// Publish hands one chunk of output to every client. data is copied.
func (h *Hub) Publish(kind Kind, data []byte) {
	h.mu.Lock()
	live := make([]*client, 0, len(h.clients))
	for c := range h.clients {
		live = append(live, c)
	}
	h.mu.Unlock()
	if len(live) == 0 {
		return
	}
	f := frame{kind, append([]byte(nil), data...)}
	for _, c := range live {
		if h.opts.Lossless {
			select {
			case c.out <- f:
			case <-c.last:
			case <-c.gone:
			}
			continue
		}
		select {
		case c.out <- f:
		case <-c.gone:
		default:
			c.drop()
		}
	}
}

// Close ends the stream: clients receive what is queued, then end of file. What
// is published meanwhile or later may be lost; a Publish that waits for a client
// returns.
func (h *Hub) Close() {
	h.mu.Lock()
	if h.closed {
		h.mu.Unlock()
		return
	}
	h.closed = true
	for c := range h.clients {
		close(c.last)
	}
	h.mu.Unlock()
	h.ln.Close()
	if err := os.Remove(filepath.Join(h.dir, SocketName)); err != nil && !os.IsNotExist(err) {
		return
	}
}
