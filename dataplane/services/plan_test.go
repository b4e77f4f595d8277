package services

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"github.com/podvine/podvine/dataplane/bpf"
)

// tables is the model: the maps as the programs see them, entry by entry, with nothing of the planner's own notes.
type tables struct{ content }

func newTables() *tables {
	return &tables{*newContent()}
}

func (m *tables) write(w Write) {
	switch w.Verb {
	case PutFrontend:
		m.frontends[w.Frontend] = w.Target
	case DeleteFrontend:
		delete(m.frontends, w.Frontend)
	case PutSet:
		m.heads[w.Set] = w.Head
	case DeleteSet:
		delete(m.heads, w.Set)
	case PutSlot:
		m.slots[bpf.SlotKey{Set: w.Set, Index: w.Index}] = w.Backend
	case DeleteSlot:
		delete(m.slots, bpf.SlotKey{Set: w.Set, Index: w.Index})
	case PutEntry:
		m.entries[bpf.SlotKey{Set: w.Set, Index: w.Index}] = w.Backend
	case DeleteEntry:
		delete(m.entries, bpf.SlotKey{Set: w.Set, Index: w.Index})
	case PutSource:
		m.sources[sourceKey(w.Set, w.Source)] = true
	case DeleteSource:
		delete(m.sources, sourceKey(w.Set, w.Source))
	case PutMember:
		m.members[memberKey(w.Set, w.Backend.Addr)] = w.Index
	case DeleteMember:
		delete(m.members, memberKey(w.Set, w.Backend.Addr))
	}
}

// reachable lists what a client of a set can meet, by a slot or by affinity. It fails on a slot that is not there.
func (m *tables) reachable(set uint32) (map[netip.AddrPort]bool, error) {
	out := map[netip.AddrPort]bool{}
	head, ok := m.heads[set]
	if !ok {
		return nil, fmt.Errorf("set %d has no head", set)
	}
	for i := range head.Count {
		b, ok := m.slots[bpf.SlotKey{Set: set, Index: i}]
		if !ok {
			return nil, fmt.Errorf("slot %d of set %d (size %d) is empty", i, set, head.Count)
		}
		if _, ok := m.members[memberKey(set, b.Addr)]; !ok {
			return nil, fmt.Errorf("slot %d of set %d holds %s, which is no member", i, set, b.Addr)
		}
		out[b.Addr] = true
	}
	for i := range uint32(maglevEntries) {
		if head.Algorithm != Maglev || head.Count == 0 {
			break
		}
		b, ok := m.entries[bpf.SlotKey{Set: set, Index: i}]
		if !ok {
			continue
		}
		if _, ok := m.members[memberKey(set, b.Addr)]; !ok {
			return nil, fmt.Errorf("entry %d of set %d leads to %s, which is no member", i, set, b.Addr)
		}
	}
	for key := range m.members {
		if key.Set == set {
			out[netip.AddrPortFrom(key.Addr.Netip(), key.Port.Uint16())] = true
		}
	}
	return out, nil
}

// side is what one side of a frontend wants: a set, and its backends.
type side struct {
	key      setKey
	backends map[netip.AddrPort]bool
}

// meaning is the naive reading of services: for each frontend the two sides, for each set the backends, for each guarded
// frontend the sources.
type meaning struct {
	frontends map[Frontend][2]side
	sets      map[setKey]map[netip.AddrPort]bool
	guards    map[Frontend][]netip.Prefix
	entries   int
	sources   int
}

func meaningOf(p *table) meaning {
	m := meaning{frontends: map[Frontend][2]side{}, sets: map[setKey]map[netip.AddrPort]bool{}, guards: map[Frontend][]netip.Prefix{}}
	for name, c := range p.services {
		for key, set := range c.sets {
			m.sets[key] = map[netip.AddrPort]bool{}
			m.entries += len(set.table)
			m.sources += len(set.sources)
			for _, b := range set.backends {
				m.sets[key][b.Addr] = true
			}
		}
		for f, target := range c.frontends {
			if p.owner(f) == name {
				m.frontends[f] = [2]side{{target.inner, m.sets[target.inner]}, {target.outer, m.sets[target.outer]}}
				if target.guarded {
					m.guards[f] = c.sets[target.outer].sources
				}
			}
		}
	}
	return m
}

