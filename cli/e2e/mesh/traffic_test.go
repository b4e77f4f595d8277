package mesh

import (
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
	movedLimit  = 4 * time.Second
	loadSpan    = "12s"
)

// outcome is what the sample tells of its load.
type outcome struct {
	Requests, Failed          int
	FirstFailure, LastFailure time.Time
	SlowestSeconds            float64
}

// startLoad has a pod on the host ask the service all the time. What it returns waits for the end, and reports for how long
// requests failed after a host was killed.
func startLoad(t *testing.T, host, service string) (end func(killed time.Time)) {
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
	type result struct {
		out string
		err error
	}
	results := make(chan result, 1)
	go func() {
		out, err := try(t, host, "", "kubectl", "exec", "load", "--", "/app", "load", url, loadSpan)
		results <- result{out, err}
	}()
	return func(killed time.Time) {
		t.Helper()
		told := <-results
		var seen struct{ Fresh, Kept outcome }
		if err := json.Unmarshal([]byte(told.out), &seen); told.err != nil || err != nil {
			t.Fatalf("load the service: %v, %v: %s", told.err, err, told.out)
		}
		report(t, seen.Fresh, seen.Kept, killed)
	}
}

func report(t *testing.T, fresh, kept outcome, killed time.Time) {
	t.Helper()
	t.Logf("load: %+v by new connections, %+v by kept ones", fresh, kept)
	if fresh.Requests == 0 || kept.Requests == 0 || fresh.Failed == fresh.Requests {
		t.Error("the service was not asked, or never answered")
	}
	if fresh.Failed == 0 && kept.SlowestSeconds < 1 {
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

// expectDeadNodes waits until the host's proxy turns traffic away from so many nodes.
func expectDeadNodes(t *testing.T, host string, count int) {
	t.Helper()
	want := fmt.Sprintf("\npodvine_proxy_dead_nodes %d\n", count)
	eventually(t, 30*time.Second, fmt.Sprintf("%d dead nodes in the proxy of %s", count, host), func() (string, bool) {
		told, err := try(t, host, "", "kubectl", "get", "--raw", "/api/v1/nodes/"+host+"/proxy/metrics/proxy")
		return told, err == nil && strings.Contains(told, want)
	})
}
