package userspace

import (
	"errors"
	"fmt"
	"os"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

const clonePath = "/dev/net/tun"

// openLink makes a persistent TUN link, or attaches to the one of that name.
func openLink(name string) (*os.File, error) {
	fd, err := unix.Open(clonePath, unix.O_RDWR|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", clonePath, err)
	}
	if err := attachLink(fd, name); err != nil {
		return nil, errors.Join(err, unix.Close(fd))
	}
	// Not before: the poller that Go adds the file to would never hear of packets of a link that came later.
	return os.NewFile(uintptr(fd), clonePath), nil
}

func attachLink(fd int, name string) error {
	request, err := unix.NewIfreq(name)
	if err == nil {
		// With the header of virtio the kernel hands over large segments at once.
		request.SetUint16(unix.IFF_TUN | unix.IFF_NO_PI | unix.IFF_VNET_HDR)
		err = unix.IoctlIfreq(fd, unix.TUNSETIFF, request)
	}
	if err != nil {
		return fmt.Errorf("make TUN link %s: %w", name, err)
	}
	if err := unix.IoctlSetInt(fd, unix.TUNSETPERSIST, 1); err != nil {
		return fmt.Errorf("make TUN link %s persistent: %w", name, err)
	}
	return nil
}

// raiseLink brings the link up, with the MTU where it is new, and returns the MTU that it has: on a link that was there the
// agent has set the right one.
func raiseLink(name string, mtu int) (int, error) {
	link, err := netlink.LinkByName(name)
	if err != nil {
		return 0, fmt.Errorf("find link %s: %w", name, err)
	}
	if link.Attrs().Flags&unix.IFF_UP != 0 {
		return link.Attrs().MTU, nil
	}
	if err := netlink.LinkSetMTU(link, mtu); err != nil {
		return 0, fmt.Errorf("set MTU of link %s: %w", name, err)
	}
	if err := netlink.LinkSetUp(link); err != nil {
		return 0, fmt.Errorf("raise link %s: %w", name, err)
	}
	return mtu, nil
}

// Remove takes the link away. None is no error.
func Remove(name string) error {
	link, err := netlink.LinkByName(name)
	if errors.As(err, &netlink.LinkNotFoundError{}) {
		return nil
	}
	if err == nil {
		err = netlink.LinkDel(link)
	}
	if err != nil {
		return fmt.Errorf("remove link %s: %w", name, err)
	}
	return nil
}
