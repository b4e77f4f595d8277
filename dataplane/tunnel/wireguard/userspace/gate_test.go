package userspace

import (
	"testing"
	"testing/synctest"
	"time"
)

func TestGateHoldsAReaderBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGates()
		g.out.enter(packetsLimit - 1)
		g.out.wait() // there is room for one
		g.out.enter(1)
		passed := make(chan time.Duration, 1)
		begun := time.Now()
		go func() {
			g.out.wait()
			passed <- time.Since(begun)
		}()
		time.Sleep(stallLimit / 2)
		g.out.leave(1)
		if took := <-passed; took != stallLimit/2 {
			t.Errorf("passed after %v, want when a packet left", took)
		}
	})
}

// What the library drops never leaves: the count begins anew, and the reader goes on.
func TestGateForgetsWhatWasDropped(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGates()
		g.in.enter(10 * packetsLimit)
		begun := time.Now()
		g.in.wait()
		if took := time.Since(begun); took != stallLimit {
			t.Errorf("passed after %v, want %v", took, stallLimit)
		}
		if held := g.in.held.Load(); held != 0 {
			t.Errorf("%d packets are still counted", held)
		}
		g.in.leave(5) // late ones do no harm
		if held := g.in.held.Load(); held != 0 {
			t.Errorf("%d packets are counted", held)
		}
	})
}

func TestClosedGateHoldsNobody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGates()
		g.out.enter(packetsLimit)
		done := make(chan struct{})
		go func() { g.out.wait(); close(done) }()
		synctest.Wait()
		begun := time.Now()
		g.close()
		<-done
		if time.Since(begun) != 0 {
			t.Error("the reader waited for more than the end")
		}
	})
}

func TestOnlyPacketsCount(t *testing.T) {
	packet := make([]byte, 100)
	packet[0] = 4
	keepalive := packet[:32]
	handshake := make([]byte, 148)
	handshake[0] = 1
	if !carries(packet) || carries(keepalive) || carries(handshake) || carries(nil) {
		t.Error("messages are told apart wrongly")
	}
}
