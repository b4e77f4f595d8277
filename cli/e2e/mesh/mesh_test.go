package mesh

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/podvine/podvine/consensus/quorum"
)

// replacedBudget is from a host's death to its pods running elsewhere.
const replacedBudget = 10 * time.Second

func TestAllAreMembers(t *testing.T) {
	for _, host := range hosts {
		// The quorum may count on a machine that left before a little longer.
		eventually(t, time.Minute, host+" to know all members, and no other", func() (string, bool) {
			known := members(t, host)
			ok := len(known) == len(hosts)
			for _, member := range known {
				ok = ok && member.Alive && member.ID != ""
			}
			return fmt.Sprintf("%+v", known), ok
		})
	}
}

func TestAnswersAreEqualByteForByte(t *testing.T) { equalAnswers(t) }

// equalAnswers asks every member the same: each answers the same way, whatever its role.
func equalAnswers(t *testing.T) {
	t.Helper()
	for _, path := range []string{"/api/v1/namespaces", "/apis", "/api/v1/nodes/h2", "/openapi/v3", "/api/v1/namespaces/nowhere/pods", "/apis/apps/v1/deployments?limit=1"} {
		// A write between two answers moves the version of a list: then all are asked again.
		eventually(t, 30*time.Second, "the same answer of all to "+path, func() (string, bool) {
			var first string
			for _, host := range hosts {
				answer := run(t, host, "kubectl", "get", "--raw", path)
				if first == "" {
					first = answer
				}
				if answer != first {
					return fmt.Sprintf("%s answers\n%s\nand %s\n%s", hosts[0], first, host, answer), false
				}
			}
			return "", true
		})
	}
	wrong, right := map[string]string{}, ""
	for _, host := range hosts {
		out, err := try(t, host, `{"apiVersion":"v1","kind":"Pod","metadata":{"name":"Bad"},"spec":{}}`, "kubectl", "create", "-f", "-")
		if err == nil {
			t.Errorf("%s accepts a pod that is none", host)
		}
		wrong[out], right = host, out
	}
	if len(wrong) != 1 || !strings.Contains(right, "is invalid") {
		t.Errorf("refusals differ: %v", wrong)
	}
}

func TestStreamsReachAnyNodeThroughAnyMember(t *testing.T) {
	for _, host := range hosts {
		run(t, "h1", "kubectl", "run", "on-"+host, "--image="+appImage, "--restart=Never", "--overrides", `{"spec":{"nodeName":"`+host+`"}}`)
		t.Cleanup(func() { run(t, "h1", "kubectl", "delete", "pod", "on-"+host, "--now") })
	}
	for _, host := range hosts {
		run(t, "h1", "kubectl", "wait", "--for=condition=Ready", "pod/on-"+host, "--timeout=30s")
		for _, through := range hosts {
			if log := run(t, through, "kubectl", "logs", "on-"+host); !strings.Contains(log, "listens on") {
				t.Errorf("the log of on-%s through %s is %q", host, through, log)
			}
		}
	}
}

