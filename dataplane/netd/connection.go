package netd

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"path/filepath"
	"time"
)

// exchangeLimit bounds one request with its reply.
const exchangeLimit = 10 * time.Second

// connection is an open conversation with a netd.
type connection struct {
	conn    net.Conn
	encoder *json.Encoder
	replies chan Reply
	// lost is closed when the other side has gone.
	lost chan struct{}
	// Peer is what netd told of itself.
	peer Reply
}

// connect opens a conversation with the netd that serves dir, if there is one.
func connect(ctx context.Context, dir string) (*connection, error) {
	var dialer net.Dialer
	conn, err := dialer.DialContext(ctx, "unix", filepath.Join(dir, SocketFile))
	if err != nil {
		return nil, fmt.Errorf("connect to netd: %w", err)
	}
	c := &connection{conn: conn, encoder: json.NewEncoder(conn), replies: make(chan Reply), lost: make(chan struct{})}
	go c.read()
	if c.peer, err = c.ask(ctx, Request{Hello: &Hello{Protocol: ProtocolVersion}}); err != nil {
		return nil, errors.Join(err, c.close())
	}
	return c, nil
}

func (c *connection) read() {
	defer close(c.lost)
	decoder := json.NewDecoder(c.conn)
	for {
		var reply Reply
		if err := decoder.Decode(&reply); err != nil {
			return
		}
		c.replies <- reply
	}
}

// ask sends a request and waits for its reply. One goroutine at a time.
func (c *connection) ask(ctx context.Context, request Request) (Reply, error) {
	ctx, cancel := context.WithTimeout(ctx, exchangeLimit)
	defer cancel()
	if err := c.conn.SetWriteDeadline(time.Now().Add(exchangeLimit)); err != nil {
		return Reply{}, fmt.Errorf("talk to netd: %w", err)
	}
	if err := c.encoder.Encode(request); err != nil {
		return Reply{}, fmt.Errorf("talk to netd: %w", err)
	}
	select {
	case reply := <-c.replies:
		if reply.Error != "" {
			return reply, fmt.Errorf("netd: %s", reply.Error)
		}
		return reply, nil
	case <-c.lost:
		return Reply{}, errors.New("netd closed the connection")
	case <-ctx.Done():
		return Reply{}, fmt.Errorf("wait for netd: %w", ctx.Err())
	}
}

func (c *connection) close() error {
	err := c.conn.Close()
	for {
		select {
		case <-c.replies: // an answer that came too late
		case <-c.lost:
			return err
		}
	}
}
