package mesh

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

const (
	// faultSpan is how long a fault lasts that tells all that it can in a few seconds: detection and election take two.
	faultSpan = 6 * time.Second
	longSpan  = 30 * time.Second
	// longestSpan is beyond every time-out and delay of the product.
	longestSpan = 5 * time.Minute
	flaps       = 30
	// nextVariable names a binary of another version, to which the hosts are rolled.
	nextVariable = "PODVINE_NEXT_BIN"
)

var drills = []drill{
	{"isolate the leader", true, leading, faultSpan, func(t *testing.T, on []string) { whileIsolated(t, on[0], faultSpan) }},
	{"hang the leader's disk", true, leading, faultSpan, func(t *testing.T, on []string) { whileDisk(t, on[0], "hang", faultSpan) }},
	{"kill the leader", false, leading, faultSpan, whileKilled},
	{"kill two voters of five", false, votingTwo, faultSpan, whileKilled},
	{"cut one way from the leader", false, leading, faultSpan, func(t *testing.T, on []string) { whileCut(t, on[0], survivor(on)) }},
	{"cut one way to the leader", false, leading, faultSpan, func(t *testing.T, on []string) { whileCut(t, survivor(on), on[0]) }},
	{"isolate for 30 s", false, voting, longSpan, func(t *testing.T, on []string) { whileIsolated(t, on[0], longSpan) }},
	{"flap for a minute", false, voting, 2 * flaps * time.Second, func(t *testing.T, on []string) {
		for range flaps {
			whileIsolated(t, on[0], time.Second)
			last(t, time.Second)
		}
	}},
	{"pause a host", false, voting, faultSpan, func(t *testing.T, on []string) {
		inflict(t, "pause", on[0])
		last(t, faultSpan)
		inflict(t, "resume", on[0])
	}},
	{"pause the leader", false, leading, faultSpan, func(t *testing.T, on []string) {
		inflict(t, "pause", on[0])
		last(t, faultSpan)
		inflict(t, "resume", on[0])
	}},
	{"slow disk", false, leading, longSpan, func(t *testing.T, on []string) { whileDisk(t, on[0], "slow", longSpan) }},
	{"full disk", false, leading, faultSpan, func(t *testing.T, on []string) { whileDisk(t, on[0], "full", faultSpan) }},
	{"change an address", false, voting, faultSpan, changeAddress},
	{"rotate every key", false, voting, faultSpan, rotateKeys},
	{"roll a new binary", false, voting, longSpan, rollBinary},
	{"restart all at once", false, everyOne, faultSpan, func(t *testing.T, on []string) {
		inflict(t, append([]string{"kill"}, on...)...)
		inflict(t, append([]string{"start"}, on...)...)
	}},
	{"roll, drain and kill", false, voting, longSpan, rollWhileDrained},
	{"isolate for 5 min", false, voting, longestSpan, func(t *testing.T, on []string) { whileIsolated(t, on[0], longestSpan) }},
	{"the leader's clock an hour ahead", false, leading, 2 * faultSpan, func(t *testing.T, on []string) { whileClockIsOff(t, on[0], clockSpan) }},
	{"a voter's clock an hour behind", false, voting, 2 * faultSpan, func(t *testing.T, on []string) { whileClockIsOff(t, on[0], -clockSpan) }},
}

func whileIsolated(t *testing.T, victim string, span time.Duration) {
	t.Helper()
	inflict(t, "isolate", victim)
	last(t, span)
	inflict(t, "heal")
}

func whileDisk(t *testing.T, victim, fault string, span time.Duration) {
	t.Helper()
	inflict(t, "disk", victim, fault)
	last(t, span)
	inflict(t, "disk", victim, "ok")
}

func whileKilled(t *testing.T, on []string) {
	t.Helper()
	inflict(t, append([]string{"kill"}, on...)...)
	last(t, faultSpan)
	inflict(t, append([]string{"start"}, on...)...)
}

func whileCut(t *testing.T, from, to string) {
	t.Helper()
	inflict(t, "cut", "--one-way", from, to)
	last(t, faultSpan)
	inflict(t, "heal")
}

// changeAddress gives the host another address, as a network that hands out addresses may, and waits until all others know it
// there.
func changeAddress(t *testing.T, on []string) {
	t.Helper()
	const network, farther = "10.88.0.", 100 // a lab's hosts begin at .1
	number, err := strconv.Atoi(strings.TrimPrefix(members(t, on[0])[on[0]].Address, network))
	if err != nil {
		t.Fatal(err)
	}
	if number += farther; number > 2*farther {
		number -= 2 * farther
	}
	next := network + strconv.Itoa(number)
	inflict(t, "address", on[0], next)
	for _, host := range hosts {
		eventually(t, drillLimit, fmt.Sprintf("%s to know %s at %s", host, on[0], next), func() (string, bool) {
			all, err := tryMembers(t, host)
			return fmt.Sprint(all, err), err == nil && all[on[0]].Alive && all[on[0]].Address == next
		})
	}
}

// restartAgent ends the host's agent as an upgrade would, and the host starts it again.
func restartAgent(t *testing.T, host string) {
	t.Helper()
	run(t, host, "lab", "exec", "--name", labName, host, "--", "sh", "-c", "kill -TERM $(pgrep -of 'podvine agent')")
}

// rotateKeys makes new keys of every kind, and waits until all hosts know them.
func rotateKeys(t *testing.T, on []string) {
	t.Helper()
	before := keysOf(t, on[0])
	run(t, on[0], "keys", "rotate")
	eventually(t, drillLimit, "all to know the new keys", func() (string, bool) {
		var seen []string
		for _, host := range hosts {
			now := keysOf(t, host)
			seen = append(seen, fmt.Sprint(now.Gossip, now.Data, len(now.Tokens)))
		}
		return strings.Join(seen, "\n"), keysOf(t, on[0]).seals() != before.seals() && len(slices.Compact(seen)) == 1
	})
}

// rollBinary puts a binary of another version onto one host after the other, and then the first one again.
func rollBinary(t *testing.T, _ []string) {
	t.Helper()
	next := os.Getenv(nextVariable)
	if next == "" {
		t.Fatalf("%s names no binary: run the drills with `make drills`", nextVariable)
	}
	if versionOf(t, next) == versionOf(t, cluster.Podvine) {
		t.Fatalf("%s and %s are of one version", next, cluster.Podvine)
	}
	for _, file := range []string{next, cluster.Podvine} {
		content, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		version := versionOf(t, file)
		for _, host := range hosts {
			const replace = "cd /usr/local/bin && { umount -l podvine 2>/dev/null; cat > new && chmod 755 new && mv new podvine; }"
			if out, err := try(t, host, string(content), "lab", "exec", "--name", labName, host, "--", "sh", "-c", replace); err != nil {
				t.Fatalf("replace the binary of %s: %v: %s", host, err, out)
			}
			restartAgent(t, host)
			eventually(t, drillLimit, host+" to run "+version, func() (string, bool) {
				all, err := tryMembers(t, host)
				return fmt.Sprint(all, err), err == nil && all[host].Alive && all[host].Version == version
			})
			answering(t, host)
		}
	}
}

func versionOf(t *testing.T, binary string) string {
	t.Helper()
	out, err := exec.Command(binary, "version", "-o", "json").Output()
	var told struct{ Podvine string }
	if err == nil {
		err = json.Unmarshal(out, &told)
	}
	if err != nil {
		t.Fatalf("ask %s for its version: %v", binary, err)
	}
	return told.Podvine
}
