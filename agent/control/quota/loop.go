// Package quota keeps the status of ResourceQuotas true: what each limits, and what is used of it.
//
// Role: admission charges a quota in the transaction that creates an object; this loop gives back what is gone, and counts
// anew whenever the numbers differ from what is there. [Decide] is pure.
//
// A number is never written from caches alone: they may lag behind a charge, and a number that is too low would let a quota
// be passed. When the caches say that something changed, the quota is read first and its objects after, and the status is
// written under the version that was read: an object that was charged meanwhile has changed the version.
//
// Ownership: the loop writes status.hard, and status.used together with admission, which only raises it.
//
// Concurrency: as [loop.Driver]; a quota is worked on by one goroutine at a time. Informers of kinds that a quota counts
// by "count/…" are started when one does, and end with Run.
package quota

import (
	"context"
	"errors"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	corelisters "k8s.io/client-go/listers/core/v1"
	"k8s.io/client-go/metadata"
	"k8s.io/client-go/tools/cache"

	"github.com/podvine/podvine/agent/control/loop"
)

// maxWriteAttempts is how often a status is counted anew because the quota was charged meanwhile, before the key waits its turn.
const maxWriteAttempts = 5

// Loop is the quota loop. Make it with [New].
type Loop struct {
	loop.Controller
	quotas  corelisters.ResourceQuotaLister
	typed   map[schema.GroupResource]cache.Indexer
	counted *counted
}

// New makes the loop. Its client, and metadata, act as the resourcequota-controller.
func New(w loop.Wiring, metadata metadata.Interface) (*Loop, error) {
	if err := w.Check("quota"); err != nil {
		return nil, err
	}
	if metadata == nil {
		return nil, errors.New("make quota loop: Metadata is required")
	}
	core := w.Informers.Core().V1()
	quotas := core.ResourceQuotas()
	l := &Loop{Controller: loop.NewController(w, ""), quotas: quotas.Lister(), typed: map[schema.GroupResource]cache.Indexer{}}
	l.counted = newCounted(w.Client, metadata, func(namespace string) {
		for _, key := range l.keysIn(namespace) {
			l.Trigger(key)
		}
	})
	pods := core.Pods().Informer()
	sources := []loop.Source{loop.OnKey(quotas.Informer()), loop.On(pods, l.podKeys)}
	l.typed[corev1.Resource("pods")] = pods.GetIndexer()
	for resource, informer := range map[string]cache.SharedIndexInformer{
		"services": core.Services().Informer(), "persistentvolumeclaims": core.PersistentVolumeClaims().Informer()} {
		l.typed[corev1.Resource(resource)] = informer.GetIndexer()
		sources = append(sources, loop.On(informer, func(old, new metav1.Object) []string {
			if new == nil {
				new = old
			}
			return l.keysIn(new.GetNamespace())
		}))
	}
	return l, l.Drive(loop.Config{Name: "resource_quota_controller_resource_changes", Sources: sources, Reconcile: l.reconcile,
		All: quotas.Informer().GetIndexer().ListKeys})
}

// KindsChanged counts anew now: a kind that a quota counts may have come or gone. Safe for concurrent use, also outside of Run.
func (l *Loop) KindsChanged() {
	l.counted.kinds.Changed()
	for _, key := range l.keysIn(metav1.NamespaceAll) {
		l.Trigger(key)
	}
}

// Run counts until ctx ends. No goroutine is left then.
func (l *Loop) Run(ctx context.Context) error {
	end := l.counted.open(ctx)
	defer end()
	return l.Controller.Run(ctx)
}

// keysIn are the quotas of a namespace.
func (l *Loop) keysIn(namespace string) []string {
	found, err := l.quotas.ResourceQuotas(namespace).List(labels.Everything())
	if err != nil {
		return nil // a lister over a cache has no errors
	}
	keys := make([]string, len(found))
	for i, q := range found {
		keys[i] = loop.Key(q)
	}
	return keys
}

