package gossip_test

import (
	"log/slog"
	"net/netip"
	"testing"
	"time"

	"github.com/podvine/podvine/gossip"
)

// TestMeshOverSockets runs two members over real sockets on loopback.
func TestMeshOverSockets(t *testing.T) {
	log, key := slog.New(slog.DiscardHandler), gossip.NewKey()
	open := func(id string) (*gossip.Mesh, string) {
		transport, err := gossip.ListenUDPAndTCP(netip.MustParseAddrPort("127.0.0.1:0"), netip.AddrPort{}, log)
		if err != nil {
			t.Fatal(err)
		}
		ip, port, err := transport.FinalAdvertiseAddr("", 0)
		if err != nil {
			t.Fatal(err)
		}
		at, _ := netip.AddrFromSlice(ip)
		mesh, err := gossip.Start(gossip.Config{ID: id, Transport: transport, Profile: gossip.ProfileLab, Dir: t.TempDir(), Key: key, Log: log})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			if err := mesh.Close(); err != nil {
				t.Error(err)
			}
		})
		return mesh, netip.AddrPortFrom(at.Unmap(), uint16(port)).String()
	}
	first, at := open("first")
	second, _ := open("second")
	changed := first.Subscribe(t.Context())
	if _, err := second.Join([]string{at}); err != nil {
		t.Fatal(err)
	}
	limit := time.After(10 * time.Second)
	for len(first.Members()) != 2 {
		select {
		case <-changed:
		case <-limit:
			t.Fatalf("members: %+v", first.Members())
		}
	}
}

func TestPortInUseIsAnError(t *testing.T) {
	log := slog.New(slog.DiscardHandler)
	transport, err := gossip.ListenUDPAndTCP(netip.MustParseAddrPort("127.0.0.1:0"), netip.AddrPort{}, log)
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := transport.Shutdown(); err != nil {
			t.Error(err)
		}
	}()
	ip, port, err := transport.FinalAdvertiseAddr("", 0)
	if err != nil {
		t.Fatal(err)
	}
	at, _ := netip.AddrFromSlice(ip)
	if _, err := gossip.ListenUDPAndTCP(netip.AddrPortFrom(at.Unmap(), uint16(port)), netip.AddrPort{}, log); err == nil {
		t.Error("two transports listen on one port")
	}
}