// Services reach pods on every node, from every node and from pods, by address and by name, and the server sees who asks.
func TestServicesReachPodsOfAllNodes(t *testing.T) {
	client, _ := clientOf(t, "h1")
	run(t, "h1", "kubectl", "create", "deployment", "echo", "--image="+appImage, "--replicas=6", "--port=8080")
	t.Cleanup(func() { run(t, "h1", "kubectl", "delete", "deployment,service", "echo") })
	run(t, "h1", "kubectl", "expose", "deployment", "echo", "--port=80", "--target-port=8080")
	run(t, "h1", "kubectl", "rollout", "status", "deployment/echo", "--timeout=60s")
	service, err := client.CoreV1().Services("default").Get(t.Context(), "echo", metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	pods, err := client.CoreV1().Pods("default").List(t.Context(), metav1.ListOptions{LabelSelector: "app=echo"})
	if err != nil {
		t.Fatal(err)
	}
	nodes, addresses := map[string]string{}, map[string]string{}
	for _, pod := range pods.Items {
		nodes[pod.Name], addresses[pod.Spec.NodeName] = pod.Spec.NodeName, pod.Status.PodIP
	}
	if len(addresses) != len(hosts) {
		t.Fatalf("the pods are on %v", nodes)
	}
	for _, host := range hosts {
		seen := map[string]bool{}
		eventually(t, time.Minute, "pods of all nodes to answer "+host, func() (string, bool) {
			answer := run(t, "h1", "lab", "exec", "--name", labName, host, "--", "podvine", "lab", "fetch", "http://"+service.Spec.ClusterIP)
			seen[nodes[answeredBy(answer)]] = true
			return fmt.Sprint(answer, seen), len(seen) == len(hosts)
		})
	}
	expectSameNode(t, "echo", nodes)
	for name, node := range nodes {
		for other, address := range addresses {
			if other == node {
				continue
			}
			answer := run(t, "h1", "kubectl", "exec", name, "--", "/app", "get", "http://"+address+":8080/")
			pod := pods.Items[slices.IndexFunc(pods.Items, func(p corev1.Pod) bool { return p.Name == name })]
			if nodes[answeredBy(answer)] != other || !strings.Contains(answer, "asked by "+pod.Status.PodIP+":") {
				t.Errorf("%s (%s on %s) asked a pod of %s: %s", name, pod.Status.PodIP, node, other, answer)
			}
		}
		if answer := run(t, "h1", "kubectl", "exec", name, "--", "/app", "get", "http://echo.default/"); nodes[answeredBy(answer)] == "" {
			t.Errorf("by name, %s got %s", name, answer)
		}
	}
}

// answeredBy reads the pod's name from the sample's answer.
func answeredBy(answer string) string {
	_, rest, _ := strings.Cut(answer, "hello from ")
	name, _, _ := strings.Cut(rest, ",")
	return name
}

// The quorum has three voters of three nodes, and goes on without its leader.
func TestQuorumOutlivesItsLeader(t *testing.T) {
	healthy(t)
	leader := quorumOf(t, "h1").Leader.Name
	rest := slices.DeleteFunc(slices.Clone(hosts), func(h string) bool { return h == leader })
	run(t, "h1", "kubectl", "create", "configmap", "before", "--from-literal=a=b")
	run(t, "h1", "lab", "kill", "--name", labName, leader)
	killed := time.Now()
	client, _ := clientOf(t, rest[0])
	eventually(t, 30*time.Second, "a write without the leader", func() (string, bool) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		_, err := client.CoreV1().ConfigMaps("default").Create(ctx, &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "after"}}, metav1.CreateOptions{})
		return fmt.Sprint(err), err == nil || apierrors.IsAlreadyExists(err)
	})
	t.Logf("the next write was accepted %v after the death of the leader; the budget is 2s", time.Since(killed).Round(time.Millisecond))
	for _, host := range rest {
		for _, name := range []string{"before", "after"} {
			run(t, host, "kubectl", "get", "configmap", name)
		}
	}
	if status := quorumOf(t, rest[0]); status.Leader.Name == leader || status.Leader.Name == "" {
		t.Errorf("without %s the quorum is %+v", leader, status)
	}
	run(t, rest[0], "lab", "start", "--name", labName, leader)
	eventually(t, time.Minute, "the old leader to vote again", func() (string, bool) {
		status := quorumOf(t, rest[0])
		return fmt.Sprintf("%+v", status), status.State == "healthy"
	})
	run(t, leader, "kubectl", "get", "configmap", "after")
	run(t, leader, "kubectl", "delete", "configmap", "before", "after")
}

func quorumOf(t testing.TB, host string) (status quorum.Status) {
	t.Helper()
	if err := json.Unmarshal([]byte(run(t, host, "quorum", "-o", "json")), &status); err != nil {
		t.Fatal(err)
	}
	return status
}

