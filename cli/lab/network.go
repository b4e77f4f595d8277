package lab

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"runtime"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
)

const (
	bridgeName = "pvswitch"
	uplinkName = "eth0" // the host's side of its cable
	prefixBits = 24
	hostMTU    = 1500
)

// hostAddress is the address of host number i, counted from 1. Every lab has the same network: each is in a namespace of
// its own.
func hostAddress(i int) netip.Addr { return netip.AddrFrom4([4]byte{10, 88, 0, byte(i)}) }

// switchAddress is where the lab itself is on its network, for the publisher of ports.
func switchAddress() netip.Addr { return netip.AddrFrom4([4]byte{10, 88, 0, 254}) }

// namespaceName is the lab's network namespace, as `ip netns` lists it.
func (l *Lab) namespaceName() string { return "podvine-lab-" + l.Name }

func (h *Host) cableName() string { return "pv" + h.Name }

// makeSwitch makes the lab's namespace and the bridge in it, where they are missing.
func (l *Lab) makeSwitch() error {
	handle, err := netns.GetFromName(l.namespaceName())
	if errors.Is(err, fs.ErrNotExist) {
		handle, err = newNamespace(l.namespaceName())
	}
	if err != nil {
		return fmt.Errorf("make the lab's network: %w", err)
	}
	defer handle.Close()
	links, err := netlink.NewHandleAt(handle)
	if err != nil {
		return fmt.Errorf("open the lab's network: %w", err)
	}
	defer links.Close()
	if _, err := links.LinkByName(bridgeName); err == nil {
		return nil
	}
	attributes := netlink.NewLinkAttrs()
	attributes.Name, attributes.MTU = bridgeName, hostMTU
	bridge := &netlink.Bridge{LinkAttrs: attributes}
	if err := links.LinkAdd(bridge); err != nil {
		return fmt.Errorf("make the lab's switch: %w", err)
	}
	return errors.Join(
		links.AddrAdd(bridge, addressOf(switchAddress())),
		links.LinkSetUp(bridge),
		setUpByName(links, "lo"),
	)
}

// newNamespace makes a named network namespace without leaving the caller's: the thread that made it is thrown away.
func newNamespace(name string) (netns.NsHandle, error) {
	type result struct {
		handle netns.NsHandle
		err    error
	}
	made := make(chan result)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread ends with the goroutine
		handle, err := netns.NewNamed(name)
		made <- result{handle, err}
	}()
	r := <-made
	return r.handle, r.err
}

// plugIn connects the namespace of the host's first process to the switch, and gives it its address.
func (l *Lab) plugIn(host *Host) error {
	lab, err := netns.GetFromName(l.namespaceName())
	if err != nil {
		return fmt.Errorf("open the lab's network: %w", err)
	}
	defer lab.Close()
	inside, err := netns.GetFromPid(host.Init.PID)
	if err != nil {
		return fmt.Errorf("open the network of %s: %w", host.Name, err)
	}
	defer inside.Close()
	outer, err := netlink.NewHandleAt(lab)
	if err != nil {
		return fmt.Errorf("open the lab's network: %w", err)
	}
	defer outer.Close()
	inner, err := netlink.NewHandleAt(inside)
	if err != nil {
		return fmt.Errorf("open the network of %s: %w", host.Name, err)
	}
	defer inner.Close()
	if err := connect(outer, inner, inside, host); err != nil {
		return fmt.Errorf("connect %s to the switch: %w", host.Name, err)
	}
	return nil
}

func connect(outer, inner *netlink.Handle, inside netns.NsHandle, host *Host) error {
	bridge, err := outer.LinkByName(bridgeName)
	if err != nil {
		return err
	}
	// A cable of the host's previous life may still be on its way out.
	if old, err := outer.LinkByName(host.cableName()); err == nil {
		if err := outer.LinkDel(old); err != nil {
			return err
		}
	}
	attributes := netlink.NewLinkAttrs()
	attributes.Name, attributes.MasterIndex, attributes.MTU = host.cableName(), bridge.Attrs().Index, hostMTU
	cable := &netlink.Veth{LinkAttrs: attributes, PeerName: uplinkName, PeerNamespace: netlink.NsFd(inside)}
	if err := outer.LinkAdd(cable); err != nil {
		return err
	}
	if err := setUpByName(outer, host.cableName()); err != nil {
		return err
	}
	uplink, err := inner.LinkByName(uplinkName)
	if err != nil {
		return err
	}
	if err := inner.AddrAdd(uplink, addressOf(host.Address)); err != nil {
		return err
	}
	if err := errors.Join(inner.LinkSetUp(uplink), setUpByName(inner, "lo")); err != nil {
		return err
	}
	return inner.RouteAdd(defaultRoute(uplink))
}

