package wireguard

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"time"

	"golang.zx2c4.com/wireguard/wgctrl"
	"golang.zx2c4.com/wireguard/wgctrl/wgtypes"
)

// Kernel configures devices that others made: the kernel's own, which the caller adds as a link.
type Kernel struct {
	mu sync.Mutex // guards what follows
	// wanted are the peers that were last written, by device. A peer whose device saw it move is not moved back by a
	// repetition.
	wanted map[string][]Peer
}

// NewKernel returns a configurator that knows of no device yet.
func NewKernel() *Kernel { return &Kernel{wanted: map[string][]Peer{}} }

// Set makes the device what the configuration says. Only what differs is written: sessions of unchanged peers go on.
func (k *Kernel) Set(c *Config) error {
	if err := c.Check(); err != nil {
		return err
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	client, err := wgctrl.New()
	if err != nil {
		return fmt.Errorf("open WireGuard of the kernel: %w", err)
	}
	defer client.Close()
	device, err := client.Device(c.Link)
	if err != nil {
		return fmt.Errorf("look at device %s: %w", c.Link, err)
	}
	have, known := k.wanted[c.Link]
	if !known {
		have = peersOf(device)
	}
	write, err := plan(c, Key(device.PublicKey), device.ListenPort, have)
	if err != nil {
		return err
	}
	if write != nil {
		if err := client.ConfigureDevice(c.Link, *write); err != nil {
			delete(k.wanted, c.Link)
			return fmt.Errorf("configure device %s: %w", c.Link, err)
		}
	}
	k.wanted[c.Link] = c.Peers
	return nil
}

// plan is nil when nothing differs.
func plan(c *Config, public Key, port int, have []Peer) (*wgtypes.Config, error) {
	var out wgtypes.Config
	for _, change := range Diff(have, c.Peers) {
		out.Peers = append(out.Peers, peerConfig(change))
	}
	any := len(out.Peers) > 0
	if public != c.PublicKey {
		private, err := ReadPrivateKey(c.KeyFile, c.PublicKey)
		if err != nil {
			return nil, err
		}
		key := wgtypes.Key(private.Bytes())
		out.PrivateKey, any = &key, true
	}
	if port != int(c.Port) {
		wanted := int(c.Port)
		out.ListenPort, any = &wanted, true
	}
	if !any {
		return nil, nil
	}
	return &out, nil
}

func peerConfig(c Change) wgtypes.PeerConfig {
	out := wgtypes.PeerConfig{PublicKey: wgtypes.Key(c.Peer.PublicKey), Remove: c.Remove}
	if c.Endpoint {
		out.Endpoint = net.UDPAddrFromAddrPort(c.Peer.Endpoint)
	}
	if c.AllowedIPs {
		out.ReplaceAllowedIPs = true
		for _, r := range c.Peer.AllowedIPs {
			out.AllowedIPs = append(out.AllowedIPs, net.IPNet{IP: r.Addr().AsSlice(), Mask: net.CIDRMask(r.Bits(), r.Addr().BitLen())})
		}
	}
	return out
}

func peersOf(device *wgtypes.Device) []Peer {
	var out []Peer
	for i := range device.Peers {
		out = append(out, statusOf(&device.Peers[i]).Peer)
	}
	return out
}

func statusOf(p *wgtypes.Peer) PeerStatus {
	out := PeerStatus{
		Peer: Peer{PublicKey: Key(p.PublicKey)}, ReceivedBytes: uint64(p.ReceiveBytes), SentBytes: uint64(p.TransmitBytes),
	}
	if !p.LastHandshakeTime.Equal(time.Time{}) && p.LastHandshakeTime.Unix() > 0 {
		out.LastHandshake = p.LastHandshakeTime
	}
	if p.Endpoint != nil {
		at := p.Endpoint.AddrPort()
		out.Endpoint = netip.AddrPortFrom(at.Addr().Unmap(), at.Port())
	}
	for _, r := range p.AllowedIPs {
		if addr, ok := netip.AddrFromSlice(r.IP); ok {
			bits, _ := r.Mask.Size()
			out.AllowedIPs = append(out.AllowedIPs, netip.PrefixFrom(addr.Unmap(), bits))
		}
	}
	return out
}

// Status reads a device.
func (k *Kernel) Status(link string) (status Status, err error) {
	client, err := wgctrl.New()
	if err != nil {
		return Status{}, fmt.Errorf("open WireGuard of the kernel: %w", err)
	}
	defer func() { err = errors.Join(err, client.Close()) }()
	device, err := client.Device(link)
	if err != nil {
		return Status{}, fmt.Errorf("look at device %s: %w", link, err)
	}
	status = Status{PublicKey: Key(device.PublicKey), Port: uint16(device.ListenPort)}
	for i := range device.Peers {
		status.Peers = append(status.Peers, statusOf(&device.Peers[i]))
	}
	return status, nil
}
