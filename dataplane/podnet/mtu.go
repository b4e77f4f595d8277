package podnet

import (
	"errors"
	"fmt"
	"io/fs"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

func (n *Network) currentMTU() int {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.mtu
}

// SetMTU changes the MTU, in bytes, of the links of all pods, at both ends, and of those to come. After an error, call it
// again.
func (n *Network) SetMTU(mtu int) error {
	n.mu.Lock()
	n.mtu = mtu
	pods := make([]*record, 0, len(n.pods))
	for _, r := range n.pods {
		pods = append(pods, r)
	}
	n.mu.Unlock()
	var problems []error
	for _, r := range pods {
		problems = append(problems, n.fitMTU(r))
	}
	return errors.Join(problems...)
}

// fitMTU gives both ends of a pod's link the current MTU. A pod that has gone meanwhile is no error.
func (n *Network) fitMTU(r *record) error {
	mtu := n.currentMTU()
	host, err := netlink.LinkByName(linkName(r.ID))
	if errors.As(err, &netlink.LinkNotFoundError{}) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("find link of pod %s: %w", r.ID, err)
	}
	// The pod's end first: it is where packets are made.
	if err := fitInside(r.Netns, mtu); err != nil {
		return fmt.Errorf("set MTU inside pod %s: %w", r.ID, err)
	}
	if host.Attrs().MTU == mtu {
		return nil
	}
	if err := netlink.LinkSetMTU(host, mtu); err != nil && !errors.Is(err, unix.ENODEV) {
		return fmt.Errorf("set MTU of pod %s: %w", r.ID, err)
	}
	return nil
}

func fitInside(path string, mtu int) error {
	ns, err := netns.GetFromPath(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("open network namespace: %w", err)
	}
	defer ns.Close()
	inside, err := netlink.NewHandleAt(ns, unix.NETLINK_ROUTE)
	if err != nil {
		return fmt.Errorf("open netlink in network namespace: %w", err)
	}
	defer inside.Close()
	eth, err := inside.LinkByName(podLink)
	if errors.As(err, &netlink.LinkNotFoundError{}) {
		return nil
	}
	if err != nil || eth.Attrs().MTU == mtu {
		return err
	}
	return inside.LinkSetMTU(eth, mtu)
}