func defaultRoute(uplink netlink.Link) *netlink.Route {
	return &netlink.Route{LinkIndex: uplink.Attrs().Index, Gw: switchAddress().AsSlice()}
}

// SetAddress gives the host another address, as a network that hands out addresses may. A host that is up loses the old one at
// once; one that is down starts with the new one.
func (l *Lab) SetAddress(host *Host, address netip.Addr) error {
	network := netip.PrefixFrom(switchAddress(), prefixBits).Masked()
	if !network.Contains(address) || address == network.Addr() || address == switchAddress() {
		return fmt.Errorf("change the address of %s: %s is no host's address in %s", host.Name, address, network)
	}
	for _, other := range l.Hosts {
		if other.Address == address && other != host {
			return fmt.Errorf("change the address of %s: %s is that of %s", host.Name, address, other.Name)
		}
	}
	if host.Up() && address != host.Address {
		if err := readdress(host, address); err != nil {
			return fmt.Errorf("change the address of %s: %w", host.Name, err)
		}
	}
	host.Address = address
	return l.save()
}

// readdress changes the address of a running host. The old one goes first: the new one would be its secondary, and go with it.
func readdress(host *Host, address netip.Addr) error {
	inside, err := netns.GetFromPid(host.Init.PID)
	if err != nil {
		return err
	}
	defer inside.Close()
	links, err := netlink.NewHandleAt(inside)
	if err != nil {
		return err
	}
	defer links.Close()
	uplink, err := links.LinkByName(uplinkName)
	if err != nil {
		return err
	}
	if err := links.AddrDel(uplink, addressOf(host.Address)); err != nil {
		return err
	}
	if err := links.AddrAdd(uplink, addressOf(address)); err != nil {
		return err
	}
	return links.RouteReplace(defaultRoute(uplink))
}

func setUpByName(links *netlink.Handle, name string) error {
	link, err := links.LinkByName(name)
	if err != nil {
		return err
	}
	return links.LinkSetUp(link)
}

func addressOf(address netip.Addr) *netlink.Addr {
	return &netlink.Addr{IPNet: &net.IPNet{IP: address.AsSlice(), Mask: net.CIDRMask(prefixBits, address.BitLen())}}
}

// removeSwitch removes the lab's namespace and with it everything in it.
func (l *Lab) removeSwitch() error {
	if err := netns.DeleteNamed(l.namespaceName()); err != nil && !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, os.ErrInvalid) {
		return fmt.Errorf("remove the lab's network: %w", err)
	}
	return nil
}

// dial connects to an address of the lab's network from outside of it.
func (l *Lab) dial(to netip.AddrPort) (net.Conn, error) {
	type result struct {
		conn net.Conn
		err  error
	}
	dialled := make(chan result)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread stays in the lab's namespace and ends with the goroutine
		handle, err := netns.GetFromName(l.namespaceName())
		if err != nil {
			dialled <- result{nil, err}
			return
		}
		defer handle.Close()
		if err := netns.Set(handle); err != nil {
			dialled <- result{nil, err}
			return
		}
		conn, err := net.DialTCP("tcp", nil, net.TCPAddrFromAddrPort(to))
		if err != nil {
			dialled <- result{nil, err} // a typed nil would not compare equal to nil
			return
		}
		dialled <- result{conn, nil}
	}()
	r := <-dialled
	if r.err != nil {
		return nil, fmt.Errorf("reach %s in lab %s: %w", to, l.Name, r.err)
	}
	return r.conn, nil
}