func TestTokensAreRefusedWithAReason(t *testing.T) {
	expired := strings.TrimSpace(run(t, "h1", "token", "create", "--ttl", "1s", "--description", "short"))
	revoked := strings.TrimSpace(run(t, "h1", "token", "create"))
	valid := strings.TrimSpace(run(t, "h1", "token", "create"))
	run(t, "h1", "token", "revoke", revoked)
	if list := run(t, "h2", "token", "list"); !strings.Contains(list, valid[:6]) || strings.Contains(list, revoked[:6]) || strings.Contains(list, valid[7:23]) {
		t.Errorf("the tokens are listed as\n%s", list)
	}
	eventually(t, 10*time.Second, "the short token to expire", func() (string, bool) {
		list := run(t, "h1", "token", "list")
		return list, strings.Contains(list, "expired")
	})
	wrongSecret := valid[:7] + strings.Repeat("a", 16) + valid[23:]
	otherCluster := valid[:24] + strings.Repeat("0", 64)
	for _, c := range []struct{ what, token, name, reason string }{
		{"an expired token", expired, "new", "expired at"},
		{"a revoked token", revoked, "new", "it was revoked or never made"},
		{"a wrong secret", wrongSecret, "new", "the secret of token " + valid[:6] + " is wrong"},
		{"another cluster's token", otherCluster, "new", "the token is for another cluster"},
		{"no token's form", "hello", "new", "not of the form ID.SECRET.HASH"},
		{"no token", "", "new", "needs a token"},
		{"the name of a living node", valid, "h2", "a living node has the name h2"},
		{"the address of a living node", valid, "new", "the living node h3 has the address 10.88.0.3"},
		{"a name of the API's", valid, "kubernetes.default.svc", "no node may have the name kubernetes.default.svc"},
	} {
		out, err := joinFrom(t, "h3", c.token, c.name)
		if err == nil || !strings.Contains(out, c.reason) {
			t.Errorf("%s: %v, %s; want %q", c.what, err, out, c.reason)
		}
		if c.token != "" && strings.Count(out, "\n") > 3 {
			t.Errorf("%s: more than a line or two:\n%s", c.what, out)
		}
	}
	if known := members(t, "h1"); len(known) != len(hosts) {
		t.Errorf("after all refusals the members are %+v", known)
	}
}

// joinFrom tries to join from the host, beside its own agent.
func joinFrom(t *testing.T, host, token, name string) (string, error) {
	t.Helper()
	return try(t, "h1", "", "lab", "exec", "--name", labName, host, "--", "env", "PODVINE_JOIN_TOKEN="+token, "podvine", "agent", "join", "10.88.0.1",
		"--node-name", name, "--data-dir", "/tmp/second", "--api-port", "16443", "--kubelet-port", "20250", "--gossip-port", "17946", "--peer-port", "17947")
}

// With fewer voters than nodes, some node is an edge: it holds no record and no key, and answers as all others do. It is made one
// while it runs, and a replica again.
func TestEdgesHoldNothingAndAnswerAll(t *testing.T) {
	voters := func(count string) {
		run(t, "h1", "kubectl", "patch", "configmap", "podvine-settings", "--namespace", "kube-system", "--patch", `{"data":{"voters":"`+count+`"}}`)
	}
	roles := func() map[string][]string {
		by := map[string][]string{}
		for name, member := range members(t, "h1") {
			if member.Alive {
				by[member.Role] = append(by[member.Role], name)
			}
		}
		return by
	}
	before := keysOf(t, "h1")
	voters("1")
	t.Cleanup(func() { voters("0") })
	eventually(t, 2*time.Minute, "a voter, two standbys and an edge", func() (string, bool) {
		by := roles()
		return fmt.Sprint(by), len(by["voter"]) == 1 && len(by["standby"]) == 2 && len(by["edge"]) == 1
	})
	edge := roles()["edge"][0]
	t.Logf("%s is the edge", edge)
	eventually(t, 30*time.Second, "the edge to have given up its records", func() (string, bool) {
		out, err := try(t, "h1", "", "lab", "exec", "--name", labName, edge, "--", "sh", "-c",
			"cd /var/lib/podvine && ls raft data-keys.json pki/cluster-ca.key pki/front-proxy-ca.key pki/tokens pki/serving.pem /etc/podvine/admin.kubeconfig 2>/dev/null; true")
		return fmt.Sprint(out, err), err == nil && strings.TrimSpace(out) == ""
	})
	answering(t, edge)
	eventually(t, 30*time.Second, "what the edge knew to be rotated", func() (string, bool) {
		now := keysOf(t, "h1")
		return fmt.Sprintf("%+v", now), now.seals() != before.seals() && len(now.Tokens) > len(before.Tokens)
	})
	equalAnswers(t)
	rotateAtOnce(t, edge)
	memory := strings.Fields(run(t, "h1", "lab", "exec", "--name", labName, edge, "--", "sh", "-c", "grep RssAnon /proc/$(pgrep -of 'podvine agent')/status"))
	t.Logf("the edge's agent has %s kB of anonymous memory; the budget of agent and netd is 60 MB", memory[1])
	run(t, edge, "kubectl", "run", "by-the-edge", "--image="+appImage, "--restart=Never", "--overrides", `{"spec":{"nodeName":"`+edge+`"}}`)
	run(t, edge, "kubectl", "wait", "--for=condition=Ready", "pod/by-the-edge", "--timeout=30s")
	if log := run(t, edge, "kubectl", "logs", "by-the-edge"); !strings.Contains(log, "listens on") {
		t.Errorf("the log of a pod on an edge, through it: %q", log)
	}
	run(t, edge, "kubectl", "delete", "pod", "by-the-edge", "--now")
	rebootsAlone(t, edge)

	voters("3")
	healthy(t)
	eventually(t, time.Minute, edge+" to be a replica again", func() (string, bool) {
		for _, m := range members(t, "h1") {
			if m.Name == edge {
				return m.Role, m.Role != "edge"
			}
		}
		return "no member", false
	})
	answering(t, edge)
	equalAnswers(t)
}

