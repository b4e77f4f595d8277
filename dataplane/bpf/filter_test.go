package bpf

import (
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/vishvananda/netlink"

	"github.com/podvine/podvine/dataplane/internal/testhost"
)

// On a kernel without TCX the programs are filters: they see packets, are replaced in place, and go without a trace.
func TestProgramsAsFilters(t *testing.T) {
	outside := testhost.NewOutside(t)
	dir := testhost.New(t).BPFFSDir
	sockets, err := OpenSockets(dir)
	must(t, err)
	defer sockets.Close()
	packets, err := OpenPackets(dir)
	must(t, err)
	defer packets.Close()
	packets.classic = true
	uplink, err := netlink.LinkByName("uplink")
	must(t, err)
	for range 2 {
		must(t, packets.AttachOutside("uplink", uplink.Attrs().Index))
	}
	own, others, err := ownFilters(uplink)
	must(t, err)
	if len(own) != 2 || others != 0 {
		t.Fatalf("%d filters of ours, %d of others", len(own), others)
	}
	if names, err := packets.Attached("in"); err != nil || !slices.Equal(names, []string{"uplink"}) {
		t.Errorf("attached to %v, %v", names, err)
	}

	// A service whose packets are dropped, to see that the program sees them.
	asked := Endpoint{Addr: MakeAddr(netip.MustParseAddr(testhost.HostIPv4)), Port: MakePort(9999), Proto: ProtocolUDP}
	must(t, sockets.Sets.Put(uint32(1), Set{Flags: SetDropWhenEmpty}))
	must(t, sockets.Frontends.Put(asked, Frontend{InnerSet: 1, OuterSet: 1}))
	conn, err := testhost.DialUDP(outside.Place, netip.AddrPortFrom(netip.MustParseAddr(testhost.HostIPv4), 9999))
	must(t, err)
	defer conn.Close()
	testhost.Eventually(t, 5*time.Second, "a packet is dropped by the program", func() bool {
		if _, err := conn.Write([]byte("?")); err != nil {
			t.Fatal(err)
		}
		dropped, err := sockets.Read(CounterFlowDropped)
		return err == nil && dropped > 0
	})

	must(t, packets.Detach("uplink"))
	own, _, err = ownFilters(uplink)
	must(t, err)
	disciplines, err := netlink.QdiscList(uplink)
	must(t, err)
	for _, d := range disciplines {
		if d.Type() == "clsact" {
			t.Error("the queueing discipline is still there")
		}
	}
	if len(own) != 0 {
		t.Errorf("%d filters are still there", len(own))
	}
	must(t, packets.Detach("uplink"))
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
