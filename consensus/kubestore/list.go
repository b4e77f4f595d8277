package kubestore

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"strings"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/conversion"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apiserver/pkg/storage"

	"github.com/podvine/podvine/consensus/store"
)

// page is what a list selected.
type page struct {
	entries []*store.Entry
	// last is the key of the last entry that was looked at.
	last string
	// more is set when there are keys after last; rest counts them when nothing is filtered.
	more bool
	rest int64
}

// GetList implements storage.Interface.
func (r *resource) GetList(ctx context.Context, key string, opts storage.ListOptions, listObj runtime.Object) (err error) {
	if key, err = r.prepareKey(key, opts.Recursive); err != nil {
		return err
	}
	defer func(began time.Time) { r.measure(verbList, began, err) }(time.Now())
	items, err := itemsOf(listObj)
	if err != nil {
		return err
	}
	revision, continueKey, err := storage.ValidateListOptions(key, r.versioner, opts)
	if err != nil {
		return err
	}
	if opts.ResourceVersion == "0" {
		opts.Predicate.Limit = 0 // as the Cacher answers: whole, or all of the rest, whatever the limit
	}
	view, err := r.viewFor(ctx, opts, revision)
	if errors.Is(err, store.ErrCompacted) {
		if opts.Predicate.Continue != "" {
			return continueError(continueKey, key)
		}
		return apierrors.NewResourceExpired(listExpired)
	}
	if err != nil {
		return err
	}
	p, err := r.selectPage(ctx, view, key, continueKey, opts)
	if err != nil {
		return err
	}
	if err := r.fillOrSelect(ctx, items, listObj, p.entries); err != nil {
		return err
	}
	count := opts.Predicate.Limit + p.rest
	next, remaining, err := storage.PrepareContinueToken(p.last, key, view.Revision, count, p.more, opts)
	if err != nil {
		return err
	}
	if err := r.versioner.UpdateList(listObj, uint64(view.Revision), next, remaining); err != nil {
		return err
	}
	opts.Predicate.SetShardInfoOnList(listObj)
	return nil
}

func itemsOf(listObj runtime.Object) (reflect.Value, error) {
	ptr, err := meta.GetItemsPtr(listObj)
	if err != nil {
		return reflect.Value{}, err
	}
	items, err := conversion.EnforcePtr(ptr)
	if err != nil || items.Kind() != reflect.Slice {
		return reflect.Value{}, fmt.Errorf("list needs a pointer to a slice: %w", err)
	}
	return items, nil
}

// ctxCheckEvery is how many entries are looked at between two looks at the request's deadline.
const ctxCheckEvery = 1024

func (r *resource) selectPage(ctx context.Context, view store.View, key, continueKey string, opts storage.ListOptions) (page, error) {
	var p page
	if !opts.Recursive {
		if e := view.Get(key); e != nil {
			err := r.consider(ctx, &p, e, &opts.Predicate)
			return p, err
		}
		return p, nil
	}
	start := key
	if continueKey != "" {
		start = continueKey
	}
	pred := &opts.Predicate
	everything := pred.Empty()
	var err error
	seen := 0
	view.Ascend(start, func(e *store.Entry) bool {
		if !strings.HasPrefix(e.Key, key) {
			return false
		}
		if pred.Limit > 0 && int64(len(p.entries)) >= pred.Limit {
			p.more = true
			if everything {
				p.rest = int64(view.Count(e.Key, prefixEnd(key)))
			}
			return false
		}
		if seen++; seen%ctxCheckEvery == 0 && ctx.Err() != nil {
			err = storage.NewTimeoutError(e.Key, "request did not complete within requested timeout")
			return false
		}
		if everything {
			p.last = e.Key
			p.entries = append(p.entries, e)
			return true
		}
		err = r.consider(ctx, &p, e, pred)
		return err == nil
	})
	return p, err
}

// prefixEnd returns the first key after all that begin with prefix, which ends with a slash.
func prefixEnd(prefix string) string { return strings.TrimSuffix(prefix, "/") + string('/'+1) }

// consider adds e to the page when the predicate matches it.
func (r *resource) consider(ctx context.Context, p *page, e *store.Entry, pred *storage.SelectionPredicate) error {
	p.last = e.Key
	if !pred.Empty() {
		object, err := r.object(ctx, e)
		if err != nil {
			return err
		}
		if ok, err := pred.Matches(object); err != nil || !ok {
			return nil //nolint:nilerr // what cannot be asked for does not match, as in Kubernetes
		}
	}
	p.entries = append(p.entries, e)
	return nil
}

// fillOrSelect makes the list's items of entries, or leaves the entries to whoever encodes the list.
func (r *resource) fillOrSelect(ctx context.Context, items reflect.Value, listObj runtime.Object, entries []*store.Entry) error {
	selected, err := r.selectEncoded(ctx, items, entries, func(count int) (runtime.Object, error) {
		full := listObj.DeepCopyObject()
		items, err := itemsOf(full)
		if err != nil {
			return nil, err
		}
		return full, r.fill(ctx, items, full, entries[:count])
	})
	if err != nil || !selected {
		return r.fill(ctx, items, listObj, entries)
	}
	items.Set(reflect.MakeSlice(items.Type(), 0, 0))
	return nil
}

// fill makes the list's items of entries. The slice is never nil.
func (r *resource) fill(ctx context.Context, items reflect.Value, listObj runtime.Object, entries []*store.Entry) error {
	slice := reflect.MakeSlice(items.Type(), len(entries), len(entries))
	version := ""
	if u, ok := listObj.(*unstructured.UnstructuredList); ok {
		version = u.GetAPIVersion()
	}
	for i, e := range entries {
		if i%ctxCheckEvery == 0 && ctx.Err() != nil {
			return storage.NewTimeoutError(e.Key, "request did not complete within requested timeout")
		}
		item := slice.Index(i).Addr().Interface().(runtime.Object)
		if u, ok := item.(*unstructured.Unstructured); ok && version != "" {
			u.Object = map[string]any{"apiVersion": version}
		}
		if err := r.load(ctx, e, item); err != nil {
			items.Set(slice.Slice(0, i))
			if storage.IsInternalError(err) {
				err = storage.NewInternalError(fmt.Errorf("unable to transform key %q: %w", e.Key, err))
			}
			return err
		}
	}
	items.Set(slice)
	return nil
}
