package tunnel_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"sync"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/podvine/podvine/dataplane/internal/nsrun"
)

// capture keeps what passes a port of the switch.
type capture struct {
	fd    int
	done  chan struct{}
	group sync.WaitGroup

	mu     sync.Mutex // guards what follows
	frames [][]byte
}

func startCapture(t testing.TB, port string) *capture {
	t.Helper()
	link, err := netlink.LinkByName(port)
	must(t, err)
	all := binary.NativeEndian.Uint16([]byte{0, 3}) // ETH_P_ALL in network order
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, int(all))
	must(t, err)
	must(t, unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: all, Ifindex: link.Attrs().Index}))
	must(t, unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Usec: 50_000}))
	c := &capture{fd: fd, done: make(chan struct{})}
	c.group.Go(func() {
		buffer := make([]byte, 1<<16)
		for {
			n, _, err := unix.Recvfrom(fd, buffer, 0)
			if err == nil {
				c.mu.Lock()
				c.frames = append(c.frames, bytes.Clone(buffer[:n]))
				c.mu.Unlock()
			}
			select {
			case <-c.done:
				return
			default:
			}
		}
	})
	t.Cleanup(func() {
		close(c.done)
		c.group.Wait()
		must(t, unix.Close(fd))
	})
	return c
}

// count tells how many frames hold the bytes.
func (c *capture) count(part []byte) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	n := 0
	for _, frame := range c.frames {
		if bytes.Contains(frame, part) {
			n++
		}
	}
	return n
}

// toPort tells how many frames carry UDP to a port.
func (c *capture) toPort(port uint16) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	n := 0
	for _, frame := range c.frames {
		offset := 14 + 20
		if len(frame) > 14 && frame[12] == 0x86 {
			offset = 14 + 40
		}
		if len(frame) >= offset+4 && frame[offset-20+9] == unix.IPPROTO_UDP && binary.BigEndian.Uint16(frame[offset+2:]) == port {
			n++
		}
	}
	return n
}

// fragments tells how many frames are parts of an IPv4 packet.
func (c *capture) fragments() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	n := 0
	for _, frame := range c.frames {
		if len(frame) > 34 && frame[12] == 0x08 && frame[13] == 0 && binary.BigEndian.Uint16(frame[20:])&0x3fff != 0 {
			n++
		}
	}
	return n
}

// sendWhole sends a datagram of so many bytes, IP header included, that must not be fragmented, and waits for the answer.
func sendWhole(p pod, to pod, v6 bool, packetBytes int) error {
	header, family, level, option := 28, unix.AF_INET, unix.IPPROTO_IP, unix.IP_MTU_DISCOVER
	var address unix.Sockaddr = &unix.SockaddrInet4{Port: 8080, Addr: to.v4.As4()}
	if v6 {
		header, family, level, option = 48, unix.AF_INET6, unix.IPPROTO_IPV6, unix.IPV6_MTU_DISCOVER
		address = &unix.SockaddrInet6{Port: 8080, Addr: to.v6.As16()}
	}
	return nsrun.In(p.netns, func() (err error) {
		fd, err := unix.Socket(family, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, unix.Close(fd)) }()
		if err := unix.SetsockoptInt(fd, level, option, unix.IP_PMTUDISC_DO); err != nil {
			return err
		}
		if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Sec: 3}); err != nil {
			return err
		}
		if err := unix.Connect(fd, address); err != nil {
			return err
		}
		if _, err := unix.Write(fd, make([]byte, packetBytes-header)); err != nil {
			return err
		}
		n, err := unix.Read(fd, make([]byte, 256))
		if err == nil && n == 0 {
			err = errors.New("an empty answer")
		}
		return err
	})
}

// podMTU is what the link inside a pod says.
func podMTU(t testing.TB, p pod) int {
	t.Helper()
	mtu := 0
	must(t, nsrun.In(p.netns, func() error {
		link, err := netlink.LinkByName("eth0")
		if err == nil {
			mtu = link.Attrs().MTU
		}
		return err
	}))
	return mtu
}

func (h *host) setUnderlayMTU(mtu int) {
	h.t.Helper()
	h.inside(func() error {
		link, err := netlink.LinkByName("uplink")
		if err != nil {
			return err
		}
		return netlink.LinkSetMTU(link, mtu)
	})
	port, err := netlink.LinkByName(h.port)
	must(h.t, err)
	must(h.t, netlink.LinkSetMTU(port, mtu))
}

// linkIndex of a link of the host, or 0.
func (h *host) linkIndex(name string) int {
	h.t.Helper()
	index := 0
	h.inside(func() error {
		link, err := netlink.LinkByName(name)
		if errors.As(err, &netlink.LinkNotFoundError{}) {
			return nil
		}
		if err == nil {
			index = link.Attrs().Index
		}
		return err
	})
	return index
}

// anonymousBytes of a process.
func anonymousBytes(t testing.TB, pid int) int {
	t.Helper()
	content, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	must(t, err)
	for line := range bytes.Lines(content) {
		var kilobytes int
		if _, err := fmt.Sscanf(string(line), "RssAnon: %d kB", &kilobytes); err == nil {
			return kilobytes << 10
		}
	}
	t.Fatal("no RssAnon")
	return 0
}

// traffic asks without end and counts; the longest time without an answer is the gap.
type traffic struct {
	stop  chan struct{}
	done  sync.WaitGroup
	asked int
	lost  int
	gap   time.Duration
}

func startTraffic(from, to pod, pause time.Duration) *traffic {
	tr := &traffic{stop: make(chan struct{})}
	tr.done.Go(func() {
		last := time.Now()
		for {
			select {
			case <-tr.stop:
				return
			case <-time.After(pause):
			}
			tr.asked++
			if err := askShort(from, to); err != nil {
				tr.lost++
				continue
			}
			now := time.Now()
			tr.gap, last = max(tr.gap, now.Sub(last)), now
		}
	})
	return tr
}

func (tr *traffic) end() {
	close(tr.stop)
	tr.done.Wait()
}

// askShort sends one datagram and gives the answer 200 ms.
func askShort(from, to pod) error {
	return nsrun.In(from.netns, func() (err error) {
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, unix.Close(fd)) }()
		if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Usec: 200_000}); err != nil {
			return err
		}
		if err := unix.Sendto(fd, []byte("?"), 0, &unix.SockaddrInet4{Port: 8080, Addr: to.v4.As4()}); err != nil {
			return err
		}
		_, err = unix.Read(fd, make([]byte, 256))
		return err
	})
}
