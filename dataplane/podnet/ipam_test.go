package podnet

import (
	"errors"
	"net/netip"
	"testing"

	"pgregory.net/rapid"
)

func TestPoolGivesEachAddressOnce(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		p := newPool(netip.MustParsePrefix(rapid.SampledFrom([]string{"10.0.0.0/29", "10.0.0.8/30", "fd00::/125"}).Draw(t, "range")))
		room := map[string]int{"10.0.0.0/29": 5, "10.0.0.8/30": 1, "fd00::/125": 6}[p.prefix.String()]
		var held []netip.Addr
		for range rapid.IntRange(1, 60).Draw(t, "steps") {
			if len(held) > 0 && rapid.Bool().Draw(t, "release") {
				i := rapid.IntRange(0, len(held)-1).Draw(t, "which")
				p.release(held[i])
				held = append(held[:i], held[i+1:]...)
				continue
			}
			addr, err := p.take("pod")
			if len(held) == room {
				if !errors.Is(err, ErrExhausted) {
					t.Fatalf("took %v, %v from a full range", addr, err)
				}
				continue
			}
			if err != nil {
				t.Fatal(err)
			}
			if addr == firstAddress(p.prefix) || addr == p.prefix.Addr() || !p.prefix.Contains(addr) {
				t.Fatalf("gave %s of %s", addr, p.prefix)
			}
			if addr.Is4() && !p.prefix.Contains(addr.Next()) {
				t.Fatalf("gave the broadcast address %s of %s", addr, p.prefix)
			}
			for _, other := range held {
				if other == addr {
					t.Fatalf("gave %s twice", addr)
				}
			}
			held = append(held, addr)
		}
	})
}

func TestPoolAdoptsOnlyWhatIsItsToGive(t *testing.T) {
	p := newPool(netip.MustParsePrefix("10.0.0.0/24"))
	for addr, want := range map[string]bool{"10.0.0.5": true, "10.0.0.1": false, "10.0.0.0": false, "10.0.0.255": false, "10.0.1.5": false, "fd00::5": false} {
		if got := p.adopt(netip.MustParseAddr(addr), "a"); got != want {
			t.Errorf("adopt %s: %v", addr, got)
		}
	}
	if p.adopt(netip.MustParseAddr("10.0.0.5"), "b") {
		t.Error("adopted one address for two pods")
	}
}
