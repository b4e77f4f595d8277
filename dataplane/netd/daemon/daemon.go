// Package daemon is the program podvine-netd: DNS for a node and its WireGuard tunnel where the kernel has none, with state of
// its own on disk.
//
// Role: [Run] loads what it knew, answers DNS, takes over the tunnel from a predecessor, and listens for an agent. It needs no agent
// to go on.
//
// Concurrency: one Run a process. Each connection has a goroutine; updates are carried out under a lock, one by one.
package daemon

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/podvine/podvine/dataplane/dns"
	"github.com/podvine/podvine/dataplane/dns/server"
	"github.com/podvine/podvine/dataplane/netd"
)

const (
	// saveDelay gathers changes before the state is written; what a crash loses the agent sends again.
	saveDelay = time.Second
	// connectionsLimit bounds the clients at one time: an agent, its successor, and a curious one.
	connectionsLimit = 8
)

type daemon struct {
	dir      string
	log      *slog.Logger
	identity string
	records  *dns.Records
	tunnel   *tunnel
	stop     context.CancelFunc
	group    sync.WaitGroup

	// dirty wakes the saver.
	dirty chan struct{}

	mu    sync.Mutex // guards what follows
	conns map[net.Conn]bool
	// superseded is true once another asked for the end: the state on disk is the successor's from then on. The
	// connection over which it asked stays open as long as the process, so that the asker sees when that is gone.
	superseded bool
}

// Run serves until ctx ends or a successor asks it to stop.
func Run(ctx context.Context, dir string, log *slog.Logger) error {
	var settings netd.Settings
	if err := netd.ReadFile(dir, netd.ConfigFile, &settings); err != nil {
		return err
	}
	if err := settings.Check(); err != nil {
		return err
	}
	identity, err := settings.Identity()
	if err != nil {
		return err
	}
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	d := &daemon{
		dir: dir, log: log, identity: identity, records: dns.NewRecords(settings.Domain), stop: stop,
		tunnel: &tunnel{dir: dir, log: log},
		conns:  map[net.Conn]bool{}, dirty: make(chan struct{}, 1),
	}
	d.load()
	answering, err := server.Start(server.Config{
		Addrs: settings.Addrs, Port: settings.Port, Metrics: settings.Metrics, ResolvConf: settings.ResolvConf, Logger: log,
	}, d.records)
	if err != nil {
		return err
	}
	d.tunnel.resume(ctx)
	return errors.Join(d.serve(ctx), d.tunnel.close(), answering.Close())
}

// load reads what the last netd knew. Without it, or if it cannot be read, netd starts empty and the agent fills it.
func (d *daemon) load() {
	var services []dns.Service
	err := netd.ReadFile(d.dir, netd.StateFile, &services)
	if errors.Is(err, os.ErrNotExist) {
		return
	}
	if err != nil {
		d.log.Warn("begin without saved state", "err", err)
		return
	}
	d.records.Apply(dns.Update{Full: true, Upserts: services})
}

func (d *daemon) save() error { return netd.WriteFile(d.dir, netd.StateFile, d.records.Services()) }

func (d *daemon) serve(ctx context.Context) error {
	// This netd answers already; the predecessor has nothing more to do.
	if err := netd.StopRunning(ctx, d.dir); err != nil {
		d.log.Warn("predecessor did not stop as asked", "err", err)
	}
	path := filepath.Join(d.dir, netd.SocketFile)
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("remove stale socket: %w", err)
	}
	listener, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		return fmt.Errorf("listen for the agent: %w", err)
	}
	// By the time this one closes, the path may be a successor's.
	listener.SetUnlinkOnClose(false)
	d.group.Go(func() { d.accept(listener) })
	d.group.Go(func() { d.saver(ctx) })
	d.log.Info("netd answers", "pid", os.Getpid(), "services", d.records.Len())
	<-ctx.Done()
	err = listener.Close()
	d.mu.Lock()
	if !d.superseded {
		err = errors.Join(err, d.save())
	}
	for conn := range d.conns {
		err = errors.Join(err, conn.Close())
	}
	clear(d.conns)
	d.mu.Unlock()
	d.group.Wait()
	return err
}

func (d *daemon) accept(listener net.Listener) {
	for {
		conn, err := listener.Accept()
		if err != nil {
			return
		}
		d.mu.Lock()
		full := len(d.conns) >= connectionsLimit
		if !full {
			d.conns[conn] = true
		}
		d.mu.Unlock()
		if full {
			// The one refused sees a closed connection and tries again.
			_ = conn.Close()
			continue
		}
		d.group.Go(func() {
			d.talk(conn)
			d.mu.Lock()
			defer d.mu.Unlock()
			if d.conns[conn] {
				delete(d.conns, conn)
				_ = conn.Close()
			}
		})
	}
}

func (d *daemon) talk(conn net.Conn) {
	decoder, encoder := json.NewDecoder(conn), json.NewEncoder(conn)
	for {
		var request netd.Request
		if err := decoder.Decode(&request); err != nil {
			return
		}
		if request.HandOver {
			if err := d.tunnel.handOver(conn); err != nil {
				d.log.Warn("cannot hand over the tunnel", "err", err)
				return
			}
			continue
		}
		reply := d.answer(&request)
		reply.Services = d.records.Len()
		if err := encoder.Encode(reply); err != nil {
			return
		}
		if request.Stop {
			d.mu.Lock()
			delete(d.conns, conn)
			d.mu.Unlock()
			d.stop()
			return
		}
	}
}

func (d *daemon) answer(request *netd.Request) netd.Reply {
	switch {
	case request.Hello != nil:
		return netd.Reply{Protocol: netd.ProtocolVersion, Identity: d.identity, PID: os.Getpid()}
	case request.Update != nil:
		d.records.Apply(*request.Update)
		select {
		case d.dirty <- struct{}{}:
		default:
		}
		return netd.Reply{}
	case request.Stop:
		return d.giveUp()
	case request.Tunnel != nil:
		return outcome(d.tunnel.set(request.Tunnel))
	case request.RemoveTunnel:
		return outcome(d.tunnel.remove())
	case request.TunnelStatus:
		status, err := d.tunnel.status()
		reply := outcome(err)
		reply.Tunnel = status
		return reply
	}
	return netd.Reply{Error: "a request that this netd does not know"}
}

func outcome(err error) netd.Reply {
	if err != nil {
		return netd.Reply{Error: err.Error()}
	}
	return netd.Reply{}
}

// giveUp saves for the last time.
func (d *daemon) giveUp() netd.Reply {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.superseded = true
	if err := d.save(); err != nil {
		// The end is not put off for it: the agent sends everything to the successor.
		d.log.Warn("cannot save state", "err", err)
	}
	return netd.Reply{}
}

// saver writes the state a moment after it changes.
func (d *daemon) saver(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-d.dirty:
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(saveDelay):
		}
		d.mu.Lock()
		if !d.superseded {
			if err := d.save(); err != nil {
				d.log.Warn("cannot save state", "err", err)
			}
		}
		d.mu.Unlock()
	}
}
