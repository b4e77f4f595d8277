package agent

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	batchv1 "k8s.io/api/batch/v1"
	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	authuser "k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/client-go/kubernetes"
	corelisters "k8s.io/client-go/listers/core/v1"
	"k8s.io/client-go/metadata"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/util/workqueue"

	"github.com/podvine/podvine/agent/control"
	"github.com/podvine/podvine/agent/phase"
	"github.com/podvine/podvine/agent/pki"
	"github.com/podvine/podvine/agent/pods/images"
	"github.com/podvine/podvine/agent/pods/nodeclient"
	"github.com/podvine/podvine/agent/pods/nodestatus"
)

const (
	// hollowWorkers report pods at the same time, hollowPods is how many a node takes.
	hollowWorkers = 16
	hollowPods    = 110
	// hollowJoins is how many nodes register at the same time: machines join one after the other.
	hollowJoins = 64
)

// hollow is a cluster with all loops whose nodes are the API's side of real ones: each has an identity of its own, registers, watches
// its Node object and its pods, and reports their statuses. They run no pods: one that comes is said to run, and to end as end says.
type hollow struct {
	*bindable
	jobs func() []*batchv1.Job
	pods corelisters.PodLister
	// end is how a pod that runs ends; empty is not at all.
	end func(*v1.Pod) v1.PodPhase
	// requests counts those of all loops and nodes; what loops read comes from the store, and bindings do not pass as requests.
	requests atomic.Int64
	queue    workqueue.TypedRateLimitingInterface[report]
	group    sync.WaitGroup
}

// hollowNode is one of its nodes.
type hollowNode struct {
	client kubernetes.Interface
	pods   cache.Store
}

// report is a pod about which its node may have something to say.
type report struct {
	node *hollowNode
	pod  string
}

type alwaysAlive struct{}

func (alwaysAlive) Alive(string) (bool, time.Time) { return true, time.Unix(1, 0) }

// newHollow returns when so many nodes are ready.
func newHollow(b *testing.B, nodes int, end func(*v1.Pod) v1.PodPhase) *hollow {
	b.Helper()
	h := &hollow{bindable: newBindable(b, 0), end: end, queue: workqueue.NewTypedRateLimitingQueue(workqueue.DefaultTypedControllerRateLimiter[report]())}
	as := func(name string) *rest.Config {
		name, groups := control.User(name)
		return h.as(name, groups...)
	}
	informers := h.Server.Informers()
	loops, err := control.New(control.Config{
		ClientFor:   func(name string) kubernetes.Interface { return kubernetes.NewForConfigOrDie(as(name)) },
		MetadataFor: func(name string) metadata.Interface { return metadata.NewForConfigOrDie(as(name)) },
		Informers:   informers, Liveness: alwaysAlive{}, CA: func() []byte { return []byte("PEM") }, Sign: h.PKI.SignRequest, ServiceRanges: []string{"10.96.0.0/12"},
		Binder: batchBinder{h.Server}, Logger: slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelError}))})
	h.must(err)
	h.pods = informers.Core().V1().Pods().Lister()
	jobs := informers.Batch().V1().Jobs().Lister()
	h.jobs = func() []*batchv1.Job {
		all, err := jobs.List(labels.Everything())
		h.must(err)
		return all
	}
	ctx, stop := context.WithCancel(context.Background())
	informers.Start(ctx.Done())
	h.group.Go(func() {
		if err := loops.Run(ctx); !errors.Is(err, context.Canceled) {
			b.Errorf("loops ended: %v", err)
		}
	})
	for range hollowWorkers {
		h.group.Go(func() { h.work(ctx) })
	}
	b.Cleanup(func() { stop(); h.queue.ShutDown(); h.group.Wait() })
	h.joinAll(ctx, nodes)
	return h
}

// joinAll starts so many nodes, and returns when all are ready.
func (h *hollow) joinAll(ctx context.Context, nodes int) {
	h.Helper()
	informer := h.Server.Informers().Core().V1().Nodes()
	turns, ready := make(chan struct{}, hollowJoins), map[string]bool{}
	all := make(chan struct{})
	seen := func(o any) { // one at a time
		n := o.(*v1.Node)
		if !ready[n.Name] && len(n.Spec.Taints) == 0 && slices.ContainsFunc(n.Status.Conditions, func(c v1.NodeCondition) bool { return c.Type == v1.NodeReady && c.Status == v1.ConditionTrue }) {
			ready[n.Name] = true
			<-turns
			if len(ready) == nodes {
				close(all)
			}
		}
	}
	registration, err := informer.Informer().AddEventHandler(cache.ResourceEventHandlerFuncs{AddFunc: seen, UpdateFunc: func(_, o any) { seen(o) }})
	h.must(err)
	late := time.After(benchPatience)
	for i := range nodes {
		select {
		case turns <- struct{}{}:
			h.startNode(ctx, i)
		case <-late:
			h.Fatalf("of %d nodes number %d could not join in %v", nodes, i, benchPatience)
		}
	}
	select {
	case <-all:
	case <-late:
		h.Fatalf("not all of %d nodes were ready after %v", nodes, benchPatience)
	}
	h.must(informer.Informer().RemoveEventHandler(registration))
}

