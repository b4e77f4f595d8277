package pod

import (
	"context"
	"errors"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/validation/field"
	genericapirequest "k8s.io/apiserver/pkg/endpoints/request"
	genericregistry "k8s.io/apiserver/pkg/registry/generic/registry"
	"k8s.io/apiserver/pkg/registry/rest"
	"k8s.io/apiserver/pkg/storage"
	storageerrors "k8s.io/apiserver/pkg/storage/errors"
	"k8s.io/apiserver/pkg/util/dryrun"
)

// bindingREST is pods/binding: it puts a pod on a node. Only the scheduler, and who stands in for it, writes here.
type bindingREST struct{ store *genericregistry.Store }

// New implements rest.Storage.
func (r *bindingREST) New() runtime.Object { return &corev1.Binding{} }

// Destroy implements rest.Storage; the main store owns what is to be released.
func (r *bindingREST) Destroy() {}

// NamespaceScoped implements rest.Scoper.
func (r *bindingREST) NamespaceScoped() bool { return true }

// Create implements rest.NamedCreater.
func (r *bindingREST) Create(ctx context.Context, name string, obj runtime.Object, validate rest.ValidateObjectFunc, options *metav1.CreateOptions) (runtime.Object, error) {
	binding, ok := obj.(*corev1.Binding)
	if !ok {
		return nil, apierrors.NewBadRequest(fmt.Sprintf("not a Binding object: %#v", obj))
	}
	if name != binding.Name {
		return nil, apierrors.NewBadRequest("name in URL does not match name in Binding object")
	}
	if errs := validateBinding(binding); len(errs) > 0 {
		return nil, errs.ToAggregate()
	}
	if validate != nil {
		if err := validate(ctx, binding.DeepCopyObject()); err != nil {
			return nil, err
		}
	}
	if err := r.assign(ctx, binding, dryrun.IsDryRun(options.DryRun)); err != nil {
		return nil, err
	}
	return &metav1.Status{Status: metav1.StatusSuccess}, nil
}

func validateBinding(b *corev1.Binding) field.ErrorList {
	target := field.NewPath("target")
	var errs field.ErrorList
	if b.Target.Kind != "" && b.Target.Kind != "Node" {
		errs = append(errs, field.NotSupported(target.Child("kind"), b.Target.Kind, []string{"Node", "<empty>"}))
	}
	if b.Target.Name == "" {
		errs = append(errs, field.Required(target.Child("name"), ""))
	}
	return errs
}

func (r *bindingREST) assign(ctx context.Context, b *corev1.Binding, dryRun bool) error {
	key, err := r.store.KeyFunc(ctx, b.Name)
	if err != nil {
		return err
	}
	return bindingError(b, r.store.Storage.GuaranteedUpdate(ctx, key, &corev1.Pod{}, false, preconditions(b),
		storage.SimpleUpdate(func(obj runtime.Object) (runtime.Object, error) { return bound(obj, b) }), dryRun, nil))
}

// batchStorage is a storage that updates many objects in one transaction.
type batchStorage interface {
	UpdateAll(ctx context.Context, keys []string, preconditions []*storage.Preconditions,
		update func(i int, input runtime.Object) (runtime.Object, error)) []error
}

// BindAll binds many pods, of any namespaces, with the checks of Create and one error, or nil, for each; in one
// transaction where the storage can.
func (r *bindingREST) BindAll(ctx context.Context, bindings []*corev1.Binding) []error {
	batch, ok := r.store.Storage.Storage.(batchStorage)
	errs := make([]error, len(bindings))
	var keys []string
	var conditions []*storage.Preconditions
	var at []int
	for i, b := range bindings {
		inNamespace := genericapirequest.WithNamespace(ctx, b.Namespace)
		if invalid := validateBinding(b); len(invalid) > 0 {
			errs[i] = invalid.ToAggregate()
			continue
		}
		if !ok {
			errs[i] = r.assign(inNamespace, b, false)
			continue
		}
		key, err := r.store.KeyFunc(inNamespace, b.Name)
		if err != nil {
			errs[i] = err
			continue
		}
		keys, conditions, at = append(keys, key), append(conditions, preconditions(b)), append(at, i)
	}
	if len(keys) == 0 {
		return errs
	}
	for k, err := range batch.UpdateAll(ctx, keys, conditions, func(k int, obj runtime.Object) (runtime.Object, error) {
		return bound(obj, bindings[at[k]])
	}) {
		errs[at[k]] = bindingError(bindings[at[k]], err)
	}
	return errs
}

