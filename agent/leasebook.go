package agent

import (
	"sync"
	"time"

	"github.com/podvine/podvine/agent/isolation"
)

// leaseBook is what the leader knows of leases, in memory. It is safe for concurrent use.
type leaseBook struct {
	mu     sync.Mutex
	term   uint64
	since  time.Time
	grants map[string]time.Time // by the node's UUID
}

// lead begins a term: leases that another leader granted may last still.
func (b *leaseBook) lead(term uint64, now time.Time) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.term, b.since, b.grants = term, now, map[string]time.Time{}
}

func (b *leaseBook) grant(node string, now time.Time) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.grants == nil {
		b.grants = map[string]time.Time{}
	}
	b.grants[node] = now
}

// released tells whether no lease of the node can last, whoever granted it. parting says that it may be one of an agent that ended on
// purpose.
func (b *leaseBook) released(node string, term uint64, now time.Time, parting bool) bool {
	wait := isolation.ReleaseAfter
	if parting {
		wait = isolation.PartingReleaseAfter
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if term != b.term || now.Sub(b.since) < wait {
		return false
	}
	granted, known := b.grants[node]
	return !known || now.Sub(granted) >= wait
}