// checkBetween demands that whatever a client meets now is, before or after, a backend of a set that stands behind what
// it asks for, before or after.
func checkBetween(m *tables, before, after meaning) error {
	for f, target := range m.frontends {
		if err := m.checkGuard(f, target, before, after); err != nil {
			return err
		}
		for i, set := range []uint32{target.Inner, target.Outer} {
			met, err := m.reachable(set)
			if err != nil {
				return fmt.Errorf("%v: %w", f, err)
			}
			for addr := range met {
				if !allowed(f, i, addr, before, after) {
					return fmt.Errorf("%v leads to %s, which is a backend neither before nor after", f, addr)
				}
			}
		}
	}
	return nil
}

// checkAfter is checkBetween, but for entries of tables, of which there are many, looks at the one that was written.
func (m *tables) checkAfter(w Write, before, after meaning) error {
	if w.Verb == DeleteEntry {
		return nil
	}
	if w.Verb != PutEntry {
		return checkBetween(m, before, after)
	}
	if _, ok := m.members[memberKey(w.Set, w.Backend.Addr)]; !ok {
		return fmt.Errorf("entry %d of set %d leads to %s, which is no member", w.Index, w.Set, w.Backend.Addr)
	}
	return nil
}

// checkGuard demands that a client which is let in before and after is let in all the time, and one that never is, never.
func (m *tables) checkGuard(f Frontend, target Target, before, after meaning) error {
	old, wasGuarded := before.guards[f]
	fresh, isGuarded := after.guards[f]
	_, was := before.frontends[f]
	_, is := after.frontends[f]
	if !target.Guarded {
		if was && is && wasGuarded && isGuarded {
			return fmt.Errorf("%v is open to all for a while", f)
		}
		return nil
	}
	for _, source := range fresh {
		if (!was || !wasGuarded || slices.Contains(old, source)) && !m.sources[sourceKey(target.Outer, source)] {
			return fmt.Errorf("%v shuts out %s for a while", f, source)
		}
	}
	return nil
}

func allowed(f Frontend, side int, addr netip.AddrPort, before, after meaning) bool {
	for _, at := range []meaning{before, after} {
		key := at.frontends[f][side].key
		if before.sets[key][addr] || after.sets[key][addr] {
			return true
		}
	}
	return false
}

// checkExact demands that the maps hold exactly what is wanted, and nothing else at all.
func checkExact(m *tables, want meaning) error {
	if len(m.frontends) != len(want.frontends) {
		return fmt.Errorf("%d frontends, want %d", len(m.frontends), len(want.frontends))
	}
	for f, sides := range want.frontends {
		target := m.frontends[f]
		if _, guarded := want.guards[f]; guarded != target.Guarded {
			return fmt.Errorf("%v guarded: %v, want %v", f, target.Guarded, guarded)
		}
		for _, source := range want.guards[f] {
			if !m.sources[sourceKey(target.Outer, source)] {
				return fmt.Errorf("%v does not let %s in", f, source)
			}
		}
		for i, set := range []uint32{target.Inner, target.Outer} {
			met, err := m.reachable(set)
			if err != nil {
				return err
			}
			if !maps.Equal(met, sides[i].backends) {
				return fmt.Errorf("%v side %d leads to %v, want %v", f, i, met, sides[i].backends)
			}
		}
	}
	total := 0
	for _, backends := range want.sets {
		total += len(backends)
	}
	if len(m.entries) != want.entries || len(m.sources) != want.sources {
		return fmt.Errorf("%d entries and %d sources, want %d and %d", len(m.entries), len(m.sources), want.entries, want.sources)
	}
	if len(m.heads) != len(want.sets) || len(m.slots) != total || len(m.members) != total {
		return fmt.Errorf("%d heads, %d slots, %d members for %d sets of %d backends", len(m.heads), len(m.slots), len(m.members), len(want.sets), total)
	}
	return nil
}

