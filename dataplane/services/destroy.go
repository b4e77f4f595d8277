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

// destroySockets ends connected sockets to backends that have gone, on the host and in the pods: nothing else would tell
// their owners, or only after minutes. It returns how many it ended. Failures are logged, for the sockets are only stale.
func (p *Proxy) destroySockets(backends []remote) int {
	if len(backends) == 0 {
		return 0
	}
	remotes := make(map[remote]bool, len(backends))
	protocols := map[Protocol]bool{}
	for _, b := range backends {
		remotes[b], protocols[b.protocol] = true, true
	}
	paths := []string{""}
	if p.config.Netns != nil {
		paths = append(paths, p.config.Netns()...)
	}
	total := 0
	for _, path := range paths {
		for protocol := range protocols {
			n, err := destroyConnected(path, protocol, remotes)
			total += n
			if err != nil {
				p.log.Warn("cannot end sockets to removed endpoints", "netns", path, "protocol", protocol, "err", err)
			}
		}
	}
	return total
}

// destroyConnected ends the sockets of a network namespace ("" for the current one) that are connected to a remote.
func destroyConnected(path string, protocol Protocol, remotes map[remote]bool) (int, error) {
	list := netlink.SocketDiagUDP
	if protocol == TCP {
		list = netlink.SocketDiagTCP
	}
	count := 0
	err := nsrun.In(path, func() error {
		for _, family := range []uint8{unix.AF_INET, unix.AF_INET6} {
			sockets, err := list(family)
			if err != nil && !errors.Is(err, netlink.ErrDumpInterrupted) {
				return fmt.Errorf("list %s sockets: %w", protocol, err)
			}
			for _, s := range sockets {
				addr, ok := netip.AddrFromSlice(s.ID.Destination)
				if !ok || !remotes[remote{netip.AddrPortFrom(addr.Unmap(), s.ID.DestinationPort), protocol}] {
					continue
				}
				if err := destroySocket(s, protocol); err != nil && !errors.Is(err, unix.ENOENT) {
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
type destroyRequest struct {
	socket   *netlink.Socket
	protocol Protocol
}

const destroyRequestBytes = 56

func (r destroyRequest) Len() int { return destroyRequestBytes }

func (r destroyRequest) Serialize() []byte {
	b := make([]byte, destroyRequestBytes)
	b[0], b[1] = r.socket.Family, uint8(r.protocol)
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

func destroySocket(s *netlink.Socket, protocol Protocol) error {
	request := nl.NewNetlinkRequest(nl.SOCK_DESTROY, unix.NLM_F_ACK)
	request.AddData(destroyRequest{s, protocol})
	if _, err := request.Execute(unix.NETLINK_INET_DIAG, 0); err != nil {
		return fmt.Errorf("destroy %s socket to %s: %w", protocol, s.ID.Destination, err)
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