// rebootsAlone lets all replicas die and then the edge: its pod starts again from the edge's disk and answers, and is the same pod
// when the others are back.
func rebootsAlone(t *testing.T, edge string) {
	t.Helper()
	const port = 18080
	overrides := fmt.Sprintf(`{"spec":{"nodeName":%q,"containers":[{"name":"alone","image":%q,"ports":[{"containerPort":8080,"hostPort":%d}],
		"env":[{"name":"KEPT","valueFrom":{"configMapKeyRef":{"name":"kept","key":"word"}}}]}]}}`, edge, appImage, port)
	run(t, edge, "kubectl", "create", "configmap", "kept", "--from-literal=word=yes")
	run(t, edge, "kubectl", "run", "alone", "--image="+appImage, "--overrides", overrides)
	t.Cleanup(func() { run(t, "h1", "kubectl", "delete", "pod/alone", "service/alone", "configmap/kept", "--now") })
	run(t, edge, "kubectl", "wait", "--for=condition=Ready", "pod/alone", "--timeout=30s")
	run(t, edge, "kubectl", "expose", "pod", "alone", "--port=80", "--target-port=8080")
	service := run(t, edge, "kubectl", "get", "service", "alone", "-o", "jsonpath={.spec.clusterIP}")
	inside := func(command ...string) (string, error) {
		return try(t, edge, "", append([]string{"lab", "exec", "--name", labName, edge, "--"}, command...)...)
	}
	eventually(t, time.Minute, "the edge to serve the service", func() (string, bool) {
		out, err := inside("podvine", "lab", "fetch", "http://"+service)
		return fmt.Sprint(out, err), err == nil
	})
	// What is kept is encrypted: it has the service when it is written after a change that came later.
	if out, err := inside("touch", "/run/served"); err != nil {
		t.Fatal(out, err)
	}
	run(t, edge, "kubectl", "annotate", "service", "alone", "kept=yes")
	eventually(t, time.Minute, "the edge to have kept the service", func() (string, bool) {
		out, err := inside("find", "/var/lib/podvine/services/services", "-type", "f", "-newer", "/run/served")
		return fmt.Sprint(out, err), err == nil && strings.TrimSpace(out) != ""
	})
	before := run(t, edge, "kubectl", "get", "pod", "alone", "-o", "jsonpath={.metadata.uid}")
	address := run(t, edge, "kubectl", "get", "pod", "alone", "-o", "jsonpath={.status.hostIP}")

	run(t, "h1", append([]string{"lab", "kill", "--name", labName}, hosts...)...)
	run(t, "h1", "lab", "start", "--name", labName, edge)
	for _, at := range []string{fmt.Sprintf("http://%s:%d", address, port), "http://" + service} {
		took := eventually(t, time.Minute, "the pod to answer at "+at+" while all replicas are dead", func() (string, bool) {
			out, err := try(t, "h1", "", "lab", "exec", "--name", labName, edge, "--", "podvine", "lab", "fetch", at)
			return fmt.Sprint(out, err), err == nil && answeredBy(out) == "alone"
		})
		t.Logf("the pod answers at %s after %v, alone", at, took.Round(time.Millisecond))
	}

	others := slices.DeleteFunc(slices.Clone(hosts), func(host string) bool { return host == edge })
	run(t, "h1", append([]string{"lab", "start", "--name", labName}, others...)...)
	for _, host := range hosts {
		answering(t, host)
	}
	eventually(t, 90*time.Second, "the pod to be ready for all", func() (string, bool) {
		out, err := try(t, edge, "", "kubectl", "get", "pod", "alone", "-o", `jsonpath={.status.conditions[?(@.type=="Ready")].status} {.status}`)
		return fmt.Sprint(out, err), err == nil && strings.HasPrefix(out, "True")
	})
	if after := run(t, edge, "kubectl", "get", "pod", "alone", "-o", "jsonpath={.metadata.uid}"); after != before {
		t.Errorf("the pod was %s, now it is %s", before, after)
	}
}

