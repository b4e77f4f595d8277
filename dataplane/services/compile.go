package services

import (
	"cmp"
	"net/netip"
	"slices"
	"time"
)

// Frontend is an address that clients ask for. An unspecified address stands for all of the node's own.
type Frontend struct {
	Addr     netip.AddrPort
	Protocol Protocol
}

func compareFrontends(a, b Frontend) int {
	return cmp.Or(a.Addr.Compare(b.Addr), cmp.Compare(a.Protocol, b.Protocol))
}

// scope says which endpoints a set holds.
type scope uint8

const (
	scopeAll scope = iota
	scopeLocal
)

// setKey names a set of backends over its life; IDs are what the maps know.
type setKey struct {
	service  string
	port     string
	protocol Protocol
	v6       bool
	scope    scope
}

// Backend is one member of a set.
type Backend struct {
	Addr  netip.AddrPort
	Local bool
}

// Head is what a set is apart from its members.
type Head struct {
	Count           uint32
	AffinitySeconds uint32
	DropWhenEmpty   bool
	Algorithm       Algorithm
}

// wantedSet is what a set shall be. table is there for Maglev only; sources are the clients that its guarded frontends
// let in.
type wantedSet struct {
	head     Head
	backends []Backend
	table    []Backend
	sources  []netip.Prefix
}

type wantedTarget struct {
	inner, outer setKey
	guarded      bool
}

// compiled is a service in the terms of the maps.
type compiled struct {
	static    bool
	sets      map[setKey]wantedSet
	frontends map[Frontend]wantedTarget
	dead      map[string]bool
}

// compile translates a service, with what is known of dead nodes. It is pure; equal input gives equal output.
func compile(s *Service, dead map[string]bool) *compiled {
	c := &compiled{static: s.Static, sets: map[setKey]wantedSet{}, frontends: map[Frontend]wantedTarget{}, dead: dead}
	for i := range s.Ports {
		port := &s.Ports[i]
		for _, v6 := range []bool{false, true} {
			c.addPort(s, port, v6)
		}
	}
	return c
}

func (c *compiled) addPort(s *Service, port *Port, v6 bool) {
	all := setKey{service: s.Name, port: port.Name, protocol: port.Protocol, v6: v6, scope: scopeAll}
	local := all
	local.scope = scopeLocal
	inner := wantedTarget{inner: all, outer: all}
	if s.InternalLocal {
		inner = wantedTarget{inner: local, outer: local}
	}
	// What starts in the cluster reaches all endpoints even where the external policy is Local.
	external := wantedTarget{inner: all, outer: all}
	if s.ExternalLocal {
		external.outer = local
	}

	for _, addr := range s.ClusterIPs {
		c.addFrontend(addr, port.Port, port.Protocol, v6, inner)
	}
	for _, addr := range s.ExternalIPs {
		c.addFrontend(addr, port.Port, port.Protocol, v6, external)
	}
	guarded := external
	guarded.guarded = s.Sources != nil
	for _, addr := range s.LoadBalancerIPs {
		c.addFrontend(addr, port.Port, port.Protocol, v6, guarded)
	}
	if port.NodePort != 0 && hasFamily(s.ClusterIPs, v6) {
		any := netip.IPv4Unspecified()
		if v6 {
			any = netip.IPv6Unspecified()
		}
		c.addFrontend(any, port.NodePort, port.Protocol, v6, external)
	}
	for _, host := range port.HostPorts {
		c.addFrontend(host.Addr(), host.Port(), port.Protocol, v6, inner)
	}
	c.addSets(s, port, v6, all, local)
	if set, ok := c.sets[external.outer]; ok {
		set.sources = sourcesOf(s.Sources, v6)
		c.sets[external.outer] = set
	}
}

func (c *compiled) addFrontend(addr netip.Addr, port uint16, protocol Protocol, v6 bool, target wantedTarget) {
	addr = addr.Unmap()
	if !addr.IsValid() || addr.Is6() != v6 || port == 0 {
		return
	}
	c.frontends[Frontend{Addr: netip.AddrPortFrom(addr, port), Protocol: protocol}] = target
}

