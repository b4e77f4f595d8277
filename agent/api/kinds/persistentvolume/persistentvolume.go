// Package persistentvolume serves v1 PersistentVolume: storage that claims are bound to.
//
// Here are the defaults, the rules and the columns; nothing binds volumes to claims yet. A volume is kept from going
// while a claim has it by a finalizer that is set here and taken away by agent/control/protection. Everything is a pure
// function and safe for concurrent use. Test with `go test ./agent/api/kinds/persistentvolume`.
package persistentvolume

import (
	"context"
	"fmt"
	"slices"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/diff"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/component-helpers/storage/volume"
	"k8s.io/utils/ptr"

	"github.com/podvine/podvine/agent/api/kinds"
	"github.com/podvine/podvine/agent/api/kinds/podspec"
)

// protection keeps a volume while a claim has it.
const protection = "kubernetes.io/pv-protection"

// Resource returns the kind.
func Resource() kinds.Resource {
	type T = *corev1.PersistentVolume
	return &kinds.Kind[T]{
		GroupVersion: corev1.SchemeGroupVersion,
		Kind:         "PersistentVolume", Resource: "persistentvolumes", Singular: "persistentvolume", ShortNames: []string{"pv"},
		New:     func() T { return &corev1.PersistentVolume{} },
		NewList: func() runtime.Object { return &corev1.PersistentVolumeList{} },

		Default: setDefaults,
		PrepareForCreate: func(_ context.Context, v T) {
			v.Status = corev1.PersistentVolumeStatus{Phase: corev1.VolumePending, LastPhaseTransitionTime: ptr.To(metav1.Now())}
			if !slices.Contains(v.Finalizers, protection) {
				v.Finalizers = append(v.Finalizers, protection)
			}
		},
		Validate:            func(_ context.Context, v T) field.ErrorList { return validate(v) },
		ValidateUpdate:      func(_ context.Context, v, old T) field.ErrorList { return validateUpdate(v, old) },
		WarningsOnCreate:    func(_ context.Context, v T) []string { return podspec.PersistentVolumeWarnings(v) },
		WarningsOnUpdate:    func(_ context.Context, v, _ T) []string { return podspec.PersistentVolumeWarnings(v) },
		ReturnDeletedObject: true,
		Columns:             columns(),
		Status: &kinds.Status[T]{
			PrepareForUpdate: prepareForStatusUpdate,
			ValidateUpdate: func(_ context.Context, v, old T) field.ErrorList {
				return kinds.ValidateObjectMetaUpdate(&v.ObjectMeta, &old.ObjectMeta, field.NewPath("metadata"))
			},
		},
	}
}

func setDefaults(v *corev1.PersistentVolume) {
	podspec.DefaultPersistentVolumeSpec(&v.Spec)
	if v.Status.Phase == "" {
		v.Status.Phase = corev1.VolumePending
	}
	if v.Spec.PersistentVolumeReclaimPolicy == "" {
		v.Spec.PersistentVolumeReclaimPolicy = corev1.PersistentVolumeReclaimRetain
	}
	if v.Spec.VolumeMode == nil {
		v.Spec.VolumeMode = ptr.To(corev1.PersistentVolumeFilesystem)
	}
}

// prepareForStatusUpdate notes when the phase changed, where the client does not say.
func prepareForStatusUpdate(_ context.Context, v, old *corev1.PersistentVolume) {
	v.Spec = old.Spec
	now, was := &v.Status, &old.Status
	switch {
	case now.Phase == was.Phase && now.LastPhaseTransitionTime == nil:
		now.LastPhaseTransitionTime = was.LastPhaseTransitionTime
	case now.Phase != was.Phase && (now.LastPhaseTransitionTime == nil || now.LastPhaseTransitionTime.Equal(was.LastPhaseTransitionTime)):
		now.LastPhaseTransitionTime = ptr.To(metav1.Now())
	}
}

func validate(v *corev1.PersistentVolume) field.ErrorList {
	errs := kinds.ValidateObjectMeta(&v.ObjectMeta, false, apivalidation.NameIsDNSSubdomain, field.NewPath("metadata"))
	return append(errs, podspec.ValidatePersistentVolumeSpec(&v.Spec, v.Name, false, field.NewPath("spec"))...)
}

