// Package userspace is WireGuard outside the kernel, over a TUN link. netd runs it, so that it outlives the agent.
//
// Role: [Open] makes the link, or takes over one that is there, [Device.Set] changes the configuration,
// [Device.HandOver] gives the link to a successor with whatever packets wait in it.
//
// The link is persistent: it and its routes stay when the process ends, and the next one goes on with it. What a process
// loses is the sessions; a successor begins new ones at once.
//
// Memory: the library takes 64 KiB for each packet that it holds, as many as it can get. Two gates bound how many that
// are (see gate.go), and what a burst of traffic took is given back when it is over (see memory.go).
//
// Concurrency: a [Device] may be used by several goroutines.
package userspace

import (
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"sync"

	"golang.org/x/sys/unix"
	"golang.zx2c4.com/wireguard/conn"
	"golang.zx2c4.com/wireguard/device"
	"golang.zx2c4.com/wireguard/tun"

	"github.com/podvine/podvine/dataplane/tunnel/wireguard"
)

// Device is a WireGuard device of this process.
type Device struct {
	log   *slog.Logger
	file  *os.File
	gates *gates
	stop  chan struct{}
	group sync.WaitGroup

	mu     sync.Mutex // guards what follows
	device *device.Device
	// config is what was carried out last; after a failure its peers are unknown, and all are written anew.
	config wireguard.Config
	closed bool
}

// errClosed answers whoever comes after the end.
var errClosed = errors.New("the tunnel was closed or handed over")

// Open starts a device. A file is a link that another process handed over; without one the link is made, or taken over when
// nobody holds it.
func Open(config *wireguard.Config, file *os.File, log *slog.Logger) (*Device, error) {
	if err := config.Check(); err != nil {
		return nil, errors.Join(fmt.Errorf("open tunnel: %w", err), closeFile(file))
	}
	if file == nil {
		var err error
		if file, err = openLink(config.Link); err != nil {
			return nil, fmt.Errorf("open tunnel: %w", err)
		}
	}
	mtu, err := raiseLink(config.Link, config.MTU)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("open tunnel: %w", err), closeFile(file))
	}
	native, err := tun.CreateTUNFromFile(file, mtu)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("open tunnel on link %s: %w", config.Link, err), closeFile(file))
	}
	d := &Device{log: log, file: file, gates: newGates(), stop: make(chan struct{})}
	d.device = device.NewDevice(&gatedLink{native, d.gates}, &gatedBind{conn.NewDefaultBind(), d.gates}, quietLogger(log))
	d.config = wireguard.Config{Link: config.Link}
	if _, err := d.configureLocked(config); err != nil { // nobody else has it yet
		return nil, errors.Join(err, d.Close())
	}
	if err := d.device.Up(); err != nil {
		return nil, errors.Join(fmt.Errorf("open tunnel: listen on UDP port %d: %w", config.Port, err), d.Close())
	}
	d.group.Go(d.watchMemory)
	return d, nil
}

func closeFile(file *os.File) error {
	if file == nil {
		return nil
	}
	return file.Close()
}

// Set makes the device what the configuration says. Only what differs is written: sessions of unchanged peers go on, and
// new peers are greeted.
func (d *Device) Set(config *wireguard.Config) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	added, err := d.configureLocked(config)
	if err != nil {
		return err
	}
	d.greetLocked(added)
	return nil
}

