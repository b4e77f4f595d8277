package services

import (
	"maps"
	"net/netip"
	"slices"
)

// remote is where sockets are connected to.
type remote struct {
	addr     netip.AddrPort
	protocol Protocol
}

// wanted remembers the services as they are asked for: to compile them anew when nodes die and return, and to know which
// backends went, and why. One goroutine at a time.
type wanted struct {
	services map[string]*Service
	// onNode are the names of the services that have endpoints on a node.
	onNode map[string]map[string]bool
	// dead nodes get no traffic; silent are those of them to which connections are ended.
	dead, silent map[string]bool
}

func newWanted() *wanted {
	return &wanted{services: map[string]*Service{}, onNode: map[string]map[string]bool{}, dead: map[string]bool{}}
}

// replace takes a service's new form and returns the remotes whose sockets are to be ended once the maps no longer lead
// there: UDP endpoints that went, for nothing else would tell their owners. TCP connections to endpoints that went stay,
// for these may take their leave.
func (w *wanted) replace(c Change) []remote {
	old := w.services[c.Name]
	if old != nil {
		for node := range nodesOf(old) {
			if delete(w.onNode[node], c.Name); len(w.onNode[node]) == 0 {
				delete(w.onNode, node)
			}
		}
	}
	if c.Service == nil {
		delete(w.services, c.Name)
	} else {
		w.services[c.Name] = c.Service
		for node := range nodesOf(c.Service) {
			if w.onNode[node] == nil {
				w.onNode[node] = map[string]bool{}
			}
			w.onNode[node][c.Name] = true
		}
	}
	now := udpEndpoints(c.Service)
	var gone []remote
	for addr := range udpEndpoints(old) {
		if !now[addr] {
			gone = append(gone, remote{addr, UDP})
		}
	}
	return gone
}

// setDead takes the names of all nodes that look dead now, and of those whose machine is silent too. It returns the services
// that are to be compiled anew and the remotes on nodes that fell silent just now, apart from those that a service keeps
// because all of its endpoints look dead.
func (w *wanted) setDead(dead, silent map[string]bool) (touched []string, gone []remote) {
	changed, judged := map[string]bool{}, map[string]bool{}
	fell := map[string]bool{}
	for node, services := range w.onNode {
		if dead[node] != w.dead[node] {
			maps.Copy(changed, services)
		}
		if dead[node] && silent[node] && !w.silent[node] {
			fell[node] = true
			maps.Copy(judged, services)
		}
	}
	w.dead, w.silent = maps.Clone(dead), maps.Clone(silent)
	left, kept := map[remote]bool{}, map[remote]bool{}
	for name := range judged {
		w.judge(w.services[name], fell, left, kept)
	}
	for r := range left {
		if !kept[r] {
			gone = append(gone, r)
		}
	}
	slices.SortFunc(gone, func(a, b remote) int { return a.addr.Compare(b.addr) })
	return slices.Sorted(maps.Keys(changed)), gone
}

// judge adds the endpoints of a service on nodes that fell silent to left, and those that it goes on using to kept.
func (w *wanted) judge(s *Service, fell map[string]bool, left, kept map[remote]bool) {
	for _, p := range s.Ports {
		for _, v6 := range []bool{false, true} {
			for _, b := range usable(p.Endpoints, v6, false, w.dead) {
				kept[remote{b.Addr, p.Protocol}] = true
			}
		}
		for _, e := range p.Endpoints {
			if !e.Local && fell[e.Node] {
				left[remote{netip.AddrPortFrom(e.Addr.Addr().Unmap(), e.Addr.Port()), p.Protocol}] = true
			}
		}
	}
}

func nodesOf(s *Service) map[string]bool {
	nodes := map[string]bool{}
	for _, p := range s.Ports {
		for _, e := range p.Endpoints {
			if e.Node != "" && !e.Local {
				nodes[e.Node] = true
			}
		}
	}
	return nodes
}

// udpEndpoints lists the distinct addresses of a service's UDP endpoints, terminating ones included.
func udpEndpoints(s *Service) map[netip.AddrPort]bool {
	out := map[netip.AddrPort]bool{}
	if s == nil {
		return out
	}
	for _, p := range s.Ports {
		if p.Protocol != UDP {
			continue
		}
		for _, e := range p.Endpoints {
			out[netip.AddrPortFrom(e.Addr.Addr().Unmap(), e.Addr.Port())] = true
		}
	}
	return out
}
