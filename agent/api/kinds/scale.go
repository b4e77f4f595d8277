package kinds

import (
	"context"
	"fmt"

	autoscalingv1 "k8s.io/api/autoscaling/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/managedfields"
	"k8s.io/apimachinery/pkg/util/validation/field"
	genericregistry "k8s.io/apiserver/pkg/registry/generic/registry"
	"k8s.io/apiserver/pkg/registry/rest"
	"sigs.k8s.io/structured-merge-diff/v6/fieldpath"
)

// scaleREST is the /scale sub-resource: an autoscaling/v1 Scale made from, and written back to, the parent object.
type scaleREST[T Object] struct {
	kind  *Kind[T]
	store *genericregistry.Store
	// replicas says where each version of the parent keeps spec.replicas, for the ownership of that field.
	replicas managedfields.ResourcePathMappings
}

func newScaleREST[T Object](kind *Kind[T], store *genericregistry.Store) *scaleREST[T] {
	return &scaleREST[T]{kind: kind, store: store, replicas: managedfields.ResourcePathMappings{
		kind.GroupVersion.String(): fieldpath.MakePathOrDie("spec", "replicas")}}
}

// New implements rest.Storage.
func (r *scaleREST[T]) New() runtime.Object { return &autoscalingv1.Scale{} }

// Destroy implements rest.Storage; the main store owns what is to be released.
func (r *scaleREST[T]) Destroy() {}

// GroupVersionKind implements rest.GroupVersionKindProvider.
func (r *scaleREST[T]) GroupVersionKind(schema.GroupVersion) schema.GroupVersionKind {
	return autoscalingv1.SchemeGroupVersion.WithKind("Scale")
}

// Get implements rest.Getter.
func (r *scaleREST[T]) Get(ctx context.Context, name string, options *metav1.GetOptions) (runtime.Object, error) {
	obj, err := r.store.Get(ctx, name, options)
	if err != nil {
		return nil, err
	}
	return r.scaleOf(obj)
}

// ConvertToTable implements rest.TableConvertor.
func (r *scaleREST[T]) ConvertToTable(ctx context.Context, obj, options runtime.Object) (*metav1.Table, error) {
	return rest.NewDefaultTableConvertor(schema.GroupResource{Group: autoscalingv1.GroupName, Resource: "scale"}).ConvertToTable(ctx, obj, options)
}

// Update implements rest.Updater: only the replicas, and the object's metadata preconditions, come from the Scale.
func (r *scaleREST[T]) Update(ctx context.Context, name string, info rest.UpdatedObjectInfo, create rest.ValidateObjectFunc,
	update rest.ValidateObjectUpdateFunc, _ bool, options *metav1.UpdateOptions) (runtime.Object, bool, error) {
	obj, _, err := r.store.Update(ctx, name, &scaleUpdate[T]{scale: r, info: info}, r.createValidation(create), r.updateValidation(update), false, options)
	if err != nil {
		return nil, false, err
	}
	scale, err := r.scaleOf(obj)
	return scale, false, err
}

func (r *scaleREST[T]) scaleOf(obj runtime.Object) (*autoscalingv1.Scale, error) {
	parent, ok := obj.(T)
	if !ok {
		return nil, apierrors.NewInternalError(fmt.Errorf("scale %T, which is no %s", obj, r.kind.Kind))
	}
	spec, status, selector, err := r.kind.Scale.Get(parent)
	if err != nil {
		return nil, apierrors.NewBadRequest(err.Error())
	}
	return &autoscalingv1.Scale{
		ObjectMeta: metav1.ObjectMeta{
			Name: parent.GetName(), Namespace: parent.GetNamespace(), UID: parent.GetUID(),
			ResourceVersion: parent.GetResourceVersion(), CreationTimestamp: parent.GetCreationTimestamp()},
		Spec:   autoscalingv1.ScaleSpec{Replicas: spec},
		Status: autoscalingv1.ScaleStatus{Replicas: status, Selector: selector},
	}, nil
}

func (r *scaleREST[T]) createValidation(next rest.ValidateObjectFunc) rest.ValidateObjectFunc {
	return func(ctx context.Context, obj runtime.Object) error {
		scale, err := r.scaleOf(obj)
		if err != nil || next == nil {
			return err
		}
		return next(ctx, scale)
	}
}

func (r *scaleREST[T]) updateValidation(next rest.ValidateObjectUpdateFunc) rest.ValidateObjectUpdateFunc {
	return func(ctx context.Context, obj, old runtime.Object) error {
		scale, err := r.scaleOf(obj)
		if err != nil || next == nil {
			return err
		}
		was, err := r.scaleOf(old)
		if err != nil {
			return err
		}
		return next(ctx, scale, was)
	}
}

// scaleUpdate turns the update of a Scale into one of its parent.
type scaleUpdate[T Object] struct {
	scale *scaleREST[T]
	info  rest.UpdatedObjectInfo
}

// Preconditions implements rest.UpdatedObjectInfo.
func (u *scaleUpdate[T]) Preconditions() *metav1.Preconditions { return u.info.Preconditions() }

// UpdatedObject implements rest.UpdatedObjectInfo.
func (u *scaleUpdate[T]) UpdatedObject(ctx context.Context, old runtime.Object) (runtime.Object, error) {
	r := u.scale
	parent := old.DeepCopyObject().(T)
	owners := managedfields.NewScaleHandler(parent.GetManagedFields(), r.kind.GroupVersion, r.replicas)
	managed, err := owners.ToSubresource()
	if err != nil {
		return nil, err
	}
	was, err := r.scaleOf(parent)
	if err != nil {
		return nil, err
	}
	was.ManagedFields = managed
	wanted, err := u.info.UpdatedObject(ctx, was)
	if err != nil {
		return nil, err
	}
	scale, ok := wanted.(*autoscalingv1.Scale)
	if !ok {
		return nil, apierrors.NewBadRequest(fmt.Sprintf("expected input object type to be Scale, but %T", wanted))
	}
	if errs := validateScale(scale); len(errs) > 0 {
		return nil, apierrors.NewInvalid(schema.GroupKind{Group: autoscalingv1.GroupName, Kind: "Scale"}, parent.GetName(), errs)
	}
	if scale.UID != "" && scale.UID != parent.GetUID() {
		return nil, apierrors.NewConflict(r.kind.GVR().GroupResource(), parent.GetName(),
			fmt.Errorf("Precondition failed: UID in precondition: %v, UID in object meta: %v", scale.UID, parent.GetUID()))
	}
	r.kind.Scale.Set(parent, scale.Spec.Replicas)
	parent.SetResourceVersion(scale.ResourceVersion)
	entries, err := owners.ToParent(scale.ManagedFields)
	if err != nil {
		return nil, err
	}
	parent.SetManagedFields(entries)
	return parent, nil
}

func validateScale(scale *autoscalingv1.Scale) field.ErrorList {
	errs := apivalidation.ValidateObjectMeta(&scale.ObjectMeta, true, apivalidation.NameIsDNSSubdomain, field.NewPath("metadata"))
	return append(errs, apivalidation.ValidateNonnegativeField(int64(scale.Spec.Replicas), field.NewPath("spec", "replicas"))...)
}
