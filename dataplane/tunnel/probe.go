package tunnel

import (
	"errors"
	"fmt"
	"os"
	"runtime"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// Capabilities are what the kernel has for tunnels: nil, or why not.
type Capabilities struct {
	KernelWireGuard error
	TUN             error
	VXLAN           error
}

// Probe tries each kind of link in a network namespace that goes with the attempt; the machine's own network is left alone.
func Probe() Capabilities {
	result := make(chan Capabilities, 1)
	go func() {
		// The thread is not unlocked: it ends with the goroutine, and its namespace with it.
		runtime.LockOSThread()
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			err = fmt.Errorf("make a network namespace to try in: %w", err)
			result <- Capabilities{err, err, err}
			return
		}
		result <- Capabilities{
			KernelWireGuard: netlink.LinkAdd(&netlink.Wireguard{LinkAttrs: netlink.LinkAttrs{Name: wireGuardLink}}),
			VXLAN:           netlink.LinkAdd(&netlink.Vxlan{LinkAttrs: netlink.LinkAttrs{Name: vxlanLink}, VxlanId: vxlanID, Port: int(VXLANPort)}),
			TUN:             tryTUN(),
		}
	}()
	return <-result
}

func tryTUN() (err error) {
	file, err := os.OpenFile("/dev/net/tun", os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, file.Close()) }()
	request, err := unix.NewIfreq("pvprobe")
	if err != nil {
		return err
	}
	request.SetUint16(unix.IFF_TUN | unix.IFF_NO_PI | unix.IFF_VNET_HDR)
	if err := unix.IoctlIfreq(int(file.Fd()), unix.TUNSETIFF, request); err != nil {
		return fmt.Errorf("make a TUN link: %w", err)
	}
	return nil
}
