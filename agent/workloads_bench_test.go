package agent

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"sync"
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
	authuser "k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/client-go/kubernetes"
	corelisters "k8s.io/client-go/listers/core/v1"
	"k8s.io/client-go/metadata"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/util/workqueue"

	"github.com/podvine/podvine/agent/control"
	"github.com/podvine/podvine/agent/control/workloads/job"
	"github.com/podvine/podvine/agent/phase"
)

const (
	hollowNodes = 20
	// hollowWorkers report pods at the same time.
	hollowWorkers = 16
	rolloutPods   = 1_000
	manyJobs      = 10_000
	manyObjects   = 10_000
	// benchPatience bounds each wait of a benchmark.
	benchPatience = 15 * time.Minute
)

// hollow is a cluster with all loops whose nodes only move the statuses of pods, as agents do, through the API.
type hollow struct {
	*bindable
	jobs func() []*batchv1.Job
	pods corelisters.PodLister
	// end is how a pod that runs ends; empty is not at all.
	end func(*v1.Pod) v1.PodPhase
}

type alwaysAlive struct{}

func (alwaysAlive) Alive(string) (bool, time.Time) { return true, time.Unix(1, 0) }

func newHollow(b *testing.B, end func(*v1.Pod) v1.PodPhase) *hollow {
	b.Helper()
	h := &hollow{bindable: newBindable(b, hollowNodes), end: end}
	as := func(name string) *rest.Config {
		name, groups := control.User(name)
		return h.Server.ClientConfig(&authuser.DefaultInfo{Name: name, Groups: groups})
	}
	informers := h.Server.Informers()
	loops, err := control.New(control.Config{
		ClientFor:   func(name string) kubernetes.Interface { return kubernetes.NewForConfigOrDie(as(name)) },
		MetadataFor: func(name string) metadata.Interface { return metadata.NewForConfigOrDie(as(name)) },
		Informers:   informers, Liveness: alwaysAlive{}, CA: func() []byte { return []byte("PEM") }, Sign: h.PKI.SignRequest, ServiceRanges: []string{"10.96.0.0/12"},
		Binder: batchBinder{h.Server}, Logger: slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelError}))})
	h.must(err)
	pods, jobs := informers.Core().V1().Pods(), informers.Batch().V1().Jobs().Lister()
	h.pods = pods.Lister()
	h.jobs = func() []*batchv1.Job {
		all, err := jobs.List(labels.Everything())
		h.must(err)
		return all
	}
	queue := workqueue.NewTypedRateLimitingQueue(workqueue.DefaultTypedControllerRateLimiter[string]())
	_, err = pods.Informer().AddEventHandler(cache.ResourceEventHandlerFuncs{
		AddFunc: func(object any) { h.note(queue, object) }, UpdateFunc: func(_, object any) { h.note(queue, object) }})
	h.must(err)
	ctx, stop := context.WithCancel(context.Background())
	informers.Start(ctx.Done())
	var group sync.WaitGroup
	group.Go(func() {
		if err := loops.Run(ctx); !errors.Is(err, context.Canceled) {
			b.Errorf("loops ended: %v", err)
		}
	})
	for range hollowWorkers {
		group.Go(func() { h.work(ctx, queue) })
	}
	b.Cleanup(func() { stop(); queue.ShutDown(); group.Wait() })
	return h
}

// note queues a pod about which its node has something to say.
func (h *hollow) note(queue workqueue.TypedRateLimitingInterface[string], object any) {
	pod := object.(*v1.Pod)
	if pod.Spec.NodeName == "" || pod.DeletionTimestamp == nil && h.next(pod) == "" {
		return
	}
	queue.Add(pod.Namespace + "/" + pod.Name)
}

// next is the phase that the pod comes to, empty when it stays.
func (h *hollow) next(pod *v1.Pod) v1.PodPhase {
	switch {
	case phase.Ended(pod.Status.Phase):
		return ""
	case pod.Status.Phase == v1.PodPending:
		return v1.PodRunning
	}
	return h.end(pod)
}

func (h *hollow) work(ctx context.Context, queue workqueue.TypedRateLimitingInterface[string]) {
	for {
		key, over := queue.Get()
		if over {
			return
		}
		if err := h.report(ctx, key); err != nil && ctx.Err() == nil {
			queue.AddRateLimited(key)
		} else {
			queue.Forget(key)
		}
		queue.Done(key)
	}
}

