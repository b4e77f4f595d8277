package loop

import (
	"context"
	"fmt"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/tools/cache"
)

// Owner is an object that owns others.
type Owner interface {
	runtime.Object
	metav1.Object
}

// Owners says how the objects of one kind, and what they control, are kept.
type Owners[T Owner] struct {
	// Name of the queue, as Kubernetes calls it.
	Name string
	// Kind of the owners.
	Kind string
	// Informer of the owners.
	Informer cache.SharedIndexInformer
	// Dependents are informers of what the owners control. They are indexed by controller.
	Dependents []cache.SharedIndexInformer
	// Selector selects what an owner could adopt; nil where owners adopt nothing.
	Selector func(T) *metav1.LabelSelector
	// Sources are watched beside the owners and their dependents.
	Sources []Source
	// Forget drops what is kept in memory for an owner that is gone; nil where there is nothing but [Controller.Pending].
	Forget func(T)
	// Reconcile is as in [Config], for an owner that is there. It must not change the owner.
	Reconcile func(ctx context.Context, owner T, now time.Time) (time.Duration, error)
}

// DriveOwners sets what the controller does: keep the owners. It is called once, instead of [Controller.Drive].
func DriveOwners[T Owner](c *Controller, o Owners[T]) error {
	sources := append([]Source{On(o.Informer, func(old, new Owner) []string { return o.keys(c, old, new) })}, o.Sources...)
	for _, informer := range o.Dependents {
		if err := IndexByController(informer); err != nil {
			return err
		}
		sources = append(sources, OnDependents(informer, o.Kind, o.adopters), On(informer, c.gone))
	}
	return c.Drive(Config{Name: o.Name, Sources: sources, All: o.Informer.GetIndexer().ListKeys,
		Reconcile: func(ctx context.Context, key string) (time.Duration, error) {
			owner, found, err := get[T](o.Informer.GetIndexer(), key)
			if err != nil || !found {
				return 0, err
			}
			return o.Reconcile(ctx, owner, time.Now())
		}})
}

// keys is the owner itself; one that is gone needs no memory of what was done for it.
func (o Owners[T]) keys(c *Controller, old, new Owner) []string {
	if new != nil {
		return []string{Key(new)}
	}
	c.Pending.Forget(old.GetUID())
	if owner, ok := old.(T); ok && o.Forget != nil {
		o.Forget(owner)
	}
	return nil
}

// adopters are the owners that could take an object on.
func (o Owners[T]) adopters(object metav1.Object) []string {
	if o.Selector == nil {
		return nil
	}
	return KeysWhere(o.Informer.GetIndexer(), object.GetNamespace(), func(owner T) bool { return Selects(o.Selector(owner), object) })
}

// gone forgets the creation of a dependent that came and went before it was looked at.
func (c *Controller) gone(old, new metav1.Object) []string {
	if new == nil {
		if owner := metav1.GetControllerOfNoCopy(old); owner != nil {
			c.Pending.Seen(owner.UID, old.GetUID())
		}
	}
	return nil
}

func get[T Owner](indexer cache.Indexer, key string) (owner T, found bool, err error) {
	object, found, err := indexer.GetByKey(key)
	if err != nil || !found {
		return owner, false, err
	}
	owner, found = object.(T)
	if !found {
		return owner, false, fmt.Errorf("read %s from its informer: unexpected type %T", key, object)
	}
	return owner, true, nil
}

// KeysWhere are the keys of a namespace's objects that f holds for; namespace is empty for all.
func KeysWhere[T Owner](indexer cache.Indexer, namespace string, f func(T) bool) (keys []string) {
	objects := indexer.List
	if namespace != metav1.NamespaceAll {
		objects = func() []any {
			found, err := indexer.ByIndex(cache.NamespaceIndex, namespace)
			if err != nil {
				return nil // informers of objects with a namespace always have the index
			}
			return found
		}
	}
	for _, object := range objects() {
		if owner, ok := object.(T); ok && f(owner) {
			keys = append(keys, Key(owner))
		}
	}
	return keys
}

// UnseenOf is [Pending.Unseen] for what the informer shows of an owner's dependents.
func UnseenOf[D metav1.Object](p *Pending, owner types.UID, shown []D, now time.Time) (created int, deleted map[types.UID]bool) {
	active := make(map[types.UID]bool, len(shown))
	for _, dependent := range shown {
		active[dependent.GetUID()] = dependent.GetDeletionTimestamp() == nil
	}
	return p.Unseen(owner, active, now)
}