// as is a client's configuration whose requests are counted.
func (h *hollow) as(name string, groups ...string) *rest.Config {
	config := h.Server.ClientConfig(&authuser.DefaultInfo{Name: name, Groups: append(groups, authuser.AllAuthenticated)})
	config.Wrap(func(next http.RoundTripper) http.RoundTripper { return counted{next, &h.requests} })
	return config
}

type counted struct {
	http.RoundTripper
	count *atomic.Int64
}

// RoundTrip implements http.RoundTripper.
func (c counted) RoundTrip(r *http.Request) (*http.Response, error) {
	c.count.Add(1)
	return c.RoundTripper.RoundTrip(r)
}

func (h *hollow) startNode(ctx context.Context, i int) {
	name := fmt.Sprintf("node-%05d", i)
	n := &hollowNode{client: kubernetes.NewForConfigOrDie(h.as(pki.NodeUserStart+name, pki.NodesGroup))}
	in := nodestatus.Input{NodeName: name, Addresses: []string{fmt.Sprintf("10.%d.%d.1", i>>8, i&0xff)}, MaxPods: hollowPods, Port: 10250, KubeletVersion: "v1.37.2",
		Facts: nodestatus.Facts{CPUs: 32, MemoryBytes: 128 << 30, Disk: images.Usage{CapacityBytes: 1 << 40}, Kernel: "6.18.0", OSImage: "hollow", ContainerRuntime: "none://0"}}
	object := nodeclient.New(nodeclient.Config{Client: n.client, Name: name, Log: slog.New(slog.DiscardHandler),
		Labels: map[string]string{v1.LabelHostname: name, v1.LabelOSStable: "linux", v1.LabelArchStable: nodestatus.Arch(), v1.LabelTopologyZone: fmt.Sprint(i % 3)},
		Status: func(node *v1.Node) (v1.NodeStatus, error) {
			in := in
			in.Now = time.Now()
			return nodestatus.Decide(node.Status, in), nil
		}})
	note := func(o any) {
		if pod, ok := o.(*v1.Pod); ok && (pod.DeletionTimestamp != nil || h.next(pod) != "") {
			h.queue.Add(report{n, pod.Namespace + "/" + pod.Name})
		}
	}
	var heard cache.Controller
	n.pods, heard = cache.NewInformerWithOptions(cache.InformerOptions{ListerWatcher: nodeclient.Pods(n.client, name), ObjectType: &v1.Pod{},
		Handler: cache.ResourceEventHandlerFuncs{AddFunc: note, UpdateFunc: func(_, o any) { note(o) }}})
	h.group.Go(func() { object.Run(ctx) })
	h.group.Go(func() { heard.Run(ctx.Done()) })
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

func (h *hollow) work(ctx context.Context) {
	for {
		next, over := h.queue.Get()
		if over {
			return
		}
		if err := h.report(ctx, next); err != nil && !nodeclient.Gone(err) && ctx.Err() == nil {
			h.queue.AddRateLimited(next)
		} else {
			h.queue.Forget(next)
		}
		h.queue.Done(next)
	}
}

func (h *hollow) report(ctx context.Context, r report) error {
	object, known, err := r.node.pods.GetByKey(r.pod)
	if err != nil || !known {
		return err
	}
	pod := object.(*v1.Pod)
	if pod.DeletionTimestamp != nil {
		return nodeclient.Finish(ctx, r.node.client, pod)
	}
	next := h.next(pod)
	if next == "" {
		return nil
	}
	status := *pod.Status.DeepCopy()
	status.Phase = next
	now, state, ready := metav1.Now(), v1.ContainerState{}, v1.ConditionFalse
	switch next {
	case v1.PodRunning:
		state.Running, ready = &v1.ContainerStateRunning{StartedAt: now}, v1.ConditionTrue
	case v1.PodFailed:
		state.Terminated = &v1.ContainerStateTerminated{ExitCode: 1, FinishedAt: now}
	default:
		state.Terminated = &v1.ContainerStateTerminated{FinishedAt: now}
	}
	status.ContainerStatuses = []v1.ContainerStatus{{Name: "c", State: state, Ready: next == v1.PodRunning}}
	status.Conditions = append(status.Conditions[:min(1, len(status.Conditions))], v1.PodCondition{Type: v1.PodReady, Status: ready, LastTransitionTime: now})
	return nodeclient.Report(ctx, r.node.client, pod, pod.Status, status)
}
