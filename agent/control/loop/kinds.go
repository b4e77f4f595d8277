package loop

import (
	"sync"
	"time"

	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/discovery"
	"k8s.io/client-go/discovery/cached/memory"
	"k8s.io/client-go/restmapper"
)

// How long nobody asks again which kinds there are, after one was asked for that is not served; doubled each time in vain.
const (
	rediscoverFirstSeconds = 2
	rediscoverMaxSeconds   = 60
)

// Kinds finds the resources of kinds that are known by name only. What it once learnt it keeps, until a kind is missed:
// then it asks anew, with a back-off, so that a kind which is never served costs next to nothing. Safe for concurrent use.
type Kinds struct {
	mapper *restmapper.DeferredDiscoveryRESTMapper

	mu    sync.Mutex
	after time.Time     // no question before
	wait  time.Duration // after the next one in vain
}

// NewKinds makes one that knows nothing yet.
func NewKinds(client discovery.DiscoveryInterface) *Kinds {
	return &Kinds{mapper: restmapper.NewDeferredDiscoveryRESTMapper(memory.NewMemCacheClient(client)), wait: rediscoverFirstSeconds * time.Second}
}

// Resource finds the served version of a resource. The error of one that is not served is meta.IsNoMatchError's.
func (k *Kinds) Resource(resource schema.GroupResource) (schema.GroupVersionResource, error) {
	return find(k, func() (schema.GroupVersionResource, error) { return k.mapper.ResourceFor(resource.WithVersion("")) })
}

// ResourceOf finds the resource of a kind's version. The error of one that is not served is meta.IsNoMatchError's.
func (k *Kinds) ResourceOf(kind schema.GroupVersionKind) (schema.GroupVersionResource, error) {
	return find(k, func() (schema.GroupVersionResource, error) {
		mapping, err := k.mapper.RESTMapping(kind.GroupKind(), kind.Version)
		if err != nil {
			return schema.GroupVersionResource{}, err
		}
		return mapping.Resource, nil
	})
}

// Changed has the next kind that is missed asked for at once: a custom resource or an API service came or went.
func (k *Kinds) Changed() {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.after, k.wait = time.Time{}, rediscoverFirstSeconds*time.Second
}

func find(k *Kinds, look func() (schema.GroupVersionResource, error)) (schema.GroupVersionResource, error) {
	found, err := look()
	if !meta.IsNoMatchError(err) || !k.mayAsk(time.Now()) {
		return found, err
	}
	k.mapper.Reset()
	if found, err = look(); err == nil {
		k.Changed()
	}
	return found, err
}

// mayAsk takes the turn to ask, if it is time.
func (k *Kinds) mayAsk(now time.Time) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	if now.Before(k.after) {
		return false
	}
	k.after = now.Add(k.wait)
	k.wait = min(2*k.wait, rediscoverMaxSeconds*time.Second)
	return true
}
