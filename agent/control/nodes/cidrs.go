package nodes

import (
	"fmt"
	"net/netip"
)

const (
	// nodeBitsIPv4 and nodeBitsIPv6 are the lengths of the prefix that each node gets from a range.
	nodeBitsIPv4 = 24
	nodeBitsIPv6 = 64
	// maxBlocks bounds the blocks looked at in one range.
	maxBlocks = 1 << 20
)

// Allot picks, for each family that the ranges have, the first block that is not used. The ranges of one family
// are filled in their order, so that a range can be added when the first is full. It fails when a family is full.
func Allot(ranges []netip.Prefix, used map[netip.Prefix]bool) ([]netip.Prefix, error) {
	var out []netip.Prefix
	var done [2]bool
	for _, first := range ranges {
		family := family(first.Addr())
		if done[family] {
			continue
		}
		done[family] = true
		block, ok := netip.Prefix{}, false
		for _, r := range ranges {
			if r.Addr().Is4() == first.Addr().Is4() && !ok {
				block, ok = free(r, used)
			}
		}
		if !ok {
			return nil, fmt.Errorf("allot pod addresses: no block free in %v", ranges)
		}
		out = append(out, block)
	}
	return out, nil
}

func family(a netip.Addr) int {
	if a.Is4() {
		return 0
	}
	return 1
}

// free finds the first unused block of a range.
func free(r netip.Prefix, used map[netip.Prefix]bool) (netip.Prefix, bool) {
	bits := nodeBitsIPv4
	if !r.Addr().Is4() {
		bits = nodeBitsIPv6
	}
	if r.Bits() > bits {
		return netip.Prefix{}, false
	}
	block := netip.PrefixFrom(r.Masked().Addr(), bits)
	for range maxBlocks {
		if !r.Contains(block.Addr()) {
			return netip.Prefix{}, false
		}
		if !overlaps(block, used) {
			return block, true
		}
		next, ok := nextBlock(block)
		if !ok {
			return netip.Prefix{}, false
		}
		block = next
	}
	return netip.Prefix{}, false
}

// overlaps is exact for blocks of the usual size, and careful about others, which an administrator may have set.
func overlaps(block netip.Prefix, used map[netip.Prefix]bool) bool {
	if used[block] {
		return true
	}
	for bits := block.Bits() - 1; bits >= 8; bits-- {
		if wider, err := block.Addr().Prefix(bits); err == nil && used[wider] {
			return true
		}
	}
	return false
}

func nextBlock(p netip.Prefix) (netip.Prefix, bool) {
	b := p.Addr().AsSlice()
	carry := 1 << ((8 - p.Bits()%8) % 8)
	for i := (p.Bits() - 1) / 8; i >= 0 && carry > 0; i-- {
		sum := int(b[i]) + carry
		b[i], carry = byte(sum), sum>>8
	}
	addr, ok := netip.AddrFromSlice(b)
	return netip.PrefixFrom(addr, p.Bits()), ok && carry == 0
}
