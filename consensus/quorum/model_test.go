package quorum

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/podvine/podvine/consensus"
)

// modelNode is a node of the model.
type modelNode struct {
	Member
	up bool
	// caught is when the replica will have everything.
	caught time.Time
}

// model is a cluster as simple as can be: a configuration, nodes that are up or not, and a leader while a majority of
// voters is up. Steps take effect at once, or not at all.
type model struct {
	now     time.Time
	nodes   map[string]*modelNode
	voters  map[string]bool
	standby map[string]bool
	leader  string
	since   time.Time
	tracks  map[string]Track
	setting int
	steps   []string
	handed  string
}

func newModel(n int, zones int) *model {
	m := &model{
		now: time.Unix(1000, 0), nodes: map[string]*modelNode{}, voters: map[string]bool{"n0": true},
		standby: map[string]bool{}, tracks: map[string]Track{},
	}
	for i := range n {
		m.join(fmt.Sprintf("n%d", i), fmt.Sprintf("z%d", i%max(zones, 1)))
	}
	return m
}

func (m *model) join(id, zone string) {
	m.nodes[id] = &modelNode{Member: Member{ID: id, Name: id, Alive: true, Since: m.now, Zone: zone, Role: consensus.RoleEdge}, up: true}
}

// set makes a node go up or down. The member list follows a second later.
func (m *model) set(id string, up bool) { m.nodes[id].up = up }

func (m *model) up(id string) bool {
	n := m.nodes[id]
	return n != nil && n.up && !n.Left
}

func (m *model) answering() int {
	n := 0
	for v := range m.voters {
		if m.up(v) {
			n++
		}
	}
	return n
}

func (m *model) hasQuorum() bool { return m.answering() > len(m.voters)/2 }

// elect follows raft: no majority, no leader.
func (m *model) elect() {
	if m.leader != "" && m.voters[m.leader] && m.up(m.leader) && m.hasQuorum() && m.handed != m.leader {
		return
	}
	m.leader = ""
	if !m.hasQuorum() {
		return
	}
	for _, v := range sorted(m.voters) {
		if m.up(v) && v != m.handed {
			m.leader, m.since, m.tracks, m.handed = v, m.now, map[string]Track{}, ""
			return
		}
	}
}

func sorted(set map[string]bool) []string {
	var all []string
	for id := range set {
		all = append(all, id)
	}
	slices.Sort(all)
	return all
}

func (m *model) members() []Member {
	var all []Member
	for id, n := range m.nodes {
		if n.Alive != n.up {
			n.Alive, n.Since = n.up, m.now
		}
		n.Role = consensus.RoleEdge
		if m.voters[id] || m.standby[id] {
			n.Role = consensus.RoleStandby
		}
		all = append(all, n.Member)
	}
	slices.SortFunc(all, func(a, b Member) int { return compareBool(a.ID < b.ID, b.ID < a.ID) * -1 })
	return all
}

func (m *model) view() View {
	v := View{Now: m.now, Self: m.leader, Since: m.since, LastIndex: 10000, Members: m.members(), Tracks: m.tracks, Voters: m.setting}
	for _, set := range []map[string]bool{m.voters, m.standby} {
		for _, id := range sorted(set) {
			s := consensus.Server{ID: id, Voter: m.voters[id], Match: 10000}
			if n := m.nodes[id]; !m.up(id) {
				s.Silence = m.now.Sub(n.Since) + contactFresh
				if n.Left {
					s.Silence = time.Hour
				}
			} else if m.now.Before(n.caught) {
				s.Match = 1
			}
			v.Servers = append(v.Servers, s)
		}
	}
	return v
}

// tick lets half a second go by: an election, a look and a step.
func (m *model) tick() Step {
	m.now = m.now.Add(DefaultInterval)
	m.elect()
	if m.leader == "" {
		return Step{}
	}
	v := m.view()
	m.tracks = Observe(m.tracks, v.Members, m.now)
	v.Tracks = m.tracks
	step := Decide(v)
	if step.Action != ActionNone {
		m.apply(step)
		m.steps = append(m.steps, fmt.Sprintf("%v %s %s", m.now.Sub(time.Unix(1000, 0)), step.Action, step.Node))
	}
	return step
}