// podKeys: most of what a pod tells changes nothing that is counted.
func (l *Loop) podKeys(old, new *corev1.Pod) []string {
	if old != nil && new != nil && old.Status.Phase == new.Status.Phase && old.Generation == new.Generation &&
		(old.DeletionTimestamp == nil) == (new.DeletionTimestamp == nil) {
		return nil
	}
	if new == nil {
		new = old
	}
	return l.keysIn(new.Namespace)
}

func (l *Loop) reconcile(ctx context.Context, key string) (time.Duration, error) {
	namespace, name, err := loop.SplitKey(key)
	if err != nil {
		return 0, err
	}
	q, err := l.quotas.ResourceQuotas(namespace).Get(name)
	if apierrors.IsNotFound(err) {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	if objects, ok := l.cached(ctx, q); ok {
		plan, err := Decide(View{q, objects}, time.Now())
		if err != nil || !plan.Changed {
			return plan.Again, err
		}
	}
	var again time.Duration
	for range maxWriteAttempts {
		if again, err = l.count(ctx, namespace, name); !apierrors.IsConflict(err) {
			break
		}
	}
	return again, err
}

// count writes what is there now.
func (l *Loop) count(ctx context.Context, namespace, name string) (time.Duration, error) {
	quotas := l.Client.CoreV1().ResourceQuotas(namespace)
	found, err := quotas.List(ctx, metav1.ListOptions{FieldSelector: fields.OneTermEqualSelector("metadata.name", name).String()})
	if err != nil || len(found.Items) == 0 {
		return 0, err
	}
	q := &found.Items[0]
	objects := map[schema.GroupResource][]runtime.Object{}
	for _, resource := range Counted(q) {
		if objects[resource], err = l.list(ctx, resource, namespace); err != nil {
			return 0, fmt.Errorf("list %s of %s: %w", resource, namespace, err)
		}
	}
	plan, err := Decide(View{q, objects}, time.Now())
	if err != nil || !plan.Changed {
		return plan.Again, err
	}
	q.Status = plan.Status
	_, err = quotas.UpdateStatus(ctx, q, metav1.UpdateOptions{})
	if apierrors.IsNotFound(err) {
		return 0, nil
	}
	return plan.Again, err
}

// cached are the objects that caches have; false when one is not filled yet.
func (l *Loop) cached(ctx context.Context, q *corev1.ResourceQuota) (map[schema.GroupResource][]runtime.Object, bool) {
	objects := map[schema.GroupResource][]runtime.Object{}
	for _, resource := range Counted(q) {
		indexer, ok := l.typed[resource]
		if !ok {
			if indexer, ok = l.counted.indexer(ctx, resource); !ok {
				return nil, false
			}
		}
		found, err := indexer.ByIndex(cache.NamespaceIndex, q.Namespace)
		if err != nil {
			return nil, false
		}
		for _, o := range found {
			if object, ok := o.(runtime.Object); ok {
				objects[resource] = append(objects[resource], object)
			}
		}
	}
	return objects, true
}

// list reads the objects of a resource, as new as any acknowledged write.
func (l *Loop) list(ctx context.Context, resource schema.GroupResource, namespace string) (objects []runtime.Object, err error) {
	var list runtime.Object
	core := l.Client.CoreV1()
	switch resource {
	case corev1.Resource("pods"):
		list, err = core.Pods(namespace).List(ctx, metav1.ListOptions{})
	case corev1.Resource("services"):
		list, err = core.Services(namespace).List(ctx, metav1.ListOptions{})
	case corev1.Resource("persistentvolumeclaims"):
		list, err = core.PersistentVolumeClaims(namespace).List(ctx, metav1.ListOptions{})
	default:
		return l.counted.list(ctx, resource, namespace)
	}
	if err != nil {
		return nil, err
	}
	return meta.ExtractList(list)
}
