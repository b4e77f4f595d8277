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

type wantedSet struct {
	head     Head
	backends []Backend
}

type wantedTarget struct {
	inner, outer setKey
}

// compiled is a service in the terms of the maps.
type compiled struct {
	static    bool
	sets      map[setKey]wantedSet
	frontends map[Frontend]wantedTarget
}

// compile translates a service. It is pure; equal input gives equal output.
func compile(s *Service) *compiled {
	c := &compiled{static: s.Static, sets: map[setKey]wantedSet{}, frontends: map[Frontend]wantedTarget{}}
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
	allBackends := usable(port.Endpoints, v6, false)
	head := Head{AffinitySeconds: wholeSeconds(s.AffinityTimeout), Algorithm: s.Algorithm}
	if head.Algorithm > RoundRobin {
		head.Algorithm = Random
	}
	if needAll {
		head := head
		head.Count = uint32(len(allBackends))
		c.sets[all] = wantedSet{head: head, backends: allBackends}
	}
	if needLocal {
		backends := usable(port.Endpoints, v6, true)
		head.Count = uint32(len(backends))
		// Endpoints elsewhere: the client is to try another node, not to give up.
		head.DropWhenEmpty = len(allBackends) > 0
		c.sets[local] = wantedSet{head: head, backends: backends}
	}
}

// usable picks the ready endpoints, or, if there are none, those that still serve while they terminate.
func usable(endpoints []Endpoint, v6, localOnly bool) []Backend {
	var ready, lastResort []Backend
	for _, e := range endpoints {
		addr := netip.AddrPortFrom(e.Addr.Addr().Unmap(), e.Addr.Port())
		if !addr.IsValid() || addr.Addr().Is6() != v6 || (localOnly && !e.Local) || (!localOnly && e.Elsewhere) {
			continue
		}
		b := Backend{Addr: addr, Local: e.Local}
		if e.Ready {
			ready = append(ready, b)
		} else if e.Serving && e.Terminating {
			lastResort = append(lastResort, b)
		}
	}
	if len(ready) == 0 {
		ready = lastResort
	}
	slices.SortFunc(ready, func(a, b Backend) int { return a.Addr.Compare(b.Addr) })
	return slices.CompactFunc(ready, func(a, b Backend) bool { return a.Addr == b.Addr })
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
