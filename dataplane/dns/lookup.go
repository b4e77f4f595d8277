package dns

import (
	"net/netip"
	"strings"

	"github.com/miekg/dns"
)

const (
	// TTLSeconds of every record: short, for a change is to be seen soon and answers cost nothing.
	TTLSeconds = 5
	// SpecificationVersion is what "dns-version" tells.
	SpecificationVersion = "1.1.0"
	srvWeightTotal       = 100
)

// Status says what is known of a name.
type Status uint8

// The statuses. An answer without records to an existing name is NOERROR, and negative.
const (
	// NotMine names lie outside the cluster's domain, or are addresses that no service has.
	NotMine Status = iota
	NoName
	Exists
)

// Answer is what the records tell about a question.
type Answer struct {
	Status Status
	RRs    []dns.RR
	Extra  []dns.RR
	// Alias, if set, is where the one CNAME record leads: outside, for the asker to follow.
	Alias string
}

// Lookup answers a question. name may be in any case; records carry it as it was asked.
func (r *Records) Lookup(name string, qtype uint16) Answer {
	asked := dns.Fqdn(name)
	lower := strings.ToLower(asked)
	r.mu.RLock()
	defer r.mu.RUnlock()
	q := &question{records: r, asked: asked, qtype: qtype}
	if strings.HasSuffix(lower, ".arpa.") {
		return q.reverse(lower)
	}
	if lower == r.domain {
		return q.apex()
	}
	rest, ok := strings.CutSuffix(lower, "."+r.domain)
	if !ok {
		return Answer{}
	}
	labels := strings.Split(rest, ".")
	last := len(labels) - 1
	switch labels[last] {
	case "svc":
		return q.service(labels[:last])
	case "pod":
		return q.pod(labels[:last])
	case "dns-version":
		if last == 0 {
			return q.version()
		}
	case "dns":
		// ns.dns.DOMAIN is the zone's name server.
		if last == 1 && labels[0] == "ns" {
			return Answer{Status: Exists}
		}
	}
	return Answer{Status: NoName}
}

// question is one look-up under the records' lock.
type question struct {
	records *Records
	asked   string
	qtype   uint16
}

func (q *question) header(name string, qtype uint16) dns.RR_Header {
	return dns.RR_Header{Name: name, Rrtype: qtype, Class: dns.ClassINET, Ttl: TTLSeconds}
}

func (q *question) apex() Answer {
	answer := Answer{Status: Exists}
	switch q.qtype {
	case dns.TypeSOA:
		answer.RRs = []dns.RR{q.records.SOA()}
	case dns.TypeNS:
		answer.RRs = []dns.RR{&dns.NS{Hdr: q.header(q.asked, dns.TypeNS), Ns: "ns.dns." + q.records.domain}}
	}
	return answer
}

// SOA is the zone's, for negative answers.
func (r *Records) SOA() dns.RR {
	return &dns.SOA{
		Hdr: dns.RR_Header{Name: r.domain, Rrtype: dns.TypeSOA, Class: dns.ClassINET, Ttl: TTLSeconds},
		Ns:  "ns.dns." + r.domain, Mbox: "hostmaster." + r.domain,
		Serial: 1, Refresh: 7200, Retry: 1800, Expire: 86400, Minttl: TTLSeconds,
	}
}

func (q *question) version() Answer {
	answer := Answer{Status: Exists}
	if q.qtype == dns.TypeTXT {
		answer.RRs = []dns.RR{&dns.TXT{Hdr: q.header(q.asked, dns.TypeTXT), Txt: []string{SpecificationVersion}}}
	}
	return answer
}

// service answers below "svc": [_port _protocol | host] service namespace.
func (q *question) service(labels []string) Answer {
	switch len(labels) {
	case 0:
		return Answer{Status: Exists}
	case 1:
		if q.records.namespaces[labels[0]] > 0 {
			return Answer{Status: Exists}
		}
		return Answer{Status: NoName}
	}
	n := len(labels)
	s := q.records.services[labels[n-1]+"/"+labels[n-2]]
	if s == nil {
		return Answer{Status: NoName}
	}
	switch {
	case n == 2 && s.ExternalName != "":
		return q.alias(s)
	case n == 2 && s.headless():
		return q.headless(s)
	case n == 2:
		return q.clusterIP(s)
	case n == 3 && s.headless():
		return q.host(s, labels[0])
	case n == 4 && strings.HasPrefix(labels[0], "_") && strings.HasPrefix(labels[1], "_"):
		return q.port(s, labels[0][1:], labels[1][1:])
	}
	return Answer{Status: NoName}
}

