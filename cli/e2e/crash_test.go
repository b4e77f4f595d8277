package e2e

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
)

// restartBudget is how long a killed agent may take until it answers again, after the second that its host waits.
const restartBudget = 3 * time.Second

// TestKilledAgentLosesNothing kills the agent under load: pods run on untouched, no acknowledged write is lost, and it is
// ready again within its budget.
func TestKilledAgentLosesNothing(t *testing.T) {
	ns := newNamespace(t)
	shell(t, ns)
	containers := func() []string { return containerIDs(t, ns) }
	before := containers()

	load := newWriters(t, ns)
	load.untilAcknowledged(t, 50)
	kill, err := command("lab", "kill", "--name", labName, "--agent", "h1").CombinedOutput()
	if err != nil {
		t.Fatalf("kill the agent: %v: %s", err, kill)
	}
	begun := time.Now()
	start, err := command("lab", "start", "--name", labName, "--agent", "h1").CombinedOutput()
	if err != nil {
		t.Fatalf("start the agent: %v: %s", err, start)
	}
	eventually(t, 30*time.Second, "the agent to be ready again", func() (string, bool) {
		answer, err := client.Discovery().RESTClient().Get().AbsPath("/readyz").DoRaw(t.Context())
		return fmt.Sprint(string(answer), err), err == nil
	})
	took := time.Since(begun)
	t.Logf("ready again after %v", took.Round(time.Millisecond))
	load.untilAcknowledged(t, 50)
	acknowledged := load.stop()

	for _, name := range acknowledged {
		if _, err := client.CoreV1().ConfigMaps(ns).Get(t.Context(), name, metav1.GetOptions{}); err != nil {
			t.Errorf("an acknowledged write is lost: %s: %v", name, err)
		}
	}
	if after := containers(); !slices.Equal(before, after) {
		t.Errorf("containers before %v, after %v", before, after)
	}
	log := kubectl(t, ns, "logs", "shell")
	last := 0
	for line := range strings.Lines(log) {
		var n int
		if _, err := fmt.Sscanf(line, "line %d", &n); err != nil || n != last+1 {
			t.Fatalf("the log has %q after line %d", line, last)
		}
		last = n
	}
	if took > restartBudget {
		t.Logf("over the budget of %v", restartBudget)
	}
}

func containerIDs(t *testing.T, namespace string) []string {
	t.Helper()
	pods, err := client.CoreV1().Pods(namespace).List(t.Context(), metav1.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	var ids []string
	for _, pod := range pods.Items {
		for _, status := range pod.Status.ContainerStatuses {
			ids = append(ids, fmt.Sprint(pod.Name, " ", status.ContainerID, " ", status.RestartCount))
		}
	}
	slices.Sort(ids)
	return ids
}

// writers create ConfigMaps all the time and remember which were acknowledged.
type writers struct {
	cancel context.CancelFunc
	group  sync.WaitGroup

	mu           sync.Mutex
	acknowledged []string
}

func newWriters(t *testing.T, namespace string) *writers {
	t.Helper()
	const count = 8
	ctx, cancel := context.WithCancel(t.Context())
	w := &writers{cancel: cancel}
	t.Cleanup(func() { w.stop() })
	for i := range count {
		config := rest.CopyConfig(restConfig)
		config.Timeout = 2 * time.Second
		client, err := kubernetes.NewForConfig(config)
		if err != nil {
			t.Fatal(err)
		}
		w.group.Go(func() {
			for n := 0; ctx.Err() == nil; n++ {
				w.write(ctx, client, namespace, fmt.Sprintf("w%d-%d", i, n))
			}
		})
	}
	return w
}

func (w *writers) write(ctx context.Context, client kubernetes.Interface, namespace, name string) {
	const pause = 50 * time.Millisecond
	object := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: name}}
	_, err := client.CoreV1().ConfigMaps(namespace).Create(ctx, object, metav1.CreateOptions{})
	if err == nil {
		w.mu.Lock()
		w.acknowledged = append(w.acknowledged, name)
		w.mu.Unlock()
		return
	}
	var status apierrors.APIStatus
	if errors.As(err, &status) && status.Status().Code < http.StatusInternalServerError {
		return // an answer, if not the wanted one: an earlier try may have gone through
	}
	select {
	case <-ctx.Done():
	case <-time.After(pause):
	}
}

// untilAcknowledged waits for that many more acknowledged writes.
func (w *writers) untilAcknowledged(t *testing.T, more int) {
	t.Helper()
	count := func() int {
		w.mu.Lock()
		defer w.mu.Unlock()
		return len(w.acknowledged)
	}
	wanted := count() + more
	eventually(t, 30*time.Second, fmt.Sprintf("%d acknowledged writes", wanted), func() (string, bool) {
		n := count()
		return fmt.Sprint(n), n >= wanted
	})
}

// stop ends the load and returns what was acknowledged.
func (w *writers) stop() []string {
	w.cancel()
	w.group.Wait()
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Clone(w.acknowledged)
}
