package podnet

import (
	"errors"
	"fmt"
	"net/netip"
)

// poolAddressesLimit bounds how much of a range is used; IPv6 ranges are far larger than any node needs.
const poolAddressesLimit = 1 << 16

// ErrExhausted says that every address of the node's range is in use.
var ErrExhausted = errors.New("no free pod address")

// pool hands out the addresses of one range, each time the next after the last, so that an address that was just freed
// stays unused for as long as possible. It is not safe for concurrent use.
type pool struct {
	prefix netip.Prefix
	last   netip.Addr
	used   map[netip.Addr]string
}

func newPool(prefix netip.Prefix) *pool {
	prefix = prefix.Masked()
	return &pool{prefix: prefix, last: firstAddress(prefix), used: map[netip.Addr]string{}}
}

// firstAddress is the node's own in its range.
func firstAddress(prefix netip.Prefix) netip.Addr { return prefix.Masked().Addr().Next() }

// take reserves a free address for an owner.
func (p *pool) take(owner string) (netip.Addr, error) {
	candidate := p.last
	for range poolAddressesLimit {
		candidate = candidate.Next()
		if !p.assignable(candidate) {
			// Past the end: start over after the node's own address.
			candidate = firstAddress(p.prefix)
			continue
		}
		if _, taken := p.used[candidate]; !taken {
			p.used[candidate], p.last = owner, candidate
			return candidate, nil
		}
	}
	return netip.Addr{}, fmt.Errorf("allocate from %s: %w", p.prefix, ErrExhausted)
}

// adopt marks an address as an owner's. It reports false for an address that is not the pool's to give or another's.
func (p *pool) adopt(addr netip.Addr, owner string) bool {
	if !p.assignable(addr) || addr == firstAddress(p.prefix) {
		return false
	}
	if other, taken := p.used[addr]; taken && other != owner {
		return false
	}
	p.used[addr] = owner
	return true
}

func (p *pool) release(addr netip.Addr) { delete(p.used, addr) }

// assignable excludes the broadcast address and whatever lies outside.
func (p *pool) assignable(addr netip.Addr) bool {
	if !p.prefix.Contains(addr) || addr == p.prefix.Addr() {
		return false
	}
	return addr.Is6() || p.prefix.Contains(addr.Next())
}
