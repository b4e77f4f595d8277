package kinds

import (
	"context"
	"fmt"
	"slices"

	metainternalversion "k8s.io/apimachinery/pkg/apis/meta/internalversion"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apiserver/pkg/registry/generic"
	genericregistry "k8s.io/apiserver/pkg/registry/generic/registry"
	"k8s.io/apiserver/pkg/registry/rest"

	"github.com/podvine/podvine/consensus/kubestore"
)

// GVR implements [Resource].
func (k *Kind[T]) GVR() schema.GroupVersionResource { return k.GroupVersion.WithResource(k.Resource) }

// GVK implements [Resource].
func (k *Kind[T]) GVK() schema.GroupVersionKind { return k.GroupVersion.WithKind(k.Kind) }

// NewObject implements [Resource].
func (k *Kind[T]) NewObject() runtime.Object { return k.New() }

// Strategies implements [Resource].
func (k *Kind[T]) Strategies(typer runtime.ObjectTyper) Strategies {
	s := newStrategy(k, typer)
	all := Strategies{Create: s, Update: s}
	if k.Status != nil {
		all.Status = statusStrategy[T]{s}
	}
	return all
}

// IsNamespaced implements [Resource].
func (k *Kind[T]) IsNamespaced() bool { return k.Namespaced }

// AddTypes implements [Resource].
func (k *Kind[T]) AddTypes(scheme *runtime.Scheme) error {
	if k.ExtraTypes == nil {
		return nil
	}
	return k.ExtraTypes(scheme)
}

// AddDefaults implements [Resource].
func (k *Kind[T]) AddDefaults(scheme *runtime.Scheme) {
	if k.Default == nil {
		return
	}
	scheme.AddTypeDefaultingFunc(k.New(), func(obj any) { k.Default(obj.(T)) })
}

// AddFieldLabels implements [Resource].
func (k *Kind[T]) AddFieldLabels(scheme *runtime.Scheme) error {
	if len(k.FieldLabels) == 0 && len(k.FieldLabelAliases) == 0 {
		return nil
	}
	return scheme.AddFieldLabelConversionFunc(k.GVK(), func(label, value string) (string, string, error) {
		if stored, ok := k.FieldLabelAliases[label]; ok {
			return stored, value, nil
		}
		if label == "metadata.name" || label == "metadata.namespace" && k.Namespaced || slices.Contains(k.FieldLabels, label) {
			return label, value, nil
		}
		return "", "", fmt.Errorf("field label not supported: %s", label)
	})
}

// attributes returns what selectors are matched against.
func (k *Kind[T]) attributes(obj runtime.Object) (labels.Set, fields.Set, error) {
	typed, ok := obj.(T)
	if !ok {
		return nil, nil, fmt.Errorf("match a selector against %T, which is no %s", obj, k.Kind)
	}
	set := fields.Set{"metadata.name": typed.GetName()}
	if k.Namespaced {
		set["metadata.namespace"] = typed.GetNamespace()
	}
	if k.Fields != nil {
		for label, value := range k.Fields(typed) {
			set[label] = value
		}
	}
	return typed.GetLabels(), set, nil
}

// REST is the main storage of a kind: the generic store with the names that discovery shows. An Extend hook that
// replaces it embeds it, and lists by the Store where it looks at the items.
type REST struct {
	*genericregistry.Store
	shortNames, categories []string
}

// ShortNames implements rest.ShortNamesProvider.
func (r *REST) ShortNames() []string { return r.shortNames }

// Categories implements rest.CategoriesProvider.
func (r *REST) Categories() []string { return r.categories }

// List implements rest.Lister. A request may have asked for a list that can only be encoded.
func (r *REST) List(ctx context.Context, options *metainternalversion.ListOptions) (runtime.Object, error) {
	return kubestore.EncodedList(ctx, func(ctx context.Context) (runtime.Object, error) { return r.Store.List(ctx, options) })
}

// Install implements [Resource].
func (k *Kind[T]) Install(env Env, storage map[string]rest.Storage) error {
	if k.Virtual != nil {
		virtual, err := k.Virtual(env)
		if err != nil {
			return fmt.Errorf("make storage of %s: %w", k.GVR(), err)
		}
		storage[k.Resource] = virtual
		return nil
	}
	store, err := k.newStore(env)
	if err != nil {
		return fmt.Errorf("make storage of %s: %w", k.GVR(), err)
	}
	storage[k.Resource] = &REST{Store: store, shortNames: k.ShortNames, categories: k.Categories}

	var statusStore *genericregistry.Store
	if k.Status != nil {
		copied := *store
		statusStore = &copied
		status := statusStrategy[T]{newStrategy(k, env.Scheme)}
		statusStore.UpdateStrategy, statusStore.ResetFieldsStrategy = status, status
		storage[k.Resource+"/status"] = &statusREST{statusStore}
	}
	if k.Scale != nil {
		storage[k.Resource+"/scale"] = newScaleREST(k, store)
	}
	if k.Extend != nil {
		if err := k.Extend(env, store, statusStore, storage); err != nil {
			return fmt.Errorf("extend storage of %s: %w", k.GVR(), err)
		}
	}
	return nil
}

func (k *Kind[T]) newStore(env Env) (*genericregistry.Store, error) {
	strategy := newStrategy(k, env.Scheme)
	stored := k.StoredAs
	if stored.Empty() {
		stored = k.GVR().GroupResource()
	}
	store := &genericregistry.Store{
		NewFunc:                   func() runtime.Object { return k.New() },
		NewListFunc:               k.NewList,
		DefaultQualifiedResource:  stored,
		SingularQualifiedResource: schema.GroupResource{Group: stored.Group, Resource: k.Singular},
		CreateStrategy:            strategy,
		UpdateStrategy:            strategy,
		DeleteStrategy:            strategy,
		ResetFieldsStrategy:       strategy,
		TableConvertor:            k.tableConvertor(),
		ReturnDeletedObject:       k.ReturnDeletedObject,
	}
	if k.GracefulDelete != nil {
		store.DeleteStrategy = gracefulStrategy[T]{strategy}
	}
	if k.TTLSeconds != nil {
		store.TTLFunc = func(obj runtime.Object, _ uint64, _ bool) (uint64, error) {
			return k.TTLSeconds(obj.(T)), nil
		}
	}
	options := &generic.StoreOptions{RESTOptions: env.RESTOptions, AttrFunc: k.attributes}
	if err := store.CompleteWithOptions(options); err != nil {
		return nil, err
	}
	return store, nil
}
