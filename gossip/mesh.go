package gossip

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/hashicorp/memberlist"
	"github.com/hashicorp/serf/serf"
)

// eventQueueLength bounds serf's events that were not read yet. The reader only notes times, so the queue drains at once;
// serf waits when it is full.
const eventQueueLength = 256

// Config is what a mesh needs to start.
type Config struct {
	// ID is the node's UUID. It is the member's identity, whatever its address.
	ID string
	// Transport carries the packets; the mesh closes it.
	Transport Transport
	Profile   Profile
	Tags      Tags
	// Dir keeps the keys and the addresses of known members, so that a restarted node rejoins by itself.
	Dir string
	// Key encrypts gossip where Dir holds no keys yet, 32 bytes.
	Key []byte
	Log *slog.Logger
	// Now tells the time; nil is time.Now.
	Now func() time.Time
}

// State is what gossip believes of a member.
type State byte

// The states. Leaving members still answer; left ones said goodbye; dead ones did not.
const (
	StateAlive State = iota + 1
	StateLeaving
	StateLeft
	StateDead
)

// String is the state's name.
func (s State) String() string {
	switch s {
	case StateAlive:
		return "alive"
	case StateLeaving:
		return "leaving"
	case StateLeft:
		return "left"
	case StateDead:
		return "dead"
	}
	return "unknown"
}

// Member is one node as gossip knows it.
type Member struct {
	ID      string
	Address netip.AddrPort
	State   State
	// Since is when this node learnt of the state.
	Since time.Time
	Tags  Tags
}

// Mesh is this node's part in the gossip.
type Mesh struct {
	id, dir string
	serf    *serf.Serf
	keyring *memberlist.Keyring
	log     *slog.Logger
	now     func() time.Time
	events  chan serf.Event
	tasks   sync.WaitGroup

	mu          sync.Mutex
	since       map[string]transition
	subscribers map[chan struct{}]struct{}
}

// transition is when a member came into the state that it is in.
type transition struct {
	status serf.MemberStatus
	at     time.Time
}

// Start begins to gossip. The mesh has one member, this node, until Join or a rejoin from Dir finds others.
func Start(config Config) (*Mesh, error) {
	if config.Now == nil {
		config.Now = time.Now
	}
	serfConfig, err := config.serf()
	if err != nil {
		return nil, errors.Join(err, config.Transport.Shutdown())
	}
	peers, err := loadPeers(config.Dir)
	if err != nil {
		return nil, errors.Join(err, config.Transport.Shutdown())
	}
	m := &Mesh{
		id: config.ID, dir: config.Dir, log: config.Log, now: config.Now, events: make(chan serf.Event, eventQueueLength),
		since: map[string]transition{}, subscribers: map[chan struct{}]struct{}{},
	}
	serfConfig.EventCh = m.events
	if m.serf, err = serf.Create(serfConfig); err != nil {
		return nil, errors.Join(fmt.Errorf("start gossip: %w", err), config.Transport.Shutdown())
	}
	m.keyring = serfConfig.MemberlistConfig.Keyring
	m.tasks.Go(m.follow)
	if len(peers) > 0 {
		m.tasks.Go(func() { m.rejoin(peers) })
	}
	return m, nil
}

func (c Config) serf() (*serf.Config, error) {
	members, err := c.Profile.config()
	if err != nil {
		return nil, err
	}
	tags, err := c.Tags.encode()
	if err != nil {
		return nil, err
	}
	keys := keyringFile(c.Dir)
	if members.Keyring, err = loadKeyring(keys, c.Key); err != nil {
		return nil, err
	}
	logger := bridge(c.Log)
	members.Name, members.Transport, members.Logger = c.ID, c.Transport, logger
	config := serf.DefaultConfig()
	config.Init()
	config.NodeName, config.Tags, config.MemberlistConfig, config.Logger = c.ID, tags, members, logger
	config.ProtocolVersion = serf.ProtocolVersionMax
	config.KeyringFile = keys
	config.EnableNameConflictResolution = false // identity is decided when a node joins, not by a vote later
	config.DisableCoordinates = true
	config.ReconnectInterval = 2 * time.Second // serf looks for a dead member again this often
	config.LeavePropagateDelay = 500 * time.Millisecond
	// A dead member stays listed: its records stay too, and its return must be noticed whenever it comes.
	config.ReconnectTimeout, config.TombstoneTimeout = 365*24*time.Hour, 24*time.Hour
	return config, nil
}

// savePause is the least between two times at which the members are written down. When many come at once, writing all of them for each would be
// most of what a member does.
const savePause = time.Second

