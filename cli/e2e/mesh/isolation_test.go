package mesh

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"
)

// A StatefulSet's pod that asked for it stops when its node is cut off, and only then runs elsewhere, without anybody's word; the node's
// return does not bring it back.
func TestIsolatedIdentityStopsAndIsReplaced(t *testing.T) {
	healthy(t)
	get := onlyPod(t, "only", "podvine.io/on-isolation: stop")
	before := strings.Fields(run(t, "h1", get...))
	host := before[1]
	by := other(host)
	processes := func() string {
		out, err := try(t, by, "", "lab", "exec", "--name", labName, host, "--", "sh", "-c", "grep -ls 'pod"+before[0]+"' /proc/[0-9]*/cgroup; true")
		if err != nil {
			t.Fatal(err, out)
		}
		return strings.TrimSpace(out)
	}
	if processes() == "" {
		t.Fatal("the pod has no process")
	}

	run(t, by, "lab", "isolate", "--name", labName, host)
	t.Cleanup(func() { run(t, by, "lab", "heal", "--name", labName) })
	var after []string
	took := eventually(t, time.Minute, "the pod to run elsewhere", func() (string, bool) {
		out, err := try(t, by, "", get...)
		if after = strings.Fields(out); err == nil && len(after) > 0 && after[0] != before[0] {
			if left := processes(); left != "" {
				t.Fatalf("there is a new one, and the old one still runs: %s", left)
			}
		}
		return fmt.Sprint(out, err), err == nil && len(after) == 3 && after[0] != before[0] && after[1] != host && after[2] == "Running"
	})
	t.Logf("stopped there and running elsewhere %v after the cut", took.Round(time.Millisecond))

	run(t, by, "lab", "heal", "--name", labName)
	run(t, by, "kubectl", "wait", "--for=condition=Ready", "node/"+host, "--timeout=60s")
	eventually(t, time.Minute, "the old pod to be gone from its host", func() (string, bool) {
		if left := processes(); left != "" {
			t.Fatalf("the return brought it back: %s", left)
		}
		out, err := try(t, by, "", "lab", "exec", "--name", labName, host, "--", "ls", "/var/log/pods")
		return fmt.Sprint(out, err), err == nil && !strings.Contains(out, before[0])
	})
	if now := strings.Fields(run(t, by, get...)); !slices.Equal(now, after) {
		t.Errorf("the return changed the pod: %v, was %v", now, after)
	}
}