// A kubeconfig has a context for each member, whose certificate fits the address in it.
func TestKubeconfigListsAllMembers(t *testing.T) {
	for _, through := range []string{"", "--user=jane"} {
		args := []string{"lab", "exec", "--name", labName, "h1", "--", "sh", "-c",
			"podvine kubeconfig " + through + " > /tmp/kubeconfig && for c in podvine " + strings.Join(hosts, " ") + "; do podvine kubectl --kubeconfig /tmp/kubeconfig --context $c auth whoami -o name && echo $c; done; rm /tmp/kubeconfig"}
		eventually(t, 30*time.Second, "a kubeconfig with all members", func() (string, bool) {
			out, err := try(t, "h1", "", args...)
			ok := err == nil
			for _, context := range append([]string{"podvine"}, hosts...) {
				ok = ok && strings.Contains(out, "\n"+context+"\n")
			}
			return fmt.Sprint(out, err), ok
		})
	}
	list := run(t, "h1", "lab", "kubeconfig", "--name", labName)
	for _, host := range hosts {
		if !strings.Contains(list, "name: "+host+"\n") {
			t.Errorf("the lab's kubeconfig has no %s:\n%s", host, list)
		}
	}
}

// healthy waits until as many vote as shall, three or five: a quorum that changes may be one death from being lost.
func healthy(t testing.TB) {
	t.Helper()
	voters := 3
	if len(hosts) >= drillHosts {
		voters = 5
	}
	eventually(t, 2*time.Minute, fmt.Sprintf("%d voters", voters), func() (string, bool) {
		status := quorumOf(t, "h1")
		return fmt.Sprintf("%+v", status), status.State == "healthy" && len(status.Voters) == voters
	})
}

// answering waits until the host's API answers: an agent that takes another role starts anew.
func answering(t testing.TB, host string) {
	t.Helper()
	eventually(t, time.Minute, host+" to answer", func() (string, bool) {
		out, err := try(t, host, "", "kubectl", "get", "--raw", "/readyz")
		return fmt.Sprint(out, err), err == nil
	})
}