// configureLocked returns the peers that are new.
func (d *Device) configureLocked(config *wireguard.Config) (added []wireguard.Key, err error) {
	if err := config.Check(); err != nil {
		return nil, fmt.Errorf("configure tunnel: %w", err)
	}
	if d.closed {
		return nil, errClosed
	}
	if config.Link != d.config.Link {
		return nil, fmt.Errorf("configure tunnel: it is on link %s, not %s", d.config.Link, config.Link)
	}
	var text strings.Builder
	if config.PublicKey != d.config.PublicKey {
		private, err := wireguard.ReadPrivateKey(config.KeyFile, config.PublicKey)
		if err != nil {
			return nil, fmt.Errorf("configure tunnel: %w", err)
		}
		bytes := private.Bytes()
		fmt.Fprintf(&text, "private_key=%s\n", hex.EncodeToString(bytes[:]))
	}
	if config.Port != d.config.Port {
		fmt.Fprintf(&text, "listen_port=%d\n", config.Port)
	}
	if d.config.PublicKey.IsZero() {
		text.WriteString("replace_peers=true\n")
	}
	text.WriteString(wireguard.FormatPeers(wireguard.Diff(d.config.Peers, config.Peers)))
	if text.Len() > 0 {
		if err := d.device.IpcSet(text.String()); err != nil {
			// Half of it may be done: the next call begins from nothing. The library's error names lines, but no keys.
			d.config = wireguard.Config{Link: config.Link}
			return nil, fmt.Errorf("configure tunnel: %w", err)
		}
	}
	had := make(map[wireguard.Key]bool, len(d.config.Peers))
	for _, p := range d.config.Peers {
		had[p.PublicKey] = true
	}
	for _, p := range config.Peers {
		if !had[p.PublicKey] {
			added = append(added, p.PublicKey)
		}
	}
	d.config = *config
	return added, nil
}

// Greet begins sessions with peers, or with all when none are named, instead of waiting for something to send: a peer that
// still holds a session with our predecessor would send into the void till it noticed.
func (d *Device) Greet(keys []wireguard.Key) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.closed {
		return
	}
	if len(keys) == 0 {
		for _, p := range d.config.Peers {
			keys = append(keys, p.PublicKey)
		}
	}
	d.greetLocked(keys)
}

func (d *Device) greetLocked(keys []wireguard.Key) {
	for _, key := range keys {
		peer := d.device.LookupPeer(device.NoisePublicKey(key))
		if peer == nil {
			continue
		}
		if err := peer.SendHandshakeInitiation(false); err != nil {
			// It is tried again when there is something to send.
			d.log.Debug("cannot greet a peer", "peer", key, "err", err)
		}
	}
}

// Status tells what the device sees of its peers.
func (d *Device) Status() (wireguard.Status, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.closed {
		return wireguard.Status{}, errClosed
	}
	text, err := d.device.IpcGet()
	if err != nil {
		return wireguard.Status{}, fmt.Errorf("look at tunnel: %w", err)
	}
	status, err := wireguard.ParseStatus(text)
	status.PublicKey = d.config.PublicKey
	return status, err
}

// HandOver ends the device and returns its link, with the peers that have a session. Packets wait in the link until the
// successor reads them. The caller closes the file.
func (d *Device) HandOver() (*os.File, []wireguard.Key, error) {
	status, err := d.Status()
	if err != nil {
		return nil, nil, err
	}
	var sessions []wireguard.Key
	for _, p := range status.Peers {
		if !p.LastHandshake.IsZero() {
			sessions = append(sessions, p.PublicKey)
		}
	}
	link, err := duplicate(d.file)
	if err != nil {
		return nil, nil, fmt.Errorf("hand over tunnel: %w", err)
	}
	if err := d.Close(); err != nil {
		return nil, nil, errors.Join(err, link.Close())
	}
	return link, sessions, nil
}

func duplicate(file *os.File) (*os.File, error) {
	raw, err := file.SyscallConn()
	if err != nil {
		return nil, err
	}
	var fd int
	var dupErr error
	if err := raw.Control(func(old uintptr) { fd, dupErr = unix.FcntlInt(old, unix.F_DUPFD_CLOEXEC, 0) }); err != nil {
		return nil, err
	}
	if dupErr != nil {
		return nil, dupErr
	}
	return os.NewFile(uintptr(fd), file.Name()), nil
}

// Close ends the device. The link stays; [Remove] takes it away.
func (d *Device) Close() error {
	d.mu.Lock()
	if d.closed {
		d.mu.Unlock()
		return nil
	}
	d.closed = true
	d.mu.Unlock()
	close(d.stop)
	d.gates.close()
	d.device.Close()
	d.group.Wait()
	return nil
}
