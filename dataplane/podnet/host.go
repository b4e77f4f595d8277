package podnet

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/podvine/podvine/dataplane/bpf"
	"github.com/podvine/podvine/dataplane/internal/nftable"
)

const (
	// The pair carries the node's own addresses of the pod ranges; nothing is ever sent over it.
	hostLink     = "pvhost0"
	hostLinkPeer = "pvhost1"
	sysctlFile   = "sysctls.json"
	sysctlRoot   = "/proc/sys"
	defaultMTU   = 1500
)

func (n *Network) prepareHost() error {
	if err := os.MkdirAll(n.config.StateDir, 0o700); err != nil {
		return fmt.Errorf("make state folder: %w", err)
	}
	n.mu.Lock()
	n.mtu = n.config.MTU
	if n.mtu == 0 {
		n.mtu = defaultRouteMTU()
	}
	n.mu.Unlock()
	if err := n.changeSysctls(); err != nil {
		return err
	}
	if err := n.ensureHostLink(); err != nil {
		return err
	}
	return installMasquerade(n.config.CIDRs, n.config.ClusterCIDRs)
}

// defaultRouteMTU is the MTU of the link that leads to the outside, or Ethernet's.
func defaultRouteMTU() int {
	for _, family := range []int{netlink.FAMILY_V4, netlink.FAMILY_V6} {
		routes, err := netlink.RouteListFiltered(family, &netlink.Route{Dst: nil}, netlink.RT_FILTER_DST)
		if err != nil {
			continue
		}
		for _, r := range routes {
			if link, err := netlink.LinkByIndex(r.LinkIndex); err == nil && link.Attrs().MTU > 0 {
				return link.Attrs().MTU
			}
		}
	}
	return defaultMTU
}

func (n *Network) ensureHostLink() error {
	link, err := netlink.LinkByName(hostLink)
	if errors.As(err, &netlink.LinkNotFoundError{}) {
		pair := &netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: hostLink, MTU: n.currentMTU(), TxQLen: -1}, PeerName: hostLinkPeer}
		if err := netlink.LinkAdd(pair); err != nil {
			return fmt.Errorf("make link %s: %w", hostLink, err)
		}
		link, err = netlink.LinkByName(hostLink)
	}
	if err != nil {
		return fmt.Errorf("find link %s: %w", hostLink, err)
	}
	peer, err := netlink.LinkByName(hostLinkPeer)
	if err != nil {
		return fmt.Errorf("find link %s: %w", hostLinkPeer, err)
	}
	for _, l := range []netlink.Link{link, peer} {
		if err := netlink.LinkSetUp(l); err != nil {
			return fmt.Errorf("raise link %s: %w", l.Attrs().Name, err)
		}
	}
	return n.ensureHostAddrs(link)
}

// ensureHostAddrs gives the link the node's addresses and takes away those of an earlier range.
func (n *Network) ensureHostAddrs(link netlink.Link) error {
	wanted := map[netip.Addr]bool{}
	for _, addr := range n.Addrs() {
		wanted[addr] = true
		if err := netlink.AddrReplace(link, hostAddr(addr)); err != nil {
			return fmt.Errorf("give address %s to link %s: %w", addr, hostLink, err)
		}
	}
	addrs, err := netlink.AddrList(link, unix.AF_UNSPEC)
	if err != nil && !errors.Is(err, netlink.ErrDumpInterrupted) {
		return fmt.Errorf("list addresses of link %s: %w", hostLink, err)
	}
	for _, a := range addrs {
		ip, ok := netip.AddrFromSlice(a.IP)
		if !ok || wanted[ip.Unmap()] || ip.IsLinkLocalUnicast() {
			continue
		}
		if err := netlink.AddrDel(link, &a); err != nil {
			return fmt.Errorf("take address %s from link %s: %w", ip, hostLink, err)
		}
	}
	return nil
}

