package services

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/podvine/podvine/dataplane/bpf"
	"github.com/podvine/podvine/dataplane/internal/nftable"
)

// rejectMark is the bit of a packet's mark that asks the nftables rule of this package for a refusal.
const rejectMark = 0x02000000

// Config is what a [Proxy] needs.
type Config struct {
	// CgroupPath is the cgroup (unified hierarchy) whose processes get services translated: the root in production.
	CgroupPath string
	// BPFFSDir is the folder for pinned programs and maps, e.g. /sys/fs/bpf/podvine.
	BPFFSDir string
	// NAT is the source that translated flows to distant backends get, at most one of each family: addresses of this
	// node that its peers can reach. For pods of other nodes see [Proxy.SetPodSources].
	NAT []netip.Addr
	// Links names the links to the outside; empty means every Ethernet link with an address that is not a pod's.
	Links []string
	// Netns lists the paths of the pods' network namespaces, for ending sockets whose backend has gone. May be nil.
	Netns func() []string `json:"-"`
	// Metrics shows the proxy's metrics; it may be nil.
	Metrics prometheus.Registerer `json:"-"`
	// Flows are how long flows of packets are kept; the zero value has the defaults.
	Flows  FlowTimeouts
	Logger *slog.Logger
}

// Change is a service's new form, which must not be altered afterwards; a nil Service removes it.
type Change struct {
	Name    string
	Service *Service
}

// Stats counts what a proxy did since it was opened, and what it holds.
type Stats struct {
	Changes    uint64
	Writes     uint64
	Failures   uint64
	LastWrites int
	Frontends  int
	Sets       int
	// Conflicts are frontends that several services want; the first by name has it.
	Conflicts []Frontend
	// Random is how many sets are served at random although they ask for Maglev, for there are too many of those.
	Random int
	// Adopted tells how many frontends were found at work when the proxy was opened.
	Adopted          int
	SocketsDestroyed uint64
	// Flows is how many entries the map of flows held after the last sweep, two each; FlowsSwept how many sweeps removed.
	Flows      int
	FlowsSwept uint64
	// DeadNodes is how many nodes look dead.
	DeadNodes int
	// NoLocalInternal and NoLocalExternal are how many services have endpoints elsewhere only although their traffic policy,
	// of either kind, is Local.
	NoLocalInternal, NoLocalExternal int
	// Programs counts what the programs did, by name.
	Programs map[string]uint64
}

// Proxy keeps the maps as wanted. The zero value is of no use; see [Open].
type Proxy struct {
	config  Config
	log     *slog.Logger
	sockets *bpf.Sockets
	packets *bpf.Packets
	health  *healthServers
	links   *linkWatch
	sweep   *flowSweep
	metrics *metrics

	mu sync.Mutex // guards what follows
	// podSources are the node's own addresses in the pod ranges, once they are known.
	podSources []netip.Addr
	// table is what is wanted and what the maps hold.
	table  *table
	wanted *wanted
	// gone are backends whose sockets and flows are to be ended once the maps no longer lead to them.
	gone []remote
	// cluster are the names that came through Set and Apply, local those of SetLocal.
	cluster, local map[string]bool
	// suspect is true after a failed write: the maps are read anew before the next plan.
	suspect bool
	// synced is true after the first Set: from then on strays are pruned.
	synced bool
	stats  Stats
}

// Open loads the programs, adopts what is pinned and attaches. Translations that an earlier agent left work on
// unchanged; they are pruned by the first [Proxy.Set]. Errors of kind [bpf.UnsupportedFeature] name what the kernel
// lacks.
func Open(config Config) (*Proxy, error) {
	config.Flows = config.Flows.withDefaults()
	p := &Proxy{config: config, log: config.Logger, wanted: newWanted(), metrics: newMetrics(), cluster: map[string]bool{}, local: map[string]bool{}}
	var err error
	if p.sockets, err = bpf.OpenSockets(config.BPFFSDir); err != nil {
		return nil, fmt.Errorf("open service proxy: %w", err)
	}
	if p.packets, err = bpf.OpenPackets(config.BPFFSDir); err != nil {
		return nil, errors.Join(fmt.Errorf("open service proxy: %w", err), p.sockets.Close())
	}
	if err = p.start(); err != nil {
		return nil, errors.Join(fmt.Errorf("open service proxy: %w", err), p.closeHandles())
	}
	return p, nil
}

