package namespace

import (
	"context"
	"errors"
	"fmt"
	"slices"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metainternalversion "k8s.io/apimachinery/pkg/apis/meta/internalversion"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/apimachinery/pkg/watch"
	genericregistry "k8s.io/apiserver/pkg/registry/generic/registry"
	"k8s.io/apiserver/pkg/registry/rest"
	"k8s.io/apiserver/pkg/storage"
	storeerr "k8s.io/apiserver/pkg/storage/errors"
	"k8s.io/apiserver/pkg/util/dryrun"
	"sigs.k8s.io/structured-merge-diff/v6/fieldpath"

	"github.com/podvine/podvine/agent/api/kinds"
)

// extend replaces the main storage by one that deletes in two steps, and adds namespaces/finalize.
func extend(_ kinds.Env, store, statusStore *genericregistry.Store, storages map[string]rest.Storage) error {
	for _, s := range []*genericregistry.Store{store, statusStore} {
		s.ShouldDeleteDuringUpdate = shouldDeleteDuringUpdate
	}
	finalized := *store
	finalized.UpdateStrategy = finalizeStrategy{store.UpdateStrategy}
	storages["namespaces"] = &namespaceREST{store: store, names: storages["namespaces"].(*kinds.REST)}
	storages["namespaces/finalize"] = &finalizeREST{store: &finalized}
	return nil
}

// shouldDeleteDuringUpdate keeps a namespace while its spec names a finalizer.
func shouldDeleteDuringUpdate(ctx context.Context, key string, obj, existing runtime.Object) bool {
	return len(obj.(*corev1.Namespace).Spec.Finalizers) == 0 && genericregistry.ShouldDeleteDuringUpdate(ctx, key, obj, existing)
}

// namespaceREST is the main storage. It spells out what it serves, because a namespace collection cannot be deleted.
type namespaceREST struct {
	store *genericregistry.Store
	names *kinds.REST
}

// New implements rest.Storage.
func (r *namespaceREST) New() runtime.Object { return r.store.New() }

// Destroy implements rest.Storage.
func (r *namespaceREST) Destroy() { r.store.Destroy() }

// NamespaceScoped implements rest.Scoper.
func (r *namespaceREST) NamespaceScoped() bool { return r.store.NamespaceScoped() }

// GetSingularName implements rest.SingularNameProvider.
func (r *namespaceREST) GetSingularName() string { return r.store.GetSingularName() }

// ShortNames implements rest.ShortNamesProvider.
func (r *namespaceREST) ShortNames() []string { return r.names.ShortNames() }

// ReadinessCheck implements rest.StorageWithReadiness.
func (r *namespaceREST) ReadinessCheck() error { return r.store.ReadinessCheck() }

// StorageVersion implements rest.StorageVersionProvider.
func (r *namespaceREST) StorageVersion() runtime.GroupVersioner { return r.store.StorageVersion() }

// GetResetFields implements rest.ResetFieldsStrategy.
func (r *namespaceREST) GetResetFields() map[fieldpath.APIVersion]*fieldpath.Set {
	return r.store.GetResetFields()
}

// ConvertToTable implements rest.TableConvertor.
func (r *namespaceREST) ConvertToTable(ctx context.Context, obj, options runtime.Object) (*metav1.Table, error) {
	return r.store.ConvertToTable(ctx, obj, options)
}

// NewList implements rest.Lister.
func (r *namespaceREST) NewList() runtime.Object { return r.store.NewList() }

// List implements rest.Lister.
func (r *namespaceREST) List(ctx context.Context, options *metainternalversion.ListOptions) (runtime.Object, error) {
	return r.store.List(ctx, options)
}

// Watch implements rest.Watcher.
func (r *namespaceREST) Watch(ctx context.Context, options *metainternalversion.ListOptions) (watch.Interface, error) {
	return r.store.Watch(ctx, options)
}

// Get implements rest.Getter.
func (r *namespaceREST) Get(ctx context.Context, name string, options *metav1.GetOptions) (runtime.Object, error) {
	return r.store.Get(ctx, name, options)
}

// Create implements rest.Creater.
func (r *namespaceREST) Create(ctx context.Context, obj runtime.Object, validate rest.ValidateObjectFunc, options *metav1.CreateOptions) (runtime.Object, error) {
	return r.store.Create(ctx, obj, validate, options)
}

// Update implements rest.Updater.
func (r *namespaceREST) Update(ctx context.Context, name string, info rest.UpdatedObjectInfo, create rest.ValidateObjectFunc,
	update rest.ValidateObjectUpdateFunc, force bool, options *metav1.UpdateOptions) (runtime.Object, bool, error) {
	return r.store.Update(ctx, name, info, create, update, force, options)
}

// Delete implements rest.GracefulDeleter: the first call marks the namespace as terminating, and later ones remove it
// once nothing holds it.
func (r *namespaceREST) Delete(ctx context.Context, name string, validate rest.ValidateObjectFunc, options *metav1.DeleteOptions) (runtime.Object, bool, error) {
	obj, err := r.store.Get(ctx, name, &metav1.GetOptions{})
	if err != nil {
		return nil, false, err
	}
	n := obj.(*corev1.Namespace)
	if options == nil {
		options = metav1.NewDeleteOptions(0)
	}
	if err := pinPreconditions(n, options); err != nil {
		return nil, false, err
	}
	if n.DeletionTimestamp.IsZero() {
		terminating, err := r.terminate(ctx, name, validate, options)
		return terminating, false, err
	}
	if len(n.Spec.Finalizers) > 0 {
		return n, false, nil
	}
	return r.store.Delete(ctx, name, validate, options)
}

