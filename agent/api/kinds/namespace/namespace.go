// Package namespace is the kind Namespace, with its finalize sub-resource and its deletion in two steps: the first
// DELETE only marks a namespace as terminating, and it goes when its last finalizer does. It holds no state.
package namespace

import (
	"context"
	"slices"

	corev1 "k8s.io/api/core/v1"
	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/podvine/podvine/agent/api/kinds"
)

// Resource returns the kind Namespace.
func Resource() kinds.Resource {
	return &kinds.Kind[*corev1.Namespace]{
		GroupVersion: corev1.SchemeGroupVersion,
		Kind:         "Namespace", Resource: "namespaces", Singular: "namespace", ShortNames: []string{"ns"},
		New:     func() *corev1.Namespace { return &corev1.Namespace{} },
		NewList: func() runtime.Object { return &corev1.NamespaceList{} },

		Default:          setDefaults,
		Canonicalize:     setNameLabel,
		PrepareForCreate: func(_ context.Context, n *corev1.Namespace) { prepareForCreate(n) },
		PrepareForUpdate: func(_ context.Context, n, old *corev1.Namespace) { n.Spec.Finalizers = old.Spec.Finalizers },
		Validate:         func(_ context.Context, n *corev1.Namespace) field.ErrorList { return validate(n) },
		ValidateUpdate: func(_ context.Context, n, old *corev1.Namespace) field.ErrorList {
			return append(validate(n), kinds.ValidateObjectMetaUpdate(&n.ObjectMeta, &old.ObjectMeta, field.NewPath("metadata"))...)
		},

		FieldLabels: []string{"status.phase", "name"},
		Fields: func(n *corev1.Namespace) fields.Set {
			return fields.Set{"status.phase": string(n.Status.Phase), "name": n.Name}
		},

		Columns: []kinds.Column[*corev1.Namespace]{
			kinds.NameColumn[*corev1.Namespace](),
			{Name: "Status", Description: "The status of the namespace", Cell: func(n *corev1.Namespace) any { return string(n.Status.Phase) }},
			kinds.AgeColumn[*corev1.Namespace](),
		},
		Status: &kinds.Status[*corev1.Namespace]{
			ValidateUpdate: func(_ context.Context, n, old *corev1.Namespace) field.ErrorList { return validateStatusUpdate(n, old) },
		},
		Extend: extend,
	}
}

func setDefaults(n *corev1.Namespace) {
	setNameLabel(n)
	if n.Status.Phase == "" {
		n.Status.Phase = corev1.NamespaceActive
	}
}

// setNameLabel labels the namespace with its name, which selectors rely on; a name that is yet to be generated is
// filled in before storing.
func setNameLabel(n *corev1.Namespace) {
	if n.Name == "" {
		return
	}
	if n.Labels == nil {
		n.Labels = map[string]string{}
	}
	n.Labels[corev1.LabelMetadataName] = n.Name
}

func prepareForCreate(n *corev1.Namespace) {
	n.Status = corev1.NamespaceStatus{Phase: corev1.NamespaceActive}
	if !slices.Contains(n.Spec.Finalizers, corev1.FinalizerKubernetes) {
		n.Spec.Finalizers = append(n.Spec.Finalizers, corev1.FinalizerKubernetes)
	}
}

func validate(n *corev1.Namespace) field.ErrorList {
	errs := kinds.ValidateObjectMeta(&n.ObjectMeta, false, apivalidation.ValidateNamespaceName, field.NewPath("metadata"))
	for _, finalizer := range n.Spec.Finalizers {
		errs = append(errs, kinds.ValidateFinalizerName(string(finalizer), field.NewPath("spec", "finalizers"))...)
	}
	return errs
}

func validateStatusUpdate(n, old *corev1.Namespace) field.ErrorList {
	errs := kinds.ValidateObjectMetaUpdate(&n.ObjectMeta, &old.ObjectMeta, field.NewPath("metadata"))
	phase := field.NewPath("status", "Phase")
	if n.DeletionTimestamp.IsZero() && n.Status.Phase != corev1.NamespaceActive {
		errs = append(errs, field.Invalid(phase, n.Status.Phase, "may only be 'Active' if `deletionTimestamp` is empty"))
	}
	if !n.DeletionTimestamp.IsZero() && n.Status.Phase != corev1.NamespaceTerminating {
		errs = append(errs, field.Invalid(phase, n.Status.Phase, "may only be 'Terminating' if `deletionTimestamp` is not empty"))
	}
	return errs
}

func validateFinalizeUpdate(n, old *corev1.Namespace) field.ErrorList {
	errs := kinds.ValidateObjectMetaUpdate(&n.ObjectMeta, &old.ObjectMeta, field.NewPath("metadata"))
	for i, finalizer := range n.Spec.Finalizers {
		errs = append(errs, kinds.ValidateFinalizerName(string(finalizer), field.NewPath("spec", "finalizers").Index(i))...)
	}
	return errs
}
