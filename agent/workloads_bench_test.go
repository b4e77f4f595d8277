package agent

import (
	"fmt"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	v1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"

	"github.com/podvine/podvine/agent/control/workloads/job"
)

const (
	// fewNodes carry the workloads whose figures the nodes shall not be in.
	fewNodes    = 20
	rolloutPods = 1_000
	manyJobs    = 10_000
	manyObjects = 10_000
	// benchPatience bounds each wait of a benchmark.
	benchPatience = 15 * time.Minute
)

// until waits for a condition.
func (h *hollow) until(what string, condition func() (string, bool)) {
	h.Helper()
	const pause = 100 * time.Millisecond
	begun := time.Now()
	for {
		seen, ok := condition()
		if ok {
			return
		}
		if time.Since(begun) > benchPatience {
			h.Fatalf("waited %v for %s; last seen: %s", benchPatience, what, seen)
		}
		select {
		case <-h.Context().Done():
			h.Fatal("the benchmark ended")
		case <-time.After(pause):
		}
	}
}

// measured reports how long something took, the CPU of all, clients and hollow nodes included, and for each object the entries in the
// log and the requests of loops and nodes.
func (h *hollow) measured(b *testing.B, name string, objects int, do func()) {
	b.Helper()
	before, used, asked, begun := h.LastIndex(), cpuSeconds(b), h.requests.Load(), time.Now()
	do()
	b.ReportMetric(time.Since(begun).Seconds(), name+"-s")
	b.ReportMetric(1e6*(cpuSeconds(b)-used)/float64(objects), name+"-cpu-µs/object")
	b.ReportMetric(float64(h.LastIndex()-before)/float64(objects), name+"-entries/object")
	b.ReportMetric(float64(h.requests.Load()-asked)/float64(objects), name+"-requests/object")
}

// settle waits until nothing is written any more.
func (h *hollow) settle() {
	h.Helper()
	const still = 5 * time.Second
	last, since := h.LastIndex(), time.Now()
	h.until("the log to stand still", func() (string, bool) {
		if now := h.LastIndex(); now != last {
			last, since = now, time.Now()
		}
		return fmt.Sprint(last), time.Since(since) > still
	})
}

// memory reports what all of it holds.
func memory(b *testing.B) {
	b.Helper()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	b.ReportMetric(float64(m.HeapAlloc)/(1<<20), "heap-MB")
	b.ReportMetric(float64(m.StackInuse)/(1<<20), "stacks-MB")
}

func cpuSeconds(b *testing.B) float64 {
	b.Helper()
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano()).Seconds()
}

func forEver(*v1.Pod) v1.PodPhase { return "" }

func benchTemplate(name string, policy v1.RestartPolicy) v1.PodTemplateSpec {
	return v1.PodTemplateSpec{ObjectMeta: metav1.ObjectMeta{Labels: map[string]string{"app": name}},
		Spec: v1.PodSpec{RestartPolicy: policy, Tolerations: []v1.Toleration{{Operator: v1.TolerationOpExists}}, Containers: []v1.Container{{Name: "c", Image: "app:v1"}}}}
}

// BenchmarkRollOut makes a Deployment of a thousand pods, and rolls it to another version.
func BenchmarkRollOut(b *testing.B) {
	for range b.N {
		h := newHollow(b, fewNodes, forEver)
		h.measured(b, "create", rolloutPods, func() { h.deploy(rolloutPods) })
		h.measured(b, "roll", rolloutPods, func() {
			patch := []byte(`{"spec":{"template":{"spec":{"containers":[{"name":"c","image":"app:v2"}]}}}}`)
			_, err := h.admin.AppsV1().Deployments("default").Patch(b.Context(), "web", types.StrategicMergePatchType, patch, metav1.PatchOptions{})
			h.must(err)
			h.rolledOut(rolloutPods)
		})
	}
}

// BenchmarkJobs runs ten thousand jobs of one pod each: such that succeed, and such that fail and are tried again once.
func BenchmarkJobs(b *testing.B) {
	for _, end := range []v1.PodPhase{v1.PodSucceeded, v1.PodFailed} {
		b.Run(strings.ToLower(string(end)), func(b *testing.B) {
			for range b.N {
				h := newHollow(b, fewNodes, func(*v1.Pod) v1.PodPhase { return end })
				h.measured(b, "all", manyJobs, func() {
					h.each(manyJobs, func(i int) error {
						_, err := h.admin.BatchV1().Jobs("default").Create(b.Context(), &batchv1.Job{ObjectMeta: metav1.ObjectMeta{Name: fmt.Sprint("j-", i)},
							Spec: batchv1.JobSpec{BackoffLimit: new(int32(1)), Template: benchTemplate("job", v1.RestartPolicyNever)}}, metav1.CreateOptions{})
						return err
					})
					h.until("all to end", func() (string, bool) {
						over := 0
						for _, j := range h.jobs() {
							if ended := job.End(&j.Status); ended != nil {
								if want := endOf(end); ended.Type != want.Type || ended.Reason != want.Reason {
									b.Fatalf("job %s ended with %s, %s", j.Name, ended.Type, ended.Reason)
								}
								over++
							}
						}
						return fmt.Sprint(over), over == manyJobs
					})
				})
				memory(b)
			}
		})
	}
}

