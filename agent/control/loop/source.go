package loop

import (
	"fmt"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/tools/cache"
)

// Source is a kind that a loop watches, and how its events become keys.
type Source struct {
	informer cache.SharedIndexInformer
	keys     func(old, new any) []string
}

// On watches an informer of objects of type T. keys maps an event to the keys to reconcile; old is T's zero
// value for an addition and new for a deletion. Both are shared objects: never change them.
func On[T any](informer cache.SharedIndexInformer, keys func(old, new T) []string) Source {
	return Source{informer: informer, keys: func(old, new any) []string {
		o, _ := old.(T)
		n, _ := new.(T)
		return keys(o, n)
	}}
}

// OnKey watches an informer whose objects are themselves the keys.
func OnKey(informer cache.SharedIndexInformer) Source {
	return Source{informer: informer, keys: func(old, new any) []string {
		if new == nil {
			new = old
		}
		if object, ok := new.(metav1.Object); ok {
			return []string{Key(object)}
		}
		return nil
	}}
}

func (s Source) handler(trigger func(string)) cache.ResourceEventHandler {
	send := func(old, new any) {
		for _, key := range s.keys(old, new) {
			trigger(key)
		}
	}
	return cache.ResourceEventHandlerFuncs{
		AddFunc:    func(object any) { send(nil, object) },
		UpdateFunc: send,
		DeleteFunc: func(object any) {
			if unknown, ok := object.(cache.DeletedFinalStateUnknown); ok {
				object = unknown.Obj
			}
			send(object, nil)
		},
	}
}

// Key is "namespace/name", or "name" for an object without a namespace.
func Key(object metav1.Object) string {
	return types.NamespacedName{Namespace: object.GetNamespace(), Name: object.GetName()}.String()[skip(object):]
}

func skip(object metav1.Object) int {
	if object.GetNamespace() == "" {
		return 1 // NamespacedName prints "/name"
	}
	return 0
}

// SplitKey takes apart what [Key] made.
func SplitKey(key string) (namespace, name string, err error) {
	namespace, name, err = cache.SplitMetaNamespaceKey(key)
	if err != nil {
		return "", "", fmt.Errorf("split key: %w", err)
	}
	return namespace, name, nil
}

// ControllerKey is the key of the object's controller when that is of the given kind, else nil.
func ControllerKey(object metav1.Object, kind string) []string {
	owner := metav1.GetControllerOfNoCopy(object)
	if owner == nil || owner.Kind != kind {
		return nil
	}
	return []string{object.GetNamespace() + "/" + owner.Name}
}

// Index adds an index to an informer unless one of that name is there already (a loop made twice).
func Index(informer cache.SharedIndexInformer, name string, of cache.IndexFunc) error {
	if _, ok := informer.GetIndexer().GetIndexers()[name]; ok {
		return nil
	}
	if err := informer.AddIndexers(cache.Indexers{name: of}); err != nil {
		return fmt.Errorf("add index %s: %w", name, err)
	}
	return nil
}

// ControllerIndex is the name of the index that [IndexByController] adds.
const ControllerIndex = "podvine.io/controller"

// IndexByController adds an index of objects by their controller's UID, and of those without a controller by
// their namespace (under [OrphanValue]).
func IndexByController(informer cache.SharedIndexInformer) error {
	return Index(informer, ControllerIndex, func(object any) ([]string, error) {
		o, ok := object.(metav1.Object)
		if !ok {
			return nil, nil
		}
		if owner := metav1.GetControllerOfNoCopy(o); owner != nil {
			return []string{string(owner.UID)}, nil
		}
		return []string{OrphanValue(o.GetNamespace())}, nil
	})
}

// OrphanValue is the value under which [ControllerIndex] holds a namespace's objects without a controller.
func OrphanValue(namespace string) string { return "orphans/" + namespace }

// Indexed lists what an index holds under a value, as objects of type T.
func Indexed[T any](indexer cache.Indexer, index, value string) ([]T, error) {
	objects, err := indexer.ByIndex(index, value)
	if err != nil {
		return nil, fmt.Errorf("read index %s: %w", index, err)
	}
	out := make([]T, 0, len(objects))
	for _, object := range objects {
		if t, ok := object.(T); ok {
			out = append(out, t)
		}
	}
	return out, nil
}

// Dependents lists what an owner controls, and then what nobody in its namespace does, from an index made by
// [IndexByController]; owned is how many are the owner's.
func Dependents[T any](indexer cache.Indexer, owner metav1.Object) (all []T, owned int, err error) {
	own, err := Indexed[T](indexer, ControllerIndex, string(owner.GetUID()))
	if err != nil {
		return nil, 0, err
	}
	orphans, err := Indexed[T](indexer, ControllerIndex, OrphanValue(owner.GetNamespace()))
	return append(own, orphans...), len(own), err
}

// OnDependents watches an informer of objects that owners of a kind control. Keys are those of an object's controller
// before and after, and, for one without a controller, those that could gives: every owner that could adopt it.
func OnDependents(informer cache.SharedIndexInformer, kind string, could func(metav1.Object) []string) Source {
	return On(informer, func(old, new metav1.Object) []string {
		var keys []string
		for _, object := range []metav1.Object{old, new} {
			if object != nil {
				keys = append(keys, ControllerKey(object, kind)...)
			}
		}
		if new == nil || metav1.GetControllerOfNoCopy(new) != nil || len(new.GetLabels()) == 0 {
			return keys
		}
		return append(keys, could(new)...)
	})
}

// Selects tells whether a selector that is neither broken nor empty matches the object's labels.
func Selects(selector *metav1.LabelSelector, object metav1.Object) bool {
	s, err := metav1.LabelSelectorAsSelector(selector)
	return err == nil && !s.Empty() && s.Matches(labels.Set(object.GetLabels()))
}