// changeSysctls makes the kernel forward. What it finds is recorded first, once, for [Reset].
func (n *Network) changeSysctls() error {
	want := map[string]string{}
	for _, prefix := range n.config.CIDRs {
		if prefix.Addr().Is4() {
			want["net/ipv4/ip_forward"] = "1"
			continue
		}
		want["net/ipv6/conf/all/forwarding"] = "1"
		if err := keepRouterAdvertisements(want); err != nil {
			return err
		}
	}
	path := filepath.Join(n.config.StateDir, sysctlFile)
	recorded, err := loadSysctls(path)
	if err != nil {
		return err
	}
	changed := map[string]string{}
	for name, value := range want {
		current, err := readSysctl(name)
		if err != nil {
			return err
		}
		if current == value {
			continue
		}
		changed[name] = value
		if _, ok := recorded[name]; !ok {
			recorded[name] = current
		}
	}
	if len(changed) == 0 {
		return nil
	}
	data, err := json.Marshal(recorded)
	if err != nil {
		return fmt.Errorf("encode kernel settings: %w", err)
	}
	if err := writeFile(path, data); err != nil {
		return err
	}
	return writeSysctls(changed)
}

// keepRouterAdvertisements lets links that learn their routes from routers go on doing so: the kernel stops it when it
// becomes a router itself, unless the setting is 2.
func keepRouterAdvertisements(want map[string]string) error {
	links, err := netlink.LinkList()
	if err != nil && !errors.Is(err, netlink.ErrDumpInterrupted) {
		return fmt.Errorf("list links: %w", err)
	}
	for _, l := range links {
		name := "net/ipv6/conf/" + l.Attrs().Name + "/accept_ra"
		if strings.HasPrefix(l.Attrs().Name, linkPrefix) || l.Attrs().Flags&unix.IFF_LOOPBACK != 0 {
			continue
		}
		if value, err := readSysctl(name); err == nil && value == "1" {
			want[name] = "2"
		}
	}
	return nil
}

func loadSysctls(path string) (map[string]string, error) {
	recorded := map[string]string{}
	data, err := os.ReadFile(path)
	if errors.Is(err, os.ErrNotExist) {
		return recorded, nil
	}
	if err == nil {
		err = json.Unmarshal(data, &recorded)
	}
	if err != nil {
		return nil, fmt.Errorf("read recorded kernel settings: %w", err)
	}
	return recorded, nil
}

func readSysctl(name string) (string, error) {
	data, err := os.ReadFile(filepath.Join(sysctlRoot, name))
	if err != nil {
		return "", fmt.Errorf("read kernel setting %s: %w", name, err)
	}
	return strings.TrimSpace(string(data)), nil
}

func writeSysctls(values map[string]string) error {
	var problems []error
	for name, value := range values {
		err := os.WriteFile(filepath.Join(sysctlRoot, name), []byte(value), 0)
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			problems = append(problems, fmt.Errorf("write kernel setting %s: %w", name, err))
		}
	}
	return errors.Join(problems...)
}

// Reset removes every trace of the pod network: links, programs, nftables chain, records, changed kernel settings. It
// needs no open Network, and none must be open.
func Reset(config Config) error {
	problems := []error{bpf.Reset(config.BPFFSDir), nftable.RemoveChain(masqueradeChain)}
	links, err := netlink.LinkList()
	if err != nil && !errors.Is(err, netlink.ErrDumpInterrupted) {
		problems = append(problems, fmt.Errorf("list links: %w", err))
	}
	for _, l := range links {
		if !isPodLink(l) && (l.Attrs().Name != hostLink || l.Type() != "veth") {
			continue
		}
		problems = append(problems, deleteLink(l))
	}
	recorded, err := loadSysctls(filepath.Join(config.StateDir, sysctlFile))
	problems = append(problems, err, writeSysctls(recorded), os.RemoveAll(config.StateDir))
	return errors.Join(problems...)
}
