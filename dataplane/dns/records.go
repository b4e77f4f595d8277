package dns

import (
	"maps"
	"net/netip"
	"slices"
	"strings"
	"sync"
)

// Records are the names of one cluster. See [NewRecords].
type Records struct {
	// domain is the cluster's, in lower case with a final dot.
	domain string

	mu       sync.RWMutex // guards what follows
	services map[string]*Service
	// namespaces counts the services of each.
	namespaces map[string]int
	// addresses lists the keys of the services that own an address, sorted.
	addresses map[netip.Addr][]string
}

// NewRecords returns records without any service. domain is the cluster's, e.g. "cluster.local".
func NewRecords(domain string) *Records {
	r := &Records{domain: strings.ToLower(strings.Trim(domain, ".")) + "."}
	r.clear()
	return r
}

// Domain returns the cluster's domain with a final dot.
func (r *Records) Domain() string { return r.domain }

// Len returns the number of services.
func (r *Records) Len() int {
	r.mu.RLock()
	defer r.mu.RUnlock()
	return len(r.services)
}

// Services copies what is known, sorted by namespace and name.
func (r *Records) Services() []Service {
	r.mu.RLock()
	defer r.mu.RUnlock()
	out := make([]Service, 0, len(r.services))
	for _, key := range slices.Sorted(maps.Keys(r.services)) {
		out = append(out, *r.services[key])
	}
	return out
}

// Apply carries out an update; readers see all of it or nothing.
func (r *Records) Apply(u Update) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if u.Full {
		r.clear()
	}
	for _, key := range u.Deletes {
		r.remove(key)
	}
	for i := range u.Upserts {
		r.remove(u.Upserts[i].Key())
		r.add(&u.Upserts[i])
	}
}

func (r *Records) clear() {
	r.services = map[string]*Service{}
	r.namespaces = map[string]int{}
	r.addresses = map[netip.Addr][]string{}
}

func (r *Records) add(s *Service) {
	key := s.Key()
	r.services[key] = s
	r.namespaces[s.Namespace]++
	for _, addr := range addressesOf(s) {
		keys := r.addresses[addr]
		if at, found := slices.BinarySearch(keys, key); !found {
			r.addresses[addr] = slices.Insert(keys, at, key)
		}
	}
}

func (r *Records) remove(key string) {
	s := r.services[key]
	if s == nil {
		return
	}
	delete(r.services, key)
	if r.namespaces[s.Namespace]--; r.namespaces[s.Namespace] == 0 {
		delete(r.namespaces, s.Namespace)
	}
	for _, addr := range addressesOf(s) {
		keys := r.addresses[addr]
		if at, found := slices.BinarySearch(keys, key); found {
			keys = slices.Delete(keys, at, at+1)
		}
		if len(keys) == 0 {
			delete(r.addresses, addr)
		} else {
			r.addresses[addr] = keys
		}
	}
}

func addressesOf(s *Service) []netip.Addr {
	out := slices.Clone(s.ClusterIPs)
	for _, e := range s.Endpoints {
		out = append(out, e.Addr)
	}
	return out
}