func drawService(t *rapid.T, name string) *Service {
	s := &Service{Name: name, Static: rapid.IntRange(0, 9).Draw(t, "static") == 0}
	number := byte(rapid.IntRange(1, 4).Draw(t, "vip"))
	s.ClusterIPs = []netip.Addr{netip.AddrFrom4([4]byte{10, 96, 0, number})}
	if rapid.Bool().Draw(t, "dual") {
		s.ClusterIPs = append(s.ClusterIPs, netip.AddrFrom16([16]byte{0: 0xfd, 15: number}))
	}
	if rapid.Bool().Draw(t, "external") {
		s.ExternalIPs = []netip.Addr{netip.AddrFrom4([4]byte{192, 0, 2, number})}
	}
	s.Algorithm = Algorithm(rapid.IntRange(0, int(LeastConnections)).Draw(t, "algorithm"))
	if rapid.Bool().Draw(t, "load balancer") {
		s.LoadBalancerIPs = []netip.Addr{netip.AddrFrom4([4]byte{192, 0, 3, number})}
		for _, i := range rapid.SliceOfNDistinct(rapid.ByteRange(1, 5), 0, 3, rapid.ID).Draw(t, "sources") {
			s.Sources = append(s.Sources, netip.PrefixFrom(netip.AddrFrom4([4]byte{198, 51, 100, i << 4}), 28))
		}
	}
	s.ExternalLocal, s.InternalLocal = rapid.Bool().Draw(t, "external local"), rapid.Bool().Draw(t, "internal local")
	for _, protocol := range []Protocol{TCP, UDP}[:rapid.IntRange(0, 2).Draw(t, "ports")] {
		p := Port{Name: protocol.String(), Protocol: protocol, Port: 80, NodePort: uint16(rapid.SampledFrom([]int{0, 30001, 30002}).Draw(t, "node port"))}
		for _, i := range rapid.SliceOfNDistinct(rapid.ByteRange(1, 12), 0, 8, rapid.ID).Draw(t, "endpoints") {
			addr := netip.AddrFrom4([4]byte{10, 244, 0, i})
			if rapid.Bool().Draw(t, "v6") {
				addr = netip.AddrFrom16([16]byte{0: 0xfd, 1: 1, 15: i})
			}
			p.Endpoints = append(p.Endpoints, Endpoint{
				Addr: netip.AddrPortFrom(addr, 8080), Ready: rapid.Bool().Draw(t, "ready"), Serving: true, Terminating: true, Local: rapid.Bool().Draw(t, "local"),
			})
		}
		s.Ports = append(s.Ports, p)
	}
	return s
}

func TestEveryStateBetweenWritesIsConsistent(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		model := newTables()
		planner := newTable(newState())
		for range rapid.IntRange(1, 8).Draw(t, "rounds") {
			before := meaningOf(planner)
			changes := drawChanges(t)
			writes := planner.plan(changes, false)
			after := meaningOf(planner)
			stop := len(writes)
			if rapid.IntRange(0, 4).Draw(t, "crash") == 0 {
				stop = rapid.IntRange(0, len(writes)).Draw(t, "crash after")
			}
			for i, w := range writes[:stop] {
				model.write(w)
				planner.state.apply(w)
				if err := model.checkAfter(w, before, after); err != nil {
					t.Fatalf("after write %d (%s) of %v: %v", i, w, writes, err)
				}
			}
			if stop < len(writes) {
				planner = restart(t, model, planner, before, after)
			}
			if err := checkExact(model, after); err != nil {
				t.Fatalf("after %v: %v", writes, err)
			}
			if again := planner.plan(repeatAll(planner), true); len(again) > 0 {
				t.Fatalf("plan of what is done: %v", again)
			}
		}
	})
}

func drawChanges(t *rapid.T) []change {
	var changes []change
	for _, name := range rapid.SliceOfNDistinct(rapid.SampledFrom([]string{"a", "b", "c"}), 1, 3, rapid.ID).Draw(t, "services") {
		c := change{name: name}
		if rapid.IntRange(0, 3).Draw(t, "delete") > 0 {
			c.want = compile(drawService(t, name), nil)
		}
		changes = append(changes, c)
	}
	return changes
}

func repeatAll(p *table) []change {
	var all []change
	for _, name := range slices.Sorted(maps.Keys(p.services)) {
		all = append(all, change{name: name, want: p.services[name]})
	}
	return all
}

// restart is the next agent: it knows only the maps and what is wanted.
func restart(t *rapid.T, model *tables, old *table, before, after meaning) *table {
	state, fixes := repair(&model.content)
	for _, w := range fixes {
		model.write(w)
		if err := model.checkAfter(w, before, after); err != nil {
			t.Fatalf("repairing, after %s of %v: %v", w, fixes, err)
		}
	}
	planner := newTable(state)
	for _, w := range planner.plan(repeatAll(old), true) {
		model.write(w)
		planner.state.apply(w)
		if err := model.checkAfter(w, before, after); err != nil {
			t.Fatalf("taking over, after %s: %v", w, err)
		}
	}
	return planner
}

