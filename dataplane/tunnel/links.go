package tunnel

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/podvine/podvine/dataplane/tunnel/wireguard"
)

// findLink returns nil when there is none of that name.
func findLink(name string) (netlink.Link, error) {
	link, err := netlink.LinkByName(name)
	if errors.As(err, &netlink.LinkNotFoundError{}) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("find link %s: %w", name, err)
	}
	return link, nil
}

func removeLink(name string) error {
	link, err := findLink(name)
	if err != nil || link == nil {
		return err
	}
	if err := netlink.LinkDel(link); err != nil && !errors.Is(err, unix.ENODEV) {
		return fmt.Errorf("remove link %s: %w", name, err)
	}
	return nil
}

// ensureWireGuard makes device and peers. The kernel's device is taken where the kernel has it; a link of netd's that is at
// work stays till the next boot.
func (t *Tunnel) ensureWireGuard(ctx context.Context, p *plan, mtu int) error {
	config := p.wireguard
	config.MTU, config.KeyFile, config.PublicKey = mtu, t.keys.Path(), t.keys.Public()
	link, err := findLink(config.Link)
	if err != nil {
		return err
	}
	inKernel := link != nil && link.Type() == "wireguard"
	if link == nil && !t.config.UserspaceOnly {
		err := netlink.LinkAdd(&netlink.Wireguard{LinkAttrs: netlink.LinkAttrs{Name: config.Link, MTU: mtu}})
		if err != nil && !errors.Is(err, unix.EOPNOTSUPP) {
			return fmt.Errorf("make link %s: %w", config.Link, err)
		}
		inKernel = err == nil
	}
	if t.implementation = "userspace"; inKernel {
		t.implementation = "kernel"
		if err := t.kernel.Set(&config); err != nil {
			return err
		}
		return t.raise(config.Link, mtu)
	}
	if t.config.Userspace == nil {
		return errors.New("the kernel has no WireGuard, and nothing stands in for it")
	}
	if err := t.config.Userspace.SetTunnel(ctx, &config); err != nil {
		return err
	}
	return t.raise(config.Link, mtu)
}

func (t *Tunnel) raise(name string, mtu int) error {
	link, err := netlink.LinkByName(name)
	if err != nil {
		return fmt.Errorf("find link %s: %w", name, err)
	}
	if link.Attrs().MTU != mtu {
		if err := netlink.LinkSetMTU(link, mtu); err != nil {
			return fmt.Errorf("set MTU of link %s to %d: %w", name, mtu, err)
		}
	}
	if link.Attrs().Flags&unix.IFF_UP == 0 {
		if err := netlink.LinkSetUp(link); err != nil {
			return fmt.Errorf("raise link %s: %w", name, err)
		}
	}
	return nil
}

// ensureVXLAN makes the link and what it knows of peers. A link with other settings is replaced.
func (t *Tunnel) ensureVXLAN(self *Self, p *plan, mtu int) error {
	port := self.Port
	if port == 0 {
		port = VXLANPort
	}
	wanted := &netlink.Vxlan{
		LinkAttrs: netlink.LinkAttrs{Name: vxlanLink, MTU: mtu, HardwareAddr: hardwareAddress(self.ID), TxQLen: -1},
		VxlanId:   vxlanID, SrcAddr: self.Addrs[0].AsSlice(), Port: int(port), Learning: false,
		UDP6ZeroCSumRx: false, UDP6ZeroCSumTx: false, UDPCSum: self.Addrs[0].Is6(),
	}
	link, err := findLink(vxlanLink)
	if err != nil {
		return err
	}
	if link != nil && !sameVXLAN(link, wanted) {
		if err := removeLink(vxlanLink); err != nil {
			return err
		}
		link = nil
	}
	if link == nil {
		if err := netlink.LinkAdd(wanted); err != nil {
			return fmt.Errorf("make link %s: %w", vxlanLink, err)
		}
	}
	if err := t.raise(vxlanLink, mtu); err != nil {
		return err
	}
	return ensureNeighbours(p.neighbours)
}

func sameVXLAN(link netlink.Link, wanted *netlink.Vxlan) bool {
	have, ok := link.(*netlink.Vxlan)
	return ok && have.VxlanId == wanted.VxlanId && have.Port == wanted.Port && have.SrcAddr.Equal(wanted.SrcAddr) &&
		have.HardwareAddr.String() == wanted.HardwareAddr.String()
}

// entry is a line of the neighbour or forwarding table.
type entry struct {
	family int
	ip     netip.Addr
	mac    string
}

// ensureNeighbours makes the tables of the VXLAN link hold exactly these peers.
func ensureNeighbours(peers []neighbour) error {
	link, err := netlink.LinkByName(vxlanLink)
	if err != nil {
		return fmt.Errorf("find link %s: %w", vxlanLink, err)
	}
	index := link.Attrs().Index
	wanted := map[entry]bool{}
	for _, peer := range peers {
		wanted[entry{unix.AF_BRIDGE, peer.at, peer.mac}] = true
		for _, gateway := range peer.gateways {
			wanted[entry{familyOf(gateway), gateway, peer.mac}] = true
		}
	}
	have, err := listEntries(index)
	if err != nil {
		return err
	}
	for e := range have {
		if wanted[e] {
			continue
		}
		if err := netlink.NeighDel(e.neigh(index)); err != nil && !errors.Is(err, unix.ENOENT) {
			return fmt.Errorf("forget node at %s behind %s: %w", e.ip, vxlanLink, err)
		}
	}
	for e := range wanted {
		if have[e] {
			continue
		}
		if err := netlink.NeighSet(e.neigh(index)); err != nil {
			return fmt.Errorf("enter node at %s behind %s: %w", e.ip, vxlanLink, err)
		}
	}
	return nil
}

func listEntries(index int) (map[entry]bool, error) {
	out := map[entry]bool{}
	for _, family := range []int{unix.AF_BRIDGE, unix.AF_INET, unix.AF_INET6} {
		list, err := netlink.NeighList(index, family)
		if err != nil && !errors.Is(err, netlink.ErrDumpInterrupted) {
			return nil, fmt.Errorf("list nodes behind %s: %w", vxlanLink, err)
		}
		for _, n := range list {
			ip, ok := netip.AddrFromSlice(n.IP)
			if ok && n.State&unix.NUD_PERMANENT != 0 {
				out[entry{family, ip.Unmap(), n.HardwareAddr.String()}] = true
			}
		}
	}
	return out, nil
}

func (e entry) neigh(index int) *netlink.Neigh {
	mac, err := net.ParseMAC(e.mac)
	if err != nil {
		mac = nil // the kernel refuses it
	}
	n := &netlink.Neigh{LinkIndex: index, Family: e.family, State: unix.NUD_PERMANENT, IP: e.ip.AsSlice(), HardwareAddr: mac}
	if e.family == unix.AF_BRIDGE {
		n.Flags = netlink.NTF_SELF
	}
	return n
}

func familyOf(addr netip.Addr) int {
	if addr.Is4() {
		return unix.AF_INET
	}
	return unix.AF_INET6
}

// wireGuardStatus asks whoever holds the device.
func (t *Tunnel) wireGuardStatus(ctx context.Context) (*wireguard.Status, error) {
	link, err := findLink(wireGuardLink)
	if err != nil || link == nil {
		return nil, err
	}
	if link.Type() == "wireguard" {
		status, err := t.kernel.Status(wireGuardLink)
		return &status, err
	}
	if t.config.Userspace == nil {
		return nil, nil
	}
	return t.config.Userspace.TunnelStatus(ctx)
}
