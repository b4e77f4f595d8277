package mesh

import (
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// A machine leaves for good: its pods run elsewhere, the quorum goes on without it, nothing of it is left in the cluster and nothing of
// the cluster on it, and it founds none of its own. While its going would lose the quorum it must stay.
func TestMachineLeaves(t *testing.T) {
	healthy(t)
	status := quorumOf(t, "h1")
	leaver, voter := status.Leader.Name, "" // never h1, which is asked about it
	for _, v := range status.Voters {
		switch {
		case v.Name == "h1", v.Name == leaver:
		case leaver == "h1":
			leaver = v.Name
		default:
			voter = v.Name
		}
	}
	rest := slices.DeleteFunc(slices.Clone(hosts), func(h string) bool { return h == leaver })
	leave := func(flags ...string) (string, error) {
		args := append([]string{"lab", "exec", "--name", labName, leaver, "--", "podvine", "agent", "leave"}, flags...)
		return try(t, "h1", "", args...)
	}
	if out, err := leave(); err == nil || !strings.Contains(out, "say --yes") {
		t.Errorf("without --yes: %v, %s", err, out)
	}

	// Of a quorum that can lose none, no voter may leave.
	victims := []string{voter}
	for _, standby := range status.Standbys {
		victims = append(victims, standby.Name)
	}
	run(t, "h1", append([]string{"lab", "kill", "--name", labName}, victims...)...)
	revive := func() { run(t, "h1", append([]string{"lab", "start", "--name", labName}, victims...)...) }
	t.Cleanup(revive)
	eventually(t, 30*time.Second, "the quorum to be on the brink", func() (string, bool) {
		status := quorumOf(t, leaver) // h1 may be a standby, and dead
		return fmt.Sprintf("%+v", status), status.CanLose == 0 && status.State == "degraded"
	})
	out, err := leave("--yes")
	if err == nil || !strings.Contains(out, "would be lost") {
		t.Errorf("leave a quorum that can lose none: %v, %s", err, out)
	}
	revive()
	healthy(t)

	run(t, "h1", "kubectl", "create", "deployment", "stays", "--image="+appImage, "--replicas=6")
	t.Cleanup(func() { run(t, "h1", "kubectl", "delete", "deployment", "stays") })
	run(t, "h1", "kubectl", "rollout", "status", "deployment/stays", "--timeout=60s")
	if out := run(t, "h1", "kubectl", "get", "pods", "--field-selector", "spec.nodeName="+leaver, "-o", "name"); out == "" {
		t.Fatalf("no pod is on %s", leaver)
	}
	id := members(t, "h1")[leaver].ID
	before := keysOf(t, "h1")
	begun := time.Now()
	if out, err = leave("--yes"); err != nil {
		t.Fatalf("%s leaves: %v, %s", leaver, err, out)
	}
	t.Logf("%s left in %v:\n%s", leaver, time.Since(begun).Round(time.Millisecond), out)
	anew := sync.OnceFunc(func() { makeAnew(t, leaver) })
	t.Cleanup(anew)

	eventually(t, 30*time.Second, "the others to know that it is gone", func() (string, bool) {
		known := members(t, "h1")
		return fmt.Sprint(known), len(known) == len(rest)
	})
	if out, err := try(t, "h1", "", "kubectl", "get", "node", leaver); err == nil || !strings.Contains(out, "NotFound") {
		t.Errorf("its Node object: %v, %s", err, out)
	}
	status = quorumOf(t, "h1")
	for _, replica := range slices.Concat(status.Voters, status.Standbys) {
		if replica.ID == id {
			t.Errorf("the quorum counts on it: %+v", status)
		}
	}
	healthy(t)
	run(t, "h1", "kubectl", "rollout", "status", "deployment/stays", "--timeout=60s")
	eventually(t, 30*time.Second, "nothing to be on it", func() (string, bool) {
		out := run(t, "h1", "kubectl", "get", "pods", "-A", "--field-selector", "spec.nodeName="+leaver, "-o", "name")
		return out, out == ""
	})
	eventually(t, 30*time.Second, "what it knew to be rotated", func() (string, bool) {
		now := keysOf(t, "h1")
		return fmt.Sprintf("%+v", now), now.seals() != before.seals()
	})

	inside := func(command string) string {
		out, err := try(t, "h1", "", "lab", "exec", "--name", labName, leaver, "--", "sh", "-c", command)
		if err != nil {
			t.Errorf("%s: %v, %s", command, err, out)
		}
		return strings.TrimSpace(out)
	}
	// The lock is of an agent that the lab has started again, in vain.
	if left := inside("ls /var/lib/podvine | grep -vx lock; ls -d /run/podvine /etc/podvine /var/log/pods /sys/fs/bpf/podvine 2>/dev/null; pgrep -l 'podvine-|runc'; true"); left != "left.json" {
		t.Errorf("on the machine is left: %s", left)
	}
	if out := inside("podvine agent --node-name " + leaver + " 2>&1; true"); !strings.Contains(out, "neither founds nor joins") {
		t.Errorf("an agent that is started does not refuse: %s", out)
	}
	rebalances(t, leaver, anew)
}

// rebalances has a node join where the setting asks for it to get pods of others: it gets them one at a time, and none that its budget keeps.
func rebalances(t *testing.T, joins string, anew func()) {
	t.Helper()
	set := func(to string) {
		run(t, "h1", "kubectl", "patch", "configmap", "podvine-settings", "--namespace", "kube-system", "--patch", `{"data":{"rebalance":"`+to+`"}}`)
	}
	run(t, "h1", "kubectl", "scale", "deployment", "stays", "--replicas=9")
	run(t, "h1", "kubectl", "create", "deployment", "kept", "--image="+appImage, "--replicas=6")
	run(t, "h1", "kubectl", "create", "pdb", "kept", "--selector=app=kept", "--min-available=6")
	t.Cleanup(func() { run(t, "h1", "kubectl", "delete", "deployment/kept", "pdb/kept") })
	for _, name := range []string{"stays", "kept"} {
		run(t, "h1", "kubectl", "rollout", "status", "deployment/"+name, "--timeout=60s")
	}
	keeps := []string{"kubectl", "get", "pods", "-l", "app=kept", "-o", `jsonpath={range .items[*]}{.metadata.uid} {end}`}
	before := run(t, "h1", keeps...)
	set("true")
	t.Cleanup(func() { set("false") })
	anew()
	eventually(t, workloadLimit, "pods to be moved to "+joins, func() (string, bool) {
		if available := run(t, "h1", "kubectl", "get", "deployment", "stays", "-o", "jsonpath={.status.availableReplicas}"); available < "8" {
			t.Errorf("%s of nine are available", available)
		}
		out := run(t, "h1", "kubectl", "get", "pods", "-l", "app=stays", "--field-selector", "status.phase=Running,spec.nodeName="+joins, "-o", "name")
		return out, len(strings.Fields(out)) > 1
	})
	if events := run(t, "h1", "kubectl", "get", "events"); !strings.Contains(events, "Evicted for a node that joined") {
		t.Errorf("no event tells of it:\n%s", events)
	}
	run(t, "h1", "kubectl", "rollout", "status", "deployment/stays", "--timeout=60s")
	if after := run(t, "h1", keeps...); after != before {
		t.Errorf("pods that their budget keeps were %s, now they are %s", before, after)
	}
}

// makeAnew has the lab make a host anew, as a machine that was installed again.
func makeAnew(t *testing.T, host string) {
	t.Helper()
	wipe(t, host)
	run(t, "h1", "lab", "up", "--name", labName, "--hosts", fmt.Sprint(len(hosts)))
	run(t, "h1", "kubectl", "wait", "--for=condition=Ready", "node/"+host, "--timeout=60s")
}