func (m *model) apply(s Step) {
	switch s.Action {
	case ActionAdd:
		m.tracks[s.Node] = Track{Alive: true, Deaths: m.tracks[s.Node].Deaths, Asked: m.now}
		if m.up(s.Node) {
			m.standby[s.Node] = true
			m.nodes[s.Node].caught = m.now.Add(time.Second)
		}
	case ActionPromote:
		delete(m.standby, s.Node)
		m.voters[s.Node] = true
	case ActionDemote:
		delete(m.voters, s.Node)
		m.standby[s.Node] = true
	case ActionRemove:
		delete(m.voters, s.Node)
		delete(m.standby, s.Node)
	case ActionHandOver:
		m.handed = m.leader
	}
}

// settle ticks until nothing happens for ten seconds.
func (m *model) settle(t interface{ Fatalf(string, ...any) }) {
	quiet := 0
	for range 4000 {
		if m.tick().Action == ActionNone {
			if quiet++; quiet > int(3*time.Minute/DefaultInterval) {
				return
			}
			continue
		}
		quiet = 0
	}
	t.Fatalf("the quorum does not come to rest: %v", m.steps[max(0, len(m.steps)-20):])
}

// check compares what has settled with what there should be.
func (m *model) check(t interface{ Fatalf(string, ...any) }) {
	nodes, up := 0, 0
	for _, n := range m.nodes {
		if n.Left || n.Leaving {
			continue
		}
		nodes++
		if n.up {
			up++
		}
	}
	if !m.hasQuorum() {
		return
	}
	target := Target(nodes, m.setting)
	want := min(target, up)
	want -= 1 - want%2
	if got := m.answering(); got < want || got > target {
		t.Fatalf("%d nodes, %d up: %d voters answer (%v), want %d: %v", nodes, up, got, sorted(m.voters), want, m.steps)
	}
	standbys := 0
	for s := range m.standby {
		if m.up(s) {
			standbys++
		}
	}
	if left := up - m.answering(); standbys < min(left, wantStandbys) {
		t.Fatalf("%d nodes, %d up, voters %v: only %d standbys: %v", nodes, up, sorted(m.voters), standbys, m.steps)
	}
}

func TestClustersGrowToTheirTarget(t *testing.T) {
	for nodes, want := range map[int][2]int{1: {1, 0}, 2: {1, 1}, 3: {3, 0}, 4: {3, 1}, 5: {5, 0}, 7: {5, 2}, 9: {5, 2}, 40: {5, 2}} {
		m := newModel(nodes, 3)
		m.settle(t)
		if len(m.voters) != want[0] || len(m.standby) != want[1] {
			t.Errorf("%d nodes: %d voters and %d standbys, want %v", nodes, len(m.voters), len(m.standby), want)
		}
	}
	m := newModel(9, 1)
	m.setting = 3
	if m.settle(t); len(m.voters) != 3 || len(m.standby) != 2 {
		t.Errorf("a setting of 3: %v, %v", m.voters, m.standby)
	}
}

// TestStandbyTakesTheDeadVotersPlace holds the promise of ten seconds, by the member list's time.
func TestStandbyTakesTheDeadVotersPlace(t *testing.T) {
	m := newModel(9, 3)
	m.settle(t)
	dead := ""
	for _, v := range sorted(m.voters) {
		if v != m.leader {
			dead = v
		}
	}
	m.set(dead, false)
	start := m.now
	for m.voters[dead] || m.answering() < 5 {
		if m.tick(); m.now.Sub(start) > 8*time.Second {
			t.Fatalf("voter %s is not replaced after %v: %v", dead, m.now.Sub(start), m.steps)
		}
	}
}

