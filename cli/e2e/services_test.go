package e2e

import (
	"fmt"
	"strings"
	"testing"
	"time"
)

func TestServiceAnswersByNameAndOnNodePort(t *testing.T) {
	ns := newNamespace(t)
	apply(t, ns, `
apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec:
  replicas: 2
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      containers:
      - {name: web, image: "`+appImage+`", ports: [{name: http, containerPort: 8080}], readinessProbe: {httpGet: {path: /healthz, port: http}, periodSeconds: 1}}
---
apiVersion: v1
kind: Service
metadata: {name: web}
spec: {type: NodePort, selector: {app: web}, ports: [{port: 80, targetPort: http, nodePort: 30081}]}
`)
	kubectl(t, ns, "rollout", "status", "deployment/web", "--timeout=60s")
	for _, name := range []string{"web", "web." + ns, "web." + ns + ".svc.cluster.local"} {
		eventually(t, 20*time.Second, name+" to answer in a pod", func() (string, bool) {
			out, err := tryKubectl(t, ns, "", "exec", "deployment/web", "--", "/app", "get", "http://"+name+"/by-name")
			return out, err == nil && strings.Contains(out, "hello from web-")
		})
	}
	answered := map[string]bool{}
	for range 40 {
		out := get(t, "http://127.0.0.1:30081/")
		answered[strings.Fields(out)[2]] = true
	}
	if len(answered) != 2 {
		t.Errorf("of two pods these answered on the node port: %v", answered)
	}
	inside, err := command("lab", "exec", "--name", labName, "h1", "--", "podvine", "lab", "fetch", "http://127.0.0.1:30081/").CombinedOutput()
	if err != nil {
		t.Errorf("127.0.0.1 of the host itself: %v: %s", err, inside)
	}
	wants(t, string(inside), "hello from web-")

	kubectl(t, ns, "patch", "service", "web", "-p", `{"spec": {"sessionAffinity": "ClientIP"}}`)
	client := strings.TrimSpace(strings.Split(kubectl(t, ns, "get", "pods", "-o", "name"), "\n")[0])
	eventually(t, 20*time.Second, "one client to stay with one pod", func() (string, bool) {
		pods := map[string]bool{}
		for range 8 {
			out, err := tryKubectl(t, ns, "", "exec", client, "--", "/app", "get", "http://web/")
			fields := strings.Fields(out)
			if err != nil || len(fields) < 3 {
				return out, false
			}
			pods[fields[2]] = true
		}
		return fmt.Sprint(pods), len(pods) == 1
	})
}
