package netsim

import (
	"context"
	"errors"
	"io"
	"net"
	"testing"
	"testing/synctest"
	"time"
)

func pair(t *testing.T, n *Network) (near, far net.Conn) {
	t.Helper()
	l := n.Host("b").Listen("p")
	near, err := n.Host("a").Dial(t.Context(), "b", "p")
	if err != nil {
		t.Fatal(err)
	}
	if far, err = l.Accept(); err != nil {
		t.Fatal(err)
	}
	return near, far
}

func TestBytesArriveAndPeersAreKnown(t *testing.T) {
	n := New()
	near, far := pair(t, n)
	go func() {
		if _, err := near.Write([]byte("hello")); err != nil {
			t.Error(err)
		}
	}()
	buf := make([]byte, 5)
	if _, err := io.ReadFull(far, buf); err != nil || string(buf) != "hello" {
		t.Fatal(string(buf), err)
	}
	if got := far.(*conn).PeerID(); got != "a" {
		t.Fatalf("the peer is %q", got)
	}
}

func TestACutSwallowsAndHealingBreaks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := New()
		near, far := pair(t, n)
		n.CutOneWay("a", "b")
		if _, err := near.Write([]byte("lost")); err != nil {
			t.Fatal(err)
		}
		if err := far.SetReadDeadline(time.Now().Add(time.Second)); err != nil {
			t.Fatal(err)
		}
		var timeout net.Error
		if _, err := far.Read(make([]byte, 1)); !errors.As(err, &timeout) || !timeout.Timeout() {
			t.Fatalf("something came through a cut: %v", err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, err := n.Host("a").Dial(ctx, "b", "p"); !errors.Is(err, context.DeadlineExceeded) {
			t.Fatalf("dial over a cut: %v", err)
		}
		n.Heal()
		if _, err := near.Write([]byte("x")); !errors.Is(err, io.ErrClosedPipe) && err != nil {
			t.Fatalf("a connection that lost bytes goes on: %v", err)
		}
		if err := far.SetReadDeadline(time.Time{}); err == nil {
			if _, err := far.Read(make([]byte, 1)); err == nil {
				t.Fatal("the other end of a broken connection reads on")
			}
		}
	})
}

func TestAKilledHostRefuses(t *testing.T) {
	n := New()
	_, far := pair(t, n)
	n.Kill("b")
	if _, err := far.Read(make([]byte, 1)); err == nil {
		t.Fatal("a connection outlives its host")
	}
	if _, err := n.Host("a").Dial(t.Context(), "b", "p"); !errors.Is(err, ErrRefused) {
		t.Fatalf("dial a dead host: %v", err)
	}
}
