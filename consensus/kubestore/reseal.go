package kubestore

import (
	"context"
	"errors"
	"fmt"

	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apiserver/pkg/storage"

	"github.com/podvine/podvine/consensus/store"
)

// maxResealErrors bounds what [Backend.Reseal] says of objects that cannot be opened.
const maxResealErrors = 8

// Reseal writes again, unchanged, every object of a resource whose value is sealed with a key that is no longer the
// first. When it returns without an error no object needs the older keys; history and the log's tail still may, until
// they are dropped. It returns how many objects it wrote.
func (b *Backend) Reseal(ctx context.Context, gr schema.GroupResource) (int, error) {
	r := b.resource(gr)
	if r == nil {
		return 0, fmt.Errorf("reseal %s: no storage for it", gr)
	}
	if _, err := b.replica.ReadRevision(ctx); err != nil {
		return 0, fmt.Errorf("reseal %s: %w", gr, err)
	}
	var stale []string
	var failed []error
	b.replica.Store().View(r.table, false).Ascend("", func(e *store.Entry) bool {
		_, isStale, err := r.unseal(ctx, e)
		if isStale {
			stale = append(stale, e.Key)
		}
		if err != nil && len(failed) < maxResealErrors {
			failed = append(failed, fmt.Errorf("reseal %s: %s: %w", gr, e.Key, err)) // one that cannot be opened must not keep the others back
		}
		return true
	})
	unchanged := func(object runtime.Object, _ storage.ResponseMeta) (runtime.Object, *uint64, error) {
		return object, nil, nil
	}
	written := 0
	for _, key := range stale {
		err := r.rewrite(ctx, key, unchanged)
		if err != nil && !storage.IsNotFound(err) {
			return written, errors.Join(append(failed, fmt.Errorf("reseal %s: %s: %w", gr, key, err))...)
		}
		if err == nil {
			written++
		}
	}
	return written, errors.Join(failed...)
}

// rewrite updates key after dropping its decoded form, which does not know that the keys were rotated.
func (r *resource) rewrite(ctx context.Context, key string, update storage.UpdateFunc) error {
	if e, _ := r.b.replica.Store().Get(r.table, key); e != nil {
		r.b.objects.drop(e)
	}
	return r.GuaranteedUpdate(ctx, key, r.newFunc(), false, nil, update, nil)
}