func (p *Proxy) start() error {
	if err := p.writeSettings(); err != nil {
		return err
	}
	if err := p.reload(); err != nil {
		return err
	}
	p.stats.Adopted = len(p.table.state.Frontends)
	if err := installRejectRules(); err != nil {
		return err
	}
	links, err := watchLinks(p.config, p.log, p.sockets, p.packets)
	if err != nil {
		return err
	}
	if err := p.sockets.Attach(p.config.CgroupPath); err != nil {
		return errors.Join(err, links.close())
	}
	p.links = links
	p.health = newHealthServers(p.log)
	p.sweep = startSweep(p.packets, p.config.Flows, p.log)
	return p.metrics.register(p.config.Metrics, p)
}

func (p *Proxy) writeSettings() error {
	cookie, err := netnsCookie()
	if err != nil {
		return err
	}
	first, ports, err := readPortSpan()
	if err != nil {
		return err
	}
	settings := bpf.Settings{
		HostNetns: cookie, RejectMark: rejectMark, SNATPortFirst: first, SNATPorts: ports,
		TCPOpeningSeconds: wholeSeconds(p.config.Flows.Opening), TCPIdleSeconds: wholeSeconds(p.config.Flows.Idle),
		TCPClosedSeconds: wholeSeconds(p.config.Flows.Closed), UDPIdleSeconds: wholeSeconds(p.config.Flows.UDP),
	}
	for _, a := range p.config.NAT {
		if a.Unmap().Is4() {
			settings.NAT4 = bpf.MakeAddr(a)
		} else {
			settings.NAT6 = bpf.MakeAddr(a)
		}
	}
	for _, a := range p.podSources {
		if a.Unmap().Is4() {
			settings.PodNAT4 = bpf.MakeAddr(a)
		} else {
			settings.PodNAT6 = bpf.MakeAddr(a)
		}
	}
	if err := p.sockets.Settings.Put(uint32(0), settings); err != nil {
		return fmt.Errorf("write settings: %w", err)
	}
	return nil
}

// SetPodSources names the sources, at most one of each family, that translated flows to pods of other nodes get: this node's
// own addresses in the pod ranges, to which those pods answer through the tunnel. Without them such flows get Config.NAT.
func (p *Proxy) SetPodSources(addrs []netip.Addr) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.podSources = addrs
	return p.writeSettings()
}

// Close stops watching and lets go of the maps. Every translation stays at work.
func (p *Proxy) Close() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.sweep.close()
	return errors.Join(p.links.close(), p.health.close(), p.closeHandles())
}

func (p *Proxy) closeHandles() error { return errors.Join(p.sockets.Close(), p.packets.Close()) }

// Reset removes what this package made on the host: pinned programs and maps, and nftables chains.
func Reset(bpffsDir string) error {
	return errors.Join(bpf.Reset(bpffsDir), nftable.RemoveChain(rejectChain))
}

// Set makes exactly these services served, apart from the local ones. It must not be called before all inputs have
// synced, for it removes every other service, those of an earlier agent included. After an error, call it again. The
// services must not be altered afterwards.
func (p *Proxy) Set(ctx context.Context, all []Service) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	wanted := make(map[string]bool, len(all))
	changes := make([]Change, 0, len(all))
	for i := range all {
		wanted[all[i].Name] = true
		changes = append(changes, Change{Name: all[i].Name, Service: &all[i]})
	}
	for _, name := range slices.Sorted(maps.Keys(p.cluster)) {
		if !wanted[name] {
			changes = append(changes, Change{Name: name})
		}
	}
	p.synced = true
	return p.applyLocked(ctx, changes, p.cluster, true)
}

// Apply changes some services. The number of map writes is bounded by what differs. After an error the change is not
// lost: the next call, even with no changes, carries out what is missing.
func (p *Proxy) Apply(ctx context.Context, changes []Change) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.applyLocked(ctx, changes, p.cluster, false)
}

// SetLocal adds or replaces a service of the node itself, which Set leaves alone; nil removes it.
func (p *Proxy) SetLocal(ctx context.Context, name string, service *Service) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.applyLocked(ctx, []Change{{Name: name, Service: service}}, p.local, false)
}

// Publish serves a pod's host ports; none withdraws them.
func (p *Proxy) Publish(ctx context.Context, pod string, ports []HostPort) error {
	s := hostPortService(pod, ports)
	if len(ports) == 0 {
		return p.SetLocal(ctx, s.Name, nil)
	}
	return p.SetLocal(ctx, s.Name, &s)
}

