package agent

import (
	"fmt"
	"slices"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"pgregory.net/rapid"

	"github.com/podvine/podvine/agent/pki"
)

func trusting(certified bool, users string, trusted ...string) *pki.TrustState {
	return &pki.TrustState{Trusted: trusted, Users: users, Certified: certified}
}

func TestRotationOfAuthorities(t *testing.T) {
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	record := func(stage string, age time.Duration) rotation {
		return rotation{Stage: stage, Predecessor: "old", Successor: "new", Since: now.Add(-age), Overlap: time.Hour, Retire: []string{"old", "old-proxy"}, Retired: []string{"older"}}
	}
	both := []string{"old", "new"}
	for _, c := range []struct {
		name     string
		record   rotation
		trusted  []string
		members  []trustingMember
		order    trustOrder
		tell     []string
		stage    string
		waiting  []string
		handOver bool
	}{
		{name: "nothing rotates", trusted: []string{"old"}, members: []trustingMember{{ID: "b", State: trusting(true, "old", "old")}}, order: trustOrder{"old", "", "old"}},
		{name: "a member appears", trusted: []string{"old"}, members: []trustingMember{{ID: "b"}}, order: trustOrder{"old", "", "old"}, tell: []string{"b"}},
		{name: "a rotation that never began is cleaned away", trusted: both, members: []trustingMember{{ID: "b", State: trusting(true, "old", both...)}},
			order: trustOrder{"old", "", "old"}, tell: []string{"b"}},
		{name: "all are to trust the new one", record: record(stageSpread, 0), trusted: both, order: trustOrder{"old", "new", "old"},
			members: []trustingMember{{ID: "e", Name: "e"}, {ID: "r", Name: "r", Replica: true}}, tell: []string{"r", "e"}, stage: stageSpread, waiting: []string{"e", "r"}},
		{name: "all trust the new one", record: record(stageSpread, 0), trusted: both, order: trustOrder{"old", "new", "old"},
			members: []trustingMember{{ID: "e", State: trusting(true, "old", both...)}}, stage: stageOverlap},
		{name: "the new one certifies users", record: record(stageOverlap, time.Minute), trusted: both, order: trustOrder{"old", "new", "new"},
			members: []trustingMember{{ID: "r", Name: "r", Replica: true, State: trusting(true, "old", both...)}}, tell: []string{"r"}, stage: stageOverlap, waiting: []string{"r"}},
		{name: "the overlap lasts", record: record(stageOverlap, 59*time.Minute), trusted: both, order: trustOrder{"old", "new", "new"}, stage: stageOverlap},
		{name: "the overlap is over", record: record(stageOverlap, time.Hour), trusted: both, order: trustOrder{"old", "new", "new"}, stage: stageCertify},
		{name: "nobody is left behind", record: record(stageOverlap, 2*time.Hour), trusted: both, order: trustOrder{"old", "new", "new"},
			members: []trustingMember{{ID: "e", Name: "e"}}, tell: []string{"e"}, stage: stageOverlap, waiting: []string{"e"}},
		{name: "replicas are certified first", record: record(stageCertify, time.Minute), trusted: both, order: trustOrder{"new", "old", "new"},
			members: []trustingMember{{ID: "e", Name: "e"}, {ID: "r", Name: "r", Replica: true, State: trusting(false, "new", "new", "old")}},
			tell:    []string{"r"}, stage: stageCertify, waiting: []string{"e", "r"}},
		{name: "then the others", record: record(stageCertify, time.Minute), trusted: []string{"new", "old"}, order: trustOrder{"new", "old", "new"},
			members: []trustingMember{{ID: "e", Name: "e"}, {ID: "r", Name: "r", Replica: true, State: trusting(true, "new", "new", "old")}},
			tell:    []string{"e"}, stage: stageCertify, waiting: []string{"e"}},
		{name: "programs need a moment", record: record(stageCertify, time.Second), trusted: []string{"new", "old"}, order: trustOrder{"new", "old", "new"}, stage: stageCertify},
		{name: "all are certified", record: record(stageCertify, time.Minute), trusted: []string{"new", "old"}, order: trustOrder{"new", "old", "new"}},
		{name: "who never answers is not waited for", record: record(stageCertify, time.Hour), trusted: []string{"new", "old"}, order: trustOrder{"new", "old", "new"},
			members: []trustingMember{{ID: "e", Name: "e"}}, tell: []string{"e"}},
		{name: "the old one is dropped", record: rotation{Retired: []string{"old"}}, trusted: []string{"new", "old"}, order: trustOrder{"new", "", "new"},
			members: []trustingMember{{ID: "e", State: trusting(true, "new", "new", "old")}}, tell: []string{"e"}},
		{name: "a leader died after it had dropped the old one", record: record(stageCertify, time.Hour), trusted: []string{"new"}, order: trustOrder{"new", "", "new"}},
		{name: "the record was lost", trusted: []string{"new", "old"}, order: trustOrder{"new", "old", "new"}, stage: stageCertify},
		{name: "a leader without the key, at the start", record: record(stageSpread, 0), trusted: []string{"old"}, order: trustOrder{"old", "", "old"}},
		{name: "a leader without the key, later", record: record(stageOverlap, 0), trusted: []string{"old"}, order: trustOrder{"old", "", "old"},
			members: []trustingMember{{ID: "r", Replica: true}}, stage: stageOverlap, handOver: true},
		{name: "a leader without the key, alone", record: record(stageOverlap, 0), trusted: []string{"old"}, order: trustOrder{"old", "", "old"}, stage: stageOverlap},
	} {
		t.Run(c.name, func(t *testing.T) {
			step := decideRotation(rotationView{Now: now, Record: c.record, Trusted: c.trusted, Newest: "new", Second: []string{"old"}, Members: c.members})
			if step.Order != c.order || !slices.Equal(step.Tell, c.tell) || step.Record.Stage != c.stage || !slices.Equal(step.Record.Waiting, c.waiting) || step.HandOver != c.handOver {
				t.Errorf("got %+v", step)
			}
			if c.stage == "" && c.record.Stage == stageCertify && !slices.Equal(step.Record.Retired, []string{"old", "old-proxy", "older"}) {
				t.Errorf("retired are %v", step.Record.Retired)
			}
			object := corev1.ConfigMap{Data: step.Record.data()}
			if read, err := readRotation(&object); err != nil || !read.equal(step.Record) {
				t.Errorf("recorded as %v and read as %+v, %v", object.Data, read, err)
			}
		})
	}
}