// TestDeadHostIsReplacedAndReturns kills a host as a power cut would: its pods run elsewhere within the budget, those of
// others are not touched, and on its return nothing healthy is killed.
func TestDeadHostIsReplacedAndReturns(t *testing.T) {
	healthy(t)
	client, _ := clientOf(t, "h1")
	run(t, "h1", "kubectl", "create", "deployment", "web", "--image="+appImage, "--replicas=6")
	t.Cleanup(func() { run(t, "h1", "kubectl", "delete", "deployment,service", "web") })
	run(t, "h1", "kubectl", "rollout", "status", "deployment/web", "--timeout=60s")
	run(t, "h1", "kubectl", "expose", "deployment", "web", "--port=80", "--target-port=8080")
	byHost := func() map[string]string {
		pods, err := client.CoreV1().Pods("default").List(t.Context(), metav1.ListOptions{LabelSelector: "app=web"})
		if err != nil {
			t.Fatal(err)
		}
		running := map[string]string{}
		for _, pod := range pods.Items {
			if pod.Status.Phase == corev1.PodRunning && pod.DeletionTimestamp == nil {
				running[pod.Name] = pod.Spec.NodeName + " " + pod.Status.ContainerStatuses[0].ContainerID
			}
		}
		return running
	}
	before := byHost()
	if on := slices.Collect(maps.Values(before)); !slices.ContainsFunc(on, func(s string) bool { return strings.HasPrefix(s, "h3 ") }) {
		t.Fatalf("no pod is on h3: %v", before)
	}
	loaded := startLoad(t, "h2", "web")
	killed := time.Now()
	run(t, "h1", "lab", "kill", "--name", labName, "h3")
	took := eventually(t, time.Minute, "the pods of h3 to run elsewhere", func() (string, bool) {
		now := byHost()
		living := 0
		for _, at := range now {
			if !strings.HasPrefix(at, "h3 ") {
				living++
			}
		}
		return fmt.Sprint(now), living == 6
	})
	t.Logf("replaced and running after %v; the budget is %v", took.Round(time.Millisecond), replacedBudget)
	fresh, kept := loaded()
	expectMoved(t, fresh, kept, killed)
	expectDeadNodes(t, "h2", 1)
	after := byHost()
	for name, at := range before {
		if !strings.HasPrefix(at, "h3 ") && after[name] != at {
			t.Errorf("pod %s was on %s, now on %q", name, at, after[name])
		}
	}
	run(t, "h1", "lab", "start", "--name", labName, "h3")
	run(t, "h1", "kubectl", "wait", "--for=condition=Ready", "node/h3", "--timeout=60s")
	eventually(t, time.Minute, "the dead host's pods to be gone", func() (string, bool) {
		pods, err := client.CoreV1().Pods("default").List(t.Context(), metav1.ListOptions{LabelSelector: "app=web"})
		return fmt.Sprint(pods, err), err == nil && len(pods.Items) == 6
	})
	expectDeadNodes(t, "h2", 0)
	if back := byHost(); !maps.Equal(back, after) {
		t.Errorf("the return changed %v to %v", after, back)
	}
}

// A machine that was installed anew has its old name again, and never founds a cluster of its own.
func TestWipedMachineRejoinsUnderItsName(t *testing.T) {
	healthy(t)
	before := members(t, "h1")["h3"]
	wipe(t, "h3")
	run(t, "h1", "lab", "up", "--name", labName, "--hosts", fmt.Sprint(len(hosts)))
	eventually(t, 30*time.Second, "the new h3 to be the only one", func() (string, bool) {
		known := members(t, "h2")
		return fmt.Sprint(known), len(known) == len(hosts) && known["h3"].Alive && known["h3"].ID != before.ID
	})
	var cluster string
	for _, host := range hosts {
		var status struct{ Cluster string }
		if err := json.Unmarshal([]byte(run(t, host, "status", "-o", "json")), &status); err != nil {
			t.Fatal(err)
		}
		if cluster == "" {
			cluster = status.Cluster
		}
		if status.Cluster != cluster {
			t.Errorf("%s is of cluster %s, h1 of %s", host, status.Cluster, cluster)
		}
	}
	// It was not there when the image was imported, and has no registry to ask.
	run(t, "h1", "kubectl", "wait", "--for=condition=Ready", "node/h3", "--timeout=60s")
	if on := holders(t, appImage); slices.Contains(on, "h3") {
		t.Errorf("the new h3 holds the image already: %v", on)
	}
	runOn(t, "h3", "on-the-new", appImage)
}

// wipe kills a host and takes its disk; its death is known when it returns.
func wipe(t testing.TB, host string) {
	t.Helper()
	by := other(host)
	run(t, by, "lab", "kill", "--name", labName, host)
	eventually(t, 30*time.Second, "the death to be known", func() (string, bool) {
		known := members(t, by)[host]
		return fmt.Sprint(known), !known.Alive
	})
	if err := os.Remove("/var/lib/podvine/labs/" + labName + "/hosts/" + host + "/disk.img"); err != nil {
		t.Fatal(err)
	}
}
