package netd

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"github.com/podvine/podvine/dataplane/tunnel/wireguard"
)

// SetTunnel makes netd's tunnel what the configuration says, and returns once it is. After an error, call it again.
func (c *Client) SetTunnel(ctx context.Context, config *wireguard.Config) error {
	_, err := c.once(ctx, Request{Tunnel: config})
	return err
}

// RemoveTunnel ends netd's tunnel and takes its link away; none is no error.
func (c *Client) RemoveTunnel(ctx context.Context) error {
	_, err := c.once(ctx, Request{RemoveTunnel: true})
	return err
}

// TunnelStatus tells what netd's tunnel sees of its peers; nil when there is no tunnel.
func (c *Client) TunnelStatus(ctx context.Context) (*wireguard.Status, error) {
	reply, err := c.once(ctx, Request{TunnelStatus: true})
	return reply.Tunnel, err
}

// once asks over a connection of its own: that of the services may be in use.
func (c *Client) once(ctx context.Context, request Request) (reply Reply, err error) {
	conn, err := connect(ctx, c.config.Dir)
	if err != nil {
		return Reply{}, err
	}
	defer func() { err = errors.Join(err, conn.close()) }()
	return conn.ask(ctx, request)
}

// TakeTunnel asks the netd that serves dir for the link of its tunnel, which is over then. No netd, or one without a tunnel,
// gives a nil file.
func TakeTunnel(ctx context.Context, dir string) (link *os.File, sessions []wireguard.Key, err error) {
	var dialer net.Dialer
	dialed, err := dialer.DialContext(ctx, "unix", filepath.Join(dir, SocketFile))
	if err != nil {
		// Nobody listens.
		return nil, nil, nil
	}
	defer func() { err = errors.Join(err, dialed.Close()) }()
	conn := dialed.(*net.UnixConn)
	if err := conn.SetDeadline(time.Now().Add(exchangeLimit)); err != nil {
		return nil, nil, fmt.Errorf("take over tunnel: %w", err)
	}
	if err := json.NewEncoder(conn).Encode(Request{HandOver: true}); err != nil {
		return nil, nil, fmt.Errorf("take over tunnel: %w", err)
	}
	// The descriptor comes with the first byte of the reply.
	first, rights := make([]byte, 1), make([]byte, unix.CmsgSpace(4))
	n, rightsLength, _, _, err := conn.ReadMsgUnix(first, rights)
	if err != nil {
		return nil, nil, fmt.Errorf("take over tunnel: %w", err)
	}
	if link, err = receivedFile(rights[:rightsLength]); err != nil {
		return nil, nil, fmt.Errorf("take over tunnel: %w", err)
	}
	line, err := bufio.NewReader(conn).ReadBytes('\n')
	var reply Reply
	if err == nil {
		err = json.Unmarshal(bytes.Join([][]byte{first[:n], line}, nil), &reply)
	}
	if err == nil && reply.Error != "" {
		err = errors.New(reply.Error)
	}
	if err != nil && link != nil {
		err = errors.Join(err, link.Close())
		link = nil
	}
	if err != nil {
		return nil, nil, fmt.Errorf("take over tunnel: %w", err)
	}
	return link, reply.Sessions, nil
}

// receivedFile is nil when the message carried none.
func receivedFile(rights []byte) (*os.File, error) {
	messages, err := unix.ParseSocketControlMessage(rights)
	if err != nil || len(messages) == 0 {
		return nil, err
	}
	fds, err := unix.ParseUnixRights(&messages[0])
	if err != nil || len(fds) != 1 {
		return nil, errors.Join(err, fmt.Errorf("%d descriptors, want one", len(fds)))
	}
	unix.CloseOnExec(fds[0])
	if err := unix.SetNonblock(fds[0], true); err != nil {
		return nil, errors.Join(err, unix.Close(fds[0]))
	}
	return os.NewFile(uintptr(fds[0]), "tunnel"), nil
}

// SendFile writes a reply with a descriptor beside it; the other side is [TakeTunnel].
func SendFile(conn *net.UnixConn, reply Reply, file *os.File) error {
	line, err := json.Marshal(reply)
	if err != nil {
		return fmt.Errorf("encode reply: %w", err)
	}
	line = append(line, '\n')
	raw, err := file.SyscallConn()
	if err != nil {
		return fmt.Errorf("hand over tunnel: %w", err)
	}
	var sendErr error
	err = raw.Control(func(fd uintptr) { _, _, sendErr = conn.WriteMsgUnix(line[:1], unix.UnixRights(int(fd)), nil) })
	if err := errors.Join(err, sendErr); err != nil {
		return fmt.Errorf("hand over tunnel: %w", err)
	}
	if _, err := conn.Write(line[1:]); err != nil {
		return fmt.Errorf("hand over tunnel: %w", err)
	}
	return nil
}
