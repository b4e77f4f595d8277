package consensus

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"sync"
	"time"
)

const (
	firstEpoch = 1
	// greetingLimitBytes bounds one side's greeting, greetingTimeout how long both may take.
	greetingLimitBytes = 1 << 10
	greetingTimeout    = 2 * time.Second
	greetingMagic      = "PVP1"
)

var (
	// ErrSuperseded says that the cluster was recovered without this replica: what only it has is void. Its directory must
	// be put away with [PutAway], and the replica joins again as a fresh one.
	ErrSuperseded = errors.New("the cluster was recovered without this replica")
	// ErrStranger says that a peer is of another cluster, or not who it says it is.
	ErrStranger = errors.New("peer does not belong here")
	errOldEpoch = errors.New("peer is of an epoch that was superseded")
)

// greeting opens every connection between two replicas, from both sides.
type greeting struct {
	Cluster string `json:"cluster"`
	Node    string `json:"node"`
	Epoch   uint64 `json:"epoch"`
	Refused string `json:"refused,omitempty"`
}

// membership is this replica's place: its cluster, and the epoch of the quorum that it takes part in. A recovery begins a
// new epoch. Replicas of different epochs refuse each other, and the older one learns that it is superseded: after a
// majority was given up, its members may come back, and must not elect a leader of what was given up.
type membership struct {
	dir string
	log *slog.Logger

	mu       sync.Mutex
	id       identity
	over     chan struct{}
	overOnce sync.Once
}

// isOver tells whether the replica is superseded.
func (m *membership) isOver() bool {
	select {
	case <-m.over:
		return true
	default:
		return false
	}
}

func newMembership(dir string, id identity, log *slog.Logger) *membership {
	return &membership{dir: dir, id: id, log: log, over: make(chan struct{})}
}

func (m *membership) greeting() greeting {
	m.mu.Lock()
	defer m.mu.Unlock()
	return greeting{Cluster: m.id.Cluster, Node: m.id.Node, Epoch: m.id.Epoch}
}

// learn compares a peer's epoch with the own one. A fresh replica adopts the first that it meets.
func (m *membership) learn(epoch uint64, from string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	switch {
	case epoch == m.id.Epoch || epoch == 0:
		return nil
	case m.id.Epoch == 0:
		next := m.id
		next.Epoch = epoch
		if err := writeIdentity(m.dir, next); err != nil {
			return err
		}
		m.id = next
		return nil
	case epoch < m.id.Epoch:
		return fmt.Errorf("%w: %d, the cluster's is %d", errOldEpoch, epoch, m.id.Epoch)
	}
	m.overOnce.Do(func() {
		m.log.Warn("the cluster was recovered without this replica; it takes no more part", "epoch", m.id.Epoch, "now", epoch, "from", from)
		close(m.over)
	})
	return fmt.Errorf("%w: epoch %d, now %d", ErrSuperseded, m.id.Epoch, epoch)
}

func (m *membership) check(peer greeting, expected string) error {
	if own := m.greeting(); peer.Cluster != own.Cluster {
		return fmt.Errorf("%w: cluster %s, this is %s", ErrStranger, peer.Cluster, own.Cluster)
	}
	if expected != "" && peer.Node != expected {
		return fmt.Errorf("%w: node %s, expected %s", ErrStranger, peer.Node, expected)
	}
	if err := m.learn(peer.Epoch, peer.Node); err != nil {
		return err
	}
	if peer.Refused != "" {
		return fmt.Errorf("%w: %s", ErrStranger, peer.Refused)
	}
	return nil
}

// greet opens a connection that this side dialed to the node, before the deadline.
func (m *membership) greet(conn net.Conn, node string, deadline time.Time) error {
	if err := conn.SetDeadline(deadline); err != nil {
		return err
	}
	if err := writeGreeting(conn, m.greeting()); err != nil {
		return err
	}
	peer, err := readGreeting(conn)
	if err != nil {
		return err
	}
	if err := m.check(peer, node); err != nil {
		return err
	}
	return conn.SetDeadline(time.Time{})
}

// Identified is a connection that knows its peer's node UUID, from its certificate.
type Identified interface{ PeerID() string }

// admit answers the greeting of a connection that a peer dialed and returns who it is.
func (m *membership) admit(conn net.Conn) (string, error) {
	if err := conn.SetDeadline(time.Now().Add(greetingTimeout)); err != nil {
		return "", err
	}
	peer, err := readGreeting(conn)
	if err != nil {
		return "", err
	}
	expected := ""
	if c, ok := conn.(Identified); ok {
		expected = c.PeerID()
	}
	refusal := m.check(peer, expected)
	answer := m.greeting()
	if refusal != nil {
		answer.Refused = refusal.Error()
	}
	if err := errors.Join(refusal, writeGreeting(conn, answer)); err != nil {
		return "", err
	}
	return peer.Node, conn.SetDeadline(time.Time{})
}

func writeGreeting(w io.Writer, g greeting) error {
	body, err := json.Marshal(g)
	if err != nil {
		return err
	}
	if len(body) > greetingLimitBytes {
		return fmt.Errorf("greeting of %d bytes exceeds %d", len(body), greetingLimitBytes)
	}
	buf := binary.BigEndian.AppendUint16([]byte(greetingMagic), uint16(len(body)))
	_, err = w.Write(append(buf, body...))
	return err
}

func readGreeting(r io.Reader) (greeting, error) {
	var g greeting
	head := make([]byte, len(greetingMagic)+2)
	if _, err := io.ReadFull(r, head); err != nil {
		return g, fmt.Errorf("read greeting: %w", err)
	}
	if string(head[:len(greetingMagic)]) != greetingMagic {
		return g, fmt.Errorf("%w: it speaks another protocol", ErrStranger)
	}
	size := binary.BigEndian.Uint16(head[len(greetingMagic):])
	if size > greetingLimitBytes {
		return g, fmt.Errorf("%w: greeting of %d bytes", ErrStranger, size)
	}
	body := make([]byte, size)
	if _, err := io.ReadFull(r, body); err != nil {
		return g, fmt.Errorf("read greeting: %w", err)
	}
	if err := json.Unmarshal(body, &g); err != nil {
		return g, fmt.Errorf("read greeting: %w", err)
	}
	return g, nil
}

// Epoch returns the epoch of the quorum that this replica takes part in; 0 while it has met no other.
func (r *Replica) Epoch() uint64 { return r.membership.greeting().Epoch }

// LearnEpoch tells the replica of an epoch that another way than its peers has brought, such as a member list. It returns
// [ErrSuperseded] when that is newer than its own.
func (r *Replica) LearnEpoch(epoch uint64, from string) error {
	err := r.membership.learn(epoch, from)
	if errors.Is(err, errOldEpoch) {
		return nil
	}
	return err
}

// Superseded returns a channel that is closed when the cluster turns out to have been recovered without this replica. It
// takes part in nothing more; see [ErrSuperseded].
func (r *Replica) Superseded() <-chan struct{} { return r.membership.over }
