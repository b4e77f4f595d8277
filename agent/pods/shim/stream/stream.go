// Package stream is the wire between the agent and a shim for one process's
// live input and output: a socket in the process's control folder over which
// frames travel both ways.
//
// Role: the shim serves a Hub for each process; the agent dials it to attach
// or to run an exec session. The agent may die and dial again at any time: the
// process never notices, because the Hub owns the process's pipes.
//
// Concurrency: a Hub is safe for use by many goroutines; a Conn may be read by
// one goroutine and written by another.
package stream

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// Kind says what a frame carries.
type Kind byte

// Frames from the shim are Out and Err; the others go to it.
const (
	In     Kind = 0
	Out    Kind = 1
	Err    Kind = 2
	InEOF  Kind = 3
	Resize Kind = 4
)

const (
	// SocketName is the socket's name inside the control folder.
	SocketName = "stream.sock"
	// ExitName is the file with which the shim records the process's end.
	ExitName = "exit.json"
	// MaxFrameBytes bounds one frame.
	MaxFrameBytes = 64 << 10
	// ClientBufferFrames is how far an attached client may lag behind the
	// container before it is cut off; the container itself never waits.
	ClientBufferFrames = 256
	headerBytes        = 5
)

// Exit is the shim's record of a process's end, kept on disk so that an agent
// that was away still learns it.
type Exit struct {
	Code uint32    `json:"code"`
	At   time.Time `json:"at"`
	OOM  bool      `json:"oom,omitempty"`
	// Isolated says that the shim ended the process because the lease was over under which it ran.
	Isolated bool `json:"isolated,omitempty"`
}

// ReadExit reads the record from a control folder.
func ReadExit(dir string) (Exit, error) {
	var e Exit
	b, err := os.ReadFile(filepath.Join(dir, ExitName))
	if err != nil {
		return e, err
	}
	if err := json.Unmarshal(b, &e); err != nil {
		return e, fmt.Errorf("decode exit record: %w", err)
	}
	return e, nil
}

// WriteExit records a process's end in its control folder, atomically.
func WriteExit(dir string, e Exit) error {
	b, err := json.Marshal(e)
	if err != nil {
		return err
	}
	tmp := filepath.Join(dir, "."+ExitName)
	if err := os.WriteFile(tmp, b, 0o600); err != nil {
		return fmt.Errorf("write exit record: %w", err)
	}
	return os.Rename(tmp, filepath.Join(dir, ExitName))
}

// withSocketPath calls f with a path to dir's socket that is short enough for
// the kernel however long dir is.
func withSocketPath(dir string, f func(path string) error) error {
	fd, err := unix.Open(dir, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("open control folder: %w", err)
	}
	defer unix.Close(fd)
	return f(fmt.Sprintf("/proc/self/fd/%d/%s", fd, SocketName))
}

// Conn is one end of a stream.
type Conn struct {
	c  net.Conn
	wm sync.Mutex
}

// Dial connects to the Hub whose control folder is dir.
func Dial(dir string) (*Conn, error) {
	var conn *Conn
	err := withSocketPath(dir, func(path string) error {
		c, err := net.Dial("unix", path)
		if err != nil {
			return fmt.Errorf("dial stream: %w", err)
		}
		conn = &Conn{c: c}
		return nil
	})
	return conn, err
}

// Send writes one frame of at most MaxFrameBytes.
func (c *Conn) Send(k Kind, data []byte) error {
	if len(data) > MaxFrameBytes {
		return fmt.Errorf("frame of %d bytes is over %d", len(data), MaxFrameBytes)
	}
	buf := make([]byte, headerBytes+len(data))
	buf[0] = byte(k)
	binary.BigEndian.PutUint32(buf[1:], uint32(len(data)))
	copy(buf[headerBytes:], data)
	c.wm.Lock()
	defer c.wm.Unlock()
	_, err := c.c.Write(buf)
	return err
}

// Receive reads the next frame; io.EOF means that the other side has ended.
func (c *Conn) Receive() (Kind, []byte, error) {
	var head [headerBytes]byte
	if _, err := io.ReadFull(c.c, head[:]); err != nil {
		if errors.Is(err, io.ErrUnexpectedEOF) {
			err = io.EOF
		}
		return 0, nil, err
	}
	n := binary.BigEndian.Uint32(head[1:])
	if n > MaxFrameBytes {
		return 0, nil, fmt.Errorf("frame of %d bytes is over %d", n, MaxFrameBytes)
	}
	data := make([]byte, n)
	if _, err := io.ReadFull(c.c, data); err != nil {
		return 0, nil, io.EOF
	}
	return Kind(head[0]), data, nil
}

// SendResize asks for a terminal of cols by rows.
func (c *Conn) SendResize(cols, rows uint16) error {
	var b [4]byte
	binary.BigEndian.PutUint16(b[:], cols)
	binary.BigEndian.PutUint16(b[2:], rows)
	return c.Send(Resize, b[:])
}

// Close ends the connection.
func (c *Conn) Close() error { return c.c.Close() }