// TestTwoOfFiveAtOnce leaves three nodes, which are three voters again: one more may die.
func TestTwoOfFiveAtOnce(t *testing.T) {
	m := newModel(5, 1)
	m.settle(t)
	m.set("n1", false)
	m.set("n0", false)
	start := m.now
	for len(m.voters) != 3 {
		if m.tick(); m.now.Sub(start) > 10*time.Second {
			t.Fatalf("after %v: %v, %v", m.now.Sub(start), sorted(m.voters), m.steps)
		}
	}
	m.set("n0", true)
	m.set("n1", true)
	if m.settle(t); len(m.voters) != 5 {
		t.Fatalf("after their return: %v", sorted(m.voters))
	}
}

// TestAMissingThirdIsWaitedFor keeps a dead voter whose going would win nothing.
func TestAMissingThirdIsWaitedFor(t *testing.T) {
	m := newModel(3, 1)
	m.settle(t)
	before := len(m.steps)
	m.set("n2", false)
	for range 240 {
		m.tick()
	}
	if len(m.steps) != before || len(m.voters) != 3 {
		t.Fatalf("steps %v", m.steps[before:])
	}
}

// TestLeaversGoOneByOne shrinks five nodes to two, the leader among the leavers.
func TestLeaversGoOneByOne(t *testing.T) {
	m := newModel(5, 1)
	m.settle(t)
	for _, id := range []string{"n0", "n3", "n4"} {
		m.nodes[id].Leaving = true
		m.settle(t)
		if m.voters[id] || m.standby[id] || !m.hasQuorum() {
			t.Fatalf("%s did not get out: %v", id, m.steps)
		}
		m.nodes[id].Left = true
		m.set(id, false)
	}
	if m.settle(t); len(m.voters) != 1 || len(m.standby) != 1 {
		t.Fatalf("two nodes have %v and %v", m.voters, m.standby)
	}
}

// TestVotersSpreadOverZones moves votes out of a zone that has too many.
func TestVotersSpreadOverZones(t *testing.T) {
	m := newModel(3, 1)
	m.settle(t)
	for i := range 4 {
		m.join(fmt.Sprintf("x%d", i), fmt.Sprintf("far%d", i%2))
	}
	m.setting = 3
	m.settle(t)
	zones := map[string]int{}
	for v := range m.voters {
		zones[m.nodes[v].Zone]++
	}
	if len(m.voters) != 3 || len(zones) != 3 {
		t.Fatalf("voters %v are in %v: %v", sorted(m.voters), zones, m.steps)
	}
}

// TestAFlappingNodeWaitsLonger lets a node die and return: each time it waits longer for its vote.
func TestAFlappingNodeWaitsLonger(t *testing.T) {
	m := newModel(4, 1)
	m.settle(t)
	flapper := "n3"
	if m.voters[flapper] || m.leader == flapper {
		flapper = sorted(m.standby)[0]
	}
	for range 5 {
		m.set(flapper, false)
		m.tick()
		m.set(flapper, true)
		m.tick()
	}
	for _, v := range sorted(m.voters) {
		if v != m.leader {
			m.set(v, false)
			break
		}
	}
	start := m.now
	for !m.voters[flapper] {
		if m.tick(); m.now.Sub(start) > 5*time.Minute {
			t.Fatal("a node that has settled never gets its vote")
		}
	}
	if waited := m.now.Sub(start); waited < 30*time.Second {
		t.Fatalf("a flapping node got a vote after %v", waited)
	}
}

// TestSchedulesOfFaults plays a thousand random schedules. Safety: no step takes the majority away. Liveness: when the
// faults end, the quorum is what it should be.
func TestSchedulesOfFaults(t *testing.T) {
	for seed := range uint64(1000) {
		playSchedule(t, seed)
	}
}

