package collector

import (
	"runtime"
	"runtime/debug"
	"testing"
	"time"
)

func TestPercentFor(t *testing.T) {
	const mega = 1 << 20
	for name, test := range map[string]struct {
		live, rate uint64
		percent    int
	}{
		"idle":             {60 * mega, mega, idlePercent},
		"quiet":            {60 * mega, 2 * mega, quietPercent},
		"nothing is alive": {0, 100 * mega, quietPercent},
		"busy":             {40 * mega, 100 * mega, busyPercent},
		"bounded":          {128 * mega, 100 * mega, 200},
		"large":            {4096 * mega, 100 * mega, quietPercent},
	} {
		if got := percentFor(test.live, test.rate); got != test.percent {
			t.Errorf("%s: %d, %d wanted", name, got, test.percent)
		}
	}
}

func TestIdleness(t *testing.T) {
	const mega = 1 << 20
	var idle idleness
	allocated := uint64(0)
	for i, test := range []struct {
		grown, free uint64
		give        bool
	}{
		{500 * mega, 200 * mega, false}, {mega, 200 * mega, false}, {5 * mega, 200 * mega, false}, {0, 200 * mega, true}, {mega, 200 * mega, false},
		{6 * mega, 24 * mega, false}, {0, 24 * mega, false}, {0, 24 * mega, false}, {0, 24 * mega, true},
		{6 * mega, 23 * mega, false}, {0, 23 * mega, false}, {0, 23 * mega, false}, {0, 23 * mega, false},
	} {
		allocated += test.grown
		if got := idle.look(allocated, test.free); got != test.give {
			t.Errorf("look %d: give back is %v, want %v", i, got, test.give)
		}
	}
}

// percent returns the process's GOGC, which can only be read by setting it.
func percent() int {
	p := debug.SetGCPercent(quietPercent)
	debug.SetGCPercent(p)
	return p
}

func TestPaceFollowsTheLoad(t *testing.T) {
	t.Setenv("GOGC", "")
	before := percent()
	stop := Pace()
	var kept []byte
	deadline := time.Now().Add(30 * time.Second)
	for percent() <= quietPercent {
		if time.Now().After(deadline) {
			t.Fatal("a process that allocates all the time is not paced as busy")
		}
		kept = make([]byte, 1<<20)
	}
	runtime.KeepAlive(kept)
	stop()
	stop()
	if got := percent(); got != before {
		t.Errorf("GOGC is %d after the end, and was %d", got, before)
	}
}
