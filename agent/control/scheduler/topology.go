package scheduler

import v1 "k8s.io/api/core/v1"

// none is the domain of a node without the topology's label.
const none int32 = -1

// topology numbers the values of one label, its domains, over the nodes of a view.
type topology struct {
	key     string
	numbers map[string]int32
	of      []int32 // domain of each node
	// members are the nodes of each domain, crowded how many domains have more than one.
	members []int32
	crowded int
}

// shared tells whether any domain has more than one node.
func (t *topology) shared() bool { return t.crowded > 0 }

func (t *topology) place(i int, object *v1.Node) {
	if domain := t.of[i]; domain != none {
		if t.members[domain]--; t.members[domain] == 1 {
			t.crowded--
		}
	}
	t.of[i] = none
	if object == nil {
		return
	}
	value, ok := object.Labels[t.key]
	if !ok {
		return
	}
	number, ok := t.numbers[value]
	if !ok {
		number = int32(len(t.numbers))
		t.numbers[value] = number
		t.members = append(t.members, 0)
	}
	t.of[i] = number
	if t.members[number]++; t.members[number] == 2 {
		t.crowded++
	}
}

// domainSums are amounts by the domains of one topology.
type domainSums struct {
	topology int
	by       []int64
}

func (s *domainSums) at(domain int32) int64 {
	if uint(domain) < uint(len(s.by)) {
		return s.by[domain]
	}
	return 0
}

// add adds to a domain and returns its new amount.
func (s *domainSums) add(domain int32, n int64) int64 {
	for int(domain) >= len(s.by) {
		s.by = append(s.by, 0)
	}
	s.by[domain] += n
	return s.by[domain]
}

// spreading counts the pods of one spread constraint, over the nodes that take part in it.
type spreading struct {
	domainSums
	term *spreadTerm
	// own are the counts of each node, whether it takes part or not; takes tells which do.
	own   []int32
	takes []bool
	// members are the nodes of each domain that take part, and domains how many domains have one.
	members domainSums
	domains int64
	// levels counts the domains by their number of pods, and lowest is the smallest of these: kept up, because
	// looking at all domains for each node would be what placing a pod costs.
	levels []int32
	lowest int64
	// stamps are the numbers of the last scans that saw a feasible node in each domain, weight what the scan found
	// a pod to weigh. Of soft constraints only.
	stamps []uint64
	weight float64
	// places are the domains of the nodes, byNode tells that each has one of its own, and slack is what is added where a
	// node has one.
	places []int32
	byNode bool
	slack  float64
}

// join makes a node part of the spread, or no more.
func (s *spreading) join(domain int32, takes bool) {
	if takes {
		if s.members.add(domain, 1) == 1 {
			s.domains++
			s.level(s.at(domain), 1)
		}
		return
	}
	if s.members.add(domain, -1) == 0 {
		s.domains--
		s.level(s.at(domain), -1)
	}
}

// count adds pods to a domain that has a member.
func (s *spreading) count(domain int32, n int64) {
	if n == 0 {
		return
	}
	s.level(s.at(domain), -1)
	s.level(s.add(domain, n), 1)
}

// level notes that one more, or one less, domain has that many pods.
func (s *spreading) level(pods int64, sign int32) {
	for pods >= int64(len(s.levels)) {
		s.levels = append(s.levels, 0)
	}
	s.levels[pods] += sign
	if sign > 0 {
		s.lowest = min(s.lowest, pods)
	}
}

// least is the smallest number of pods of any domain; too few domains count as an empty one more.
func (s *spreading) least() int64 {
	if s.domains < s.term.minDomains || s.domains == 0 {
		return 0
	}
	for s.levels[s.lowest] == 0 {
		s.lowest++
	}
	return s.lowest
}
