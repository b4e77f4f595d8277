package bpf

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/btf"
	"golang.org/x/sys/unix"
)

const (
	mapsFolder  = "maps"
	linksFolder = "links"
)

// UnsupportedFeature says which feature of the kernel is missing, and the first version that has it.
type UnsupportedFeature struct {
	Feature string
	Since   string
	Err     error
}

func (e *UnsupportedFeature) Error() string {
	return fmt.Sprintf("kernel lacks %s (Linux %s or newer has it): %v", e.Feature, e.Since, e.Err)
}

func (e *UnsupportedFeature) Unwrap() error { return e.Err }

// unsupported wraps err when it means that the kernel cannot, and leaves every other error as it is.
func unsupported(feature, since string, err error) error {
	if errors.Is(err, ebpf.ErrNotSupported) || errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, btf.ErrNotSupported) {
		return &UnsupportedFeature{Feature: feature, Since: since, Err: err}
	}
	return err
}

// Sockets are the programs that translate where a connection starts, and the maps of services.
type Sockets struct {
	objects socketsObjects
	dir     string

	Settings  *ebpf.Map // key uint32(0), value Settings
	Frontends *ebpf.Map // Endpoint to Frontend
	Sets      *ebpf.Map // uint32 to Set
	Slots     *ebpf.Map // SlotKey to Slot
	Members   *ebpf.Map // MemberKey to uint32, the slot's index
	Tables    *ebpf.Map // SlotKey (an entry of a Maglev table) to Slot
	Sources   *ebpf.Map // SourceKey to uint32
	// SocketLoad is Endpoint, a backend, to uint32: connected sockets of sets that go by least connections.
	SocketLoad *ebpf.Map
	Locals     *ebpf.Map // Addr to uint32: this machine's addresses
	Affinity   *ebpf.Map
	Counters   *ebpf.Map // Counter to uint64 a CPU
}

// Packets are the programs on links, and the map of pods.
type Packets struct {
	objects packetsObjects
	dir     string
	// classic is true on kernels without TCX (before 6.6): programs are then filters of a clsact queueing discipline,
	// which the kernel keeps without a pin.
	classic bool

	Settings *ebpf.Map // key uint32(0), value Settings
	Pods     *ebpf.Map // Addr to Pod
	Remotes  *ebpf.Map // RemoteKey to Remote
	Flows    *ebpf.Map // Tuple to Flow
	FlowLoad *ebpf.Map // Endpoint, a backend, to uint32: flows of sets that go by least connections
}

// OpenSockets loads the socket programs below dir, a folder of a bpf file system that is made (and its parent mounted)
// when missing. Maps that are pinned there are adopted; one of another layout is replaced.
func OpenSockets(dir string) (*Sockets, error) {
	spec, err := loadSockets()
	if err != nil {
		return nil, fmt.Errorf("read socket programs: %w", err)
	}
	s := &Sockets{dir: dir}
	if err := open(dir, spec, &s.objects); err != nil {
		return nil, unsupported("cgroup socket-address programs with per-socket storage", "5.18", err)
	}
	m := &s.objects.socketsMaps
	s.Settings, s.Frontends, s.Sets, s.Slots = m.PvSettings, m.PvFrontends, m.PvSets, m.PvSlots
	s.Members, s.Locals, s.Affinity, s.Counters = m.PvMembers, m.PvLocals, m.PvAffinity, m.PvCounters
	s.Tables, s.Sources, s.SocketLoad = m.PvTables, m.PvSources, m.PvSocketLoad
	return s, nil
}

// OpenPackets loads the programs for links below dir, as [OpenSockets] does; the two share their maps.
func OpenPackets(dir string) (*Packets, error) {
	spec, err := loadPackets()
	if err != nil {
		return nil, fmt.Errorf("read packet programs: %w", err)
	}
	p := &Packets{dir: dir}
	if err := open(dir, spec, &p.objects); err != nil {
		return nil, unsupported("traffic-control programs with peer redirection and a look at MTUs", "5.12", err)
	}
	m := &p.objects.packetsMaps
	p.Settings, p.Pods, p.Remotes, p.Flows, p.FlowLoad = m.PvSettings, m.PvPods, m.PvRemotes, m.PvFlows, m.PvFlowLoad
	if p.classic, err = lacksTCX(); err != nil {
		return nil, errors.Join(err, p.Close())
	}
	return p, nil
}

// Close lets go of the handles. What is pinned stays at work.
func (s *Sockets) Close() error { return s.objects.Close() }

// Close lets go of the handles. What is pinned stays at work.
func (p *Packets) Close() error { return p.objects.Close() }

// Read sums a counter over all CPUs.
func (s *Sockets) Read(c Counter) (uint64, error) {
	var perCPU []uint64
	if err := s.Counters.Lookup(uint32(c), &perCPU); err != nil {
		return 0, fmt.Errorf("read counter %s: %w", c, err)
	}
	var sum uint64
	for _, v := range perCPU {
		sum += v
	}
	return sum, nil
}

func open(dir string, spec *ebpf.CollectionSpec, objects any) error {
	if err := ensureFS(dir); err != nil {
		return err
	}
	maps := filepath.Join(dir, mapsFolder)
	for _, folder := range []string{maps, filepath.Join(dir, linksFolder)} {
		if err := os.MkdirAll(folder, 0o700); err != nil {
			return fmt.Errorf("make bpffs folder: %w", err)
		}
	}
	for name, m := range spec.Maps {
		if err := dropIncompatible(filepath.Join(maps, name), m); err != nil {
			return err
		}
	}
	options := &ebpf.CollectionOptions{Maps: ebpf.MapOptions{PinPath: maps}}
	if err := spec.LoadAndAssign(objects, options); err != nil {
		return fmt.Errorf("load eBPF objects: %w", err)
	}
	return nil
}

// dropIncompatible unpins a map that an older layout left; running programs keep theirs until they are replaced.
func dropIncompatible(path string, spec *ebpf.MapSpec) error {
	pinned, err := ebpf.LoadPinnedMap(path, nil)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("load pinned map: %w", err)
	}
	defer pinned.Close()
	if spec.Compatible(pinned) == nil {
		return nil
	}
	if err := pinned.Unpin(); err != nil {
		return fmt.Errorf("unpin map of an older layout: %w", err)
	}
	return nil
}

// ensureFS mounts a bpf file system on the parent of dir unless dir's nearest existing ancestor is on one.
func ensureFS(dir string) error {
	parent := filepath.Dir(dir)
	var stat unix.Statfs_t
	if err := unix.Statfs(parent, &stat); err != nil {
		return fmt.Errorf("look at bpffs %s: %w", parent, err)
	}
	if stat.Type == unix.BPF_FS_MAGIC {
		return nil
	}
	if err := unix.Mount("bpf", parent, "bpf", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, "mode=0700"); err != nil {
		return fmt.Errorf("mount bpffs on %s: %w", parent, err)
	}
	return nil
}

// Reset detaches every program and removes dir with all maps. It needs no open handle.
func Reset(dir string) error {
	if err := os.RemoveAll(dir); err != nil {
		return fmt.Errorf("remove pinned programs and maps: %w", err)
	}
	return removeAllFilters()
}
