package tunnel

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"sync"
	"time"

	"github.com/vishvananda/netlink"

	"github.com/podvine/podvine/dataplane/bpf"
	"github.com/podvine/podvine/dataplane/tunnel/wireguard"
)

const (
	// passInterval is how often everything is compared although nothing was heard: somebody may have removed a route.
	passInterval = time.Minute
	// settlePause gathers the kernel's notifications.
	settlePause = 50 * time.Millisecond
	// eventsLimit bounds the notifications that wait; they carry nothing that a pass does not look at itself.
	eventsLimit = 64
)

// Userspace is WireGuard outside the kernel. netd's client is one.
type Userspace interface {
	SetTunnel(ctx context.Context, config *wireguard.Config) error
	RemoveTunnel(ctx context.Context) error
	TunnelStatus(ctx context.Context) (*wireguard.Status, error)
}

// Config is what a [Tunnel] needs.
type Config struct {
	// Dir is the folder of the private key.
	Dir string
	// BPFFSDir is the folder for pinned programs and maps, the same as the pod network's.
	BPFFSDir string
	// Userspace stands in for a kernel without WireGuard. UserspaceOnly takes it in any case.
	Userspace     Userspace
	UserspaceOnly bool
	// SetMTU hands the pods' MTU, in bytes, to the pod network; [podnet.Network.SetMTU] is meant.
	SetMTU func(mtu int) error
	Logger *slog.Logger
}

// Status is what a tunnel does.
type Status struct {
	Mode Mode
	// Implementation of WireGuard: "kernel" or "userspace".
	Implementation string
	MTU            int
	// Refused are the peers that are not connected, with reasons.
	Refused []error
	// WireGuard is nil in other modes.
	WireGuard *wireguard.Status
}

// Tunnel connects this node with its peers. See [Open].
type Tunnel struct {
	config  Config
	log     *slog.Logger
	keys    *wireguard.Keys
	kernel  *wireguard.Kernel
	packets *bpf.Packets
	cancel  context.CancelFunc
	group   sync.WaitGroup

	mu sync.Mutex // guards what follows
	// state is what was asked for last; nil before the first Set.
	state *State
	// mtu is what pods were given, 0 when it has to be given again.
	mtu            int
	implementation string
	refused        []error
	ignoresIPv6    bool
}

// Open makes or reads the node's key and takes over what an earlier agent left, which works on unchanged till the first
// [Tunnel.Set].
func Open(ctx context.Context, config Config) (*Tunnel, error) {
	keys, err := wireguard.OpenKeys(config.Dir)
	if err != nil {
		return nil, fmt.Errorf("open tunnel: %w", err)
	}
	packets, err := bpf.OpenPackets(config.BPFFSDir)
	if err != nil {
		return nil, fmt.Errorf("open tunnel: %w", err)
	}
	t := &Tunnel{config: config, log: config.Logger, keys: keys, kernel: wireguard.NewKernel(), packets: packets}
	ctx, t.cancel = context.WithCancel(context.WithoutCancel(ctx))
	t.group.Go(func() { t.watch(ctx) })
	return t, nil
}

// Close lets go. Every packet goes on its way.
func (t *Tunnel) Close() error {
	t.cancel()
	t.group.Wait()
	return t.packets.Close()
}

// PublicKey is what peers are to know of this node.
func (t *Tunnel) PublicKey() wireguard.Key { return t.keys.Public() }

// RotateKey replaces the node's key pair and returns the new public key. Peers talk to this node again when they know it: till
// then what they send is lost.
func (t *Tunnel) RotateKey(ctx context.Context) (wireguard.Key, error) {
	public, err := t.keys.Rotate()
	if err != nil {
		return wireguard.Key{}, fmt.Errorf("rotate the tunnel's key: %w", err)
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	return public, t.applyLocked(ctx)
}

// Set makes the tunnel what the state says. Only what differs is written. Errors of kind [*PeerError] tell of peers that
// cannot be connected as they are; after any other error call it again. What fails for one peer harms no other.
func (t *Tunnel) Set(ctx context.Context, state State) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.state = &state
	return t.applyLocked(ctx)
}

