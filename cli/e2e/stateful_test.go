package e2e

import (
	"strings"
	"testing"
	"time"
)

func TestStatefulSetKeepsNamesAndOrder(t *testing.T) {
	ns := newNamespace(t)
	apply(t, ns, `
apiVersion: v1
kind: Service
metadata: {name: db}
spec: {clusterIP: None, selector: {app: db}, ports: [{port: 8080}]}
---
apiVersion: apps/v1
kind: StatefulSet
metadata: {name: db}
spec:
  replicas: 3
  serviceName: db
  selector: {matchLabels: {app: db}}
  template:
    metadata: {labels: {app: db}}
    spec:
      terminationGracePeriodSeconds: 1
      containers:
      - {name: app, image: "`+appImage+`", readinessProbe: {httpGet: {path: /healthz, port: 8080}, periodSeconds: 1}}
`)
	wants(t, kubectl(t, ns, "rollout", "status", "statefulset/db", "--timeout=80s"), "roll")
	wants(t, kubectl(t, ns, "get", "sts", "db"), "3/3")
	created := strings.Fields(kubectl(t, ns, "get", "pods", "--sort-by=.metadata.creationTimestamp", "-o", "name"))
	if got := strings.Join(created, " "); got != "pod/db-0 pod/db-1 pod/db-2" {
		t.Errorf("made in the order %s", got)
	}
	for _, name := range []string{"db-1.db", "db-2.db." + ns + ".svc.cluster.local"} {
		eventually(t, 20*time.Second, name+" to answer", func() (string, bool) {
			out, err := tryKubectl(t, ns, "", "exec", "db-0", "--", "/app", "get", "http://"+name+":8080/")
			return out, err == nil && strings.Contains(out, "hello from "+name[:4])
		})
	}
	uid := kubectl(t, ns, "get", "pod", "db-1", "-o", "jsonpath={.metadata.uid}")
	kubectl(t, ns, "delete", "pod", "db-1")
	eventually(t, 60*time.Second, "db-1 to be back", func() (string, bool) {
		out, err := tryKubectl(t, ns, "", "get", "pod", "db-1", "-o", "jsonpath={.metadata.uid} {.status.conditions[?(@.type=='Ready')].status}")
		return out, err == nil && !strings.HasPrefix(out, uid) && strings.HasSuffix(out, " True")
	})

	kubectl(t, ns, "set", "env", "statefulset/db", "STEP=two")
	kubectl(t, ns, "rollout", "status", "statefulset/db", "--timeout=80s")
	env := func() string {
		return kubectl(t, ns, "get", "pods", "-o", "jsonpath={range .items[*]}{.metadata.name}={.spec.containers[0].env[0].value} {end}")
	}
	if got := strings.TrimSpace(env()); got != "db-0=two db-1=two db-2=two" {
		t.Errorf("after the roll-out: %s", got)
	}
	history := kubectl(t, ns, "rollout", "history", "statefulset/db")
	wants(t, history, "REVISION", "1", "2")
	wants(t, kubectl(t, ns, "rollout", "undo", "statefulset/db"), "rolled back")
	kubectl(t, ns, "rollout", "status", "statefulset/db", "--timeout=80s")
	if got := strings.TrimSpace(env()); got != "db-0= db-1= db-2=" {
		t.Errorf("after the undoing: %s", got)
	}
	kubectl(t, ns, "scale", "statefulset/db", "--replicas=1")
	eventually(t, 60*time.Second, "db-0 to be alone", func() (string, bool) {
		out := strings.TrimSpace(kubectl(t, ns, "get", "pods", "-o", "name"))
		return out, out == "pod/db-0"
	})
	wants(t, kubectl(t, ns, "describe", "statefulset", "db"), "SuccessfulCreate", "create Pod db-0 in StatefulSet db successful", "delete Pod db-2 in StatefulSet db successful")
	kubectl(t, ns, "delete", "statefulset", "db", "--timeout=60s")
	eventually(t, 60*time.Second, "the pods to be gone", func() (string, bool) {
		out := kubectl(t, ns, "get", "pods")
		return out, strings.Contains(out, "No resources found")
	})
}

// TestStatefulSetFindsPeersBeforeTheyAreReady: members that wait for each other find each other by name.
func TestStatefulSetFindsPeersBeforeTheyAreReady(t *testing.T) {
	ns := newNamespace(t)
	apply(t, ns, `
apiVersion: v1
kind: Service
metadata: {name: peers}
spec: {clusterIP: None, publishNotReadyAddresses: true, selector: {app: peers}, ports: [{port: 8080}]}
---
apiVersion: apps/v1
kind: StatefulSet
metadata: {name: peers}
spec:
  replicas: 2
  podManagementPolicy: Parallel
  serviceName: peers
  ordinals: {start: 3}
  selector: {matchLabels: {app: peers}}
  template:
    metadata: {labels: {app: peers}}
    spec:
      terminationGracePeriodSeconds: 1
      containers:
      - {name: app, image: "`+appImage+`", readinessProbe: {httpGet: {path: /never, port: 1}, periodSeconds: 1}}
`)
	eventually(t, 60*time.Second, "peers-4 to answer peers-3 by name", func() (string, bool) {
		out, err := tryKubectl(t, ns, "", "exec", "peers-3", "--", "/app", "get", "http://peers-4.peers:8080/")
		return out, err == nil && strings.Contains(out, "hello from peers-4")
	})
	wants(t, kubectl(t, ns, "get", "sts", "peers"), "0/2")
}

// TestStatefulSetMakesClaims: claims are made, and what cannot be done with them yet is said.
func TestStatefulSetMakesClaims(t *testing.T) {
	ns := newNamespace(t)
	apply(t, ns, `
apiVersion: apps/v1
kind: StatefulSet
metadata: {name: kept}
spec:
  serviceName: kept
  selector: {matchLabels: {app: kept}}
  persistentVolumeClaimRetentionPolicy: {whenDeleted: Delete}
  volumeClaimTemplates:
  - {metadata: {name: data}, spec: {accessModes: [ReadWriteOnce], resources: {requests: {storage: 1Gi}}}}
  template:
    metadata: {labels: {app: kept}}
    spec:
      containers: [{name: app, image: "`+appImage+`", volumeMounts: [{name: data, mountPath: /data}]}]
`)
	eventually(t, 30*time.Second, "the claim and a pod that waits for it", func() (string, bool) {
		out := kubectl(t, ns, "get", "pvc,pods")
		return out, strings.Contains(out, "persistentvolumeclaim/data-kept-0") && strings.Contains(out, "pod/kept-0") && strings.Count(out, "Pending") == 2
	})
	wants(t, kubectl(t, ns, "describe", "statefulset", "kept"), "create Claim data-kept-0 Pod kept-0 in StatefulSet kept success")
	kubectl(t, ns, "delete", "statefulset", "kept", "--timeout=60s")
	eventually(t, 60*time.Second, "the claim to go with its set", func() (string, bool) {
		out := kubectl(t, ns, "get", "pvc,pods")
		return out, strings.Contains(out, "No resources found")
	})
}
