package service

import (
	"fmt"
	"net/netip"
	"testing"

	"pgregory.net/rapid"
)

// The order of candidates has every usable address once, and the part for static addresses last.
func TestCandidates(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		bits := rapid.IntRange(0, 10).Draw(t, "host bits")
		r, err := parseRange(fmt.Sprintf("10.96.0.0/%d", 32-bits))
		if rapid.Bool().Draw(t, "IPv6") {
			r, err = parseRange(fmt.Sprintf("fd00::/%d", 128-bits))
		}
		if err != nil {
			t.Fatal(err)
		}
		start := rapid.Uint64Max(maxRangeAddresses).Draw(t, "start")
		seen := map[netip.Addr]bool{}
		first, last := r.bounds()
		for n := uint64(0); ; n++ {
			a, ok := r.candidate(start, n)
			if !ok {
				break
			}
			if seen[a] || !r.contains(a) {
				t.Fatalf("%s in %s: twice or outside", a, r.prefix)
			}
			seen[a] = true
			if upper := last - r.firstDynamic() + 1; n < upper && a.Less(r.at(r.firstDynamic())) {
				t.Fatalf("%s comes before the dynamic part is used up", a)
			}
		}
		if want := last - first + 1; last >= first && uint64(len(seen)) != want {
			t.Fatalf("%d candidates of %s, want %d", len(seen), r.prefix, want)
		}
	})
}

func TestRangeEdges(t *testing.T) {
	cases := []struct {
		cidr, address string
		want          bool
	}{
		{"10.96.0.0/12", "10.96.0.0", false}, {"10.96.0.0/12", "10.96.0.1", true}, {"10.96.0.0/12", "10.111.255.254", true},
		{"10.96.0.0/12", "10.111.255.255", false}, {"10.96.0.0/12", "10.112.0.0", false}, {"10.96.0.0/12", "fd00::1", false},
		{"fd00::/64", "fd00::", false}, {"fd00::/64", "fd00::1", true}, {"fd00::/64", "fd00::ffff:ffff:ffff:ffff", true},
		{"10.96.0.0/32", "10.96.0.0", false},
	}
	for _, c := range cases {
		r, err := parseRange(c.cidr)
		if err != nil {
			t.Fatal(err)
		}
		if got := r.contains(netip.MustParseAddr(c.address)); got != c.want {
			t.Errorf("%s in %s: %v, want %v", c.address, c.cidr, got, c.want)
		}
	}
	if primary, _ := parseRange("10.96.0.0/12"); !isReserved(primary, netip.MustParseAddr("10.96.0.10")) || primary.firstDynamic() != 256 {
		t.Errorf("the DNS service's address is not kept, or dynamic addresses start at %d", primary.firstDynamic())
	}
	ports := portRange{30000, 32767}
	seen := map[int32]bool{}
	for n := uint64(0); ; n++ {
		p, ok := ports.candidate(12345, n)
		if !ok {
			break
		}
		if seen[p] || !ports.contains(p) || n < 2768-86 && p < 30086 {
			t.Fatalf("port %d at place %d", p, n)
		}
		seen[p] = true
	}
	if len(seen) != 2768 {
		t.Errorf("%d ports", len(seen))
	}
}
