package mesh

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

const (
	// movedBudget is from a host's death to no request failing any more; movedLimit leaves room for a busy machine. Without
	// gossip's word it would be the eviction delay, and minutes for connections that are kept.
	movedBudget = 2 * time.Second
	movedLimit  = 5 * time.Second
	loadSpan    = "12s"
	loadLimit   = 90 * time.Second
	// keptConnections are those that the sample's load keeps.
	keptConnections = 8
)

// outcome is what the sample tells of its load.
type outcome struct {
	Requests, Failed          int
	Connections               int
	FirstFailure, LastFailure time.Time
	SlowestSeconds            float64
}

// startLoad has a pod on the host ask the service all the time, by new connections and by kept ones. What it returns waits for
// the end.
func startLoad(t *testing.T, host, service string) (end func() (fresh, kept outcome)) {
	t.Helper()
	client, _ := clientOf(t, host)
	object, err := client.CoreV1().Services("default").Get(t.Context(), service, metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	url := "http://" + object.Spec.ClusterIP + "/"
	run(t, host, "kubectl", "run", "load", "--image="+appImage, "--restart=Never", "--overrides", `{"spec":{"nodeName":"`+host+`"}}`)
	t.Cleanup(func() { run(t, host, "kubectl", "delete", "pod", "load", "--now") })
	run(t, host, "kubectl", "wait", "--for=condition=Ready", "pod/load", "--timeout=30s")
	eventually(t, 30*time.Second, "the service to answer", func() (string, bool) {
		answer, err := try(t, host, "", "kubectl", "exec", "load", "--", "/app", "get", url)
		return answer, err == nil && answeredBy(answer) != ""
	})
	return asking(t, host, url)
}

// asking runs the sample's load in its pod, and returns when all of its clients have asked once.
func asking(t *testing.T, host, url string) (end func() (fresh, kept outcome)) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), loadLimit)
	t.Cleanup(cancel)
	command := cluster.Command(ctx, host, "kubectl", "exec", "load", "--", "/app", "load", url, loadSpan)
	var complaints bytes.Buffer
	command.Stderr = &complaints
	out, err := command.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := command.Start(); err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewReader(out)
	if _, err := lines.ReadString('\n'); err != nil {
		t.Fatalf("begin to load the service: %v, %v: %s", err, command.Wait(), complaints.String())
	}
	return func() (fresh, kept outcome) {
		t.Helper()
		var seen struct{ Fresh, Kept outcome }
		unread := json.NewDecoder(lines).Decode(&seen)
		if err := command.Wait(); err != nil || unread != nil {
			t.Fatalf("load the service: %v, %v: %s", err, unread, complaints.String())
		}
		t.Logf("load: %+v by new connections, %+v by kept ones", seen.Fresh, seen.Kept)
		if seen.Fresh.Requests == 0 || seen.Kept.Requests == 0 || seen.Fresh.Failed == seen.Fresh.Requests {
			t.Error("the service was not asked, or never answered")
		}
		return seen.Fresh, seen.Kept
	}
}

// expectMoved reports for how long requests failed after a host was killed.
func expectMoved(t *testing.T, fresh, kept outcome, killed time.Time) {
	t.Helper()
	if fresh.Failed == 0 && kept.Failed == 0 && kept.Connections == keptConnections {
		t.Error("no request met the dead host: the test tells nothing")
	}
	last := fresh.LastFailure
	if kept.LastFailure.After(last) {
		last = kept.LastFailure
	}
	moved := max(0, last.Sub(killed))
	t.Logf("traffic moved: the last failure %v after the death; slowest by a kept connection %.2f s; the budget is %v",
		moved.Round(time.Millisecond), kept.SlowestSeconds, movedBudget)
	if moved > movedLimit {
		t.Errorf("requests failed until %v after the death, the limit is %v", moved, movedLimit)
	}
	if limit := movedLimit.Seconds(); kept.SlowestSeconds > limit {
		t.Errorf("a kept connection to the dead host was ended after %.2f s, the limit is %v", kept.SlowestSeconds, movedLimit)
	}
}

