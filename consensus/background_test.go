package consensus

import (
	"sync/atomic"
	"testing"
	"time"

	"github.com/podvine/podvine/consensus/store"
)

// TestSweepLooksAgain advances the clock past one of two expiries: after deletions the next look is due at once, because
// they may have failed, and after that at the other expiry.
func TestSweepLooksAgain(t *testing.T) {
	start := time.Now()
	var ahead atomic.Int64
	cfg := testConfig(t.TempDir())
	cfg.Now = func() time.Time { return start.Add(time.Duration(ahead.Load())) }
	r := open(t, cfg)
	later := start.Add(24 * time.Hour).UnixMilli()
	for key, at := range map[string]int64{"soon": start.Add(time.Hour).UnixMilli(), "later": later} {
		c := putCommand(key, "v", store.ExpectAny)
		c.Ops[0].ExpiresUnixMilli = at
		if _, err := r.Propose(t.Context(), Proposal{Command: c}); err != nil {
			t.Fatal(err)
		}
	}
	ready(t, r)
	term, _ := r.Leading()
	ahead.Store(int64(2 * time.Hour))
	if next := r.sweep(term); next != 1 || read(r, "soon") != "" || read(r, "later") == "" {
		t.Fatalf("next look at %d after deletions, want 1; soon %q, later %q", next, read(r, "soon"), read(r, "later"))
	}
	if next := r.sweep(term); next != later {
		t.Fatalf("next look at %d, want %d", next, later)
	}
}
