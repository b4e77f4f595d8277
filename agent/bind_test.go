package agent

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"testing"
	"time"

	v1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	apiresource "k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	authuser "k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/cache"

	"github.com/podvine/podvine/agent/api/apitest"
	"github.com/podvine/podvine/agent/control"
	"github.com/podvine/podvine/agent/control/scheduler"
)

const patience = 60 * time.Second

// bindable is an API server with nodes, and clients in process.
type bindable struct {
	testing.TB
	*apitest.Cluster
	admin, scheduler kubernetes.Interface
}

func newBindable(t testing.TB, nodes int) *bindable {
	t.Helper()
	b := &bindable{TB: t, Cluster: apitest.Start(t)}
	as := func(name string, groups ...string) kubernetes.Interface {
		return kubernetes.NewForConfigOrDie(b.Server.ClientConfig(&authuser.DefaultInfo{Name: name, Groups: append(groups, authuser.AllAuthenticated)}))
	}
	name, groups := control.User(control.NameScheduler)
	b.admin, b.scheduler = as("admin", authuser.SystemPrivilegedGroup), as(name, groups...)
	_, err := b.admin.CoreV1().ServiceAccounts("default").Create(t.Context(), &v1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Name: "default"}}, metav1.CreateOptions{})
	b.must(err)
	b.each(nodes, func(i int) error {
		n := &v1.Node{ObjectMeta: metav1.ObjectMeta{Name: fmt.Sprintf("node-%05d", i)}, Status: v1.NodeStatus{Allocatable: v1.ResourceList{
			v1.ResourceCPU: apiresource.MustParse("32"), v1.ResourceMemory: apiresource.MustParse("128Gi"), v1.ResourcePods: apiresource.MustParse("110")}}}
		n.Labels = map[string]string{v1.LabelHostname: n.Name, v1.LabelTopologyZone: fmt.Sprint(i % 3)}
		n.Status.Capacity = n.Status.Allocatable
		_, err := b.admin.CoreV1().Nodes().Create(t.Context(), n, metav1.CreateOptions{})
		return err
	})
	return b
}

func (b *bindable) must(err error) {
	b.Helper()
	if err != nil {
		b.Fatal(err)
	}
}

// each runs work for 0 to n-1, a few at a time.
func (b *bindable) each(n int, work func(i int) error) {
	b.Helper()
	var group sync.WaitGroup
	for worker := range 8 {
		group.Go(func() {
			for i := worker; i < n; i += 8 {
				if err := work(i); err != nil {
					b.Error(err)
				}
			}
		})
	}
	group.Wait()
}

func (b *bindable) createPods(prefix string, n int) {
	b.Helper()
	b.each(n, func(i int) error {
		p := &v1.Pod{ObjectMeta: metav1.ObjectMeta{Name: fmt.Sprintf("%s-%05d", prefix, i), Labels: map[string]string{"app": "x"},
			OwnerReferences: []metav1.OwnerReference{{APIVersion: "apps/v1", Kind: "ReplicaSet", Name: "x", UID: "x", Controller: new(true)}}},
			Spec: v1.PodSpec{Tolerations: []v1.Toleration{{Operator: v1.TolerationOpExists}}, // of nodes that nobody says are ready
				Containers: []v1.Container{{Name: "c", Image: "app", Resources: v1.ResourceRequirements{Requests: v1.ResourceList{
					v1.ResourceCPU: apiresource.MustParse("10m"), v1.ResourceMemory: apiresource.MustParse("1Mi")}}}}}}
		_, err := b.admin.CoreV1().Pods("default").Create(b.Context(), p, metav1.CreateOptions{})
		return err
	})
}

