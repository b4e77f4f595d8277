package agent

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"testing"
	"time"

	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
)

// kubeSchedulerVariable names the program that BenchmarkKubeScheduler runs.
const kubeSchedulerVariable = "PODVINE_KUBE_SCHEDULER"

// BenchmarkKubeScheduler has the real kube-scheduler bind pods like those of BenchmarkSchedule, on the same API server and nodes. It is
// a program of its own, which `make bench` builds; nothing imports it. The clock starts when all pods are made, so that it has the
// machine to itself and the server, and counts those that are left then.
func BenchmarkKubeScheduler(b *testing.B) {
	program := os.Getenv(kubeSchedulerVariable)
	if program == "" {
		b.Fatalf("%s names no program: run the benchmarks with `make bench`", kubeSchedulerVariable)
	}
	const pods, warm = 2000, 100
	for _, nodes := range []int{100, 1000, 5000} {
		b.Run(fmt.Sprintf("nodes=%d", nodes), func(b *testing.B) {
			for range b.N {
				c := newBindable(b, nodes)
				var log bytes.Buffer
				peer := exec.Command(program, "--kubeconfig", c.Kubeconfig, "--leader-elect=false", "--secure-port=0", "--kube-api-qps=100000", "--kube-api-burst=100000")
				peer.Stderr = &log
				c.must(peer.Start())
				end := func() {
					_ = peer.Process.Kill()
					_ = peer.Wait() // it was killed
				}
				b.Cleanup(end)
				c.createPods("warm", warm)
				c.bound(&log)
				c.createPods("p", pods)
				left, begun := c.waiting(), time.Now()
				c.bound(&log)
				b.ReportMetric(float64(left)/time.Since(begun).Seconds(), "pods/s")
				end()
				b.ReportMetric(float64((peer.ProcessState.UserTime()+peer.ProcessState.SystemTime()).Microseconds())/(pods+warm), "cpu-µs/pod")
			}
		})
	}
}

// waiting counts the pods that are bound to no node.
func (b *bindable) waiting() int {
	b.Helper()
	list, err := b.admin.CoreV1().Pods("default").List(b.Context(), metav1.ListOptions{FieldSelector: fields.OneTermEqualSelector("spec.nodeName", "").String()})
	b.must(err)
	return len(list.Items)
}

// bound waits until all pods are.
func (b *bindable) bound(log *bytes.Buffer) {
	b.Helper()
	const stalled = 30 * time.Second
	changes, err := b.admin.CoreV1().Pods("default").Watch(b.Context(), metav1.ListOptions{SendInitialEvents: new(true), AllowWatchBookmarks: true,
		ResourceVersionMatch: metav1.ResourceVersionMatchNotOlderThan})
	b.must(err)
	defer changes.Stop()
	wait, listed := map[string]bool{}, false
	for !listed || len(wait) > 0 {
		select {
		case event := <-changes.ResultChan():
			pod, ok := event.Object.(*v1.Pod)
			switch {
			case !ok:
				b.Fatalf("the watch sent %+v", event)
			case event.Type == "BOOKMARK":
				listed = true
			case pod.Spec.NodeName == "":
				wait[pod.Name] = true
			default:
				delete(wait, pod.Name)
			}
		case <-time.After(stalled):
			b.Fatalf("%d pods are not bound, and none was for %v:\n%s", len(wait), stalled, log.Bytes()[max(0, log.Len()-4096):])
		}
	}
}
