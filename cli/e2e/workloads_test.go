package e2e

import (
	"strings"
	"testing"
	"time"
)

func TestDeploymentFromCreateToDelete(t *testing.T) {
	ns := newNamespace(t)
	wants(t, kubectl(t, ns, "create", "deployment", "hello", "--image", appImage, "--replicas=2", "--port=8080"), "deployment.apps/hello created")
	wants(t, kubectl(t, ns, "rollout", "status", "deployment/hello", "--timeout=60s"), `deployment "hello" successfully rolled out`)
	wants(t, kubectl(t, ns, "expose", "deployment", "hello", "--port=80", "--target-port=8080"), "service/hello exposed")
	kubectl(t, ns, "scale", "deployment/hello", "--replicas=3")
	kubectl(t, ns, "wait", "--for=condition=Available", "deployment/hello", "--timeout=60s")
	eventually(t, 30*time.Second, "three ready pods", func() (string, bool) {
		out := kubectl(t, ns, "get", "pods")
		return out, strings.Count(out, "1/1") == 3 && strings.Count(out, "Running") == 3
	})

	kubectl(t, ns, "set", "env", "deployment/hello", "STEP=two")
	kubectl(t, ns, "annotate", "deployment/hello", "kubernetes.io/change-cause=step two")
	kubectl(t, ns, "rollout", "status", "deployment/hello", "--timeout=60s")
	wants(t, kubectl(t, ns, "rollout", "history", "deployment/hello"), "REVISION", "CHANGE-CAUSE", "step two")
	kubectl(t, ns, "set", "image", "deployment/hello", "sample="+shellImage)
	eventually(t, 60*time.Second, "the broken roll-out to be seen", func() (string, bool) {
		out := kubectl(t, ns, "get", "pods")
		return out, strings.Contains(out, "CrashLoopBackOff") || strings.Contains(out, "Completed")
	})
	wants(t, kubectl(t, ns, "rollout", "undo", "deployment/hello"), "rolled back")
	kubectl(t, ns, "rollout", "status", "deployment/hello", "--timeout=60s")
	out := kubectl(t, ns, "describe", "deployment", "hello")
	wants(t, out, "RollingUpdate", appImage, "ScalingReplicaSet", "3 desired | 3 updated | 3 total | 3 available | 0 unavailable")

	kubectl(t, ns, "delete", "deployment", "hello", "--timeout=60s")
	eventually(t, 60*time.Second, "the pods to be gone", func() (string, bool) {
		out := kubectl(t, ns, "get", "pods")
		return out, strings.Contains(out, "No resources found")
	})
}

func TestUnhappyPodsSayWhy(t *testing.T) {
	ns := newNamespace(t)
	apply(t, ns, `
apiVersion: v1
kind: Pod
metadata: {name: missing}
spec:
  containers: [{name: c, image: "podvine.io/not-there:v1", imagePullPolicy: Never}]
---
apiVersion: v1
kind: Pod
metadata: {name: crashing}
spec:
  containers: [{name: c, image: "`+shellImage+`", command: [sh, -c, "echo last words; exit 3"]}]
---
apiVersion: v1
kind: Pod
metadata: {name: too-big}
spec:
  containers: [{name: c, image: "`+shellImage+`", resources: {requests: {cpu: "1000"}}}]
`)
	for pod, reasons := range map[string][]string{
		"missing":  {"ErrImageNeverPull"},
		"crashing": {"CrashLoopBackOff", "Exit Code:    3", "BackOff", "Back-off restarting failed container"},
		"too-big":  {"FailedScheduling", "Insufficient cpu", "0/1 nodes are available"},
	} {
		eventually(t, 60*time.Second, pod+" to say why", func() (string, bool) {
			out := kubectl(t, ns, "describe", "pod", pod)
			for _, reason := range reasons {
				if !strings.Contains(out, reason) {
					return out, false
				}
			}
			return out, true
		})
	}
	wants(t, kubectl(t, ns, "logs", "crashing"), "last words")
}

func TestNamespaceTakesItsContentWithIt(t *testing.T) {
	ns := newNamespace(t) + "-inner"
	kubectl(t, "default", "create", "namespace", ns)
	kubectl(t, ns, "create", "configmap", "c", "--from-literal=a=b")
	kubectl(t, ns, "run", "p", "--image", appImage)
	kubectl(t, "default", "delete", "namespace", ns, "--timeout=60s")
	out, err := tryKubectl(t, ns, "", "get", "configmap", "c")
	if err == nil {
		t.Errorf("the ConfigMap outlived its namespace: %s", out)
	}
}
