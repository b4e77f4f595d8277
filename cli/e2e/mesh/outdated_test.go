package mesh

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"
)

// A machine that was off while the CA rotated says in its log that it must join again, and what to do; it does nothing to others. After a
// reset it is a member under its old name.
func TestMachineThatMissedARotationJoinsAgain(t *testing.T) {
	healthy(t)
	refresh := func() error {
		for _, host := range hosts {
			if err := cluster.RefreshKubeconfig(host); err != nil {
				return err
			}
		}
		return nil
	}
	leader := quorumOf(t, "h1").Leader.Name
	away := hosts[slices.IndexFunc(hosts, func(host string) bool { return host != "h1" && host != leader })] // h1 founds, and cannot join
	before, old := members(t, "h1")[away], keysOf(t, "h1").Authorities[0].ID

	run(t, "h1", "lab", "kill", "--name", labName, away)
	eventually(t, 30*time.Second, "the death to be known", func() (string, bool) {
		known := members(t, "h1")[away]
		return fmt.Sprint(known), !known.Alive
	})
	run(t, "h1", "keys", "rotate", "--ca", "--overlap", "0s")
	eventually(t, time.Minute, "the old authority to be trusted no more", func() (string, bool) {
		if err := cluster.RefreshKubeconfig("h1"); err != nil {
			return err.Error(), false
		}
		out, err := try(t, "h1", "", "keys", "-o", "json")
		return fmt.Sprint(out, err), err == nil && !strings.Contains(out, old) && !strings.Contains(out, `"rotation"`)
	})

	logged := len(agentLog(t, away))
	run(t, "h1", "lab", "start", "--name", labName, away)
	told := eventually(t, time.Minute, "the machine to say that it must join again", func() (string, bool) {
		log := agentLog(t, away)[logged:]
		return log, strings.Contains(log, "its certificates count no more") && strings.Contains(log, "podvine agent reset --yes")
	})
	t.Logf("it said so %v after its start", told.Round(time.Millisecond))
	if _, err := tryMembers(t, "h1"); err != nil {
		t.Errorf("the others: %v", err)
	}

	run(t, "h1", "lab", "kill", "--name", labName, "--agent", away)
	run(t, "h1", "lab", "exec", "--name", labName, away, "--", "podvine", "agent", "reset", "--yes")
	run(t, "h1", "lab", "kill", "--name", labName, away)
	run(t, "h1", "lab", "up", "--name", labName, "--hosts", fmt.Sprint(len(hosts)))
	eventually(t, 30*time.Second, away+" to be a member again, once", func() (string, bool) {
		known := members(t, "h1")
		return fmt.Sprint(known), len(known) == len(hosts) && known[away].Alive && known[away].ID != before.ID
	})
	run(t, "h1", "kubectl", "wait", "--for=condition=Ready", "node/"+away, "--timeout=60s")
	if err := refresh(); err != nil {
		t.Fatal(err)
	}
	answering(t, away)
	healthy(t)
}
