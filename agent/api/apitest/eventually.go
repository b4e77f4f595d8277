package apitest

import (
	"testing"
	"time"
)

const (
	// eventuallyTimeout bounds how long a test waits for what must come.
	eventuallyTimeout = 30 * time.Second
	eventuallyTick    = 20 * time.Millisecond
)

// Eventually polls until f returns nil, and fails the test with f's last error at the deadline.
func Eventually(t testing.TB, what string, f func() error) {
	t.Helper()
	deadline := time.Now().Add(eventuallyTimeout)
	tick := time.NewTicker(eventuallyTick)
	defer tick.Stop()
	for {
		err := f()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s: %v", what, err)
		}
		<-tick.C
	}
}
