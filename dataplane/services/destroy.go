package services

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"github.com/podvine/podvine/dataplane/internal/nsrun"
)

// destroySockets ends connected UDP sockets to backends that have gone, on the host and in the pods: nothing else would
// ever tell their owners. It returns how many it ended. Failures are logged, for the sockets are only stale.
func (p *Proxy) destroySockets(backends []netip.AddrPort) int {
	if len(backends) == 0 {
		return 0
	}
	remote := make(map[netip.AddrPort]bool, len(backends))
	for _, b := range backends {
		remote[b] = true
	}
	paths := []string{""}
	if p.config.Netns != nil {
		paths = append(paths, p.config.Netns()...)
	}
	total := 0
	for _, path := range paths {
		n, err := destroyUDP(path, remote)
		total += n
		if err != nil {
			p.log.Warn("cannot end sockets to removed endpoints", "netns", path, "err", err)
		}
	}
	return total
}

// destroyUDP ends the UDP sockets of a network namespace ("" for the current one) that are connected to a remote.
func destroyUDP(path string, remotes map[netip.AddrPort]bool) (int, error) {
	count := 0
	err := nsrun.In(path, func() error {
		for _, family := range []uint8{unix.AF_INET, unix.AF_INET6} {
			sockets, err := netlink.SocketDiagUDP(family)
			if err != nil && !errors.Is(err, netlink.ErrDumpInterrupted) {
				return fmt.Errorf("list UDP sockets: %w", err)
			}
			for _, s := range sockets {
				addr, ok := netip.AddrFromSlice(s.ID.Destination)
				if !ok || !remotes[netip.AddrPortFrom(addr.Unmap(), s.ID.DestinationPort)] {
					continue
				}
				if err := destroySocket(s); err != nil && !errors.Is(err, unix.ENOENT) {
					return err
				}
				count++
			}
		}
		return nil
	})
	return count, err
}

// destroyRequest is inet_diag_req_v2 of the kernel.
type destroyRequest struct{ socket *netlink.Socket }

const destroyRequestBytes = 56

func (r destroyRequest) Len() int { return destroyRequestBytes }

func (r destroyRequest) Serialize() []byte {
	b := make([]byte, destroyRequestBytes)
	b[0], b[1] = r.socket.Family, unix.IPPROTO_UDP
	binary.NativeEndian.PutUint32(b[4:], ^uint32(0)) // any state
	id := &r.socket.ID
	binary.BigEndian.PutUint16(b[8:], id.SourcePort)
	binary.BigEndian.PutUint16(b[10:], id.DestinationPort)
	source, destination := id.Source, id.Destination
	if r.socket.Family == unix.AF_INET {
		source, destination = source.To4(), destination.To4()
	}
	copy(b[12:28], source)
	copy(b[28:44], destination)
	binary.NativeEndian.PutUint32(b[44:], id.Interface)
	binary.NativeEndian.PutUint32(b[48:], id.Cookie[0])
	binary.NativeEndian.PutUint32(b[52:], id.Cookie[1])
	return b
}

func destroySocket(s *netlink.Socket) error {
	request := nl.NewNetlinkRequest(nl.SOCK_DESTROY, unix.NLM_F_ACK)
	request.AddData(destroyRequest{s})
	if _, err := request.Execute(unix.NETLINK_INET_DIAG, 0); err != nil {
		return fmt.Errorf("destroy UDP socket to %s: %w", s.ID.Destination, err)
	}
	return nil
}

// netnsCookie identifies the current network namespace the way the programs see it.
func netnsCookie() (uint64, error) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return 0, fmt.Errorf("open socket: %w", err)
	}
	defer unix.Close(fd)
	cookie, err := unix.GetsockoptUint64(fd, unix.SOL_SOCKET, unix.SO_NETNS_COOKIE)
	if err != nil {
		return 0, fmt.Errorf("read the network namespace's cookie: %w", err)
	}
	return cookie, nil
}
