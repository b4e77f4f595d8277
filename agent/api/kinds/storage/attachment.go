package storage

import (
	"context"
	"math"

	storagev1 "k8s.io/api/storage/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/api/validate/content"
	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/podvine/podvine/agent/api/kinds"
	"github.com/podvine/podvine/agent/api/kinds/podspec"
)

const (
	maxAttachedMetadataBytes = 256 * 1024
	maxVolumeErrorBytes      = 1024
	maxAttacherBytes         = 63
	oneSource                = "must specify exactly one of inlineVolumeSpec and persistentVolumeName"
)

func attachments() kinds.Resource {
	type T = *storagev1.VolumeAttachment
	spec, status := storagev1.VolumeAttachmentSpec{}.SwaggerDoc(), storagev1.VolumeAttachmentStatus{}.SwaggerDoc()
	return &kinds.Kind[T]{
		GroupVersion: storagev1.SchemeGroupVersion,
		Kind:         "VolumeAttachment", Resource: "volumeattachments", Singular: "volumeattachment",
		New:     func() T { return &storagev1.VolumeAttachment{} },
		NewList: func() runtime.Object { return &storagev1.VolumeAttachmentList{} },

		Default: func(a T) {
			if inline := a.Spec.Source.InlineVolumeSpec; inline != nil {
				podspec.DefaultPersistentVolumeSpec(inline)
			}
		},
		PrepareForCreate: func(_ context.Context, a T) { a.Status = storagev1.VolumeAttachmentStatus{} },
		Validate: func(_ context.Context, a T) field.ErrorList {
			errs := validateAttacherOfNew(a.Spec.Attacher, field.NewPath("spec", "attacher"))
			return append(errs, validateAttachment(a)...)
		},
		ValidateUpdate: func(_ context.Context, a, old T) field.ErrorList {
			errs := kinds.ValidateObjectMetaUpdate(&a.ObjectMeta, &old.ObjectMeta, field.NewPath("metadata"))
			errs = append(errs, podspec.ValidateCSIDriverName(a.Spec.Attacher, field.NewPath("spec", "attacher"))...)
			errs = append(errs, validateAttachment(a)...)
			if !equality.Semantic.DeepEqual(a.Spec, old.Spec) {
				// The value that Kubernetes shows here is null.
				errs = append(errs, field.Invalid(field.NewPath("spec"), nil, apivalidation.FieldImmutableErrorMsg))
			}
			return errs
		},
		ReturnDeletedObject: true,
		Columns: []kinds.Column[T]{
			kinds.NameColumn[T](),
			{Name: "Attacher", Format: "name", Description: spec["attacher"], Cell: func(a T) any { return a.Spec.Attacher }},
			{Name: "PV", Description: storagev1.VolumeAttachmentSource{}.SwaggerDoc()["persistentVolumeName"], Cell: func(a T) any {
				if a.Spec.Source.PersistentVolumeName == nil {
					return ""
				}
				return *a.Spec.Source.PersistentVolumeName
			}},
			{Name: "Node", Description: spec["nodeName"], Cell: func(a T) any { return a.Spec.NodeName }},
			{Name: "Attached", Type: "boolean", Description: status["attached"], Cell: func(a T) any { return a.Status.Attached }},
			kinds.AgeColumn[T](),
		},
		Status: &kinds.Status[T]{
			PrepareForUpdate: func(_ context.Context, a, old T) {
				metav1.ResetObjectMetaForStatus(a, old)
				a.Spec = old.Spec
			},
			ValidateUpdate: func(_ context.Context, a, old T) field.ErrorList {
				errs := kinds.ValidateObjectMetaUpdate(&a.ObjectMeta, &old.ObjectMeta, field.NewPath("metadata"))
				return append(errs, validateAttachmentStatus(&a.Status, field.NewPath("status"))...)
			},
			ResetFields: []string{"spec", "metadata"},
		},
	}
}

// validateAttacherOfNew checks the attacher of a new object; errors of a changed one read otherwise.
func validateAttacherOfNew(name string, at *field.Path) field.ErrorList {
	if name == "" {
		return field.ErrorList{field.Required(at, "")}
	}
	errs := invalid(at, name, content.IsDNS1123SubdomainCaseless(name))
	if len(name) > maxAttacherBytes {
		errs = append(errs, field.TooLongCharacters(at, name, maxAttacherBytes))
	}
	return errs
}

func validateAttachment(a *storagev1.VolumeAttachment) field.ErrorList {
	errs := kinds.ValidateObjectMeta(&a.ObjectMeta, false, apivalidation.NameIsDNSSubdomain, field.NewPath("metadata"))
	at := field.NewPath("spec")
	errs = append(errs, validateAttachmentSource(&a.Spec.Source, at.Child("source"))...)
	errs = append(errs, invalid(at.Child("nodeName"), a.Spec.NodeName, apivalidation.NameIsDNSSubdomain(a.Spec.NodeName, false))...)
	return append(errs, validateAttachmentStatus(&a.Status, field.NewPath("status"))...)
}

func validateAttachmentSource(s *storagev1.VolumeAttachmentSource, at *field.Path) field.ErrorList {
	var errs field.ErrorList
	if name, own := s.PersistentVolumeName, at.Child("persistentVolumeName"); name != nil {
		if *name == "" {
			errs = append(errs, field.Required(own, "must specify non empty persistentVolumeName"))
		}
		errs = append(errs, invalid(own, *name, apivalidation.NameIsDNSSubdomain(*name, false))...)
	}
	switch {
	case s.InlineVolumeSpec == nil && s.PersistentVolumeName == nil:
		errs = append(errs, field.Required(at, oneSource))
	case s.InlineVolumeSpec != nil && s.PersistentVolumeName != nil:
		errs = append(errs, field.Forbidden(at, oneSource))
	case s.InlineVolumeSpec != nil:
		errs = append(errs, podspec.ValidatePersistentVolumeSpec(s.InlineVolumeSpec, "", true, at.Child("inlineVolumeSpec"))...)
	}
	return errs
}

func validateAttachmentStatus(s *storagev1.VolumeAttachmentStatus, at *field.Path) field.ErrorList {
	var errs field.ErrorList
	size := 0
	for key, value := range s.AttachmentMetadata {
		size += len(key) + len(value)
	}
	if size > maxAttachedMetadataBytes {
		errs = append(errs, field.TooLong(at.Child("attachmentMetadata"), "", maxAttachedMetadataBytes))
	}
	errs = append(errs, validateVolumeError(s.AttachError, at.Child("attachError"))...)
	return append(errs, validateVolumeError(s.DetachError, at.Child("detachError"))...)
}

func validateVolumeError(e *storagev1.VolumeError, at *field.Path) field.ErrorList {
	if e == nil {
		return nil
	}
	var errs field.ErrorList
	if len(e.Message) > maxVolumeErrorBytes {
		errs = append(errs, field.TooLong(at.Child("message"), e.Message, maxVolumeErrorBytes))
	}
	if e.ErrorCode != nil && *e.ErrorCode < 0 {
		errs = append(errs, field.Invalid(at.Child("errorCode"), *e.ErrorCode, validation.InclusiveRangeError(0, math.MaxInt32)))
	}
	return errs
}
