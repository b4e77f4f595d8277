package software

import (
	"path/filepath"
	"strings"
	"testing"
)

const kwokNode = `
apiVersion: v1
kind: Node
metadata:
  name: NAME
  annotations: {kwok.x-k8s.io/node: fake, node.alpha.kubernetes.io/ttl: "0"}
  labels: {kubernetes.io/hostname: NAME, kubernetes.io/os: linux, kubernetes.io/arch: amd64, type: kwok}
spec: {taints: [{key: kwok.x-k8s.io/node, value: fake, effect: NoSchedule}]}
status: {allocatable: {cpu: 32, memory: 256Gi, pods: 110}, capacity: {cpu: 32, memory: 256Gi, pods: 110}}
`

const kwokPods = `
apiVersion: apps/v1
kind: Deployment
metadata: {name: pretenders}
spec:
  replicas: 20
  selector: {matchLabels: {app: pretenders}}
  template:
    metadata: {labels: {app: pretenders}}
    spec:
      nodeSelector: {type: kwok}
      tolerations: [{key: kwok.x-k8s.io/node, operator: Exists, effect: NoSchedule}]
      containers: [{name: pretender, image: nowhere.example.com/none:v1}]
`

// TestKwok runs kwok's controller by its own manifests. It plays two nodes: their leases and heartbeats keep them Ready beside the real
// ones, pods are scheduled to them and run in pretence, and go.
func TestKwok(t *testing.T) {
	const module = "sigs.k8s.io/kwok"
	if err := importProgram("registry.k8s.io/kwok/kwok:latest", filepath.Join(programs, "kwok")); err != nil {
		t.Fatal(err)
	}
	manifests := filepath.Join(moduleFolder(t, module), "kustomize")
	newNamespace(t, "kwok")
	for _, part := range []string{"kwok", filepath.Join("stage", "fast")} {
		part := filepath.Join(manifests, part)
		t.Cleanup(func() {
			if out, err := try(t, "h1", "", "kubectl", "delete", "-k", part, "--ignore-not-found", "--timeout=60s"); err != nil {
				t.Errorf("delete %s: %v: %s", part, err, out)
			}
		})
		kubectl(t, "h1", "apply", "-k", part)
		if strings.HasSuffix(part, "kwok") {
			kubectl(t, "h1", "wait", "--for=condition=Established", "crd", "--all", "--timeout=60s")
		}
	}
	kubectl(t, "h2", "-n", "kube-system", "rollout", "status", "deployment/kwok-controller", "--timeout=90s")
	nodes := []string{"fake-1", "fake-2"}
	for _, node := range nodes {
		t.Cleanup(func() {
			if out, err := try(t, "h1", "", "kubectl", "delete", "node", node, "--ignore-not-found"); err != nil {
				t.Errorf("delete node %s: %v: %s", node, err, out)
			}
		})
		if out, err := try(t, "h1", strings.ReplaceAll(kwokNode, "NAME", node), "kubectl", "create", "-f", "-"); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
	}
	kubectl(t, "h2", "wait", "--for=condition=Ready", "node/fake-1", "node/fake-2", "--timeout=60s")
	apply(t, "kwok", kwokPods)
	kubectl(t, "h3", "-n", "kwok", "rollout", "status", "deployment/pretenders", "--timeout=60s")
	for _, node := range nodes {
		out := kubectl(t, "h3", "-n", "kwok", "get", "pods", "--field-selector", "status.phase=Running,spec.nodeName="+node, "-o", "name")
		if count := len(strings.Fields(out)); count < 5 {
			t.Errorf("%d of 20 pods run on %s", count, node)
		}
		holder := kubectl(t, "h1", "-n", "kube-node-lease", "get", "lease", node, "-o", "jsonpath={.spec.holderIdentity}")
		if !strings.HasPrefix(holder, "kwok-controller-") {
			t.Errorf("the lease of %s is held by %q", node, holder)
		}
	}
	kubectl(t, "h1", "-n", "kwok", "scale", "deployment/pretenders", "--replicas=0")
	eventually(t, "the pods to go", func() (string, bool) {
		out := kubectl(t, "h2", "-n", "kwok", "get", "pods", "-o", "name")
		return out, out == ""
	})
}
