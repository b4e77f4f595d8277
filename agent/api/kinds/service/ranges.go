package service

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"strings"

	corev1 "k8s.io/api/core/v1"
)

const (
	// maxRangeAddresses bounds how much of a wide IPv6 range is used, so that offsets stay in 64 bits.
	maxRangeAddresses = 1 << 60
	// minStaticAddresses and maxStaticAddresses bound the low part of a range that is left to addresses which are asked
	// for by number: a sixteenth of the range within these bounds.
	minStaticAddresses = 16
	maxStaticAddresses = 256
	// staticShare is the divisor of that part.
	staticShare = 16

	// apiServiceOffset and dnsServiceOffset are where the API's and the DNS service live in the first range; they are
	// never given to another service by chance.
	apiServiceOffset = 1
	dnsServiceOffset = 10
)

// addressRange is a range that service addresses are taken from. It is immutable.
type addressRange struct{ prefix netip.Prefix }

func parseRange(cidr string) (addressRange, error) {
	prefix, err := netip.ParsePrefix(cidr)
	if err != nil {
		return addressRange{}, fmt.Errorf("parse service range: %w", err)
	}
	return addressRange{prefix.Masked()}, nil
}

func (r addressRange) family() corev1.IPFamily {
	if r.prefix.Addr().Is4() {
		return corev1.IPv4Protocol
	}
	return corev1.IPv6Protocol
}

// bounds are the first and the last offset that may be used: not the network's own address, and in IPv4 not its
// broadcast address.
func (r addressRange) bounds() (first, last uint64) {
	hostBits := r.prefix.Addr().BitLen() - r.prefix.Bits()
	if hostBits >= 60 {
		return 1, maxRangeAddresses - 1
	}
	last = 1<<hostBits - 1
	if r.prefix.Addr().Is4() && last > 0 {
		last--
	}
	return 1, last
}

// firstDynamic is the lowest offset that is given out by chance while higher ones are free.
func (r addressRange) firstDynamic() uint64 {
	first, last := r.bounds()
	if last < first {
		return first
	}
	size := last - first + 1
	if size <= minStaticAddresses {
		return first
	}
	return first + min(max(minStaticAddresses, size/staticShare), maxStaticAddresses) - 1
}

func (r addressRange) at(offset uint64) netip.Addr {
	if base := r.prefix.Addr(); base.Is4() {
		b := base.As4()
		binary.BigEndian.PutUint32(b[:], binary.BigEndian.Uint32(b[:])+uint32(offset))
		return netip.AddrFrom4(b)
	}
	b := r.prefix.Addr().As16()
	binary.BigEndian.PutUint64(b[8:], binary.BigEndian.Uint64(b[8:])+offset)
	return netip.AddrFrom16(b)
}

// contains says that the address may be given to a service.
func (r addressRange) contains(addr netip.Addr) bool {
	if !r.prefix.Contains(addr) {
		return false
	}
	first, last := r.bounds()
	if addr.Is4() {
		base, a := r.prefix.Addr().As4(), addr.As4()
		offset := uint64(binary.BigEndian.Uint32(a[:]) - binary.BigEndian.Uint32(base[:]))
		return offset >= first && offset <= last
	}
	return addr != r.prefix.Addr()
}

// candidate is the address at a place of the order in which free ones are looked for: n counts from a random start,
// first through the upper part, then through the part left to addresses asked for by number. ok is false at the end.
func (r addressRange) candidate(start, n uint64) (netip.Addr, bool) {
	first, last := r.bounds()
	if last < first {
		return netip.Addr{}, false
	}
	split := r.firstDynamic()
	upper := last - split + 1
	if n < upper {
		return r.at(split + (start+n)%upper), true
	}
	lower := split - first
	if n -= upper; n >= lower {
		return netip.Addr{}, false
	}
	return r.at(first + (start+n)%lower), true
}

// isReserved says that the address belongs to a service that every cluster has.
func isReserved(primary addressRange, addr netip.Addr) bool {
	return addr == primary.at(apiServiceOffset) || addr == primary.at(dnsServiceOffset)
}

func describe(ranges []addressRange) string {
	texts := make([]string, len(ranges))
	for i, r := range ranges {
		texts[i] = r.prefix.String()
	}
	return strings.Join(texts, ",")
}

// portRange is the range of node ports, both ends included.
type portRange struct{ first, last int32 }

const (
	minStaticPorts  = 16
	maxStaticPorts  = 128
	staticPortShare = 32
)

func (r portRange) contains(port int32) bool { return port >= r.first && port <= r.last }

// candidate is like that of an addressRange.
func (r portRange) candidate(start, n uint64) (int32, bool) {
	if r.last < r.first {
		return 0, false
	}
	size := uint64(r.last-r.first) + 1
	lower := uint64(0)
	if size > minStaticPorts {
		lower = min(max(minStaticPorts, size/staticPortShare), maxStaticPorts)
	}
	upper := size - lower
	if n < upper {
		return r.first + int32(lower+(start+n)%upper), true
	}
	if n -= upper; n >= lower {
		return 0, false
	}
	return r.first + int32((start+n)%lower), true
}

func (r portRange) String() string { return fmt.Sprintf("%d-%d", r.first, r.last) }
