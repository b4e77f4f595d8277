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
		"idle":             {60 * mega, mega, quietPercent},
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
