package kinds

import (
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/api/meta"
	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// ValidateObjectMeta reports the errors of metadata as the built-in kinds do: beside what holds for every object, a
// finalizer is one of Kubernetes' own or has a domain.
func ValidateObjectMeta(meta *metav1.ObjectMeta, namespaced bool, name apivalidation.ValidateNameFunc, path *field.Path) field.ErrorList {
	errs := apivalidation.ValidateObjectMeta(meta, namespaced, name, path)
	for i, finalizer := range meta.Finalizers {
		errs = append(errs, validateStandardFinalizer(finalizer, path.Child("finalizers").Index(i))...)
	}
	return errs
}

// ValidateObjectMetaUpdate reports the errors of a change of metadata.
func ValidateObjectMetaUpdate(meta, old *metav1.ObjectMeta, path *field.Path) field.ErrorList {
	errs := apivalidation.ValidateObjectMetaUpdate(meta, old, path)
	for i, finalizer := range meta.Finalizers {
		errs = append(errs, validateStandardFinalizer(finalizer, path.Child("finalizers").Index(i))...)
	}
	return errs
}

// ValidateFinalizerName reports the errors of one finalizer.
func ValidateFinalizerName(finalizer string, path *field.Path) field.ErrorList {
	return append(apivalidation.ValidateFinalizerName(finalizer, path), validateStandardFinalizer(finalizer, path)...)
}

func validateStandardFinalizer(finalizer string, path *field.Path) field.ErrorList {
	if strings.Contains(finalizer, "/") {
		return nil
	}
	switch finalizer {
	case string(corev1.FinalizerKubernetes), metav1.FinalizerOrphanDependents, metav1.FinalizerDeleteDependents:
		return nil
	}
	return field.ErrorList{field.Invalid(path, finalizer, "name is neither a standard finalizer name nor is it fully qualified")}
}

// OnlyCollected says that an update changes nothing but what garbage collection changes: owners and finalizers.
func OnlyCollected(obj, old runtime.Object) bool {
	copied := obj.DeepCopyObject()
	to, err := meta.Accessor(copied)
	if err != nil {
		return false
	}
	from, err := meta.Accessor(old)
	if err != nil {
		return false
	}
	to.SetOwnerReferences(from.GetOwnerReferences())
	to.SetFinalizers(from.GetFinalizers())
	to.SetManagedFields(from.GetManagedFields())
	return equality.Semantic.DeepEqual(copied, old)
}
