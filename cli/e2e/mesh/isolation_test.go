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
	apply := `
apiVersion: apps/v1
kind: StatefulSet
metadata: {name: only}
spec:
  serviceName: only
  selector: {matchLabels: {app: only}}
  template:
    metadata: {labels: {app: only}, annotations: {podvine.io/on-isolation: stop}}
    spec: {terminationGracePeriodSeconds: 1, containers: [{name: app, image: "` + appImage + `"}]}
`
	if out, err := try(t, "h1", apply, "kubectl", "apply", "-f", "-"); err != nil {
		t.Fatal(err, out)
	}
	t.Cleanup(func() { run(t, "h1", "kubectl", "delete", "statefulset/only") })
	run(t, "h1", "kubectl", "rollout", "status", "statefulset/only", "--timeout=60s")
	get := []string{"kubectl", "get", "pod", "only-0", "-o", "jsonpath={.metadata.uid} {.spec.nodeName} {.status.phase} {.metadata.deletionTimestamp}"}
	before := strings.Fields(run(t, "h1", get...))
	host := before[1]
	by := slices.DeleteFunc(slices.Clone(hosts), func(h string) bool { return h == host })[0]
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