func (t *Tunnel) applyLocked(ctx context.Context) error {
	if t.state == nil {
		return nil
	}
	p, err := decide(*t.state)
	if err != nil {
		return fmt.Errorf("set tunnel: %w", err)
	}
	t.refused = p.refused
	if err := t.carryOut(ctx, &p); err != nil {
		return fmt.Errorf("set tunnel: %w", errors.Join(append(p.refused, err)...))
	}
	return errors.Join(p.refused...)
}

// carryOut withdraws first and adds last, so that no packet is sent where nobody takes it.
func (t *Tunnel) carryOut(ctx context.Context, p *plan) error {
	mtu, err := podMTU(p.mode, t.state.Self.Addrs[0], p.outer6(&t.state.Self))
	if err != nil {
		return err
	}
	t.tellSmallMTU(mtu)
	// A smaller MTU is the pods' first, a larger one the tunnel's.
	if mtu < t.mtu || t.mtu == 0 {
		if err := t.passOn(mtu); err != nil {
			return err
		}
	}
	if err := withdrawRoutes(p.routes); err != nil {
		return err
	}
	switch p.mode {
	case WireGuard:
		err = t.ensureWireGuard(ctx, p, mtu)
	case VXLAN:
		err = t.ensureVXLAN(&t.state.Self, p, mtu)
	}
	if err != nil {
		return err
	}
	if err := t.attach(p); err != nil {
		return err
	}
	remotes, routesErr := ensureRoutes(p, mtu)
	if err := writeRemotes(t.packets, remotes); err != nil {
		return errors.Join(routesErr, err)
	}
	if err := t.removeOthers(ctx, p.link); err != nil {
		return errors.Join(routesErr, err)
	}
	if mtu > t.mtu {
		return errors.Join(routesErr, t.passOn(mtu))
	}
	return routesErr
}

func (t *Tunnel) passOn(mtu int) error {
	if t.config.SetMTU != nil {
		if err := t.config.SetMTU(mtu); err != nil {
			t.mtu = 0
			return fmt.Errorf("pass MTU %d on to pods: %w", mtu, err)
		}
	}
	if t.mtu != mtu {
		t.log.Info("pods may send", "bytes", mtu)
	}
	t.mtu = mtu
	return nil
}

func (t *Tunnel) tellSmallMTU(mtu int) {
	small := false
	for _, r := range t.state.Self.PodCIDRs {
		small = small || r.Addr().Is6() && mtu < ipv6MTUMin
	}
	if small && !t.ignoresIPv6 {
		t.log.Warn("the underlay is too small for IPv6 in a tunnel", "bytes", mtu, "needed", ipv6MTUMin)
	}
	t.ignoresIPv6 = small
}

func (t *Tunnel) attach(p *plan) error {
	if p.link == "" {
		return nil
	}
	link, err := netlink.LinkByName(p.link)
	if err != nil {
		return fmt.Errorf("find link %s: %w", p.link, err)
	}
	return t.packets.AttachTunnel(p.link, link.Attrs().Index, p.mode == WireGuard)
}

// removeOthers takes away what another mode left.
func (t *Tunnel) removeOthers(ctx context.Context, link string) error {
	if link != wireGuardLink {
		found, err := findLink(wireGuardLink)
		if err != nil {
			return err
		}
		if found != nil {
			if t.config.Userspace != nil && found.Type() != "wireguard" {
				if err := t.config.Userspace.RemoveTunnel(ctx); err != nil {
					return err
				}
			}
			if err := errors.Join(t.packets.Detach(wireGuardLink), removeLink(wireGuardLink)); err != nil {
				return err
			}
		}
	}
	if link != vxlanLink {
		return errors.Join(t.packets.Detach(vxlanLink), removeLink(vxlanLink))
	}
	return nil
}

