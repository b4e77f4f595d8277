package services

import (
	"errors"
	"log/slog"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
)

// Netlink ends a subscription when notifications were lost; addresses must be followed all the same.
func TestAddressesAreFollowedAfterALostSubscription(t *testing.T) {
	const limit = 10 * time.Second
	looked := make(chan struct{})
	begun := make(chan chan<- netlink.AddrUpdate)
	tries := 0
	w := &linkWatch{log: slog.New(slog.DiscardHandler), done: make(chan struct{})}
	w.look = func() error { looked <- struct{}{}; return nil }
	w.subscribe = func(ch chan<- netlink.AddrUpdate, _ <-chan struct{}) error {
		if tries++; tries == 1 {
			return errors.New("no memory just now")
		}
		begun <- ch
		return nil
	}
	first, end := make(chan netlink.AddrUpdate), make(chan struct{})
	w.group.Go(func() { w.run(first, end) })
	expect := func(c <-chan struct{}, what string) {
		t.Helper()
		select {
		case <-c:
		case <-time.After(limit):
			t.Fatal(what)
		}
	}
	first <- netlink.AddrUpdate{}
	expect(looked, "a change was not looked at")
	close(first)
	expect(end, "the socket of the lost subscription stays open")
	select {
	case second := <-begun:
		expect(looked, "what went by unseen was not looked for")
		second <- netlink.AddrUpdate{}
		expect(looked, "a change after the loss was not looked at")
		close(w.done)
		close(second)
	case <-time.After(limit):
		t.Fatal("nobody subscribed again")
	}
	w.group.Wait()
}
