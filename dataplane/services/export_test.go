package services

import (
	"errors"
	"net/netip"

	"github.com/cilium/ebpf"

	"github.com/podvine/podvine/dataplane/bpf"
)

// Sweep removes flows that are over now rather than when it is time.
func (p *Proxy) Sweep() error { return p.sweep.sweep() }

// Load is how many connections the programs count for a backend: of sockets, and of flows.
func (p *Proxy) Load(backend netip.AddrPort, protocol Protocol) (sockets, flows uint32, err error) {
	key := bpf.Endpoint{Addr: bpf.MakeAddr(backend.Addr()), Port: bpf.MakePort(backend.Port()), Proto: uint8(protocol)}
	for _, m := range []struct {
		from *ebpf.Map
		to   *uint32
	}{{p.sockets.SocketLoad, &sockets}, {p.packets.FlowLoad, &flows}} {
		if e := m.from.Lookup(key, m.to); e != nil && !errors.Is(e, ebpf.ErrKeyNotExist) {
			err = errors.Join(err, e)
		}
	}
	return sockets, flows, err
}
