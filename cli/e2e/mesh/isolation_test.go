package mesh

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/podvine/podvine/agent/isolation"
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
	tellsOfIsolation(t, by, before[0])
	withoutItsAgent(t, get)
}

// tellsOfIsolation waits for the event of a pod that stopped.
func tellsOfIsolation(t *testing.T, by, uid string) {
	t.Helper()
	eventually(t, 30*time.Second, "the event of the pod that stopped", func() (string, bool) {
		out, err := try(t, by, "", "kubectl", "get", "events", "--field-selector", "reason=NodeIsolated,involvedObject.uid="+uid)
		return fmt.Sprint(out, err), err == nil && strings.Contains(out, "had not heard from the cluster's leader")
	})
}

// withoutItsAgent ends the agent of the pod's node: on purpose for longer than a lease, which the pod does not notice; then by a kill while
// the host is cut off, and the pod ends all the same.
func withoutItsAgent(t *testing.T, get []string) {
	t.Helper()
	before := strings.Fields(run(t, "h1", get...))
	host := before[1]
	by := other(host)
	on := func(what string) string {
		return strings.TrimSpace(run(t, by, "lab", "exec", "--name", labName, host, "--", "sh", "-c", what))
	}
	processes := func() string { return on("grep -ls 'pod" + before[0] + "' /proc/[0-9]*/cgroup; true") }
	running := processes()
	on("kill -TERM $(pgrep -of 'podvine[ ]agent')")
	eventually(t, 20*time.Second, "the agent to end", func() (string, bool) {
		left := on("pgrep -of 'podvine[ ]agent' || true")
		return left, left == ""
	})
	for ended := time.Now(); time.Since(ended) < 2*isolation.ReleaseAfter; {
		if now := processes(); now != running {
			t.Fatalf("while its agent was being replaced, the pod ended: %q, was %q", now, running)
		}
	}
	run(t, by, "lab", "start", "--name", labName, "--agent", host)
	run(t, by, "kubectl", "wait", "--for=condition=Ready", "node/"+host, "--timeout=60s")
	eventually(t, 30*time.Second, "the longer lease to be given back", func() (string, bool) {
		out, err := try(t, by, "", "kubectl", "get", "node", host, "-o", "jsonpath={.metadata.annotations}")
		return out, err == nil && !strings.Contains(out, isolation.PartingAnnotation)
	})
	if now := strings.Fields(run(t, by, get...)); !slices.Equal(now, before) || processes() != running {
		t.Errorf("the new agent changed the pod: %v, was %v", now, before)
	}

	run(t, by, "lab", "isolate", "--name", labName, host)
	t.Cleanup(func() {
		run(t, by, "lab", "heal", "--name", labName)
		run(t, by, "lab", "start", "--name", labName, "--agent", host)
		run(t, by, "kubectl", "wait", "--for=condition=Ready", "node/"+host, "--timeout=60s")
	})
	run(t, by, "lab", "kill", "--name", labName, "--agent", host)
	took := eventually(t, isolation.ReleaseAfter, "the pod to end without its agent", func() (string, bool) {
		left := processes()
		return left, left == ""
	})
	t.Logf("with its agent dead and the host cut off, the pod ended %v later; the lease is %v", took.Round(time.Millisecond), isolation.Lease)
	run(t, by, "lab", "start", "--name", labName, "--agent", host)
	run(t, by, "lab", "heal", "--name", labName)
	tellsOfIsolation(t, by, before[0])
}
