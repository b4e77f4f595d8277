package mesh

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"
)

// A dead host's StatefulSet pod is not replaced until somebody vouches for its end, then it is; nobody can vouch for a host
// that lives, and on the host's return the old pod does not come back.
func TestFencedNodesIdentityIsReplaced(t *testing.T) {
	healthy(t)
	get := onlyPod(t, "one", "")
	before := strings.Fields(run(t, "h1", get...))
	host := before[1]
	by := other(host)
	if out, err := try(t, by, "", "fence", host); err == nil || !strings.Contains(out, "it is alive") {
		t.Fatalf("fence a node that lives: %v: %s", err, out)
	}

	run(t, by, "lab", "kill", "--name", labName, host)
	t.Cleanup(func() {
		run(t, by, "lab", "start", "--name", labName, host)
		run(t, by, "kubectl", "wait", "--for=condition=Ready", "node/"+host, "--timeout=60s")
		run(t, by, "fence", "--lift", host)
	})
	// The eviction is over when the pod is marked; its identity stays taken.
	eventually(t, time.Minute, "the pod to be marked", func() (string, bool) {
		out, err := try(t, by, "", get...)
		return fmt.Sprint(out, err), err == nil && len(strings.Fields(out)) == 4
	})
	if now := strings.Fields(run(t, by, get...)); now[0] != before[0] {
		t.Fatalf("replaced although nobody knows that the old one is gone: %v, was %v", now, before)
	}
	run(t, by, "fence", host)
	if out := run(t, by, "fence", host); !strings.Contains(out, "was fenced already") {
		t.Errorf("fence again: %s", out)
	}
	var after []string
	took := eventually(t, time.Minute, "the pod to run elsewhere", func() (string, bool) {
		out, err := try(t, by, "", get...)
		after = strings.Fields(out)
		return fmt.Sprint(out, err), err == nil && len(after) == 3 && after[0] != before[0] && after[1] != host && after[2] == "Running"
	})
	t.Logf("replaced and running %v after the fence", took.Round(time.Millisecond))

	run(t, by, "lab", "start", "--name", labName, host)
	run(t, by, "kubectl", "wait", "--for=condition=Ready", "node/"+host, "--timeout=60s")
	eventually(t, time.Minute, "the old pod to be gone from its host", func() (string, bool) {
		out, err := try(t, by, "", "lab", "exec", "--name", labName, host, "--", "sh", "-c", "ls /var/log/pods; grep -ls 'pod"+before[0]+"' /proc/[0-9]*/cgroup; true")
		return fmt.Sprint(out, err), err == nil && !strings.Contains(out, before[0]) && !strings.Contains(out, "cgroup")
	})
	if now := strings.Fields(run(t, by, get...)); !slices.Equal(now, after) {
		t.Errorf("the return changed the pod: %v, was %v", now, after)
	}
	if out := run(t, by, "fence", "--lift", host); !strings.Contains(out, "in service again") {
		t.Errorf("lift the fence: %s", out)
	}
}

// onlyPod runs a StatefulSet of one pod, which has the annotations, and returns the command that tells the pod's UID, node and phase, and when it
// was deleted.
func onlyPod(t *testing.T, name, annotations string) (get []string) {
	t.Helper()
	apply := `
apiVersion: apps/v1
kind: StatefulSet
metadata: {name: ` + name + `}
spec:
  serviceName: ` + name + `
  selector: {matchLabels: {app: ` + name + `}}
  template:
    metadata: {labels: {app: ` + name + `}, annotations: {` + annotations + `}}
    spec: {terminationGracePeriodSeconds: 1, containers: [{name: app, image: "` + appImage + `"}]}
`
	if out, err := try(t, "h1", apply, "kubectl", "apply", "-f", "-"); err != nil {
		t.Fatal(err, out)
	}
	t.Cleanup(func() { run(t, "h1", "kubectl", "delete", "statefulset/"+name) })
	run(t, "h1", "kubectl", "rollout", "status", "statefulset/"+name, "--timeout=60s")
	return []string{"kubectl", "get", "pod", name + "-0", "-o", "jsonpath={.metadata.uid} {.spec.nodeName} {.status.phase} {.metadata.deletionTimestamp}"}
}