// simulated is a member of a simulated cluster.
type simulated struct {
	alive, replica, told bool
	trusted              []string
	users, certifiedBy   string
	// lost says that it was away for the whole overlap, or did not answer for long.
	lost bool
}

func (s *simulated) state() pki.TrustState {
	return pki.TrustState{Trusted: s.trusted, Users: s.users, Certified: s.certifiedBy == s.trusted[0]}
}

// understands tells whether a connection between the two comes about.
func understands(a, b *simulated) bool {
	return slices.Contains(a.trusted, b.certifiedBy) && slices.Contains(b.trusted, a.certifiedBy)
}

func (s *simulated) obey(order trustOrder) {
	s.trusted, s.users, s.certifiedBy = order.ids(), order.Users, order.Certifies
}

// Members die and return, leaders change, calls are lost, records are written twice or not at all: whoever was not away for the whole overlap
// understands all others all the time, and in the end the old authority is gone.
func TestRotationKeepsMembersTogether(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
		members := map[string]*simulated{}
		var names []string
		for i := range 6 {
			name := fmt.Sprint("m", i)
			names = append(names, name)
			members[name] = &simulated{alive: true, replica: i < 3, trusted: []string{"old"}, users: "old", certifiedBy: "old"}
		}
		for _, name := range names[:3] { // as beginAuthorities leaves them
			members[name].trusted = []string{"old", "new"}
		}
		record := rotation{Stage: stageSpread, Predecessor: "old", Successor: "new", Since: now, Overlap: time.Minute, Retire: []string{"old"}}
		leader := "m0"
		step := func(reaches func(string) bool, records bool) {
			view := rotationView{Now: now, Record: record, Trusted: members[leader].trusted, Newest: "new", Second: []string{"old"}}
			for _, name := range names {
				one := members[name]
				if name == leader || !one.alive || one.lost {
					continue
				}
				member := trustingMember{ID: name, Name: name, Replica: one.replica}
				if one.told {
					state := one.state()
					member.State = &state
				}
				view.Members = append(view.Members, member)
			}
			decided := decideRotation(view)
			if decided.HandOver {
				for _, name := range names[:3] {
					if members[name].alive && slices.Contains(members[name].trusted, record.Successor) {
						leader = name
					}
				}
				return
			}
			members[leader].obey(decided.Order)
			for _, name := range decided.Tell {
				if reaches(name) && understands(members[leader], members[name]) {
					members[name].obey(decided.Order)
					members[name].told = true
				}
			}
			if records {
				if record.Stage == stageCertify && decided.Record.Stage == "" {
					for _, member := range view.Members { // those that it did not wait for any longer
						one := members[member.ID]
						one.lost = one.lost || one.certifiedBy != record.Successor
					}
				}
				record = decided.Record
			}
		}
		check := func() {
			for i, a := range names {
				for _, b := range names[i+1:] {
					if one, other := members[a], members[b]; one.alive && other.alive && !one.lost && !other.lost && !understands(one, other) {
						t.Fatalf("in stage %q %s (%+v) and %s (%+v) do not understand each other", record.Stage, a, *one, b, *other)
					}
				}
			}
		}
		for range rapid.IntRange(0, 60).Draw(t, "steps") {
			switch name := rapid.SampledFrom(names).Draw(t, "member"); rapid.SampledFrom([]string{"step", "step", "step", "time", "die", "return", "lead"}).Draw(t, "what") {
			case "step":
				step(func(string) bool { return rapid.Bool().Draw(t, "reached") }, rapid.Bool().Draw(t, "recorded"))
			case "time":
				now = now.Add(time.Duration(rapid.IntRange(1, 90).Draw(t, "seconds")) * time.Second)
			case "die":
				members[name].alive = name == leader // one that leads leaves the lead first
			case "return":
				members[name].alive, members[name].told = true, false
				// One that returns when a stage is recorded and not yet followed is too late, too.
				late := record.Stage == "" && members[name].certifiedBy == "old" ||
					record.Stage == stageCertify && !slices.Contains(members[name].trusted, "new")
				members[name].lost = members[name].lost || late || !understands(members[name], members[leader])
			case "lead":
				if one := members[name]; one.replica && one.alive && !one.lost {
					leader = name
					for _, other := range members {
						other.told = false
					}
				}
			}
			check()
		}
		for range 30 {
			now = now.Add(30 * time.Second)
			step(func(string) bool { return true }, true)
			check()
		}
		for _, name := range names {
			if one := members[name]; one.alive && !one.lost && record.Stage == "" && len(one.trusted) != 1 {
				t.Fatalf("in the end %s is %+v", name, *one)
			}
		}
		if record.Stage != "" {
			t.Fatalf("in the end the rotation is %+v", record)
		}
	})
}
