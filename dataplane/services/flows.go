package services

import (
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"sync"
	"time"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"github.com/podvine/podvine/dataplane/bpf"
)

const (
	// sweepPeriod is how often flows that are over are removed. Nothing depends on it: the programs take over a port that
	// they need, and the map forgets the oldest when it is full.
	sweepPeriod = 10 * time.Second
	// sweepBatch is how many flows are read by one system call.
	sweepBatch = 4096
	localPorts = "/proc/sys/net/ipv4/ip_local_port_range"
	// firstUserPort is the first port that is not privileged.
	firstUserPort = 1024
	lastPort      = 65535
)

// FlowTimeouts say how long flows of packets are kept; a zero field stands for its default.
type FlowTimeouts struct {
	// Opening is for TCP flows that nobody has answered, 30 s.
	Opening time.Duration
	// Idle is for TCP flows at work: longer than the two hours after which the kernel's keep-alive speaks (RFC 5382).
	Idle time.Duration
	// Closed is for TCP flows that both sides have ended or one has reset: late packets still find their way, 10 s.
	Closed time.Duration
	// UDP is for datagrams, 120 s.
	UDP time.Duration
}

func (t FlowTimeouts) withDefaults() FlowTimeouts {
	for _, field := range []struct {
		value    *time.Duration
		standard time.Duration
	}{{&t.Opening, 30 * time.Second}, {&t.Idle, 130 * time.Minute}, {&t.Closed, 10 * time.Second}, {&t.UDP, 2 * time.Minute}} {
		if *field.value == 0 {
			*field.value = field.standard
		}
	}
	return t
}

// portSpan picks the source ports for translated flows: the larger span beside the ports that the host's own sockets are
// given, so that the two never meet. Listening sockets are not in the way, for a flow is known by all of its tuple.
func portSpan(low, high int) (first, count uint16) {
	below, above := low-firstUserPort, lastPort-high
	if below > above {
		return firstUserPort, uint16(below)
	}
	return uint16(high + 1), uint16(max(above, 0))
}

// readPortSpan reads what the host's own sockets draw from.
func readPortSpan() (first, count uint16, err error) {
	text, err := os.ReadFile(localPorts)
	if err != nil {
		return 0, 0, fmt.Errorf("read the host's port range: %w", err)
	}
	var low, high int
	if _, err := fmt.Sscan(string(text), &low, &high); err != nil {
		return 0, 0, fmt.Errorf("parse the host's port range %q: %w", text, err)
	}
	if first, count = portSpan(low, high); count == 0 {
		return 0, 0, fmt.Errorf("the host's own sockets may take every port (%d to %d): none is left for flows", low, high)
	}
	return first, count, nil
}

// isOver reports whether a flow has ended or was silent for too long, by the entry of its way back; the programs judge
// the same way.
func isOver(protocol Protocol, back bpf.Flow, t FlowTimeouts, now time.Duration) bool {
	const bothFIN = bpf.FlowClientFIN | bpf.FlowBackendFIN
	limit := t.UDP
	switch {
	case back.Flags&bpf.FlowReset != 0 || back.Flags&bothFIN == bothFIN:
		limit = t.Closed
	case protocol == TCP && back.Flags&bpf.FlowAnswered != 0:
		limit = t.Idle
	case protocol == TCP:
		limit = t.Opening
	}
	return now-time.Duration(back.SeenNS) > limit
}

// flowsOver decides which entries go: both of each flow that is over, and what lost its other half.
func flowsOver(entries map[bpf.Tuple]bpf.Flow, t FlowTimeouts, now time.Duration) []bpf.Tuple {
	var over []bpf.Tuple
	for key, f := range entries {
		back := f
		if f.Set != 0 {
			var whole bool
			if back, whole = entries[f.Rewritten.Invert()]; !whole || back.Rewritten != key.Invert() {
				over = append(over, key)
				continue
			}
		}
		if isOver(Protocol(key.Proto), back, t, now) {
			over = append(over, key)
		}
	}
	return over
}

// flowSweep removes flows that are over, from time to time.
type flowSweep struct {
	flows    *ebpf.Map
	load     *ebpf.Map
	timeouts FlowTimeouts
	log      *slog.Logger
	done     chan struct{}
	group    sync.WaitGroup
	mu       sync.Mutex // guards what follows
	held     int
	swept    uint64
}