func validateUpdate(v, old *corev1.PersistentVolume) field.ErrorList {
	errs := append(validate(v), kinds.ValidateObjectMetaUpdate(&v.ObjectMeta, &old.ObjectMeta, field.NewPath("metadata"))...)
	now, was := v.Spec.PersistentVolumeSource.DeepCopy(), &old.Spec.PersistentVolumeSource
	if now.CSI != nil && was.CSI != nil { // what was never set may be set once
		if was.CSI.ControllerExpandSecretRef == nil {
			now.CSI.ControllerExpandSecretRef = nil
		}
		if was.CSI.NodeExpandSecretRef == nil {
			now.CSI.NodeExpandSecretRef = nil
		}
	}
	if !equality.Semantic.DeepEqual(now, was) {
		errs = append(errs, field.Forbidden(field.NewPath("spec", "persistentvolumesource"), fmt.Sprintf("spec.persistentvolumesource is immutable after creation\n%v",
			diff.Diff(podspec.InternalView(was), podspec.InternalView(now)))))
	}
	errs = append(errs, apivalidation.ValidateImmutableField(v.Spec.VolumeMode, old.Spec.VolumeMode, field.NewPath("volumeMode"))...)
	if a := old.Spec.NodeAffinity; a != nil && !equality.Semantic.DeepEqual(renamed(a), renamed(v.Spec.NodeAffinity)) {
		errs = append(errs, field.Invalid(field.NewPath("nodeAffinity"), podspec.InternalView(v.Spec.NodeAffinity),
			apivalidation.FieldImmutableErrorMsg+", except for updating from beta label to GA"))
	}
	if old.Spec.VolumeAttributesClassName != nil && v.Spec.VolumeAttributesClassName == nil {
		errs = append(errs, field.Forbidden(field.NewPath("spec", "volumeAttributesClassName"), "update from non-nil value to nil is forbidden"))
	}
	return errs
}

// renamed is an affinity with the newer names of the labels that may be exchanged for the older ones.
func renamed(affinity *corev1.VolumeNodeAffinity) *corev1.VolumeNodeAffinity {
	if affinity == nil || affinity.Required == nil {
		return affinity
	}
	names := map[string]string{
		corev1.LabelFailureDomainBetaZone: corev1.LabelTopologyZone, corev1.LabelFailureDomainBetaRegion: corev1.LabelTopologyRegion,
		corev1.LabelInstanceType: corev1.LabelInstanceTypeStable, "beta.kubernetes.io/os": corev1.LabelOSStable, "beta.kubernetes.io/arch": corev1.LabelArchStable,
	}
	out := affinity.DeepCopy()
	for i := range out.Required.NodeSelectorTerms {
		for j := range out.Required.NodeSelectorTerms[i].MatchExpressions {
			e := &out.Required.NodeSelectorTerms[i].MatchExpressions[j]
			if name, ok := names[e.Key]; ok {
				e.Key = name
			}
		}
	}
	return out
}

func columns() []kinds.Column[*corev1.PersistentVolume] {
	type T = *corev1.PersistentVolume
	spec, status := corev1.PersistentVolumeSpec{}.SwaggerDoc(), corev1.PersistentVolumeStatus{}.SwaggerDoc()
	return []kinds.Column[T]{
		kinds.NameColumn[T](),
		{Name: "Capacity", Description: spec["capacity"], Cell: func(v T) any {
			size := v.Spec.Capacity[corev1.ResourceStorage]
			return size.String()
		}},
		{Name: "Access Modes", Description: spec["accessModes"], Cell: func(v T) any { return podspec.ShortAccessModes(v.Spec.AccessModes) }},
		{Name: "Reclaim Policy", Description: spec["persistentVolumeReclaimPolicy"], Cell: func(v T) any { return string(v.Spec.PersistentVolumeReclaimPolicy) }},
		{Name: "Status", Description: status["phase"], Cell: func(v T) any {
			if v.DeletionTimestamp != nil {
				return "Terminating"
			}
			return string(v.Status.Phase)
		}},
		{Name: "Claim", Description: spec["claimRef"], Cell: func(v T) any {
			if v.Spec.ClaimRef == nil {
				return ""
			}
			return v.Spec.ClaimRef.Namespace + "/" + v.Spec.ClaimRef.Name
		}},
		{Name: "StorageClass", Description: "Name of StorageClass to which this persistent volume belongs.", Cell: func(v T) any { return volume.GetPersistentVolumeClass(v) }},
		{Name: "VolumeAttributesClass", Description: spec["volumeAttributesClassName"], Cell: func(v T) any { return podspec.OrUnset(v.Spec.VolumeAttributesClassName) }},
		{Name: "Reason", Description: status["reason"], Cell: func(v T) any { return v.Status.Reason }},
		kinds.AgeColumn[T](),
		{Name: "VolumeMode", Priority: 1, Description: spec["volumeMode"], Cell: func(v T) any { return string(podspec.OrUnset(v.Spec.VolumeMode)) }},
	}
}
