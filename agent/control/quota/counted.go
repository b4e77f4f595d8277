package quota

import (
	"context"
	"sync"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/metadata"
	"k8s.io/client-go/metadata/metadatainformer"
	"k8s.io/client-go/tools/cache"

	"github.com/podvine/podvine/agent/control/loop"
)

// maxCounted bounds how many kinds are watched because a quota counts them; those beyond are listed for each look.
const maxCounted = 100

// counted watches the metadata of the kinds that quotas only count.
type counted struct {
	metadata metadata.Interface
	kinds    *loop.Kinds
	// changed is told the namespace in which one came or went.
	changed func(namespace string)

	mu        sync.Mutex
	informers map[schema.GroupResource]cache.SharedIndexInformer // nil outside of Run
	running   *sync.WaitGroup
	ctx       func() context.Context
}

func newCounted(client kubernetes.Interface, m metadata.Interface, changed func(string)) *counted {
	return &counted{metadata: m, changed: changed, kinds: loop.NewKinds(client.Discovery())}
}

// open lets informers be started until ctx ends; the function that it returns waits for their end.
func (c *counted) open(ctx context.Context) func() {
	c.mu.Lock()
	defer c.mu.Unlock()
	ctx, cancel := context.WithCancel(ctx)
	c.informers, c.running = map[schema.GroupResource]cache.SharedIndexInformer{}, &sync.WaitGroup{}
	c.ctx = func() context.Context { return ctx }
	return func() {
		cancel()
		c.mu.Lock()
		running := c.running
		c.informers = nil
		c.mu.Unlock()
		running.Wait()
	}
}

// indexer returns what is cached of a resource, false when it is not filled yet or is not served.
func (c *counted) indexer(_ context.Context, resource schema.GroupResource) (cache.Indexer, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if informer, ok := c.informers[resource]; ok {
		return informer.GetIndexer(), informer.HasSynced()
	}
	if c.informers == nil || len(c.informers) >= maxCounted {
		return nil, false
	}
	found, err := c.kinds.Resource(resource)
	if err != nil {
		return nil, false
	}
	informer := metadatainformer.NewFilteredMetadataInformer(c.metadata, found, metav1.NamespaceAll, 0,
		cache.Indexers{cache.NamespaceIndex: cache.MetaNamespaceIndexFunc}, nil).Informer()
	tell := func(o any) {
		if gone, ok := o.(cache.DeletedFinalStateUnknown); ok {
			o = gone.Obj
		}
		if object, err := meta.Accessor(o); err == nil {
			c.changed(object.GetNamespace())
		}
	}
	if _, err := informer.AddEventHandler(cache.ResourceEventHandlerFuncs{AddFunc: tell, DeleteFunc: tell}); err != nil {
		return nil, false
	}
	c.informers[resource] = informer
	ctx := c.ctx()
	c.running.Go(func() { informer.RunWithContext(ctx) })
	return nil, false
}

// list reads the metadata of a resource's objects; a resource that is not served has none.
func (c *counted) list(ctx context.Context, resource schema.GroupResource, namespace string) ([]runtime.Object, error) {
	found, err := c.kinds.Resource(resource)
	if meta.IsNoMatchError(err) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	list, err := c.metadata.Resource(found).Namespace(namespace).List(ctx, metav1.ListOptions{})
	if err != nil {
		return nil, err
	}
	return meta.ExtractList(list)
}
