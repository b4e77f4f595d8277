// Package looptest is the cluster that tests of the control loops run against: client-go's fake clientset with
// what a real API server adds and loops rely on (UIDs, generated names, creation times, resource versions and
// their conflicts, generations, graceful deletion on request, pods/binding), and shared informers fed from it.
//
// Ownership: a [Cluster] belongs to one test, which should run in a synctest bubble: then time is virtual and
// [Cluster.Settle] returns when every loop has nothing left to do.
package looptest

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"strconv"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	v1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes/fake"
	clienttesting "k8s.io/client-go/testing"
)

// SettleTime is how far virtual time may run for loops to settle: longer than any first retry, shorter than a
// full pass.
const SettleTime = 30 * time.Second

// Cluster is a fake API and informers on it.
type Cluster struct {
	Client    *fake.Clientset
	Informers informers.SharedInformerFactory

	t    testing.TB
	ctx  context.Context
	stop context.CancelFunc
	runs sync.WaitGroup

	mu      sync.Mutex
	counter int64
}

// New makes a cluster that holds the objects. It ends with the test.
func New(t testing.TB, objects ...runtime.Object) *Cluster {
	t.Helper()
	client := fake.NewSimpleClientset(objects...)
	ctx, stop := context.WithCancel(context.Background())
	c := &Cluster{Client: client, Informers: informers.NewSharedInformerFactory(client, 0), t: t, ctx: ctx, stop: stop}
	client.PrependReactor("create", "*", c.create)
	client.PrependReactor("update", "*", c.update)
	client.PrependReactor("create", "pods/binding", c.bind)
	return c
}

// Logger discards.
func (c *Cluster) Logger() *slog.Logger { return slog.New(slog.NewTextHandler(io.Discard, nil)) }

// Start starts the informers and the loops and lets them settle.
func (c *Cluster) Start(loops ...interface{ Run(context.Context) error }) {
	c.t.Helper()
	c.Informers.Start(c.ctx.Done())
	c.Informers.WaitForCacheSync(c.ctx.Done())
	for _, loop := range loops {
		c.runs.Go(func() {
			if err := loop.Run(c.ctx); err != nil && c.ctx.Err() == nil {
				c.t.Errorf("loop ended: %v", err)
			}
		})
	}
	c.Settle()
}

// Stop ends loops and informers and waits for them. A synctest bubble must call it before it ends.
func (c *Cluster) Stop() {
	c.stop()
	c.runs.Wait()
	c.Informers.Shutdown()
	synctest.Wait()
}

// Settle lets virtual time pass until loops have done what they would do soon.
func (c *Cluster) Settle() { c.Pass(SettleTime) }

// Pass lets virtual time pass.
func (c *Cluster) Pass(d time.Duration) {
	time.Sleep(d) // in a bubble: returns at once, in virtual time
	synctest.Wait()
}

// Must fails the test on an error.
func (c *Cluster) Must(err error) {
	c.t.Helper()
	if err != nil {
		c.t.Fatal(err)
	}
}

func (c *Cluster) next() int64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.counter++
	return c.counter
}

// create does what a registry does before it stores a new object.
func (c *Cluster) create(action clienttesting.Action) (bool, runtime.Object, error) {
	if action.GetSubresource() != "" {
		return false, nil, nil
	}
	object, err := meta.Accessor(action.(clienttesting.CreateAction).GetObject())
	if err != nil {
		return true, nil, fmt.Errorf("access created object: %w", err)
	}
	n := c.next()
	if object.GetName() == "" {
		object.SetName(fmt.Sprintf("%s%05d", object.GetGenerateName(), n))
	}
	if object.GetUID() == "" {
		object.SetUID(types.UID("uid-" + strconv.FormatInt(n, 10)))
	}
	if created := object.GetCreationTimestamp(); created.IsZero() {
		object.SetCreationTimestamp(metav1.Now())
	}
	object.SetGeneration(1)
	object.SetResourceVersion(strconv.FormatInt(n, 10))
	return false, nil, nil
}

// update refuses stale writes, counts generations and leaves status alone unless it is what is written.
func (c *Cluster) update(action clienttesting.Action) (bool, runtime.Object, error) {
	update := action.(clienttesting.UpdateAction)
	object, err := meta.Accessor(update.GetObject())
	if err != nil {
		return true, nil, fmt.Errorf("access updated object: %w", err)
	}
	current, err := c.Client.Tracker().Get(action.GetResource(), action.GetNamespace(), object.GetName())
	if err != nil {
		return true, nil, err
	}
	stored, err := meta.Accessor(current)
	if err != nil {
		return true, nil, fmt.Errorf("access stored object: %w", err)
	}
	if rv := object.GetResourceVersion(); rv != "" && rv != stored.GetResourceVersion() {
		return true, nil, apierrors.NewConflict(action.GetResource().GroupResource(), object.GetName(),
			fmt.Errorf("stale resource version %s", rv))
	}
	if action.GetSubresource() == "" {
		object.SetGeneration(stored.GetGeneration() + 1)
	}
	object.SetResourceVersion(strconv.FormatInt(c.next(), 10))
	return false, nil, nil
}

func (c *Cluster) bind(action clienttesting.Action) (bool, runtime.Object, error) {
	binding, ok := action.(clienttesting.CreateAction).GetObject().(*v1.Binding)
	if !ok {
		return false, nil, nil
	}
	current, err := c.Client.Tracker().Get(action.GetResource(), binding.Namespace, binding.Name)
	if err != nil {
		return true, nil, err
	}
	pod := current.(*v1.Pod).DeepCopy()
	resource := action.GetResource().GroupResource()
	switch {
	case binding.UID != "" && binding.UID != pod.UID:
		return true, nil, apierrors.NewConflict(resource, pod.Name, fmt.Errorf("uid is %s", pod.UID))
	case pod.Spec.NodeName != "":
		return true, nil, apierrors.NewConflict(resource, pod.Name, fmt.Errorf("pod is on %s already", pod.Spec.NodeName))
	}
	pod.Spec.NodeName = binding.Target.Name
	pod.ResourceVersion = strconv.FormatInt(c.next(), 10)
	return true, binding, c.Client.Tracker().Update(action.GetResource(), pod, pod.Namespace)
}
