package agent

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"time"

	"github.com/vishvananda/netlink"
)

const (
	// addressEvents bounds what the kernel may tell before it is read; beyond, the subscription ends and is made again.
	addressEvents = 64
	// addressRest is how long the network rests before a changed address counts: between an old lease and a new one there is
	// none, or a passing one.
	addressRest = time.Second
	// addressPass is how often the address is looked at without a change that the kernel tells.
	addressPass  = time.Minute
	addressPause = time.Second
)

// errAddressChanged ends an agent that is to start anew at another address.
var errAddressChanged = errors.New("this node has another address now")

// startsAnew tells whether an agent that ended for that reason is to start again in place.
func startsAnew(reason error) bool {
	return errors.Is(reason, errRoleChanged) || errors.Is(reason, errAddressChanged) || errors.Is(reason, errKindsChanged)
}

// followAddress has the agent start anew when the machine has another address than the one with which it began: certificates,
// gossip, tunnel and the pods' API are made for one. Its pods do not notice. An address that the configuration names stays.
func (n *node) followAddress(ctx context.Context) error {
	if n.config.NodeIP.IsValid() {
		return nil
	}
	for ctx.Err() == nil {
		err := watchNetwork(ctx, func() { n.lookAtAddress() })
		if ctx.Err() != nil {
			return nil //nolint:nilerr // it ended because it was to end
		}
		n.log.Warn("watch this machine's addresses, again in a moment", "pause", addressPause, "error", err)
		select {
		case <-ctx.Done():
		case <-time.After(addressPause):
		}
	}
	return nil
}

func (n *node) lookAtAddress() {
	now, err := n.config.nodeAddress()
	if !moved(n.address, now, err) {
		return
	}
	n.log.Info("start anew: this node has another address", "was", n.address, "is", now)
	n.end(errAddressChanged)
}

// moved tells whether the node is elsewhere. A machine without a default route is nowhere, for a while.
func moved(was, now netip.Addr, err error) bool { return err == nil && now.IsValid() && now != was }

// watchNetwork calls look when the network rests after a change of addresses or routes, and once in a while. It returns when ctx
// ends or the kernel's word is lost.
func watchNetwork(ctx context.Context, look func()) error {
	done := make(chan struct{})
	addresses, routes := make(chan netlink.AddrUpdate, addressEvents), make(chan netlink.RouteUpdate, addressEvents)
	if err := netlink.AddrSubscribe(addresses, done); err != nil {
		close(done)
		return fmt.Errorf("watch addresses: %w", err)
	}
	defer drain(addresses)
	if err := netlink.RouteSubscribe(routes, done); err != nil {
		close(done)
		return fmt.Errorf("watch routes: %w", err)
	}
	defer drain(routes)
	defer close(done)
	look()
	timer := time.NewTimer(addressPass)
	defer timer.Stop()
	resting := false
	for {
		open := true
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-timer.C:
			resting = false
			look()
			timer.Reset(addressPass)
			continue
		case _, open = <-addresses:
		case _, open = <-routes:
		}
		if !open {
			return errors.New("watch this machine's network: the kernel told more than was read")
		}
		if !resting { // many changes, as of pods' routes, are one
			resting = true
			timer.Reset(addressRest)
		}
	}
}

// drain lets the subscription's goroutine, which may be about to send, come to its end.
func drain[T any](events <-chan T) {
	go func() {
		for range events { //nolint:revive // only the end counts
		}
	}()
}