func TestWritesAreBoundedByTheChange(t *testing.T) {
	planner := newTable(newState())
	s := &Service{Name: "a", ClusterIPs: []netip.Addr{netip.MustParseAddr("10.96.0.1")}, Ports: []Port{{Protocol: TCP, Port: 80, NodePort: 30000}}}
	endpoint := func(i int) Endpoint {
		return Endpoint{Addr: netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 244, byte(i >> 8), byte(i)}), 80), Ready: true}
	}
	for i := range 1000 {
		s.Ports[0].Endpoints = append(s.Ports[0].Endpoints, endpoint(i))
	}
	run := func() int {
		writes := planner.plan([]change{{name: "a", want: compile(s, nil)}}, false)
		for _, w := range writes {
			planner.state.apply(w)
		}
		return len(writes)
	}
	steps := []struct {
		what   string
		change func()
		want   int
	}{
		{"1,000 endpoints and two frontends", func() {}, 2*1000 + 1 + 2},
		{"nothing", func() {}, 0},
		{"one more", func() { s.Ports[0].Endpoints = append(s.Ports[0].Endpoints, endpoint(1000)) }, 3},
		{"one less, from the middle", func() { s.Ports[0].Endpoints = slices.Delete(s.Ports[0].Endpoints, 500, 501) }, 5},
		{"one replaced", func() { s.Ports[0].Endpoints[3] = endpoint(2000) }, 3},
		{"one less, the last", func() { s.Ports[0].Endpoints = s.Ports[0].Endpoints[:999] }, 5},
		{"affinity", func() { s.AffinityTimeout = 1 }, 1},
		{"no node port", func() { s.Ports[0].NodePort = 0 }, 1},
		{"20 endpoints", func() { s.Ports[0].Endpoints = s.Ports[0].Endpoints[:20] }, 2*1000 + 1},
		{"Maglev", func() { s.Algorithm = Maglev }, maglevEntries + 1},
		// A twentieth of the table, and what the others shift.
		{"one more with Maglev", func() { s.Ports[0].Endpoints = append(s.Ports[0].Endpoints, endpoint(3000)) }, 4 + maglevEntries/20*2},
		{"a load balancer with two sources", func() {
			s.LoadBalancerIPs = []netip.Addr{netip.MustParseAddr("192.0.2.9")}
			s.Sources = []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("192.168.0.0/16")}
		}, 3},
		{"one source replaced", func() { s.Sources[0] = netip.MustParsePrefix("172.16.0.0/12") }, 2},
	}
	for _, step := range steps {
		step.change()
		if got := run(); got > step.want {
			t.Errorf("%s: %d writes, want at most %d", step.what, got, step.want)
		}
	}
}

func TestStaticServiceWinsItsAddress(t *testing.T) {
	vip := []netip.Addr{netip.MustParseAddr("10.96.0.10")}
	service := func(name string, static bool, backend string) change {
		return change{name: name, want: compile(&Service{Name: name, Static: static, ClusterIPs: vip, Ports: []Port{{
			Protocol: UDP, Port: 53, Endpoints: []Endpoint{{Addr: netip.MustParseAddrPort(backend), Ready: true}},
		}}}, nil)}
	}
	model, planner := newTables(), newTable(newState())
	run := func(changes ...change) map[netip.AddrPort]bool {
		for _, w := range planner.plan(changes, false) {
			model.write(w)
			planner.state.apply(w)
		}
		met, err := model.reachable(model.frontends[Frontend{Addr: netip.AddrPortFrom(vip[0], 53), Protocol: UDP}].Inner)
		if err != nil {
			t.Fatal(err)
		}
		return met
	}
	cluster, own := netip.MustParseAddrPort("10.244.1.9:53"), netip.MustParseAddrPort("10.244.0.1:10053")
	if met := run(service("kube-system/kube-dns", false, cluster.String())); !met[cluster] {
		t.Errorf("alone, the cluster's service leads to %v", met)
	}
	if met := run(service("zz-node-dns", true, own.String())); !met[own] || len(met) != 1 {
		t.Errorf("with the node's own: %v", met)
	}
	if len(planner.conflicts()) != 1 {
		t.Errorf("conflicts %v", planner.conflicts())
	}
	if met := run(change{name: "zz-node-dns"}); !met[cluster] || len(met) != 1 {
		t.Errorf("after it went: %v", met)
	}
}