// SetDeadNodes takes the names of all nodes that look dead, as gossip has it, and of those among them whose machine is
// silent too; the others are taken for alive. Endpoints on dead nodes get no more traffic; established sockets and flows to
// silent ones are ended at once, those to a node of which only the agent is away go on. When a node returns, all is as
// before. When all endpoints of a service look dead, they stay. Only what services with endpoints on nodes that changed have
// is written. After an error the change is not lost: the next call of any kind carries it out.
func (p *Proxy) SetDeadNodes(ctx context.Context, dead, silent map[string]bool) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	touched, gone := p.wanted.setDead(dead, silent)
	plan := make([]change, 0, len(touched))
	for _, name := range touched {
		plan = append(plan, change{name: name, want: compile(p.wanted.services[name], p.wanted.dead)})
	}
	p.gone = append(p.gone, gone...)
	return p.carryOutPlan(ctx, plan, false)
}

func (p *Proxy) applyLocked(ctx context.Context, changes []Change, group map[string]bool, full bool) error {
	var plan []change
	for _, c := range changes {
		next := change{name: c.Name}
		delete(group, c.Name)
		if c.Service != nil {
			next.want = compile(c.Service, p.wanted.dead)
			group[c.Name] = true
		}
		p.gone = append(p.gone, p.wanted.replace(c)...)
		plan = append(plan, next)
	}
	unhealthy := p.health.apply(changes)
	if err := p.carryOutPlan(ctx, plan, full); err != nil {
		return errors.Join(err, unhealthy)
	}
	p.stats.Changes += uint64(len(changes))
	return unhealthy
}

// carryOutPlan makes the maps fit the services of the plan, and all others too after a failure.
func (p *Proxy) carryOutPlan(ctx context.Context, plan []change, full bool) error {
	begun, all := time.Now(), full || p.suspect
	if p.suspect {
		if err := p.reload(); err != nil {
			// Nothing of the plan may be lost: the table is told, and the next call plans for all.
			p.table.plan(plan, false)
			return err
		}
		full = p.synced
	}
	if all {
		plan = append(plan, p.allExcept(plan)...)
	}
	refused := len(p.table.refused)
	writes := p.table.plan(plan, full)
	if now := len(p.table.refused); now > refused {
		p.log.Warn("too many services ask for Maglev, some are served at random", "sets", now, "limit", maglevSetsLimit)
	}
	if err := p.carryOut(ctx, writes); err != nil {
		return err
	}
	p.stats.LastWrites = len(writes)
	p.stats.SocketsDestroyed += uint64(p.destroySockets(p.gone))
	err := p.sweep.end(p.gone)
	p.gone = nil
	p.metrics.synced(begun, all)
	return err
}

// carryOut executes writes in order; the first failure makes the maps suspect.
func (p *Proxy) carryOut(ctx context.Context, writes []Write) error {
	for _, w := range writes {
		err := ctx.Err()
		if err == nil {
			err = execute(p.sockets, w)
		}
		if err != nil {
			p.suspect = true
			p.stats.Failures++
			return fmt.Errorf("update service maps: %w", err)
		}
		p.table.state.apply(w)
		p.stats.Writes++
	}
	return nil
}

// reload reads the maps and repairs what a failure or crash left half done.
func (p *Proxy) reload() error {
	found, err := read(p.sockets)
	if err != nil {
		return err
	}
	state, fixes := repair(found)
	for _, w := range fixes {
		if err := execute(p.sockets, w); err != nil {
			return fmt.Errorf("repair service maps: %w", err)
		}
	}
	if p.table == nil {
		p.table = newTable(state)
	} else {
		p.table.state = state
	}
	p.suspect = false
	return nil
}

// allExcept repeats every service that the plan does not name.
func (p *Proxy) allExcept(plan []change) []change {
	named := make(map[string]bool, len(plan))
	for _, c := range plan {
		named[c.name] = true
	}
	var rest []change
	for _, name := range slices.Sorted(maps.Keys(p.table.services)) {
		if !named[name] {
			rest = append(rest, change{name: name, want: p.table.services[name]})
		}
	}
	return rest
}

// Stats returns the counters as of now.
func (p *Proxy) Stats() Stats {
	p.mu.Lock()
	defer p.mu.Unlock()
	s := p.stats
	s.Frontends, s.Sets = len(p.table.state.Frontends), len(p.table.state.sets)
	s.Flows, s.FlowsSwept = p.sweep.counts()
	s.Random = len(p.table.refused)
	s.Conflicts = p.table.conflicts()
	s.DeadNodes = len(p.wanted.dead)
	s.NoLocalInternal, s.NoLocalExternal = p.wanted.withoutLocal()
	s.Programs = map[string]uint64{}
	for c := range bpf.CounterLimit {
		if v, err := p.sockets.Read(c); err == nil {
			s.Programs[c.String()] = v
		}
	}
	return s
}
