package dns

import (
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/miekg/dns"
)

func sample() *Records {
	r := NewRecords("cluster.local")
	r.Apply(Update{Full: true, Upserts: []Service{
		{
			Namespace: "default", Name: "web", ClusterIPs: []netip.Addr{netip.MustParseAddr("10.96.0.80"), netip.MustParseAddr("fd00::80")},
			Ports: []Port{{Name: "http", Protocol: "tcp", Port: 80}, {Protocol: "udp", Port: 99}},
		},
		{
			Namespace: "db", Name: "pg",
			Endpoints: []Endpoint{
				{Addr: netip.MustParseAddr("10.244.0.5"), Hostname: "pg-0", Ports: []Port{{Name: "sql", Protocol: "tcp", Port: 5432}}},
				{Addr: netip.MustParseAddr("10.244.0.6"), Ports: []Port{{Name: "sql", Protocol: "tcp", Port: 5432}}},
				{Addr: netip.MustParseAddr("fd00:1::5"), Hostname: "pg-0", Ports: []Port{{Name: "sql", Protocol: "tcp", Port: 5432}}},
			},
		},
		{Namespace: "default", Name: "empty"},
		{Namespace: "default", Name: "search", ExternalName: "search.example.org"},
	}})
	return r
}

func TestLookup(t *testing.T) {
	tests := []struct {
		name   string
		qtype  uint16
		status Status
		// want are the records without name, class and TTL, sorted; extra those of the additional section.
		want, extra []string
	}{
		{"web.default.svc.cluster.local.", dns.TypeA, Exists, []string{"A 10.96.0.80"}, nil},
		{"WEB.Default.svc.Cluster.local.", dns.TypeAAAA, Exists, []string{"AAAA fd00::80"}, nil},
		{"web.default.svc.cluster.local.", dns.TypeMX, Exists, nil, nil},
		{"web.other.svc.cluster.local.", dns.TypeA, NoName, nil, nil},
		{"other.default.svc.cluster.local.", dns.TypeA, NoName, nil, nil},
		{"default.svc.cluster.local.", dns.TypeA, Exists, nil, nil},
		{"nowhere.svc.cluster.local.", dns.TypeA, NoName, nil, nil},
		{"svc.cluster.local.", dns.TypeA, Exists, nil, nil},
		{"nonsense.cluster.local.", dns.TypeA, NoName, nil, nil},
		{"example.org.", dns.TypeA, NotMine, nil, nil},
		{"notcluster.local.", dns.TypeA, NotMine, nil, nil},
		{
			"_http._tcp.web.default.svc.cluster.local.", dns.TypeSRV, Exists,
			[]string{"SRV 0 100 80 web.default.svc.cluster.local."}, []string{"A 10.96.0.80", "AAAA fd00::80"},
		},
		{"_http._udp.web.default.svc.cluster.local.", dns.TypeSRV, NoName, nil, nil},
		{"_http._tcp.web.default.svc.cluster.local.", dns.TypeA, Exists, nil, nil},
		{
			"web.default.svc.cluster.local.", dns.TypeSRV, Exists,
			[]string{"SRV 0 50 80 web.default.svc.cluster.local.", "SRV 0 50 99 web.default.svc.cluster.local."},
			[]string{"A 10.96.0.80", "AAAA fd00::80"},
		},
		{"pg.db.svc.cluster.local.", dns.TypeA, Exists, []string{"A 10.244.0.5", "A 10.244.0.6"}, nil},
		{"pg.db.svc.cluster.local.", dns.TypeAAAA, Exists, []string{"AAAA fd00:1::5"}, nil},
		{"pg-0.pg.db.svc.cluster.local.", dns.TypeA, Exists, []string{"A 10.244.0.5"}, nil},
		{"pg-0.pg.db.svc.cluster.local.", dns.TypeAAAA, Exists, []string{"AAAA fd00:1::5"}, nil},
		{"10-244-0-6.pg.db.svc.cluster.local.", dns.TypeA, Exists, []string{"A 10.244.0.6"}, nil},
		{"pg-1.pg.db.svc.cluster.local.", dns.TypeA, NoName, nil, nil},
		{
			"_sql._tcp.pg.db.svc.cluster.local.", dns.TypeSRV, Exists,
			[]string{
				"SRV 0 33 5432 10-244-0-6.pg.db.svc.cluster.local.", "SRV 0 33 5432 pg-0.pg.db.svc.cluster.local.",
			},
			[]string{"A 10.244.0.5", "A 10.244.0.6", "AAAA fd00:1::5"},
		},
		{"empty.default.svc.cluster.local.", dns.TypeA, NoName, nil, nil},
		{"search.default.svc.cluster.local.", dns.TypeA, Exists, []string{"CNAME search.example.org."}, nil},
		{"10-1-2-3.default.pod.cluster.local.", dns.TypeA, Exists, []string{"A 10.1.2.3"}, nil},
		{"fd00--1.default.pod.cluster.local.", dns.TypeAAAA, Exists, []string{"AAAA fd00::1"}, nil},
		{"10-1-2-3.without-services.pod.cluster.local.", dns.TypeA, Exists, []string{"A 10.1.2.3"}, nil},
		{"nonsense.default.pod.cluster.local.", dns.TypeA, NoName, nil, nil},
		{"80.0.96.10.in-addr.arpa.", dns.TypePTR, Exists, []string{"PTR web.default.svc.cluster.local."}, nil},
		{"5.0.244.10.in-addr.arpa.", dns.TypePTR, Exists, []string{"PTR pg-0.pg.db.svc.cluster.local."}, nil},
		{"6.0.244.10.in-addr.arpa.", dns.TypePTR, Exists, []string{"PTR 10-244-0-6.pg.db.svc.cluster.local."}, nil},
		{"9.9.9.9.in-addr.arpa.", dns.TypePTR, NotMine, nil, nil},
		{mustReverse("fd00::80"), dns.TypePTR, Exists, []string{"PTR web.default.svc.cluster.local."}, nil},
		{"dns-version.cluster.local.", dns.TypeTXT, Exists, []string{`TXT "1.1.0"`}, nil},
		{"cluster.local.", dns.TypeNS, Exists, []string{"NS ns.dns.cluster.local."}, nil},
	}
	r := sample()
	for _, test := range tests {
		t.Run(test.name+dns.TypeToString[test.qtype], func(t *testing.T) {
			checkAnswer(t, r.Lookup(test.name, test.qtype), test.name, test.status, test.want, test.extra)
		})
	}
}

