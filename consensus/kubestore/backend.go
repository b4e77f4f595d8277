package kubestore

import (
	"context"
	"errors"
	"log/slog"
	"reflect"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apiserver/pkg/registry/generic"
	"k8s.io/apiserver/pkg/storage"
	"k8s.io/apiserver/pkg/storage/etcd3/metrics"
	"k8s.io/apiserver/pkg/storage/storagebackend"
	"k8s.io/apiserver/pkg/storage/storagebackend/factory"
	"k8s.io/apiserver/pkg/storage/value"
	"k8s.io/apiserver/pkg/storage/value/encrypt/identity"
	"k8s.io/client-go/tools/cache"

	"github.com/podvine/podvine/consensus"
	"github.com/podvine/podvine/consensus/sealing"
)

const (
	// DefaultDecodedCacheBytes bounds the stored size of the entries whose decoded form is kept.
	DefaultDecodedCacheBytes = 64 << 20
	// DefaultBookmarkInterval is how often a watch that asked for bookmarks gets one.
	DefaultBookmarkInterval = time.Minute
	// progressInterval is how often a watch with ProgressNotify gets a bookmark.
	progressInterval = 5 * time.Second
)

// Options adjusts a backend. The zero value is usable.
type Options struct {
	// Logger gets what nobody can be told otherwise.
	Logger *slog.Logger
	// DecodedCacheBytes bounds the cache of decoded objects; negative disables it.
	DecodedCacheBytes int64
	// BookmarkInterval is how often a watch that asked for bookmarks gets one.
	BookmarkInterval time.Duration
	// Ring, when set, seals the values of SealedResources before they reach the log. Rotate it with [Backend.Reseal].
	Ring *sealing.Ring
	// SealedResources are the resources that Ring seals; nil means Secrets.
	SealedResources []schema.GroupResource
	// Stale, when set, is told of each answer that was served while the quorum was out of reach for age. The client has its
	// warning already, from the recorder in the request's context.
	Stale func(ctx context.Context, resource schema.GroupResource, age time.Duration)
	// Transformers replace the ring for single resources.
	Transformers map[schema.GroupResource]value.Transformer
}

// transformer returns what stands between the codec and the log for a resource, or nil.
func (o *Options) transformer(gr schema.GroupResource) value.Transformer {
	if t := o.Transformers[gr]; t != nil {
		return t
	}
	if o.Ring != nil && slices.Contains(o.SealedResources, gr) {
		return o.Ring.Transformer()
	}
	return nil
}

// Backend serves all resources from one replica.
type Backend struct {
	replica *consensus.Replica
	opts    Options
	log     *slog.Logger
	objects *entryCache
	events  *eventCache

	mu        sync.Mutex
	resources map[schema.GroupResource][]*resource
	closed    bool
}

var _ generic.StorageDecorator = (*Backend)(nil).Decorator

// New returns a backend over the replica, which the caller closes after it.
func New(replica *consensus.Replica, opts Options) (*Backend, error) {
	if replica == nil {
		return nil, errors.New("new backend: no replica")
	}
	if opts.Logger == nil {
		opts.Logger = slog.New(slog.DiscardHandler)
	}
	if opts.DecodedCacheBytes == 0 {
		opts.DecodedCacheBytes = DefaultDecodedCacheBytes
	}
	if opts.BookmarkInterval == 0 {
		opts.BookmarkInterval = DefaultBookmarkInterval
	}
	if opts.SealedResources == nil {
		opts.SealedResources = []schema.GroupResource{{Resource: "secrets"}}
	}
	metrics.Register()
	return &Backend{
		replica: replica, opts: opts, log: opts.Logger,
		objects: newEntryCache(opts.DecodedCacheBytes), events: newEventCache(cachedEventBytes),
		resources: map[schema.GroupResource][]*resource{},
	}, nil
}

// Close ends all watches. Other calls still work.
func (b *Backend) Close() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.closed = true
	for _, same := range b.resources {
		for _, r := range same {
			r.watches.end()
		}
	}
}

// Decorator returns the storage of one resource; it has the type generic.StorageDecorator. The oldest storage
// of a group resource is the one that companions and informers of that resource use.
func (b *Backend) Decorator(
	config *storagebackend.ConfigForResource,
	resourcePrefix string,
	_ func(obj runtime.Object) (string, error),
	newFunc func() runtime.Object,
	newListFunc func() runtime.Object,
	getAttrsFunc storage.AttrFunc,
	_ storage.IndexerFuncs,
	_ *cache.Indexers,
) (storage.Interface, factory.DestroyFunc, error) {
	r, err := b.newResource(config, resourcePrefix, newFunc, newListFunc, getAttrsFunc)
	if err != nil {
		return nil, nil, err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.resources[config.GroupResource] = append(b.resources[config.GroupResource], r)
	if b.closed {
		r.watches.end()
	}
	return r, sync.OnceFunc(func() { b.release(config.GroupResource, r) }), nil
}

func (b *Backend) newResource(config *storagebackend.ConfigForResource, prefix string, newFunc, newListFunc func() runtime.Object, attrs storage.AttrFunc) (*resource, error) {
	name := strings.Trim(prefix, "/")
	if name == "" {
		return nil, errors.New("resource prefix has no name")
	}
	transformer := config.Transformer
	if transformer == nil {
		transformer = b.opts.transformer(config.GroupResource)
	}
	r := &resource{
		b: b, group: config.GroupResource, table: "/" + name + "/", codec: config.Codec,
		newFunc: newFunc, newListFunc: newListFunc, attrs: attrs,
		progress: newBroadcast(), watches: watches{open: map[*watcher]struct{}{}},
	}
	r.dispatcher = newDispatcher(r)
	r.setTransformer(transformer)
	object := newFunc()
	_, r.unstructured = object.(runtime.Unstructured)
	r.owner = reflect.TypeOf(object)
	if r.unstructured {
		r.owner = r
	}
	return r, nil
}

// release forgets a storage and ends its watches: that of a custom resource is replaced when its definition changes.
func (b *Backend) release(gr schema.GroupResource, r *resource) {
	r.watches.end()
	b.mu.Lock()
	defer b.mu.Unlock()
	b.resources[gr] = slices.DeleteFunc(b.resources[gr], func(other *resource) bool { return other == r })
}

func (b *Backend) resource(gr schema.GroupResource) *resource {
	b.mu.Lock()
	defer b.mu.Unlock()
	if all := b.resources[gr]; len(all) > 0 {
		return all[0]
	}
	return nil
}

// resource is the storage of one resource in one codec.
type resource struct {
	b     *Backend
	group schema.GroupResource
	// table is the store's table and the prefix of all keys, with a slash at both ends.
	table        string
	codec        runtime.Codec
	newFunc      func() runtime.Object
	newListFunc  func() runtime.Object
	attrs        storage.AttrFunc
	versioner    storage.APIObjectVersioner
	unstructured bool
	// owner is what attachments are compared with: objects of equal owners are interchangeable.
	owner any
	// transformer is nil when values are stored as the codec encodes them.
	transformer atomic.Pointer[value.Transformer]
	sizes       atomic.Bool
	progress    *broadcast
	watches     watches
	dispatcher  *dispatcher
}

var _ storage.Interface = (*resource)(nil)

func (r *resource) setTransformer(t value.Transformer) {
	if t == nil || reflect.TypeOf(t) == reflect.TypeOf(identity.NewEncryptCheckTransformer()) {
		r.transformer.Store(nil)
		return
	}
	r.transformer.Store(&t)
}