// follow notes when members change state, and tells the subscribers, until the mesh is closed.
func (m *Mesh) follow() {
	var (
		saved time.Time
		later <-chan time.Time // nil while what is written is current
	)
	save := func() {
		saved, later = time.Now(), nil
		if err := m.savePeers(); err != nil {
			m.log.Warn("remember the members", "error", err)
		}
	}
	for {
		select {
		case event := <-m.events:
			change, ok := event.(serf.MemberEvent)
			if !ok {
				continue
			}
			m.note(change)
			switch wait := time.Until(saved.Add(savePause)); {
			case wait <= 0:
				save()
			case later == nil:
				later = time.After(wait)
			}
		case <-later:
			save()
		case <-m.serf.ShutdownCh():
			return // Close writes them once more
		}
	}
}

func (m *Mesh) note(change serf.MemberEvent) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, member := range change.Members {
		if last := m.since[member.Name]; last.at.IsZero() || last.status != member.Status {
			m.since[member.Name] = transition{member.Status, m.now()}
			m.log.Info("member changed", "member", member.Name, "state", stateOf(member.Status).String(), "address", member.Addr.String())
		}
		if change.Type == serf.EventMemberReap {
			delete(m.since, member.Name)
		}
	}
	for trigger := range maps.Keys(m.subscribers) {
		select {
		case trigger <- struct{}{}:
		default: // it is told already and has not looked yet
		}
	}
}

// Join contacts the members at the given addresses ("host:port") and returns how many answered. It is an error when
// none did.
func (m *Mesh) Join(addresses []string) (int, error) {
	answered, err := m.serf.Join(addresses, true)
	if err != nil && answered == 0 {
		return 0, fmt.Errorf("join the mesh through %s: %w", strings.Join(addresses, ", "), err)
	}
	return answered, nil
}

// Members returns all known members, this node included, ordered by ID.
func (m *Mesh) Members() []Member {
	known := m.serf.Members()
	members := make([]Member, 0, len(known))
	m.mu.Lock()
	for _, k := range known {
		address, _ := netip.AddrFromSlice(k.Addr)
		members = append(members, Member{
			ID: k.Name, Address: netip.AddrPortFrom(address.Unmap(), k.Port), State: stateOf(k.Status),
			Since: m.sinceLocked(k), Tags: decodeTags(k.Tags),
		})
	}
	m.mu.Unlock()
	slices.SortFunc(members, func(a, b Member) int { return strings.Compare(a.ID, b.ID) })
	return members
}

// sinceLocked is when the member came into its state: now, if the event of the change is still on its way.
func (m *Mesh) sinceLocked(member serf.Member) time.Time {
	if last := m.since[member.Name]; last.status == member.Status && !last.at.IsZero() {
		return last.at
	}
	return m.now()
}

func stateOf(status serf.MemberStatus) State {
	switch status {
	case serf.StatusAlive:
		return StateAlive
	case serf.StatusLeaving:
		return StateLeaving
	case serf.StatusLeft:
		return StateLeft
	default:
		return StateDead
	}
}

// Forget has all members drop a dead one from their lists: a machine that was installed anew is another member, and the
// old one never comes back. It refuses to forget a member that is alive; one that is not known is forgotten already.
func (m *Mesh) Forget(id string) error {
	for _, member := range m.Members() {
		if member.ID == id && member.State != StateDead && member.State != StateLeft {
			return fmt.Errorf("forget member %s: it is %s", id, member.State)
		}
	}
	if err := m.serf.RemoveFailedNodePrune(id); err != nil {
		return fmt.Errorf("forget member %s: %w", id, err)
	}
	return nil
}

// SetTags changes what this node says of itself, live.
func (m *Mesh) SetTags(tags Tags) error {
	encoded, err := tags.encode()
	if err != nil {
		return err
	}
	if err := m.serf.SetTags(encoded); err != nil {
		return fmt.Errorf("spread gossip tags: %w", err)
	}
	return nil
}

// Subscribe returns a channel of capacity one that receives after every change of membership or tags, until ctx ends.
// The receiver reads Members; changes that come before it looks are merged into one.
func (m *Mesh) Subscribe(ctx context.Context) <-chan struct{} {
	trigger := make(chan struct{}, 1)
	trigger <- struct{}{}
	m.mu.Lock()
	m.subscribers[trigger] = struct{}{}
	m.mu.Unlock()
	context.AfterFunc(ctx, func() {
		m.mu.Lock()
		delete(m.subscribers, trigger)
		m.mu.Unlock()
	})
	return trigger
}

// Leave says goodbye, so that the others need not detect a death. Close still has to follow.
func (m *Mesh) Leave() error {
	if err := m.serf.Leave(); err != nil {
		return fmt.Errorf("leave the mesh: %w", err)
	}
	return nil
}

// Close ends gossip without a goodbye, and waits for what the mesh started.
func (m *Mesh) Close() error {
	stopped := m.serf.Shutdown()
	m.tasks.Wait()
	if err := errors.Join(stopped, m.savePeers()); err != nil {
		return fmt.Errorf("stop gossip: %w", err)
	}
	return nil
}