func (q *question) alias(s *Service) Answer {
	target := dns.Fqdn(s.ExternalName)
	record := &dns.CNAME{Hdr: q.header(q.asked, dns.TypeCNAME), Target: target}
	return Answer{Status: Exists, RRs: []dns.RR{record}, Alias: target}
}

func (q *question) clusterIP(s *Service) Answer {
	answer := Answer{Status: Exists}
	if q.qtype == dns.TypeSRV {
		for _, p := range s.Ports {
			q.addSRV(&answer, s, p, len(s.Ports))
		}
		return answer
	}
	for _, addr := range s.ClusterIPs {
		answer.RRs = appendAddress(answer.RRs, q.asked, addr, q.qtype)
	}
	return answer
}

func (q *question) headless(s *Service) Answer {
	if len(s.Endpoints) == 0 {
		// As Kubernetes: a headless service without endpoints has no name.
		return Answer{Status: NoName}
	}
	answer := Answer{Status: Exists}
	for _, e := range s.Endpoints {
		if q.qtype == dns.TypeSRV {
			for _, p := range e.Ports {
				q.addEndpointSRV(&answer, s, e, p, len(s.Endpoints)*len(e.Ports))
			}
			continue
		}
		answer.RRs = appendAddress(answer.RRs, q.asked, e.Addr, q.qtype)
	}
	return answer
}

func (q *question) host(s *Service, host string) Answer {
	answer := Answer{Status: NoName}
	for _, e := range s.Endpoints {
		if !strings.EqualFold(endpointHost(e), host) {
			continue
		}
		answer.Status = Exists
		if q.qtype == dns.TypeSRV {
			for _, p := range e.Ports {
				q.addEndpointSRV(&answer, s, e, p, len(e.Ports))
			}
			continue
		}
		answer.RRs = appendAddress(answer.RRs, q.asked, e.Addr, q.qtype)
	}
	return answer
}

func (q *question) port(s *Service, port, protocol string) Answer {
	answer := Answer{Status: NoName}
	matches := func(p Port) bool { return p.Name != "" && p.Name == port && p.Protocol == protocol }
	for _, p := range s.Ports {
		if s.headless() || !matches(p) {
			continue
		}
		answer.Status = Exists
		if q.qtype == dns.TypeSRV {
			q.addSRV(&answer, s, p, 1)
		}
	}
	for _, e := range s.Endpoints {
		for _, p := range e.Ports {
			if !matches(p) {
				continue
			}
			answer.Status = Exists
			if q.qtype == dns.TypeSRV {
				q.addEndpointSRV(&answer, s, e, p, len(s.Endpoints))
			}
		}
	}
	return answer
}

// addSRV adds the record of a service's port and, once, the addresses of its target.
func (q *question) addSRV(answer *Answer, s *Service, p Port, of int) {
	target := s.Name + "." + s.Namespace + ".svc." + q.records.domain
	answer.RRs = append(answer.RRs, q.srv(target, p, of))
	if len(answer.Extra) == 0 {
		for _, addr := range s.ClusterIPs {
			answer.Extra = appendAddress(answer.Extra, target, addr, dns.TypeANY)
		}
	}
}

func (q *question) addEndpointSRV(answer *Answer, s *Service, e Endpoint, p Port, of int) {
	target := endpointHost(e) + "." + s.Name + "." + s.Namespace + ".svc." + q.records.domain
	answer.RRs = appendNew(answer.RRs, q.srv(target, p, of))
	for _, rr := range appendAddress(nil, target, e.Addr, dns.TypeANY) {
		answer.Extra = appendNew(answer.Extra, rr)
	}
}

// appendNew leaves out what is there already: the two families of one host have one SRV record.
func appendNew(to []dns.RR, rr dns.RR) []dns.RR {
	for _, have := range to {
		if dns.IsDuplicate(have, rr) {
			return to
		}
	}
	return append(to, rr)
}

func (q *question) srv(target string, p Port, of int) dns.RR {
	return &dns.SRV{
		Hdr: q.header(q.asked, dns.TypeSRV), Priority: 0, Weight: uint16(max(1, srvWeightTotal/max(1, of))), Port: p.Port, Target: target,
	}
}