// An agent that is away breaks nothing: its pods go on serving who is connected to them, and new connections go elsewhere.
func TestAgentThatIsAwayBreaksNoConnection(t *testing.T) {
	healthy(t)
	// The pods outlast an agent that is slow to return.
	manifest := `{"apiVersion":"apps/v1","kind":"Deployment","metadata":{"name":"lasting"},"spec":{"replicas":4,"selector":{"matchLabels":{"app":"lasting"}},
"template":{"metadata":{"labels":{"app":"lasting"}},"spec":{"containers":[{"name":"app","image":"` + appImage + `"}],"tolerations":[
{"key":"node.kubernetes.io/unreachable","operator":"Exists","effect":"NoExecute"},{"key":"node.kubernetes.io/not-ready","operator":"Exists","effect":"NoExecute"}]}}}}`
	if out, err := try(t, "h1", manifest, "kubectl", "create", "-f", "-"); err != nil {
		t.Fatalf("create the deployment: %v: %s", err, out)
	}
	t.Cleanup(func() { run(t, "h1", "kubectl", "delete", "deployment,service", "lasting") })
	run(t, "h1", "kubectl", "expose", "deployment", "lasting", "--port=80", "--target-port=8080")
	run(t, "h1", "kubectl", "rollout", "status", "deployment/lasting", "--timeout=60s")
	if on := run(t, "h1", "kubectl", "get", "pods", "-l", "app=lasting", "-o", "jsonpath={.items[*].spec.nodeName}"); !strings.Contains(on, "h3") {
		t.Fatalf("no pod is on h3: %s", on)
	}
	loaded := startLoad(t, "h2", "lasting")
	run(t, "h1", "lab", "kill", "--name", labName, "--agent", "h3")
	expectDeadNodes(t, "h2", 1)
	run(t, "h1", "lab", "start", "--name", labName, "--agent", "h3")
	expectDeadNodes(t, "h2", 0)
	fresh, kept := loaded()
	if fresh.Failed > 0 || kept.Failed > 0 || kept.Connections != keptConnections {
		t.Errorf("%d and %d requests failed, and %d connections were needed; want none, and %d", fresh.Failed, kept.Failed, kept.Connections, keptConnections)
	}
	answering(t, "h3")
}

// What a host sends another does not get through, and both live: it finds out by itself and asks pods elsewhere, until the network is mended.
func TestOneWayCutTurnsTrafficAway(t *testing.T) {
	healthy(t)
	run(t, "h1", "kubectl", "create", "deployment", "around", "--image="+appImage, "--replicas=4", "--port=8080")
	t.Cleanup(func() { run(t, "h1", "kubectl", "delete", "deployment,service", "around") })
	run(t, "h1", "kubectl", "expose", "deployment", "around", "--port=80", "--target-port=8080")
	run(t, "h1", "kubectl", "rollout", "status", "deployment/around", "--timeout=60s")
	if on := run(t, "h1", "kubectl", "get", "pods", "-l", "app=around", "-o", "jsonpath={.items[*].spec.nodeName}"); !strings.Contains(on, "h3") {
		t.Fatalf("no pod is on h3: %s", on)
	}
	address := run(t, "h1", "kubectl", "get", "service", "around", "-o", "jsonpath={.spec.clusterIP}")
	run(t, "h1", "lab", "cut", "--name", labName, "h2", "h3", "--one-way")
	t.Cleanup(func() { run(t, "h1", "lab", "heal", "--name", labName) })
	cut := time.Now()
	expectDeadNodes(t, "h2", 1)
	t.Logf("h2 noticed after %v", time.Since(cut).Round(time.Millisecond))
	for range 24 { // by chance none of them meets one of four pods once in a thousand times
		if out, err := try(t, "h1", "", "lab", "exec", "--name", labName, "h2", "--", "podvine", "lab", "fetch", "http://"+address); err != nil || answeredBy(out) == "" {
			t.Fatalf("a request was lost: %v: %s", err, out)
		}
	}
	for name, member := range members(t, "h1") {
		if !member.Alive {
			t.Errorf("%s counts as dead", name)
		}
	}
	run(t, "h1", "lab", "heal", "--name", labName)
	expectDeadNodes(t, "h2", 0)
	healthy(t)
}

// expectDeadNodes waits until the host's proxy turns traffic away from so many nodes.
func expectDeadNodes(t *testing.T, host string, count int) {
	t.Helper()
	want := fmt.Sprintf("\npodvine_proxy_dead_nodes %d\n", count)
	eventually(t, 30*time.Second, fmt.Sprintf("%d dead nodes in the proxy of %s", count, host), func() (string, bool) {
		told, err := try(t, host, "", "kubectl", "get", "--raw", "/api/v1/nodes/"+host+"/proxy/metrics/proxy")
		return told, err == nil && strings.Contains(told, want)
	})
}

// expectSameNode has a service keep traffic on its node, and demands that each host is answered by its own pods; nodes are
// those of the pods.
func expectSameNode(t *testing.T, service string, nodes map[string]string) {
	t.Helper()
	const asked = 6 // by chance that many answers come from one of four nodes once in 4,096 times
	run(t, "h1", "kubectl", "patch", "service", service, "--patch", `{"spec":{"trafficDistribution":"PreferSameNode"}}`)
	address := run(t, "h1", "kubectl", "get", "service", service, "-o", "jsonpath={.spec.clusterIP}")
	for _, host := range hosts {
		eventually(t, 30*time.Second, "only pods of "+host+" to answer it", func() (string, bool) {
			for range asked {
				answer := run(t, "h1", "lab", "exec", "--name", labName, host, "--", "podvine", "lab", "fetch", "http://"+address)
				if nodes[answeredBy(answer)] != host {
					return answer, false
				}
			}
			return "", true
		})
	}
}
