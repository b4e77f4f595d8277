package kubestore

import (
	"context"
	"fmt"
	"strconv"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/apiserver/pkg/storage"
	"k8s.io/client-go/tools/cache"

	"github.com/podvine/podvine/consensus/store"
)

// ListerWatcher returns a source for an informer of this process: the shared decoded objects of a resource, without HTTP
// and without encoding. Nobody may change what comes from it. Selectors in the options are obeyed as by the API. The
// resource's storage need not exist yet; until it does, both calls fail and an informer tries again.
func (b *Backend) ListerWatcher(gr schema.GroupResource) cache.ListerWatcher {
	return &listerWatcher{b: b, group: gr}
}

// listerWatcher implements both forms of cache.ListerWatcher.
type listerWatcher struct {
	b     *Backend
	group schema.GroupResource
}

var (
	_ cache.ListerWatcher            = (*listerWatcher)(nil)
	_ cache.ListerWatcherWithContext = (*listerWatcher)(nil)
)

// List implements cache.Lister.
func (l *listerWatcher) List(options metav1.ListOptions) (runtime.Object, error) {
	return l.ListWithContext(context.Background(), options)
}

// Watch implements cache.Watcher.
func (l *listerWatcher) Watch(options metav1.ListOptions) (watch.Interface, error) {
	return l.WatchWithContext(context.Background(), options)
}

func (l *listerWatcher) resource() (*resource, error) {
	if r := l.b.resource(l.group); r != nil {
		return r, nil
	}
	return nil, fmt.Errorf("no storage for %s yet", l.group)
}

// predicate turns the options into storage's. The attribute function is the resource's own.
func (r *resource) predicate(options metav1.ListOptions) (storage.SelectionPredicate, error) {
	pred := storage.SelectionPredicate{
		Label: labels.Everything(), Field: fields.Everything(),
		GetAttrs: r.attrs, AllowWatchBookmarks: options.AllowWatchBookmarks,
	}
	var err error
	if pred.Label, err = labels.Parse(options.LabelSelector); err != nil {
		return pred, fmt.Errorf("parse label selector: %w", err)
	}
	if pred.Field, err = fields.ParseSelector(options.FieldSelector); err != nil {
		return pred, fmt.Errorf("parse field selector: %w", err)
	}
	if r.attrs == nil {
		pred.GetAttrs = storage.DefaultNamespaceScopedAttr
	}
	return pred, nil
}

// ListWithContext implements cache.ListerWithContext. Limits are ignored: nothing is copied.
func (l *listerWatcher) ListWithContext(ctx context.Context, options metav1.ListOptions) (runtime.Object, error) {
	r, err := l.resource()
	if err != nil {
		return nil, err
	}
	pred, err := r.predicate(options)
	if err != nil {
		return nil, err
	}
	if err := r.settle(ctx, options.ResourceVersion); err != nil {
		return nil, err
	}
	view := l.b.replica.Store().View(r.table, false)
	list := &metav1.List{ListMeta: metav1.ListMeta{ResourceVersion: strconv.FormatInt(view.Revision, 10)}}
	list.Items = make([]runtime.RawExtension, 0, view.Len())
	everything := pred.Empty()
	view.Ascend("", func(e *store.Entry) bool {
		var object runtime.Object
		if object, err = r.object(ctx, e); err != nil {
			return false
		}
		if !everything {
			if ok, matchErr := pred.Matches(object); matchErr != nil || !ok {
				return true
			}
		}
		list.Items = append(list.Items, runtime.RawExtension{Object: object})
		return true
	})
	if err != nil {
		return nil, fmt.Errorf("list %s: %w", l.group, err)
	}
	return list, nil
}

// WatchWithContext implements cache.WatcherWithContext.
func (l *listerWatcher) WatchWithContext(ctx context.Context, options metav1.ListOptions) (watch.Interface, error) {
	r, err := l.resource()
	if err != nil {
		return nil, err
	}
	pred, err := r.predicate(options)
	if err != nil {
		return nil, err
	}
	return r.watch(ctx, r.table, storage.ListOptions{
		ResourceVersion: options.ResourceVersion, ResourceVersionMatch: options.ResourceVersionMatch,
		Predicate: pred, Recursive: true, SendInitialEvents: options.SendInitialEvents,
	}, true)
}