func bound(obj runtime.Object, b *corev1.Binding) (runtime.Object, error) {
	p, ok := obj.(*corev1.Pod)
	if !ok {
		return nil, fmt.Errorf("unexpected object: %#v", obj)
	}
	return p, bind(p, b)
}

// bindingError words an error of the storage as the API does.
func bindingError(b *corev1.Binding, err error) error {
	if err == nil {
		return nil
	}
	if err = storageerrors.InterpretGetError(err, corev1.Resource("pods"), b.Name); !apierrors.IsNotFound(err) {
		err = storageerrors.InterpretUpdateError(err, corev1.Resource("pods"), b.Name)
	}
	if status := (*apierrors.StatusError)(nil); errors.As(err, &status) {
		return err
	}
	return apierrors.NewConflict(corev1.Resource("pods/binding"), b.Name, err)
}

// preconditions are those that the binding names about the pod.
func preconditions(b *corev1.Binding) *storage.Preconditions {
	if b.UID == "" && b.ResourceVersion == "" {
		return nil
	}
	p := &storage.Preconditions{}
	if b.UID != "" {
		uid := b.UID
		p.UID = &uid
	}
	if b.ResourceVersion != "" {
		version := b.ResourceVersion
		p.ResourceVersion = &version
	}
	return p
}

// bind puts the pod on the binding's node, or says why that cannot be.
func bind(p *corev1.Pod, b *corev1.Binding) error {
	switch {
	case p.DeletionTimestamp != nil:
		return fmt.Errorf("pod %s is being deleted, cannot be assigned to a host", p.Name)
	case p.Spec.NodeName != "":
		return fmt.Errorf("pod %v is already assigned to node %q", p.Name, p.Spec.NodeName)
	case len(p.Spec.SchedulingGates) > 0:
		return fmt.Errorf("pod %v has non-empty .spec.schedulingGates", p.Name)
	}
	p.Spec.NodeName = b.Target.Name
	p.Status.NominatedNodeName = "" // it has its node
	for key, value := range b.Annotations {
		if p.Annotations == nil {
			p.Annotations = map[string]string{}
		}
		p.Annotations[key] = value
	}
	for key, value := range b.Labels {
		if p.Labels == nil {
			p.Labels = map[string]string{}
		}
		p.Labels[key] = value
	}
	setCondition(&p.Status, corev1.PodCondition{Type: corev1.PodScheduled, Status: corev1.ConditionTrue, LastTransitionTime: metav1.Now()})
	return nil
}

// legacyBindingREST is the collection "bindings", the form that bindings had before they were part of a pod.
type legacyBindingREST struct{ binding *bindingREST }

// New implements rest.Storage.
func (r *legacyBindingREST) New() runtime.Object { return &corev1.Binding{} }

// Destroy implements rest.Storage; the main store owns what is to be released.
func (r *legacyBindingREST) Destroy() {}

// NamespaceScoped implements rest.Scoper.
func (r *legacyBindingREST) NamespaceScoped() bool { return true }

// GetSingularName implements rest.SingularNameProvider.
func (r *legacyBindingREST) GetSingularName() string { return "binding" }

// Create implements rest.Creater.
func (r *legacyBindingREST) Create(ctx context.Context, obj runtime.Object, validate rest.ValidateObjectFunc, options *metav1.CreateOptions) (runtime.Object, error) {
	binding, ok := obj.(*corev1.Binding)
	if !ok {
		return nil, apierrors.NewBadRequest(fmt.Sprintf("not a Binding object: %#v", obj))
	}
	return r.binding.Create(ctx, binding.Name, binding, validate, options)
}
