package agent

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/netip"
	"runtime"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
)

func TestMoved(t *testing.T) {
	here, there := netip.MustParseAddr("10.0.0.1"), netip.MustParseAddr("10.0.0.2")
	for _, c := range []struct {
		now  netip.Addr
		err  error
		want bool
	}{
		{here, nil, false},
		{there, nil, true},
		{netip.Addr{}, errors.New("no default route"), false},
		{netip.Addr{}, nil, false},
	} {
		if got := moved(here, c.now, c.err); got != c.want {
			t.Errorf("from %v to %v, %v: %v", here, c.now, c.err, got)
		}
	}
}

// An agent on a machine whose address changes ends to start anew, and not for anything less.
func TestAgentFollowsItsAddress(t *testing.T) {
	space, links := emptyNetwork(t)
	link := &netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: "eth0"}, PeerName: "other"}
	if err := links.LinkAdd(link); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"eth0", "other"} {
		end, err := links.LinkByName(name)
		if err != nil {
			t.Fatal(err)
		}
		if err := links.LinkSetUp(end); err != nil {
			t.Fatal(err)
		}
		if name == "eth0" {
			link.Index = end.Attrs().Index
		}
	}
	address := func(last byte) *netlink.Addr {
		return &netlink.Addr{IPNet: &net.IPNet{IP: net.IPv4(10, 88, 0, last).To4(), Mask: net.CIDRMask(24, 32)}}
	}
	route := &netlink.Route{LinkIndex: link.Attrs().Index, Gw: net.IPv4(10, 88, 0, 254).To4()}
	have := func(last byte) {
		t.Helper()
		if err := links.AddrAdd(link, address(last)); err != nil {
			t.Fatal(err)
		}
		if err := links.RouteReplace(route); err != nil {
			t.Fatal(err)
		}
	}
	have(1)
	n := &node{log: slog.New(slog.DiscardHandler), address: netip.MustParseAddr("10.88.0.1")}
	ctx, end := context.WithCancelCause(t.Context())
	defer end(nil)
	n.setEnd(end)
	looked := make(chan struct{}, 64)
	followed := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread ends with the goroutine
		if err := netns.Set(space); err != nil {
			followed <- err
			return
		}
		followed <- watchNetwork(ctx, func() { n.lookAtAddress(); looked <- struct{}{} })
	}()
	<-looked // it watches
	// A second address beside the first is not another.
	if err := links.AddrAdd(link, address(9)); err != nil {
		t.Fatal(err)
	}
	<-looked
	if cause := context.Cause(ctx); cause != nil {
		t.Fatalf("a second address ended the agent: %v", cause)
	}
	if err := links.AddrDel(link, address(9)); err != nil {
		t.Fatal(err)
	}
	if err := links.AddrDel(link, address(1)); err != nil {
		t.Fatal(err)
	}
	<-looked
	if cause := context.Cause(ctx); cause != nil {
		t.Fatalf("an address that is away ended the agent: %v", cause)
	}
	have(2)
	select {
	case <-ctx.Done():
	case <-time.After(time.Minute):
		t.Fatal("the agent did not notice its new address")
	}
	if cause := context.Cause(ctx); !startsAnew(cause) {
		t.Errorf("the agent ended because %v", cause)
	}
	if err := <-followed; !errors.Is(err, context.Canceled) {
		t.Errorf("watch: %v", err)
	}
}

// emptyNetwork is a network namespace with nothing in it, and how to change it from outside.
func emptyNetwork(t *testing.T) (netns.NsHandle, *netlink.Handle) {
	t.Helper()
	made := make(chan netns.NsHandle, 1)
	failed := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread ends with the goroutine
		space, err := netns.New()
		if err != nil {
			failed <- err
			return
		}
		made <- space
	}()
	var space netns.NsHandle
	select {
	case space = <-made:
	case err := <-failed:
		t.Fatal(err)
	}
	links, err := netlink.NewHandleAt(space)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		links.Close()
		if err := space.Close(); err != nil {
			t.Error(err)
		}
	})
	return space, links
}
