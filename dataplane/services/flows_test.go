package services

import (
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/podvine/podvine/dataplane/bpf"
)

func TestPortSpanLeavesTheHostItsPorts(t *testing.T) {
	tests := []struct {
		low, high    int
		first, count uint16
	}{
		{32768, 60999, 1024, 31744},
		{1024, 40000, 40001, 25535},
		{1024, 65535, 0, 0},
	}
	for _, test := range tests {
		first, count := portSpan(test.low, test.high)
		if count != test.count || count > 0 && first != test.first {
			t.Errorf("beside %d–%d: %d ports from %d, want %d from %d", test.low, test.high, count, first, test.count, test.first)
		}
	}
}

func tuple(protocol Protocol, from, to string) bpf.Tuple {
	a, b := netip.MustParseAddrPort(from), netip.MustParseAddrPort(to)
	return bpf.Tuple{
		Source: bpf.MakeAddr(a.Addr()), Destination: bpf.MakeAddr(b.Addr()),
		SourcePort: bpf.MakePort(a.Port()), DestPort: bpf.MakePort(b.Port()), Proto: uint8(protocol),
	}
}

func TestFlowsOver(t *testing.T) {
	const now = 100 * time.Hour
	timeouts := FlowTimeouts{}.withDefaults()
	tests := []struct {
		name     string
		protocol Protocol
		flags    uint32
		silent   time.Duration
		over     bool
	}{
		{"a SYN just now", TCP, 0, time.Second, false},
		{"a SYN that nobody answered", TCP, 0, 31 * time.Second, true},
		{"at work", TCP, bpf.FlowAnswered, 2 * time.Hour, false},
		{"forgotten", TCP, bpf.FlowAnswered, 3 * time.Hour, true},
		{"one side through", TCP, bpf.FlowAnswered | bpf.FlowClientFIN, time.Hour, false},
		{"both sides through, just now", TCP, bpf.FlowAnswered | bpf.FlowClientFIN | bpf.FlowBackendFIN, 9 * time.Second, false},
		{"both sides through", TCP, bpf.FlowAnswered | bpf.FlowClientFIN | bpf.FlowBackendFIN, 11 * time.Second, true},
		{"reset", TCP, bpf.FlowReset, 11 * time.Second, true},
		{"datagrams", UDP, bpf.FlowAnswered, 119 * time.Second, false},
		{"silent datagrams", UDP, bpf.FlowAnswered, 121 * time.Second, true},
	}
	for _, test := range tests {
		asked := tuple(test.protocol, "192.0.2.2:40000", "192.0.2.1:30080")
		rewritten := tuple(test.protocol, "192.0.2.1:2000", "10.244.0.5:8080")
		entries := map[bpf.Tuple]bpf.Flow{
			asked:              {Rewritten: rewritten, Set: 7},
			rewritten.Invert(): {Rewritten: asked.Invert(), SeenNS: uint64(now - test.silent), Flags: test.flags},
		}
		want := 0
		if test.over {
			want = 2
		}
		if got := flowsOver(entries, timeouts, now); len(got) != want {
			t.Errorf("%s: %d entries go, want %d", test.name, len(got), want)
		}
		// Its place was taken by another flow.
		other := tuple(test.protocol, "192.0.2.3:40000", "192.0.2.1:30080")
		entries[rewritten.Invert()] = bpf.Flow{Rewritten: other.Invert(), SeenNS: uint64(now), Flags: bpf.FlowAnswered}
		entries[other] = bpf.Flow{Rewritten: rewritten, Set: 7}
		if got := flowsOver(entries, timeouts, now); !slices.Equal(got, []bpf.Tuple{asked}) {
			t.Errorf("%s, half: %v go, want the client's entry", test.name, got)
		}
	}
}