func startSweep(packets *bpf.Packets, timeouts FlowTimeouts, log *slog.Logger) *flowSweep {
	s := &flowSweep{flows: packets.Flows, load: packets.FlowLoad, timeouts: timeouts, log: log, done: make(chan struct{})}
	s.group.Go(s.run)
	return s
}

func (s *flowSweep) run() {
	tick := time.NewTicker(sweepPeriod)
	defer tick.Stop()
	for {
		select {
		case <-s.done:
			return
		case <-tick.C:
		}
		if err := s.sweep(); err != nil {
			s.log.Warn("cannot sweep flows", "err", err)
		}
	}
}

func (s *flowSweep) close() {
	close(s.done)
	s.group.Wait()
}

// sweep looks at all flows once.
func (s *flowSweep) sweep() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	entries, err := readFlows(s.flows)
	if err != nil {
		return err
	}
	now, err := monotonic()
	if err != nil {
		return err
	}
	over := flowsOver(entries, s.timeouts, now)
	for _, key := range over {
		if err := s.flows.Delete(key); err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
			return fmt.Errorf("delete flow: %w", err)
		}
	}
	s.held = len(entries) - len(over)
	s.swept += uint64(len(over))
	for _, key := range over {
		delete(entries, key)
	}
	return s.correctLoad(flowLoads(entries))
}

// flowLoads counts the flows of each backend that is to be counted.
func flowLoads(entries map[bpf.Tuple]bpf.Flow) map[bpf.Endpoint]uint32 {
	loads := map[bpf.Endpoint]uint32{}
	for key, f := range entries {
		if f.Set == 0 && f.Flags&bpf.FlowCounted != 0 {
			loads[bpf.Endpoint{Addr: key.Source, Port: key.SourcePort, Proto: key.Proto}]++
		}
	}
	return loads
}

// correctLoad sets right what the programs count: they do not see flows that fall silent or are forgotten.
func (s *flowSweep) correctLoad(loads map[bpf.Endpoint]uint32) error {
	var backend bpf.Endpoint
	var load uint32
	var wrong []bpf.Endpoint
	iterator := s.load.Iterate()
	for iterator.Next(&backend, &load) {
		if load != loads[backend] {
			wrong = append(wrong, backend)
		}
	}
	if err := iterator.Err(); err != nil && !errors.Is(err, ebpf.ErrIterationAborted) {
		return fmt.Errorf("read loads of backends: %w", err)
	}
	for _, backend := range wrong {
		if err := s.load.Put(backend, loads[backend]); err != nil {
			return fmt.Errorf("correct load of a backend: %w", err)
		}
	}
	return nil
}

// end removes the flows to backends that have gone; what their clients still send is refused.
func (s *flowSweep) end(backends []remote) error {
	if len(backends) == 0 {
		return nil
	}
	remotes := make(map[remote]bool, len(backends))
	for _, b := range backends {
		remotes[b] = true
	}
	entries, err := readFlows(s.flows)
	if err != nil {
		return err
	}
	for key, f := range entries {
		to := f.Rewritten
		if f.Set == 0 || !remotes[remote{netip.AddrPortFrom(to.Destination.Netip(), to.DestPort.Uint16()), Protocol(to.Proto)}] {
			continue
		}
		for _, half := range []bpf.Tuple{key, to.Invert()} {
			if err := s.flows.Delete(half); err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
				return fmt.Errorf("delete flow: %w", err)
			}
		}
	}
	return nil
}

func (s *flowSweep) counts() (held int, swept uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.held, s.swept
}

// readFlows copies the map, which changes meanwhile: an entry may be missing or stand there twice.
func readFlows(m *ebpf.Map) (map[bpf.Tuple]bpf.Flow, error) {
	entries := map[bpf.Tuple]bpf.Flow{}
	keys, values := make([]bpf.Tuple, sweepBatch), make([]bpf.Flow, sweepBatch)
	var cursor ebpf.MapBatchCursor
	for {
		n, err := m.BatchLookup(&cursor, keys, values, nil)
		for i := range n {
			entries[keys[i]] = values[i]
		}
		if errors.Is(err, ebpf.ErrKeyNotExist) {
			return entries, nil
		}
		if err != nil {
			return nil, fmt.Errorf("read flows: %w", err)
		}
	}
}

// monotonic is the clock that the programs stamp flows with.
func monotonic() (time.Duration, error) {
	var now unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &now); err != nil {
		return 0, fmt.Errorf("read the monotonic clock: %w", err)
	}
	return time.Duration(now.Nano()), nil
}