// endpointHost is the endpoint's label below its service: its host name, or its address with dashes.
func endpointHost(e Endpoint) string {
	if e.Hostname != "" {
		return e.Hostname
	}
	return dashed(e.Addr)
}

func dashed(addr netip.Addr) string {
	return strings.NewReplacer(".", "-", ":", "-").Replace(addr.String())
}

// pod answers a-b-c-d.NAMESPACE.pod: the address is in the name, whether or not there is such a pod.
func (q *question) pod(labels []string) Answer {
	switch len(labels) {
	case 0:
		return Answer{Status: Exists}
	case 1:
		if q.records.namespaces[labels[0]] > 0 {
			return Answer{Status: Exists}
		}
		return Answer{Status: NoName}
	case 2:
	default:
		return Answer{Status: NoName}
	}
	addr, ok := undashed(labels[0])
	if !ok {
		return Answer{Status: NoName}
	}
	return Answer{Status: Exists, RRs: appendAddress(nil, q.asked, addr, q.qtype)}
}

func undashed(label string) (netip.Addr, bool) {
	if strings.Count(label, "-") == 3 && !strings.Contains(label, "--") {
		if addr, err := netip.ParseAddr(strings.ReplaceAll(label, "-", ".")); err == nil {
			return addr, true
		}
	}
	addr, err := netip.ParseAddr(strings.ReplaceAll(label, "-", ":"))
	return addr, err == nil
}

func appendAddress(to []dns.RR, name string, addr netip.Addr, qtype uint16) []dns.RR {
	addr = addr.Unmap()
	header := dns.RR_Header{Name: name, Class: dns.ClassINET, Ttl: TTLSeconds}
	switch {
	case addr.Is4() && (qtype == dns.TypeA || qtype == dns.TypeANY):
		header.Rrtype = dns.TypeA
		return append(to, &dns.A{Hdr: header, A: addr.AsSlice()})
	case addr.Is6() && (qtype == dns.TypeAAAA || qtype == dns.TypeANY):
		header.Rrtype = dns.TypeAAAA
		return append(to, &dns.AAAA{Hdr: header, AAAA: addr.AsSlice()})
	}
	return to
}

// reverse answers for addresses that services or their endpoints have; others are not ours.
func (q *question) reverse(name string) Answer {
	addr, ok := reverseAddress(name)
	if !ok {
		return Answer{}
	}
	keys := q.records.addresses[addr]
	if len(keys) == 0 {
		return Answer{}
	}
	answer := Answer{Status: Exists}
	if q.qtype != dns.TypePTR && q.qtype != dns.TypeANY {
		return answer
	}
	for _, key := range keys {
		s := q.records.services[key]
		base := s.Name + "." + s.Namespace + ".svc." + q.records.domain
		if !s.headless() {
			answer.RRs = append(answer.RRs, &dns.PTR{Hdr: q.header(q.asked, dns.TypePTR), Ptr: base})
			continue
		}
		for _, e := range s.Endpoints {
			if e.Addr.Unmap() == addr {
				answer.RRs = append(answer.RRs, &dns.PTR{Hdr: q.header(q.asked, dns.TypePTR), Ptr: endpointHost(e) + "." + base})
			}
		}
	}
	return answer
}

// reverseAddress reads a name below in-addr.arpa or ip6.arpa.
func reverseAddress(name string) (netip.Addr, bool) {
	if rest, ok := strings.CutSuffix(name, ".in-addr.arpa."); ok {
		labels := strings.Split(rest, ".")
		if len(labels) != 4 {
			return netip.Addr{}, false
		}
		addr, err := netip.ParseAddr(labels[3] + "." + labels[2] + "." + labels[1] + "." + labels[0])
		return addr, err == nil
	}
	rest, ok := strings.CutSuffix(name, ".ip6.arpa.")
	labels := strings.Split(rest, ".")
	if !ok || len(labels) != 32 {
		return netip.Addr{}, false
	}
	var text strings.Builder
	for i := range labels {
		if i > 0 && i%4 == 0 {
			text.WriteByte(':')
		}
		text.WriteString(labels[len(labels)-1-i])
	}
	addr, err := netip.ParseAddr(text.String())
	return addr, err == nil
}
