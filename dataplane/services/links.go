package services

import (
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/cilium/ebpf"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/podvine/podvine/dataplane/bpf"
)

// podLinkPrefix begins the names of links that Podvine makes; they are never links to the outside.
const podLinkPrefix = "pv"

// linkEventsLimit bounds the kernel's notifications that wait; they carry no content for us, so a full queue loses
// nothing but repetitions.
const linkEventsLimit = 64

// resubscribePause is how long the watch waits before it subscribes again: netlink ends a subscription whose socket
// overflowed, and a burst of changes is best over first.
const resubscribePause = 100 * time.Millisecond

// linkWatch keeps the map of local addresses and the programs on outside links in step with the host's links.
type linkWatch struct {
	config  Config
	log     *slog.Logger
	sockets *bpf.Sockets
	packets *bpf.Packets
	done    chan struct{}
	group   sync.WaitGroup
	// subscribe is netlink's, and look is refresh; tests have their own.
	subscribe func(ch chan<- netlink.AddrUpdate, done <-chan struct{}) error
	look      func() error
}

func watchLinks(config Config, log *slog.Logger, sockets *bpf.Sockets, packets *bpf.Packets) (*linkWatch, error) {
	w := &linkWatch{config: config, log: log, sockets: sockets, packets: packets, done: make(chan struct{}), subscribe: netlink.AddrSubscribe}
	w.look = w.refresh
	addrs, end, err := w.open()
	if err != nil {
		return nil, err
	}
	if err := w.look(); err != nil {
		drain(addrs, end)
		return nil, err
	}
	w.group.Go(func() { w.run(addrs, end) })
	return w, nil
}

// open subscribes; the channel must be read until netlink closes it, which it does after end is closed, or by itself when
// notifications were lost.
func (w *linkWatch) open() (addrs chan netlink.AddrUpdate, end chan struct{}, err error) {
	addrs, end = make(chan netlink.AddrUpdate, linkEventsLimit), make(chan struct{})
	if err := w.subscribe(addrs, end); err != nil {
		return nil, nil, fmt.Errorf("watch addresses: %w", err)
	}
	return addrs, end, nil
}

func drain(addrs <-chan netlink.AddrUpdate, end chan<- struct{}) {
	close(end)
	for range addrs {
		continue
	}
}

// run follows one subscription after the other until the watch is closed.
func (w *linkWatch) run(addrs chan netlink.AddrUpdate, end chan struct{}) {
	for {
		w.follow(addrs)
		drain(addrs, end)
		for addrs = nil; addrs == nil; {
			select {
			case <-w.done:
				return
			case <-time.After(resubscribePause):
			}
			var err error
			if addrs, end, err = w.open(); err != nil {
				w.log.Warn("cannot watch addresses again", "err", err)
			}
		}
		w.tryLook() // for what went by unseen
	}
}

// follow returns when the subscription has ended or the watch is closed.
func (w *linkWatch) follow(addrs <-chan netlink.AddrUpdate) {
	for {
		select {
		case <-w.done:
			return
		case _, ok := <-addrs:
			if !ok {
				return
			}
			w.tryLook()
		}
	}
}

func (w *linkWatch) tryLook() {
	if err := w.look(); err != nil {
		w.log.Warn("cannot follow a change of addresses", "err", err)
	}
}

func (w *linkWatch) close() error {
	close(w.done)
	w.group.Wait()
	return nil
}

// refresh is level-triggered: it looks at all addresses and makes map and programs fit.
func (w *linkWatch) refresh() error {
	addrs, err := netlink.AddrList(nil, unix.AF_UNSPEC)
	if err != nil && !errors.Is(err, netlink.ErrDumpInterrupted) {
		return fmt.Errorf("list addresses: %w", err)
	}
	local := map[bpf.Addr]bool{}
	outside := map[int]bool{}
	for _, a := range addrs {
		ip, ok := netip.AddrFromSlice(a.IP)
		if !ok || ip.IsLoopback() {
			continue
		}
		local[bpf.MakeAddr(ip)] = true
		if !ip.Unmap().IsLinkLocalUnicast() {
			outside[a.LinkIndex] = true
		}
	}
	return errors.Join(w.writeLocals(local), w.attach(outside))
}

func (w *linkWatch) writeLocals(want map[bpf.Addr]bool) error {
	var key bpf.Addr
	var value uint32
	var stale []bpf.Addr
	have := map[bpf.Addr]bool{}
	iterator := w.sockets.Locals.Iterate()
	for iterator.Next(&key, &value) {
		have[key] = true
		if !want[key] {
			stale = append(stale, key)
		}
	}
	if err := iterator.Err(); err != nil {
		return fmt.Errorf("read local addresses: %w", err)
	}
	for addr := range want {
		if have[addr] {
			continue
		}
		if err := w.sockets.Locals.Put(addr, uint32(1)); err != nil {
			return fmt.Errorf("write local address %s: %w", addr.Netip(), err)
		}
	}
	for _, addr := range stale {
		if err := w.sockets.Locals.Delete(addr); err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
			return fmt.Errorf("delete local address %s: %w", addr.Netip(), err)
		}
	}
	return nil
}

func (w *linkWatch) attach(candidates map[int]bool) error {
	links, err := netlink.LinkList()
	if err != nil && !errors.Is(err, netlink.ErrDumpInterrupted) {
		return fmt.Errorf("list links: %w", err)
	}
	wanted := map[string]bool{}
	var problems []error
	for _, l := range links {
		a := l.Attrs()
		if !w.isOutside(a, candidates[a.Index]) {
			continue
		}
		wanted[a.Name] = true
		problems = append(problems, w.packets.AttachOutside(a.Name, a.Index))
	}
	attached, err := w.packets.Attached("in")
	problems = append(problems, err)
	for _, name := range attached {
		if !wanted[name] {
			problems = append(problems, w.packets.Detach(name))
		}
	}
	return errors.Join(problems...)
}

func (w *linkWatch) isOutside(a *netlink.LinkAttrs, candidate bool) bool {
	if len(w.config.Links) > 0 {
		return slices.Contains(w.config.Links, a.Name)
	}
	return candidate && a.EncapType == "ether" && a.Flags&unix.IFF_LOOPBACK == 0 && !strings.HasPrefix(a.Name, podLinkPrefix)
}