func (h *hollow) report(ctx context.Context, key string) error {
	namespace, name, _ := strings.Cut(key, "/")
	pod, err := h.pods.Pods(namespace).Get(name)
	if apierrors.IsNotFound(err) {
		return nil
	}
	if err != nil {
		return err
	}
	client := h.admin.CoreV1().Pods(namespace)
	if pod.DeletionTimestamp != nil {
		options := metav1.NewDeleteOptions(0)
		options.Preconditions = metav1.NewUIDPreconditions(string(pod.UID))
		if err := client.Delete(ctx, name, *options); !apierrors.IsNotFound(err) {
			return err
		}
		return nil
	}
	next := h.next(pod)
	if next == "" {
		return nil
	}
	pod = pod.DeepCopy()
	pod.Status.Phase = next
	now, state, ready := metav1.Now(), v1.ContainerState{}, v1.ConditionFalse
	switch next {
	case v1.PodRunning:
		state.Running, ready = &v1.ContainerStateRunning{StartedAt: now}, v1.ConditionTrue
	case v1.PodFailed:
		state.Terminated = &v1.ContainerStateTerminated{ExitCode: 1, FinishedAt: now}
	default:
		state.Terminated = &v1.ContainerStateTerminated{FinishedAt: now}
	}
	pod.Status.ContainerStatuses = []v1.ContainerStatus{{Name: "c", State: state, Ready: next == v1.PodRunning}}
	pod.Status.Conditions = append(pod.Status.Conditions[:min(1, len(pod.Status.Conditions))],
		v1.PodCondition{Type: v1.PodReady, Status: ready, LastTransitionTime: now})
	_, err = client.UpdateStatus(ctx, pod, metav1.UpdateOptions{})
	if apierrors.IsNotFound(err) {
		return nil
	}
	return err
}

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

// measured reports how long something took, the CPU of all, clients and hollow nodes included, and the entries in the log for each object.
func (h *hollow) measured(b *testing.B, name string, objects int, do func()) {
	b.Helper()
	before, used, begun := h.LastIndex(), cpuSeconds(b), time.Now()
	do()
	b.ReportMetric(time.Since(begun).Seconds(), name+"-s")
	b.ReportMetric(1e6*(cpuSeconds(b)-used)/float64(objects), name+"-cpu-µs/object")
	b.ReportMetric(float64(h.LastIndex()-before)/float64(objects), name+"-entries/object")
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
		h := newHollow(b, forEver)
		d := &appsv1.Deployment{ObjectMeta: metav1.ObjectMeta{Name: "web"}, Spec: appsv1.DeploymentSpec{Replicas: new(int32(rolloutPods)),
			Selector: &metav1.LabelSelector{MatchLabels: map[string]string{"app": "web"}}, Template: benchTemplate("web", v1.RestartPolicyAlways)}}
		client := h.admin.AppsV1().Deployments("default")
		done := func() (string, bool) {
			live, err := client.Get(b.Context(), "web", metav1.GetOptions{})
			if err != nil {
				return err.Error(), false
			}
			s := live.Status
			return fmt.Sprintf("%+v", s), s.ObservedGeneration == live.Generation && s.UpdatedReplicas == rolloutPods && s.Replicas == rolloutPods && s.AvailableReplicas == rolloutPods
		}
		h.measured(b, "create", rolloutPods, func() {
			_, err := client.Create(b.Context(), d, metav1.CreateOptions{})
			h.must(err)
			h.until("all pods", done)
		})
		h.measured(b, "roll", rolloutPods, func() {
			patch := []byte(`{"spec":{"template":{"spec":{"containers":[{"name":"c","image":"app:v2"}]}}}}`)
			_, err := client.Patch(b.Context(), "web", types.StrategicMergePatchType, patch, metav1.PatchOptions{})
			h.must(err)
			h.until("the roll-out", done)
		})
	}
}

// BenchmarkJobs runs ten thousand jobs of one pod each: such that succeed, and such that fail and are tried again once.
func BenchmarkJobs(b *testing.B) {
	for _, end := range []v1.PodPhase{v1.PodSucceeded, v1.PodFailed} {
		b.Run(strings.ToLower(string(end)), func(b *testing.B) {
			for range b.N {
				h := newHollow(b, func(*v1.Pod) v1.PodPhase { return end })
				h.measured(b, "all", manyJobs, func() {
					h.each(manyJobs, func(i int) error {
						_, err := h.admin.BatchV1().Jobs("default").Create(b.Context(), &batchv1.Job{ObjectMeta: metav1.ObjectMeta{Name: fmt.Sprint("j-", i)},
							Spec: batchv1.JobSpec{BackoffLimit: new(int32(1)), Template: benchTemplate("job", v1.RestartPolicyNever)}}, metav1.CreateOptions{})
						return err
					})
					h.until("all to end", func() (string, bool) {
						over := 0
						for _, j := range h.jobs() {
							if job.End(&j.Status) != nil {
								over++
							}
						}
						return fmt.Sprint(over), over == manyJobs
					})
				})
			}
		})
	}
}

// BenchmarkNamespace deletes a namespace with ten thousand objects, a tenth of which are pods that run.
func BenchmarkNamespace(b *testing.B) {
	for range b.N {
		h := newHollow(b, forEver)
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
