package consensus

import (
	"bytes"
	"errors"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/raft"
)

// A peer that cannot be reached is one line, however often raft tries, and another one when it was back meanwhile.
func TestAnAbsentPeerIsOneLine(t *testing.T) {
	var out bytes.Buffer
	now := time.Unix(0, 0)
	log := newRaftLogger(slog.New(slog.NewTextHandler(&out, nil))).(*raftLogger)
	log.silent.now = func() time.Time { return now }
	lines := func() int { defer out.Reset(); return strings.Count(out.String(), "\n") }
	fail := func() {
		peer := raft.Server{ID: "a", Address: "a"}
		log.Error("failed to heartbeat to", "peer", peer.Address, "error", errors.New("gone"))
		log.Named("net").Error("failed to appendEntries to", "peer", peer, "error", errors.New("gone"))
		log.Warn("failed to contact", "server-id", peer.ID, "time", time.Second)
	}
	for range 100 {
		now = now.Add(10 * time.Second)
		fail()
	}
	if got := lines(); got != 1 {
		t.Errorf("%d lines of one absence", got)
	}
	log.Error("failed to heartbeat to", "peer", raft.ServerAddress("b"))
	log.Error("failed to get log", "index", 1)
	log.Error("failed to get log", "index", 1)
	if got := lines(); got != 3 {
		t.Errorf("%d lines of another peer and of what is no peer's", got)
	}
	now = now.Add(silenceEnds)
	fail()
	if got := lines(); got != 1 {
		t.Errorf("%d lines of the next absence", got)
	}
	for i := range 2 * maxSilent {
		log.Error("failed to heartbeat to", "peer", string(rune('A'+i)))
	}
	if len(log.silent.last) > maxSilent {
		t.Errorf("%d peers are remembered", len(log.silent.last))
	}
}
