package kubestore

import (
	"context"
	"errors"
	"fmt"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apiserver/pkg/storage"
	"k8s.io/apiserver/pkg/warning"

	"github.com/podvine/podvine/consensus/store"
)

// Versioner implements storage.Interface.
func (r *resource) Versioner() storage.Versioner { return r.versioner }

func (r *resource) prepareKey(key string, recursive bool) (string, error) {
	return storage.PrepareKey(r.table, key, recursive)
}

// settle makes sure that the local store is new enough for a read with this resource version: "" means as new as any
// acknowledged write, "0" as it is, a number at least that.
func (r *resource) settle(ctx context.Context, resourceVersion string) error {
	if resourceVersion == "0" {
		return nil
	}
	least, err := r.versioner.ParseResourceVersion(resourceVersion)
	if err != nil {
		return apierrors.NewBadRequest(fmt.Sprintf("invalid resource version: %v", err))
	}
	if least != 0 && int64(least) <= r.b.replica.Store().Revision() {
		return nil
	}
	current, err := r.newest(ctx)
	if err != nil {
		return err
	}
	if least > uint64(current) {
		return storage.NewTooLargeResourceVersionError(least, uint64(current), 0)
	}
	return nil
}

// newest returns a revision that the local store has reached and that covers every acknowledged write. While the quorum is
// lost it is the local one, and the request gets a warning; except for leases, by which others decide who may act.
func (r *resource) newest(ctx context.Context) (int64, error) {
	if r.serveStale(ctx) {
		return r.b.replica.Store().Revision(), nil
	}
	current, err := r.b.replica.ReadRevision(ctx)
	if err == nil {
		return current, nil
	}
	if ctx.Err() == nil && r.serveStale(ctx) {
		return r.b.replica.Store().Revision(), nil
	}
	return 0, unavailable(err)
}

// staleWarning is what a client reads in the Warning header.
const staleWarning = "the quorum has been out of reach for %v: this answer may be out of date"

// serveStale tells whether the quorum is lost and this resource may be read nevertheless, and warns the client.
func (r *resource) serveStale(ctx context.Context) bool {
	since, lost := r.b.replica.QuorumLost()
	if !lost || r.group == leases() {
		return false
	}
	age := time.Since(since).Round(time.Second)
	warning.AddWarning(ctx, "", fmt.Sprintf(staleWarning, age))
	if r.b.opts.Stale != nil {
		r.b.opts.Stale(ctx, r.group, age)
	}
	return true
}

func leases() schema.GroupResource {
	return schema.GroupResource{Group: "coordination.k8s.io", Resource: "leases"}
}

// Get implements storage.Interface.
func (r *resource) Get(ctx context.Context, key string, opts storage.GetOptions, out runtime.Object) (err error) {
	if key, err = r.prepareKey(key, false); err != nil {
		return err
	}
	defer func(began time.Time) { r.measure(verbGet, began, err) }(time.Now())
	if _, err := r.versioner.ParseResourceVersion(opts.ResourceVersion); err != nil {
		return err // which is a 500 as on Kubernetes, where a list gets a 400
	}
	if err := r.settle(ctx, opts.ResourceVersion); err != nil {
		return err
	}
	e, _ := r.b.replica.Store().Get(r.table, key)
	if e != nil {
		return r.load(ctx, e, out)
	}
	if opts.IgnoreNotFound {
		return runtime.SetZeroValue(out)
	}
	return storage.NewKeyNotFoundError(key, 0)
}

// GetCurrentResourceVersion implements storage.Interface.
func (r *resource) GetCurrentResourceVersion(ctx context.Context) (uint64, error) {
	rev, err := r.newest(ctx)
	return uint64(rev), err
}

// Stats implements storage.Interface.
func (r *resource) Stats(context.Context) (storage.Stats, error) {
	keys, bytes := r.b.replica.Store().TableStats(r.table)
	s := storage.Stats{ObjectCount: int64(keys)}
	if keys > 0 && r.sizes.Load() {
		s.EstimatedAverageObjectSizeBytes = bytes / int64(keys)
	}
	return s, nil
}

// EnableResourceSizeEstimation implements storage.Interface. The store counts exactly, without the keys.
func (r *resource) EnableResourceSizeEstimation(keys storage.KeysFunc) error {
	if keys == nil {
		return errors.New("KeysFunc cannot be nil")
	}
	if r.sizes.Swap(true) {
		return errors.New("resource size estimation is enabled already")
	}
	return nil
}

// ReadinessCheck implements storage.Interface.
func (r *resource) ReadinessCheck() error {
	if !r.b.replica.Available() {
		return storage.ErrStorageNotReady
	}
	return r.b.replica.Store().Fault()
}

// RequestWatchProgress implements storage.Interface: watches with ProgressNotify get a bookmark now.
func (r *resource) RequestWatchProgress(context.Context) error {
	r.progress.wake()
	return nil
}

// CompactRevision implements storage.Interface.
func (r *resource) CompactRevision() int64 { return r.b.replica.Store().CompactedRevision() }

// viewFor returns the table as a list should see it.
func (r *resource) viewFor(ctx context.Context, opts storage.ListOptions, revision int64) (store.View, error) {
	s := r.b.replica.Store()
	paging := opts.Predicate.Limit > 0
	if revision <= 0 {
		resourceVersion := opts.ResourceVersion
		if opts.Predicate.Continue != "" {
			resourceVersion = ""
		}
		if err := r.settle(ctx, resourceVersion); err != nil {
			return store.View{}, err
		}
		return s.View(r.table, paging), nil
	}
	v, err := s.ViewAt(r.table, revision)
	if !errors.Is(err, store.ErrFuture) {
		return v, err
	}
	current, err := r.newest(ctx)
	if err != nil {
		return store.View{}, err
	}
	if current < revision {
		return store.View{}, storage.NewTooLargeResourceVersionError(uint64(revision), uint64(current), 0)
	}
	return s.ViewAt(r.table, revision)
}
