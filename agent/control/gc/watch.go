package gc

import (
	"context"
	"log/slog"
	"sync"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/metadata"
	"k8s.io/client-go/tools/cache"
)

// monitor watches the metadata of one resource and feeds the graph. Of each object it keeps the UID by key, to
// know after a gap what has gone.
type monitor struct {
	resource schema.GroupVersionResource
	graph    *Graph
	look     func([]types.UID)
	logger   *slog.Logger

	stop   context.CancelFunc
	synced chan struct{} // closed after the first list
	listed func(schema.GroupVersionResource)
	once   sync.Once

	mu   sync.Mutex
	uids map[types.NamespacedName]types.UID
}

// watch runs the monitor until ctx ends.
func (m *monitor) watch(ctx context.Context, client metadata.Interface) {
	of := client.Resource(m.resource)
	source := cache.ToListWatcherWithWatchListSemantics(&cache.ListWatch{
		ListWithContextFunc: func(ctx context.Context, options metav1.ListOptions) (runtime.Object, error) {
			return of.List(ctx, options)
		},
		WatchFuncWithContext: func(ctx context.Context, options metav1.ListOptions) (watch.Interface, error) {
			return of.Watch(ctx, options)
		},
	}, client)
	reflector := cache.NewReflectorWithOptions(source, &metav1.PartialObjectMetadata{}, m,
		cache.ReflectorOptions{Name: "gc " + m.resource.String()})
	reflector.RunWithContext(ctx)
}

// Add implements [cache.ReflectorStore].
func (m *monitor) Add(object any) error { return m.Update(object) }

// Update implements [cache.ReflectorStore].
func (m *monitor) Update(object any) error {
	if o, ok := object.(metav1.Object); ok {
		m.observe(o)
	}
	return nil
}

// Delete implements [cache.ReflectorStore].
func (m *monitor) Delete(object any) error {
	if o, ok := object.(metav1.Object); ok {
		m.mu.Lock()
		delete(m.uids, name(o))
		m.mu.Unlock()
		m.look(m.graph.Forget(o.GetUID()))
	}
	return nil
}

// Replace implements [cache.ReflectorStore]: what the list lacks has gone while nobody watched.
func (m *monitor) Replace(objects []any, _ string) error {
	there := make(map[types.UID]bool, len(objects))
	for _, object := range objects {
		if o, ok := object.(metav1.Object); ok {
			there[o.GetUID()] = true
		}
	}
	m.drop(func(uid types.UID) bool { return !there[uid] })
	for _, object := range objects {
		if o, ok := object.(metav1.Object); ok {
			m.observe(o)
		}
	}
	m.once.Do(func() {
		close(m.synced)
		m.listed(m.resource)
	})
	return nil
}

// Resync implements [cache.ReflectorStore].
func (m *monitor) Resync() error { return nil }

func (m *monitor) observe(o metav1.Object) {
	m.mu.Lock()
	before, ok := m.uids[name(o)]
	m.uids[name(o)] = o.GetUID()
	m.mu.Unlock()
	if ok && before != o.GetUID() {
		m.look(m.graph.Forget(before))
	}
	m.look(m.graph.Observe(m.resource, o))
}

// drop forgets the objects for which gone says so.
func (m *monitor) drop(gone func(types.UID) bool) {
	m.mu.Lock()
	var lost []types.UID
	for key, uid := range m.uids {
		if gone(uid) {
			lost = append(lost, uid)
			delete(m.uids, key)
		}
	}
	m.mu.Unlock()
	for _, uid := range lost {
		m.look(m.graph.Forget(uid))
	}
}

func name(o metav1.Object) types.NamespacedName {
	return types.NamespacedName{Namespace: o.GetNamespace(), Name: o.GetName()}
}