// TestBindsBatches: one transaction binds the pods of a batch that can be bound; each other one says why it was not.
func TestBindsBatches(t *testing.T) {
	b := newBindable(t, 1)
	b.createPods("p", 4)
	list, err := b.admin.CoreV1().Pods("default").List(t.Context(), metav1.ListOptions{})
	b.must(err)
	bindings := make([]scheduler.Binding, 0, len(list.Items)+1)
	for i := range list.Items {
		bindings = append(bindings, scheduler.Binding{Pod: &list.Items[i], Node: "node-00000"})
	}
	bindings[2].Pod.UID = "another"
	missing := list.Items[0].DeepCopy()
	missing.Name = "missing"
	bindings = append(bindings, scheduler.Binding{Pod: missing, Node: "node-00000"})
	before := b.LastIndex()
	errs := batchBinder{b.Server}.Bind(t.Context(), bindings)
	if got := b.LastIndex() - before; got != 1 {
		t.Errorf("%d log entries, want 1", got)
	}
	for i, err := range errs {
		switch {
		case i == 2 && !apierrors.IsConflict(err), i == 4 && !apierrors.IsNotFound(err), i != 2 && i != 4 && err != nil:
			t.Errorf("binding %d: %v", i, err)
		}
	}
	for _, again := range (batchBinder{b.Server}).Bind(t.Context(), bindings[:1]) {
		if !apierrors.IsConflict(again) {
			t.Errorf("bound twice: %v", again)
		}
	}
	got, err := b.admin.CoreV1().Pods("default").Get(t.Context(), list.Items[0].Name, metav1.GetOptions{})
	b.must(err)
	if got.Spec.NodeName != "node-00000" || got.Status.Conditions[0].Type != v1.PodScheduled || got.Status.Conditions[0].Status != v1.ConditionTrue {
		t.Errorf("bound pod: %q %+v", got.Spec.NodeName, got.Status.Conditions)
	}
}

// BenchmarkSchedule decides on pods that are in the API and commits their bindings, through the real registry and store.
// Events are written meanwhile, as ever.
func BenchmarkSchedule(b *testing.B) {
	const batch, perNode = 2000, 100
	for _, nodes := range []int{100, 1000, 5000} {
		b.Run(fmt.Sprintf("nodes=%d", nodes), func(b *testing.B) {
			c := newBindable(b, nodes)
			total := 0
			for b.Loop() {
				b.StopTimer()
				if total+batch > nodes*perNode {
					b.Fatalf("%d nodes are full after %d pods: ask for less -benchtime", nodes, total)
				}
				c.schedule(func() { c.createPods(fmt.Sprintf("p%d", total), batch) }, batch, b.StartTimer)
				total += batch
			}
			b.ReportMetric(float64(total)/b.Elapsed().Seconds(), "pods/s")
		})
	}
}

// held keeps the first bindings back until all pods are known, so that what is measured is not their creation.
type held struct {
	scheduler.Binder
	open chan struct{}
}

func (h held) Bind(ctx context.Context, bindings []scheduler.Binding) []error {
	select {
	case <-h.open:
	case <-ctx.Done():
	}
	return h.Binder.Bind(ctx, bindings)
}

// schedule runs a scheduler while create makes pods, calls start, and returns when they are bound.
func (b *bindable) schedule(create func(), pods int, start func()) {
	b.Helper()
	informers := b.Server.Informers()
	hold := held{batchBinder{b.Server}, make(chan struct{})}
	s, err := scheduler.New(scheduler.Config{Client: b.scheduler, Informers: informers, Binder: hold, Logger: slog.New(slog.DiscardHandler)})
	b.must(err)
	ctx, stop := context.WithTimeout(b.Context(), patience)
	defer stop()
	known, done := make(chan struct{}), make(chan struct{})
	added, bound := 0, 0
	waiting := func(object any) bool { return object.(*v1.Pod).Spec.NodeName == "" }
	registration, err := informers.Core().V1().Pods().Informer().AddEventHandler(cache.ResourceEventHandlerFuncs{
		AddFunc: func(object any) {
			if waiting(object) {
				if added++; added == pods {
					close(known)
				}
			}
		},
		UpdateFunc: func(old, new any) {
			if waiting(old) && !waiting(new) {
				if bound++; bound == pods {
					close(done)
				}
			}
		}})
	b.must(err)
	informers.Start(b.Context().Done())
	ended := make(chan error, 1)
	go func() { ended <- s.Run(ctx) }()
	create()
	await := func(what string, event <-chan struct{}) {
		select {
		case <-event:
		case <-ctx.Done():
			b.Fatalf("not all of %d pods were %s in %s", pods, what, patience)
		}
	}
	await("known", known)
	start()
	close(hold.open)
	await("bound", done)
	b.must(informers.Core().V1().Pods().Informer().RemoveEventHandler(registration))
	stop()
	if err := <-ended; !errors.Is(err, context.Canceled) {
		b.Errorf("scheduler ended with %v", err)
	}
}