func playSchedule(t *testing.T, seed uint64) {
	t.Helper()
	rng := rand.New(rand.NewPCG(seed, 3))
	m := newModel(1+rng.IntN(9), 1+rng.IntN(3))
	for range 60 {
		id := fmt.Sprintf("n%d", rng.IntN(len(m.nodes)))
		if m.nodes[id] != nil {
			switch rng.IntN(5) {
			case 0:
				m.set(id, false)
			case 1, 2:
				m.set(id, true)
			case 3:
				if rng.IntN(10) == 0 && len(m.nodes) < 12 {
					m.join(fmt.Sprintf("n%d", len(m.nodes)), "z9")
				}
			case 4:
				if rng.IntN(20) == 0 {
					m.nodes[id].Leaving = true
				}
			}
		}
		for range rng.IntN(20) {
			m.tickSafely(t, seed)
		}
	}
	for _, n := range m.nodes {
		n.up = !n.Left
		n.Leaving = false
	}
	m.settle(t)
	m.check(failure{t, seed})
}

// tickSafely ticks and holds that a majority stays one.
func (m *model) tickSafely(t *testing.T, seed uint64) {
	t.Helper()
	m.elect()
	led := m.hasQuorum()
	before := len(m.voters) + len(m.standby)
	step := m.tick()
	if led && step.Action != ActionNone && !m.hasQuorum() {
		t.Fatalf("seed %d: step %+v left %d of %d voters: %v", seed, step, m.answering(), len(m.voters), m.steps)
	}
	if after := len(m.voters) + len(m.standby); after-before > 1 || before-after > 1 {
		t.Fatalf("seed %d: step %+v is more than one change", seed, step)
	}
}

type failure struct {
	*testing.T
	seed uint64
}

func (f failure) Fatalf(format string, args ...any) {
	f.T.Helper()
	f.T.Fatalf("seed %d: "+format, append([]any{f.seed}, args...)...)
}

// TestEveryStepIsSafe decides on arbitrary views.
func TestEveryStepIsSafe(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		now := time.Unix(100000, 0)
		v := View{Now: now, Self: "s0", Since: now.Add(-time.Hour), LastIndex: 1000, Voters: rapid.IntRange(0, 7).Draw(t, "setting")}
		for i := range rapid.IntRange(1, 9).Draw(t, "servers") {
			id := fmt.Sprintf("s%d", i)
			s := consensus.Server{ID: id, Voter: i == 0 || rapid.Bool().Draw(t, "voter"), Match: rapid.SampledFrom([]uint64{0, 10, 1000}).Draw(t, "match")}
			if i > 0 {
				s.Silence = rapid.SampledFrom([]time.Duration{-1, 0, 5 * time.Second, time.Minute}).Draw(t, "silence")
			}
			v.Servers = append(v.Servers, s)
			if rapid.Bool().Draw(t, "known") {
				v.Members = append(v.Members, Member{
					ID: id, Alive: rapid.Bool().Draw(t, "alive"), Since: now.Add(-rapid.SampledFrom([]time.Duration{0, 4 * time.Second, time.Hour}).Draw(t, "age")),
					Leaving: rapid.Bool().Draw(t, "leaving"), Left: rapid.Bool().Draw(t, "left"), Zone: rapid.SampledFrom([]string{"a", "b"}).Draw(t, "zone"),
				})
			}
		}
		step := Decide(v)
		again := Decide(v)
		if step != again {
			t.Fatalf("two decisions on one view: %+v, %+v", step, again)
		}
		holdMajority(t, v, step)
	})
}

func holdMajority(t *rapid.T, v View, step Step) {
	s := newSituation(&v)
	before := majority(s.voters)
	answering, all := 0, 0
	for _, r := range append(slices.Clone(s.voters), s.standbys...) {
		voter := r.Voter
		if r.ID == step.Node {
			switch step.Action {
			case ActionPromote:
				voter = true
			case ActionDemote, ActionRemove:
				voter = false
			}
			if r.self && (step.Action == ActionDemote || step.Action == ActionRemove) {
				t.Fatalf("the leader takes its own vote: %+v", step)
			}
		}
		if voter {
			all++
			if r.answers() {
				answering++
			}
		}
	}
	if before && answering <= all/2 {
		t.Fatalf("step %+v leaves %d of %d voters", step, answering, all)
	}
}
