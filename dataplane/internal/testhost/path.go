package testhost

import (
	"errors"
	"net"
	"os"
	"syscall"
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/podvine/podvine/dataplane/internal/nsrun"
)

// The addresses of the machine behind a router, see [NewFar].
const (
	FarIPv4 = "203.0.113.2"
	FarIPv6 = "2001:db8:f::2"
)

const (
	nearHostIPv4, nearRouterIPv4 = "198.51.100.1", "198.51.100.2"
	nearHostIPv6, nearRouterIPv6 = "2001:db8:e::1", "2001:db8:e::2"
	farRouterIPv4                = "203.0.113.1"
	farRouterIPv6                = "2001:db8:f::1"
	// plainSegment is what TCP takes for granted on Ethernet, so that a narrower way is found out by packets alone.
	plainSegment4, plainSegment6 = 1460, 1440
)

// NewFar connects a machine behind a router: host, link "near" of nearMTU bytes, router, link of farMTU bytes, machine. It
// returns the machine's network namespace. The machine tells TCP clients that it takes full Ethernet segments.
func NewFar(t testing.TB, nearMTU, farMTU int) string {
	t.Helper()
	router, far := Netns(t), Netns(t)
	connect(t, "", "near", router, "near-peer", nearMTU)
	connect(t, router, "far", far, "far-peer", farMTU)
	must(t, raise("near", nearHostIPv4+"/24", nearHostIPv6+"/64"))
	must(t, nsrun.In(router, func() error {
		return errors.Join(
			raise("near-peer", nearRouterIPv4+"/24", nearRouterIPv6+"/64"), raise("far", farRouterIPv4+"/24", farRouterIPv6+"/64"),
			os.WriteFile("/proc/sys/net/ipv4/ip_forward", []byte("1"), 0o600),
			os.WriteFile("/proc/sys/net/ipv6/conf/all/forwarding", []byte("1"), 0o600),
		)
	}))
	must(t, nsrun.In(far, func() error { return raise("far-peer", FarIPv4+"/24", FarIPv6+"/64") }))
	for _, end := range []struct{ netns, link string }{{"", "near"}, {router, "near-peer"}, {router, "far"}, {far, "far-peer"}} {
		Eventually(t, exchangeLimit, "link "+end.link+" is up", func() bool { return isUp(end.netns, end.link) })
	}
	Route(t, router, "0.0.0.0/0", nearHostIPv4)
	Route(t, router, "::/0", nearHostIPv6)
	Route(t, "", FarIPv4+"/32", nearRouterIPv4)
	Route(t, "", FarIPv6+"/128", nearRouterIPv6)
	must(t, nsrun.In(far, func() error {
		return errors.Join(
			netlink.RouteAdd(&netlink.Route{Gw: net.ParseIP(farRouterIPv4), Dst: everything(net.IPv4zero.To4()), AdvMSS: plainSegment4}),
			netlink.RouteAdd(&netlink.Route{Gw: net.ParseIP(farRouterIPv6), Dst: everything(net.IPv6zero), AdvMSS: plainSegment6}),
		)
	}))
	return far
}

func everything(zero net.IP) *net.IPNet {
	return &net.IPNet{IP: zero, Mask: net.CIDRMask(0, 8*len(zero))}
}

// connect makes a pair of links of so many bytes; it ends with the test.
func connect(t testing.TB, netns, name, peerNetns, peer string, mtu int) {
	t.Helper()
	fd, err := os.Open(peerNetns)
	must(t, err)
	defer fd.Close()
	must(t, nsrun.In(netns, func() error {
		return netlink.LinkAdd(&netlink.Veth{
			LinkAttrs: netlink.LinkAttrs{Name: name, TxQLen: -1, MTU: mtu}, PeerName: peer, PeerNamespace: netlink.NsFd(fd.Fd()), PeerMTU: uint32(mtu),
		})
	}))
	t.Cleanup(func() {
		must(t, nsrun.In(netns, func() error {
			link, err := netlink.LinkByName(name)
			if err != nil {
				return err
			}
			return netlink.LinkDel(link)
		}))
	})
}

// PathMTU is what the kernel knows of the way of a connected socket.
func PathMTU(t testing.TB, conn net.Conn) int {
	t.Helper()
	raw, err := conn.(interface {
		SyscallConn() (syscall.RawConn, error)
	}).SyscallConn()
	must(t, err)
	mtu := 0
	must(t, raw.Control(func(fd uintptr) {
		level, option := unix.IPPROTO_IP, unix.IP_MTU
		if isIPv6(conn) {
			level, option = unix.IPPROTO_IPV6, unix.IPV6_MTU
		}
		mtu, err = unix.GetsockoptInt(int(fd), level, option)
	}))
	must(t, err)
	return mtu
}

// DontFragment makes a connected UDP socket refuse what is too long for the way, rather than cut it.
func DontFragment(t testing.TB, conn net.Conn) {
	t.Helper()
	raw, err := conn.(*net.UDPConn).SyscallConn()
	must(t, err)
	var set error
	must(t, raw.Control(func(fd uintptr) {
		if isIPv6(conn) {
			set = unix.SetsockoptInt(int(fd), unix.IPPROTO_IPV6, unix.IPV6_MTU_DISCOVER, unix.IPV6_PMTUDISC_DO)
		} else {
			set = unix.SetsockoptInt(int(fd), unix.IPPROTO_IP, unix.IP_MTU_DISCOVER, unix.IP_PMTUDISC_DO)
		}
	}))
	must(t, set)
}

func isIPv6(conn net.Conn) bool {
	switch addr := conn.RemoteAddr().(type) {
	case *net.TCPAddr:
		return addr.IP.To4() == nil
	case *net.UDPAddr:
		return addr.IP.To4() == nil
	}
	return false
}
