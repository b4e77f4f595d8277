package e2e

import (
	"strings"
	"testing"
	"time"
)

func TestDaemonSetRunsOnTheNode(t *testing.T) {
	ns := newNamespace(t)
	apply(t, ns, `
apiVersion: apps/v1
kind: DaemonSet
metadata: {name: agent}
spec:
  selector: {matchLabels: {app: agent}}
  template:
    metadata: {labels: {app: agent}}
    spec:
      terminationGracePeriodSeconds: 1
      containers: [{name: app, image: "`+appImage+`"}]
`)
	wants(t, kubectl(t, ns, "rollout", "status", "daemonset/agent", "--timeout=60s"), "successfully rolled out")
	kubectl(t, ns, "set", "env", "daemonset/agent", "STEP=two")
	kubectl(t, ns, "rollout", "status", "daemonset/agent", "--timeout=60s")
	wants(t, kubectl(t, ns, "get", "pods", "-o", "jsonpath={.items[*].spec.containers[0].env[0].value}"), "two")
	wants(t, kubectl(t, ns, "rollout", "history", "daemonset/agent"), "REVISION", "1", "2")
	wants(t, kubectl(t, ns, "rollout", "undo", "daemonset/agent"), "rolled back")
	kubectl(t, ns, "rollout", "status", "daemonset/agent", "--timeout=60s")
	if got := kubectl(t, ns, "get", "pods", "-o", "jsonpath={.items[*].spec.containers[0].env[0].value}"); got != "" {
		t.Errorf("after the undoing STEP is %q", got)
	}
	kubectl(t, ns, "patch", "daemonset", "agent", "-p", `{"spec": {"template": {"spec": {"nodeSelector": {"no": "where"}}}}}`)
	eventually(t, 60*time.Second, "the pod to leave a node that does not fit", func() (string, bool) {
		out := kubectl(t, ns, "get", "pods,daemonsets")
		return out, !strings.Contains(out, "pod/agent")
	})
	wants(t, kubectl(t, ns, "describe", "daemonset", "agent"), "SuccessfulCreate", "SuccessfulDelete", "Desired Number of Nodes Scheduled: 0")
}

func TestReplicationControllerScales(t *testing.T) {
	ns := newNamespace(t)
	apply(t, ns, `
apiVersion: v1
kind: ReplicationController
metadata: {name: old}
spec:
  replicas: 1
  template:
    metadata: {labels: {app: old}}
    spec:
      terminationGracePeriodSeconds: 1
      containers: [{name: app, image: "`+appImage+`"}]
`)
	kubectl(t, ns, "scale", "rc/old", "--replicas=2")
	eventually(t, 60*time.Second, "two ready pods", func() (string, bool) {
		out := kubectl(t, ns, "get", "rc", "old", "--no-headers")
		return out, strings.Join(strings.Fields(out)[1:4], " ") == "2 2 2"
	})
	kubectl(t, ns, "delete", "rc", "old", "--timeout=60s")
	eventually(t, 60*time.Second, "the pods to be gone", func() (string, bool) {
		out := kubectl(t, ns, "get", "pods")
		return out, strings.Contains(out, "No resources found")
	})
}
