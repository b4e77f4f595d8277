package e2e

import (
	"strings"
	"testing"
	"time"
)

// TestDrainHonoursBudgets drains the only node: of two pods the one that must stay does, until nobody asks for it any more.
func TestDrainHonoursBudgets(t *testing.T) {
	ns := newNamespace(t)
	node := strings.TrimSpace(kubectl(t, ns, "get", "nodes", "-o", "jsonpath={.items[0].metadata.name}"))
	kubectl(t, ns, "create", "deployment", "guarded", "--image", appImage, "--replicas=2")
	wants(t, kubectl(t, ns, "create", "poddisruptionbudget", "guarded", "--selector=app=guarded", "--max-unavailable=1"), "created")
	kubectl(t, ns, "rollout", "status", "deployment/guarded", "--timeout=60s")
	kubectl(t, ns, "wait", "pdb/guarded", "--for=jsonpath={.status.disruptionsAllowed}=1", "--timeout=30s")
	wants(t, kubectl(t, ns, "describe", "pdb", "guarded"), "Allowed disruptions:  1", "Current:              2", "Desired:              1", "Total:                2")

	t.Cleanup(func() {
		if out, err := command("kubectl", "uncordon", node).CombinedOutput(); err != nil {
			t.Errorf("uncordon %s: %v: %s", node, err, out)
		}
	})
	drain := func(timeout string) (string, error) {
		return tryKubectl(t, ns, "", "drain", node, "--pod-selector=app=guarded", "--timeout="+timeout)
	}
	out, err := drain("8s")
	if err == nil {
		t.Fatalf("the drain went through:\n%s", out)
	}
	wants(t, out, "Cannot evict pod as it would violate the pod's disruption budget", "evicted")
	eventually(t, 30*time.Second, "one pod to run and one to wait", func() (string, bool) {
		out := kubectl(t, ns, "get", "pods")
		return out, strings.Count(out, "1/1") == 1 && strings.Count(out, "Pending") == 1
	})
	kubectl(t, ns, "delete", "pdb", "guarded")
	if out, err := drain("60s"); err != nil || !strings.Contains(out, "drained") {
		t.Fatalf("the drain did not go through: %v\n%s", err, out)
	}
	kubectl(t, ns, "uncordon", node)
	kubectl(t, ns, "rollout", "status", "deployment/guarded", "--timeout=60s")
}
