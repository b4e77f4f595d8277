package pod

import (
	"context"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	genericregistry "k8s.io/apiserver/pkg/registry/generic/registry"
	"k8s.io/apiserver/pkg/registry/rest"
	"sigs.k8s.io/structured-merge-diff/v6/fieldpath"

	"github.com/podvine/podvine/agent/api/kinds"
)

// extend adds the sub-resources of pods, and the old collection of bindings.
func extend(guard DisruptionGuard) func(kinds.Env, *genericregistry.Store, *genericregistry.Store, map[string]rest.Storage) error {
	return func(env kinds.Env, store, status *genericregistry.Store, storage map[string]rest.Storage) error {
		binding := &bindingREST{store: store}
		storage["pods/binding"] = binding
		storage["bindings"] = &legacyBindingREST{binding: binding}
		storage["pods/eviction"] = &evictionREST{store: store, status: status, guard: guard}
		storage["pods/ephemeralcontainers"] = newPartREST(store, ephemeralStrategy{strategyOf(store)})
		storage["pods/resize"] = newPartREST(store, resizeStrategy{strategyOf(store)})

		reach := &reach{pods: store, nodes: env.Nodes}
		storage["pods/log"] = &logREST{reach}
		storage["pods/exec"] = &execREST{reach}
		storage["pods/attach"] = &attachREST{reach}
		storage["pods/portforward"] = &portForwardREST{reach}
		storage["pods/proxy"] = &proxyREST{store}
		return nil
	}
}

func strategyOf(store *genericregistry.Store) rest.RESTUpdateStrategy { return store.UpdateStrategy }

// partREST lets one part of a pod be changed: it reads and updates the stored pod by a strategy that takes over that
// part only. It has no state of its own.
type partREST struct{ store *genericregistry.Store }

func newPartREST(store *genericregistry.Store, strategy rest.RESTUpdateStrategy) *partREST {
	part := *store
	part.UpdateStrategy = strategy
	if reset, ok := strategy.(rest.ResetFieldsStrategy); ok {
		part.ResetFieldsStrategy = reset
	}
	return &partREST{store: &part}
}

// New implements rest.Storage.
func (r *partREST) New() runtime.Object { return &corev1.Pod{} }

// Destroy implements rest.Storage; the main store owns what is to be released.
func (r *partREST) Destroy() {}

// Get implements rest.Getter.
func (r *partREST) Get(ctx context.Context, name string, options *metav1.GetOptions) (runtime.Object, error) {
	return r.store.Get(ctx, name, options)
}

// Update implements rest.Updater. It never creates.
func (r *partREST) Update(ctx context.Context, name string, info rest.UpdatedObjectInfo, create rest.ValidateObjectFunc,
	update rest.ValidateObjectUpdateFunc, _ bool, options *metav1.UpdateOptions) (runtime.Object, bool, error) {
	return r.store.Update(ctx, name, info, create, update, false, options)
}

// GetResetFields implements rest.ResetFieldsStrategy.
func (r *partREST) GetResetFields() map[fieldpath.APIVersion]*fieldpath.Set {
	return r.store.GetResetFields()
}

// ConvertToTable implements rest.TableConvertor.
func (r *partREST) ConvertToTable(ctx context.Context, obj, options runtime.Object) (*metav1.Table, error) {
	return r.store.ConvertToTable(ctx, obj, options)
}

// getPod reads a pod.
func getPod(ctx context.Context, pods rest.Getter, name string) (*corev1.Pod, error) {
	obj, err := pods.Get(ctx, name, &metav1.GetOptions{})
	if err != nil {
		return nil, err
	}
	p, ok := obj.(*corev1.Pod)
	if !ok {
		return nil, fmt.Errorf("unexpected object type: %#v", obj)
	}
	return p, nil
}