// pinPreconditions makes sure that both steps of a deletion mean the same namespace.
func pinPreconditions(n *corev1.Namespace, options *metav1.DeleteOptions) error {
	if options.Preconditions == nil {
		options.Preconditions = &metav1.Preconditions{}
	}
	conflict := func(what, wanted, have string) error {
		return apierrors.NewConflict(corev1.Resource("namespaces"), n.Name,
			fmt.Errorf("Precondition failed: %s in precondition: %v, %s in object meta: %v", what, wanted, what, have))
	}
	p := options.Preconditions
	if p.UID == nil {
		p.UID = &n.UID
	} else if *p.UID != n.UID {
		return conflict("UID", string(*p.UID), string(n.UID))
	}
	if p.ResourceVersion != nil && *p.ResourceVersion != n.ResourceVersion {
		return conflict("ResourceVersion", *p.ResourceVersion, n.ResourceVersion)
	}
	return nil
}

func (r *namespaceREST) terminate(ctx context.Context, name string, validate rest.ValidateObjectFunc, options *metav1.DeleteOptions) (runtime.Object, error) {
	key, err := r.store.KeyFunc(ctx, name)
	if err != nil {
		return nil, err
	}
	out := r.store.New()
	mark := func(existing runtime.Object) (runtime.Object, error) {
		n := existing.(*corev1.Namespace)
		if err := validate(ctx, n); err != nil {
			return nil, err
		}
		if n.DeletionTimestamp.IsZero() {
			now := metav1.Now()
			n.DeletionTimestamp = &now
		}
		n.Status.Phase = corev1.NamespaceTerminating
		setPropagation(n, options)
		return n, nil
	}
	preconditions := &storage.Preconditions{UID: options.Preconditions.UID, ResourceVersion: options.Preconditions.ResourceVersion}
	err = r.store.Storage.GuaranteedUpdate(ctx, key, out, false, preconditions, storage.SimpleUpdate(mark), dryrun.IsDryRun(options.DryRun), nil)
	if err == nil {
		return out, nil
	}
	resource := corev1.Resource("namespaces")
	err = storeerr.InterpretUpdateError(storeerr.InterpretGetError(err, resource, name), resource, name)
	var status apierrors.APIStatus
	if !errors.As(err, &status) {
		err = apierrors.NewInternalError(err)
	}
	return nil, err
}

// setPropagation turns the propagation policy into the finalizers that the garbage collector acts on; without a policy
// they stay as they are.
func setPropagation(n *corev1.Namespace, options *metav1.DeleteOptions) {
	set := func(finalizer string, wanted bool) {
		has := slices.Contains(n.Finalizers, finalizer)
		if wanted && !has {
			n.Finalizers = append(slices.Clone(n.Finalizers), finalizer)
		} else if !wanted && has {
			n.Finalizers = slices.DeleteFunc(slices.Clone(n.Finalizers), func(f string) bool { return f == finalizer })
		}
	}
	//nolint:staticcheck // clients may still send the field that the policy replaced
	if orphan := options.OrphanDependents; orphan != nil {
		set(metav1.FinalizerOrphanDependents, *orphan)
		set(metav1.FinalizerDeleteDependents, false)
		return
	}
	if policy := options.PropagationPolicy; policy != nil {
		set(metav1.FinalizerOrphanDependents, *policy == metav1.DeletePropagationOrphan)
		set(metav1.FinalizerDeleteDependents, *policy == metav1.DeletePropagationForeground)
	}
}

// finalizeREST is namespaces/finalize: an update that may change spec.finalizers.
type finalizeREST struct{ store *genericregistry.Store }

// New implements rest.Storage.
func (r *finalizeREST) New() runtime.Object { return r.store.New() }

// Destroy implements rest.Storage; the main store owns what is to be released.
func (r *finalizeREST) Destroy() {}

// Update implements rest.Updater.
func (r *finalizeREST) Update(ctx context.Context, name string, info rest.UpdatedObjectInfo, create rest.ValidateObjectFunc,
	update rest.ValidateObjectUpdateFunc, _ bool, options *metav1.UpdateOptions) (runtime.Object, bool, error) {
	return r.store.Update(ctx, name, info, create, update, false, options)
}

// finalizeStrategy keeps status and lets finalizers change.
type finalizeStrategy struct{ rest.RESTUpdateStrategy }

// AllowCreateOnUpdate implements rest.RESTUpdateStrategy.
func (finalizeStrategy) AllowCreateOnUpdate(context.Context) bool { return false }

// PrepareForUpdate implements rest.RESTUpdateStrategy.
func (finalizeStrategy) PrepareForUpdate(_ context.Context, obj, old runtime.Object) {
	obj.(*corev1.Namespace).Status = old.(*corev1.Namespace).Status
}

// ValidateUpdate implements rest.RESTUpdateStrategy.
func (finalizeStrategy) ValidateUpdate(_ context.Context, obj, old runtime.Object) field.ErrorList {
	return validateFinalizeUpdate(obj.(*corev1.Namespace), old.(*corev1.Namespace))
}