// Status tells what the tunnel does.
func (t *Tunnel) Status(ctx context.Context) (Status, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.state == nil {
		return Status{}, nil
	}
	s := Status{Mode: t.state.Mode, MTU: t.mtu, Refused: t.refused}
	if s.Mode != WireGuard {
		return s, nil
	}
	s.Implementation = t.implementation
	var err error
	s.WireGuard, err = t.wireGuardStatus(ctx)
	return s, err
}

// watch applies the state again when links or addresses change, and once in a while.
func (t *Tunnel) watch(ctx context.Context) {
	for ctx.Err() == nil {
		if err := t.follow(ctx); err != nil && ctx.Err() == nil {
			t.log.Warn("cannot follow links", "err", err)
			pause(ctx, time.Second)
		}
	}
}

func (t *Tunnel) follow(ctx context.Context) error {
	done := make(chan struct{})
	links, addrs := make(chan netlink.LinkUpdate, eventsLimit), make(chan netlink.AddrUpdate, eventsLimit)
	if err := netlink.LinkSubscribe(links, done); err != nil {
		close(done)
		return fmt.Errorf("watch links: %w", err)
	}
	if err := netlink.AddrSubscribe(addrs, done); err != nil {
		close(done)
		drain(links)
		return fmt.Errorf("watch addresses: %w", err)
	}
	defer func() {
		close(done)
		drain(links)
		drain(addrs)
	}()
	tick := time.NewTicker(passInterval)
	defer tick.Stop()
	before := underlaySight{}
	for {
		open := true
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
			before = nil
		case _, open = <-links:
		case _, open = <-addrs:
		}
		if !open {
			return nil // the kernel had more to tell than was read: subscribe again, and look
		}
		pause(ctx, settlePause)
		empty(links)
		empty(addrs)
		now, err := look()
		if err != nil {
			return err
		}
		if !maps.Equal(before, now) {
			before = now
			t.again(ctx)
		}
	}
}

// underlaySight is what of the host's links matters to us: pods' links come and go and do not.
type underlaySight map[string]bool

func look() (underlaySight, error) {
	links, err := netlink.LinkList()
	if err != nil && !errors.Is(err, netlink.ErrDumpInterrupted) {
		return nil, fmt.Errorf("list links: %w", err)
	}
	out := underlaySight{}
	names := map[int]string{}
	for _, l := range links {
		a := l.Attrs()
		if l.Type() == "veth" && len(a.Name) > 2 && a.Name[:2] == "pv" {
			continue
		}
		names[a.Index] = a.Name
		out[fmt.Sprint("link ", a.Index, a.Name, a.MTU, a.Flags)] = true
	}
	addrs, err := netlink.AddrList(nil, netlink.FAMILY_ALL)
	if err != nil && !errors.Is(err, netlink.ErrDumpInterrupted) {
		return nil, fmt.Errorf("list addresses: %w", err)
	}
	for _, a := range addrs {
		if _, ok := names[a.LinkIndex]; ok {
			out[fmt.Sprint("address ", a.LinkIndex, a.IPNet)] = true
		}
	}
	return out, nil
}

func (t *Tunnel) again(ctx context.Context) {
	t.mu.Lock()
	defer t.mu.Unlock()
	var refused *PeerError
	if err := t.applyLocked(ctx); err != nil && !errors.As(err, &refused) && ctx.Err() == nil {
		t.log.Warn("cannot follow a change of links", "err", err)
	}
}

func pause(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}

func drain[T any](events <-chan T) {
	for range events {
		continue
	}
}

// empty takes what waits; a channel that was closed meanwhile is noticed at the next look.
func empty[T any](events <-chan T) {
	for {
		select {
		case _, open := <-events:
			if !open {
				return
			}
		default:
			return
		}
	}
}

// Reset removes every trace: links, routes, the private key. Programs and maps go with the pod network's, and netd must have
// ended. It needs no open Tunnel, and none must be open.
func Reset(dir string) error {
	problems := []error{withdrawRoutes(nil), removeLink(wireGuardLink), removeLink(vxlanLink)}
	if err := os.RemoveAll(dir); err != nil {
		problems = append(problems, fmt.Errorf("remove the tunnel's key: %w", err))
	}
	return errors.Join(problems...)
}