// addSets makes the sets that a frontend asks for.
func (c *compiled) addSets(s *Service, port *Port, v6 bool, all, local setKey) {
	var needAll, needLocal bool
	for _, t := range c.frontends {
		needAll = needAll || t.inner == all || t.outer == all
		needLocal = needLocal || t.inner == local || t.outer == local
	}
	allBackends := usable(port.Endpoints, v6, false, c.dead)
	head := Head{AffinitySeconds: wholeSeconds(s.AffinityTimeout), Algorithm: s.Algorithm}
	if needAll {
		c.addSet(all, head, allBackends)
	}
	if needLocal {
		// Endpoints elsewhere: the client is to try another node, not to give up.
		head.DropWhenEmpty = len(allBackends) > 0
		c.addSet(local, head, usable(port.Endpoints, v6, true, c.dead))
	}
}

func (c *compiled) addSet(key setKey, head Head, backends []Backend) {
	head.Count = uint32(len(backends))
	set := wantedSet{head: head, backends: backends}
	if head.Algorithm == Maglev {
		set.table = maglevTable(backends)
	}
	c.sets[key] = set
}

// sourcesOf picks a family's ranges, each once. A range within another stays: it does no harm.
func sourcesOf(ranges []netip.Prefix, v6 bool) []netip.Prefix {
	var out []netip.Prefix
	for _, r := range ranges {
		if r = r.Masked(); r.Addr().Is6() == v6 {
			out = append(out, r)
		}
	}
	slices.SortFunc(out, comparePrefixes)
	return slices.Compact(out)
}

func comparePrefixes(a, b netip.Prefix) int {
	return cmp.Or(a.Addr().Compare(b.Addr()), cmp.Compare(a.Bits(), b.Bits()))
}

// rank says how much an endpoint is wanted; those of the best rank that there is are used.
type rank uint8

const (
	rankReady rank = iota
	// rankElsewhere is ready and meant for others: better than none.
	rankElsewhere
	// rankTerminating still serves while it ends.
	rankTerminating
	// rankDead and what follows is on nodes that look dead. When all endpoints look dead, it is more likely that this node
	// is cut off: all stay.
	rankDead
	rankDeadTerminating
	ranks
)

func rankOf(e *Endpoint, localOnly bool, dead map[string]bool) (r rank, usable bool) {
	gone := !e.Local && dead[e.Node]
	switch {
	case e.Ready && gone:
		// Hints chose it for here, or there are none. What was meant for others stays so.
		return rankDead, localOnly || !e.Elsewhere
	case e.Ready && e.Elsewhere && !localOnly:
		return rankElsewhere, true
	case e.Ready:
		return rankReady, true
	case e.Serving && e.Terminating && gone:
		return rankDeadTerminating, true
	case e.Serving && e.Terminating:
		return rankTerminating, true
	}
	return 0, false
}

// usable picks the backends of a set among the endpoints.
func usable(endpoints []Endpoint, v6, localOnly bool, dead map[string]bool) []Backend {
	var found [ranks][]Backend
	for i := range endpoints {
		e := &endpoints[i]
		addr := netip.AddrPortFrom(e.Addr.Addr().Unmap(), e.Addr.Port())
		if !addr.IsValid() || addr.Addr().Is6() != v6 || (localOnly && !e.Local) {
			continue
		}
		if r, ok := rankOf(e, localOnly, dead); ok {
			found[r] = append(found[r], Backend{Addr: addr, Local: e.Local})
		}
	}
	for _, backends := range found {
		if len(backends) > 0 {
			slices.SortFunc(backends, func(a, b Backend) int { return a.Addr.Compare(b.Addr) })
			return slices.CompactFunc(backends, func(a, b Backend) bool { return a.Addr == b.Addr })
		}
	}
	return nil
}

func hasFamily(addrs []netip.Addr, v6 bool) bool {
	return slices.ContainsFunc(addrs, func(a netip.Addr) bool { return a.IsValid() && a.Unmap().Is6() == v6 })
}

// wholeSeconds rounds up, so that a positive timeout never means none.
func wholeSeconds(d time.Duration) uint32 {
	if d <= 0 {
		return 0
	}
	return uint32((d + time.Second - 1) / time.Second)
}
