package e2e

import (
	"encoding/json"
	"testing"
	"time"

	"github.com/podvine/podvine/agent"
)

// TestIdleClusterAppendsNothing holds the second law: no heartbeat is ever written.
func TestIdleClusterAppendsNothing(t *testing.T) {
	const quiet = 10 * time.Second
	index := func() uint64 {
		content, err := client.CoreV1().RESTClient().Get().AbsPath(agent.StatusPath).DoRaw(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		var status agent.Status
		if err := json.Unmarshal(content, &status); err != nil {
			t.Fatal(err)
		}
		return status.LastIndex
	}
	// What earlier tests deleted may still be going.
	last, since := index(), time.Now()
	eventually(t, 2*time.Minute, "ten seconds without an entry in the log", func() (string, bool) {
		if now := index(); now != last {
			last, since = now, time.Now()
		}
		return time.Since(since).String(), time.Since(since) >= quiet
	})
}
