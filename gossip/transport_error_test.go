package gossip

import (
	"bytes"
	"log/slog"
	"net/netip"
	"testing"
	"time"
)

// lines gets every line that is logged.
type lines chan struct{}

func (l lines) Write(p []byte) (int, error) {
	for range bytes.Count(p, []byte("\n")) {
		l <- struct{}{}
	}
	return len(p), nil
}

// A socket that fails again and again costs a try now and then, and is read again once it works.
func TestFailingSocketIsNotReadInABusyLoop(t *testing.T) {
	logged := make(lines, 1<<10) // a busy loop logs more than is looked at
	made, err := ListenUDPAndTCP(netip.MustParseAddrPort("127.0.0.1:0"), netip.AddrPort{}, slog.New(slog.NewTextHandler(logged, nil)))
	if err != nil {
		t.Fatal(err)
	}
	transport := made.(*socketTransport)
	t.Cleanup(func() {
		if err := transport.Shutdown(); err != nil {
			t.Error(err)
		}
	})
	began := time.Now()
	if err := transport.packets.SetReadDeadline(began); err != nil {
		t.Fatal(err)
	}
	const enough = 4
	patience := time.After(10 * time.Second)
	for range enough {
		select {
		case <-logged:
		case <-patience:
			t.Fatal("the socket was not tried again")
		}
	}
	if took := time.Since(began); took < (enough-1)*errorPause {
		t.Errorf("%d tries in %s", enough, took)
	}
	if err := transport.packets.SetReadDeadline(time.Time{}); err != nil {
		t.Fatal(err)
	}
	if _, err := transport.WriteTo([]byte("again"), transport.advertise.String()); err != nil {
		t.Fatal(err)
	}
	select {
	case packet := <-transport.PacketCh():
		if string(packet.Buf) != "again" {
			t.Errorf("received %q", packet.Buf)
		}
	case <-time.After(10 * time.Second):
		t.Error("the socket is not read any more")
	}
}