// endOf is what a job says in the end whose pods all end in the phase.
func endOf(phase v1.PodPhase) batchv1.JobCondition {
	if phase == v1.PodFailed {
		return batchv1.JobCondition{Type: batchv1.JobFailed, Reason: batchv1.JobReasonBackoffLimitExceeded}
	}
	return batchv1.JobCondition{Type: batchv1.JobComplete, Reason: batchv1.JobReasonCompletionsReached}
}

// BenchmarkNodes tells what a hundred to five thousand nodes cost: to register, while nothing happens, and when they get pods.
func BenchmarkNodes(b *testing.B) {
	const span, podsMade = 30 * time.Second, 2_000
	for _, nodes := range []int{100, 1_000, 5_000} {
		b.Run(fmt.Sprintf("nodes=%d", nodes), func(b *testing.B) {
			for range b.N {
				used, begun := cpuSeconds(b), time.Now()
				h := newHollow(b, nodes, forEver)
				b.ReportMetric(time.Since(begun).Seconds(), "register-s")
				b.ReportMetric(1e3*(cpuSeconds(b)-used)/float64(nodes), "register-cpu-ms/node")
				memory(b)
				h.settle()
				before := h.LastIndex()
				used = cpuSeconds(b)
				select {
				case <-b.Context().Done():
				case <-time.After(span):
				}
				b.ReportMetric(100*(cpuSeconds(b)-used)/span.Seconds(), "idle-%core")
				b.ReportMetric(float64(h.LastIndex()-before), "idle-entries")
				h.measured(b, "pods", podsMade, func() { h.deploy(podsMade) })
			}
		})
	}
}

// deploy makes a Deployment of so many pods and waits until all are available.
func (h *hollow) deploy(pods int32) {
	h.Helper()
	d := &appsv1.Deployment{ObjectMeta: metav1.ObjectMeta{Name: "web"}, Spec: appsv1.DeploymentSpec{Replicas: new(pods),
		Selector: &metav1.LabelSelector{MatchLabels: map[string]string{"app": "web"}}, Template: benchTemplate("web", v1.RestartPolicyAlways)}}
	_, err := h.admin.AppsV1().Deployments("default").Create(h.Context(), d, metav1.CreateOptions{})
	h.must(err)
	h.rolledOut(pods)
}

// rolledOut waits until all pods of the Deployment are of its newest version, and available.
func (h *hollow) rolledOut(pods int32) {
	h.Helper()
	h.until("the roll-out", func() (string, bool) {
		live, err := h.admin.AppsV1().Deployments("default").Get(h.Context(), "web", metav1.GetOptions{})
		if err != nil {
			return err.Error(), false
		}
		s := live.Status
		return fmt.Sprintf("%+v", s), s.ObservedGeneration == live.Generation && s.UpdatedReplicas == pods && s.Replicas == pods && s.AvailableReplicas == pods
	})
}

// BenchmarkNamespace deletes a namespace with ten thousand objects, a tenth of which are pods that run.
func BenchmarkNamespace(b *testing.B) {
	for range b.N {
		h := newHollow(b, fewNodes, forEver)
		core := h.admin.CoreV1()
		_, err := core.Namespaces().Create(b.Context(), &v1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "full"}}, metav1.CreateOptions{})
		h.must(err)
		h.until("its account", func() (string, bool) {
			_, err := core.ServiceAccounts("full").Get(b.Context(), "default", metav1.GetOptions{})
			return fmt.Sprint(err), err == nil
		})
		const share = 10
		h.each(manyObjects, func(i int) error {
			name := metav1.ObjectMeta{Name: fmt.Sprint("o-", i)}
			switch i % share {
			case 0:
				_, err := core.Pods("full").Create(b.Context(), &v1.Pod{ObjectMeta: name, Spec: benchTemplate("x", v1.RestartPolicyAlways).Spec}, metav1.CreateOptions{})
				return err
			case 1:
				_, err := core.Secrets("full").Create(b.Context(), &v1.Secret{ObjectMeta: name, Data: map[string][]byte{"a": []byte("b")}}, metav1.CreateOptions{})
				return err
			}
			_, err := core.ConfigMaps("full").Create(b.Context(), &v1.ConfigMap{ObjectMeta: name, Data: map[string]string{"a": "b"}}, metav1.CreateOptions{})
			return err
		})
		h.until("the pods to run", func() (string, bool) {
			pods, err := h.pods.Pods("full").List(labels.Everything())
			h.must(err)
			running := 0
			for _, p := range pods {
				if p.Status.Phase == v1.PodRunning {
					running++
				}
			}
			return fmt.Sprint(running), running == manyObjects/share
		})
		h.measured(b, "delete", manyObjects, func() {
			h.must(core.Namespaces().Delete(b.Context(), "full", metav1.DeleteOptions{}))
			h.until("its end", func() (string, bool) {
				_, err := core.Namespaces().Get(b.Context(), "full", metav1.GetOptions{})
				return fmt.Sprint(err), apierrors.IsNotFound(err)
			})
		})
	}
}