func checkAnswer(t *testing.T, got Answer, name string, status Status, want, extra []string) {
	t.Helper()
	if got.Status != status {
		t.Errorf("status %d, want %d", got.Status, status)
	}
	if rrs := brief(t, got.RRs, name); !slices.Equal(rrs, want) {
		t.Errorf("records %q, want %q", rrs, want)
	}
	if rrs := brief(t, got.Extra, ""); !slices.Equal(rrs, extra) {
		t.Errorf("additional records %q, want %q", rrs, extra)
	}
}

// brief renders records; each must carry the name as it was asked.
func brief(t *testing.T, rrs []dns.RR, name string) []string {
	t.Helper()
	var out []string
	for _, rr := range rrs {
		if name != "" && rr.Header().Name != name {
			t.Errorf("record named %q, want %q", rr.Header().Name, name)
		}
		text := strings.TrimPrefix(rr.String(), rr.Header().String())
		out = append(out, dns.TypeToString[rr.Header().Rrtype]+" "+text)
	}
	slices.Sort(out)
	return out
}

func mustReverse(addr string) string {
	name, err := dns.ReverseAddr(addr)
	if err != nil {
		panic(err)
	}
	return name
}

func TestApplyReplacesAndForgets(t *testing.T) {
	r := sample()
	r.Apply(Update{Upserts: []Service{{Namespace: "default", Name: "web", ClusterIPs: []netip.Addr{netip.MustParseAddr("10.96.0.81")}}}, Deletes: []string{"db/pg"}})
	for name, want := range map[string]Status{
		"81.0.96.10.in-addr.arpa.": Exists, "80.0.96.10.in-addr.arpa.": NotMine, "5.0.244.10.in-addr.arpa.": NotMine, "db.svc.cluster.local.": NoName,
	} {
		if got := r.Lookup(name, dns.TypePTR); got.Status != want {
			t.Errorf("%s: status %d, want %d", name, got.Status, want)
		}
	}
	if r.Len() != 3 || len(r.Services()) != 3 {
		t.Errorf("%d services, want 3", r.Len())
	}
	r.Apply(Update{Full: true})
	if r.Len() != 0 || len(r.addresses) != 0 || len(r.namespaces) != 0 {
		t.Errorf("something is left: %+v", r)
	}
}
