package daemon

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"sync"

	"github.com/podvine/podvine/dataplane/netd"
	"github.com/podvine/podvine/dataplane/tunnel/wireguard"
	"github.com/podvine/podvine/dataplane/tunnel/wireguard/userspace"
)

// tunnel is WireGuard where the kernel has none. Its wanted state is on disk, so that it comes back without an agent.
type tunnel struct {
	dir string
	log *slog.Logger

	mu     sync.Mutex // guards what follows
	device *userspace.Device
	// handed is true once a successor has the link: this process leaves it alone from then on.
	handed bool
}

// errHanded tells an agent that spoke to a netd on its way out; it asks again and meets the successor.
var errHanded = errors.New("the tunnel is the successor's")

// resume brings back what was there before, from a predecessor that still runs or from disk. A tunnel that cannot be brought
// back waits for the agent: names are answered meanwhile.
func (t *tunnel) resume(ctx context.Context) {
	var config wireguard.Config
	err := netd.ReadFile(t.dir, netd.TunnelFile, &config)
	if errors.Is(err, os.ErrNotExist) {
		return
	}
	if err == nil {
		err = t.open(ctx, &config)
	}
	if err != nil {
		t.log.Warn("begin without the tunnel", "err", err)
	}
}

func (t *tunnel) open(ctx context.Context, config *wireguard.Config) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	link, sessions, err := netd.TakeTunnel(ctx, t.dir)
	if err != nil {
		t.log.Warn("predecessor keeps the tunnel", "err", err)
	}
	if t.device, err = userspace.Open(config, link, t.log); err != nil {
		return err
	}
	t.device.Greet(sessions)
	t.log.Info("the tunnel is open", "link", config.Link, "port", config.Port, "peers", len(config.Peers), "taken over", link != nil)
	return nil
}

func (t *tunnel) set(config *wireguard.Config) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.handed {
		return errHanded
	}
	var err error
	if t.device == nil {
		if t.device, err = userspace.Open(config, nil, t.log); err == nil {
			t.device.Greet(nil)
		}
	} else {
		err = t.device.Set(config)
	}
	if err != nil {
		return err
	}
	return netd.WriteFile(t.dir, netd.TunnelFile, config)
}

func (t *tunnel) remove() error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.handed {
		return errHanded
	}
	if t.device == nil {
		return nil
	}
	var config wireguard.Config
	err := netd.ReadFile(t.dir, netd.TunnelFile, &config)
	if err == nil {
		err = errors.Join(t.device.Close(), userspace.Remove(config.Link), os.Remove(filepath.Join(t.dir, netd.TunnelFile)))
		t.device = nil
	}
	if err != nil {
		return fmt.Errorf("remove tunnel: %w", err)
	}
	return nil
}

func (t *tunnel) status() (*wireguard.Status, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.device == nil {
		return nil, nil
	}
	status, err := t.device.Status()
	return &status, err
}

// handOver answers a successor. Without a tunnel the reply is empty.
func (t *tunnel) handOver(conn net.Conn) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	socket, ok := conn.(*net.UnixConn)
	if !ok {
		return errors.New("hand over tunnel: not a unix socket")
	}
	if t.device == nil {
		_, err := conn.Write([]byte("{}\n"))
		return err
	}
	link, sessions, err := t.device.HandOver()
	if err != nil {
		return err
	}
	t.device, t.handed = nil, true
	defer link.Close()
	return netd.SendFile(socket, netd.Reply{Sessions: sessions}, link)
}

func (t *tunnel) close() error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.device == nil {
		return nil
	}
	err := t.device.Close()
	t.device = nil
	return err
}
