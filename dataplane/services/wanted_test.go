package services

import (
	"net/netip"
	"slices"
	"testing"
)

func endpointOn(node, addr string) Endpoint {
	return Endpoint{Addr: netip.MustParseAddrPort(addr), Ready: true, Serving: true, Node: node, Local: node == "here"}
}

func TestDeadNodesLoseTheirEndpoints(t *testing.T) {
	terminating := func(e Endpoint) Endpoint { e.Ready, e.Terminating = false, true; return e }
	elsewhere := func(e Endpoint) Endpoint { e.Elsewhere = true; return e }
	here, n2, n3 := endpointOn("here", "10.0.1.1:80"), endpointOn("n2", "10.0.2.1:80"), endpointOn("n3", "10.0.3.1:80")
	tests := []struct {
		name      string
		endpoints []Endpoint
		dead      []string
		want      []string
	}{
		{"all alive", []Endpoint{here, n2, n3}, nil, []string{"10.0.1.1:80", "10.0.2.1:80", "10.0.3.1:80"}},
		{"one dead", []Endpoint{here, n2, n3}, []string{"n2"}, []string{"10.0.1.1:80", "10.0.3.1:80"}},
		{"all look dead: all stay", []Endpoint{n2, n3}, []string{"n2", "n3"}, []string{"10.0.2.1:80", "10.0.3.1:80"}},
		{"this node is never dead", []Endpoint{here, n2}, []string{"here", "n2"}, []string{"10.0.1.1:80"}},
		{"the end of a pod is better than a dead node", []Endpoint{terminating(here), n2}, []string{"n2"}, []string{"10.0.1.1:80"}},
		{"another zone is better than a dead node", []Endpoint{n2, elsewhere(n3)}, []string{"n2"}, []string{"10.0.3.1:80"}},
		{"all look dead: hints stay too", []Endpoint{n2, elsewhere(n3)}, []string{"n2", "n3"}, []string{"10.0.2.1:80"}},
		{"a node that nobody knows", []Endpoint{endpointOn("", "10.0.9.1:80"), n2}, []string{"n2", "other"}, []string{"10.0.9.1:80"}},
	}
	for _, test := range tests {
		dead := map[string]bool{}
		for _, node := range test.dead {
			dead[node] = true
		}
		var got []string
		for _, b := range usable(test.endpoints, false, false, dead) {
			got = append(got, b.Addr.String())
		}
		if !slices.Equal(got, test.want) {
			t.Errorf("%s: %v, want %v", test.name, got, test.want)
		}
	}
}

func TestOnlyServicesOfNodesThatChangedAreTouched(t *testing.T) {
	w := newWanted()
	service := func(name string, endpoints ...Endpoint) {
		w.replace(Change{Name: name, Service: &Service{Name: name, Ports: []Port{{Protocol: TCP, Port: 80, Endpoints: endpoints}}}})
	}
	service("a", endpointOn("n1", "10.0.1.1:80"), endpointOn("n2", "10.0.2.1:80"))
	service("b", endpointOn("n2", "10.0.2.2:80"))
	service("c", endpointOn("n3", "10.0.3.1:80"))
	setOf := func(nodes []string) map[string]bool {
		set := map[string]bool{}
		for _, node := range nodes {
			set[node] = true
		}
		return set
	}
	expect := func(what string, dead, silent []string, touched, gone []string) {
		t.Helper()
		names, remotes := w.setDead(setOf(dead), setOf(silent))
		var addrs []string
		for _, r := range remotes {
			addrs = append(addrs, r.addr.String())
		}
		if !slices.Equal(names, touched) || !slices.Equal(addrs, gone) {
			t.Errorf("%s: touched %v and ended %v, want %v and %v", what, names, addrs, touched, gone)
		}
	}
	one := func(node string) []string { return []string{node} }
	// b has no other endpoint: it keeps the dead one, and its connections.
	expect("n2 dies", one("n2"), one("n2"), []string{"a", "b"}, []string{"10.0.2.1:80"})
	expect("the same again", one("n2"), one("n2"), nil, nil)
	expect("a node without endpoints dies", []string{"n2", "n9"}, []string{"n2", "n9"}, nil, nil)
	expect("n2 returns and n3 dies", one("n3"), one("n3"), []string{"a", "b", "c"}, nil)
	expect("all return", nil, nil, []string{"c"}, nil)
	expect("the agent of n2 is away", one("n2"), nil, []string{"a", "b"}, nil)
	expect("its machine follows", one("n2"), one("n2"), nil, []string{"10.0.2.1:80"})
	expect("n2 returns", nil, nil, []string{"a", "b"}, nil)
	expect("who is not dead is not silent", nil, one("n2"), nil, nil)
	service("c")
	expect("n3 dies, where nothing is any more", one("n3"), one("n3"), nil, nil)
}
