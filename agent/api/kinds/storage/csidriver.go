package storage

import (
	"context"
	"strings"

	storagev1 "k8s.io/api/storage/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/utils/ptr"

	"github.com/podvine/podvine/agent/api/kinds"
)

// Bounds of a driver's times, Kubernetes' own.
const (
	minTokenSeconds  = 10 * 60
	maxTokenSeconds  = 1 << 32
	minPeriodSeconds = 10
)

const tokensInAttributes = "spec.serviceAccountTokenInSecrets is unset; if supported by this CSI driver, set to true to prevent possible logging of tokens in volume attributes"

func drivers() kinds.Resource {
	type T = *storagev1.CSIDriver
	return &kinds.Kind[T]{
		GroupVersion: storagev1.SchemeGroupVersion,
		Kind:         "CSIDriver", Resource: "csidrivers", Singular: "csidriver",
		New:     func() T { return &storagev1.CSIDriver{} },
		NewList: func() runtime.Object { return &storagev1.CSIDriverList{} },

		Default: defaultDriver,
		PrepareForUpdate: func(_ context.Context, d, old T) {
			if !sameMutableFields(&d.Spec, &old.Spec) {
				d.Generation = old.Generation + 1
			}
		},
		Validate: func(_ context.Context, d T) field.ErrorList {
			errs := kinds.ValidateObjectMeta(&d.ObjectMeta, false, apivalidation.NameIsDNSSubdomain, field.NewPath("metadata"))
			return append(errs, validateDriverSpec(&d.Spec, field.NewPath("spec"))...)
		},
		ValidateUpdate: func(_ context.Context, d, old T) field.ErrorList {
			errs := kinds.ValidateObjectMetaUpdate(&d.ObjectMeta, &old.ObjectMeta, field.NewPath("metadata"))
			at := field.NewPath("spec")
			errs = append(errs, apivalidation.ValidateImmutableField(d.Spec.AttachRequired, old.Spec.AttachRequired, at.Child("attachedRequired"))...)
			errs = append(errs, apivalidation.ValidateImmutableField(d.Spec.VolumeLifecycleModes, old.Spec.VolumeLifecycleModes, at.Child("volumeLifecycleModes"))...)
			return append(errs, validateDriverSpec(&d.Spec, at)...)
		},
		WarningsOnCreate:          func(_ context.Context, d T) []string { return driverWarnings(&d.Spec, &storagev1.CSIDriverSpec{}) },
		WarningsOnUpdate:          func(_ context.Context, d, old T) []string { return driverWarnings(&d.Spec, &old.Spec) },
		ForbidUnconditionalUpdate: true,
		ReturnDeletedObject:       true,
		Columns:                   driverColumns(),
	}
}

func defaultDriver(d *storagev1.CSIDriver) {
	setDefault(&d.Spec.AttachRequired, true)
	setDefault(&d.Spec.PodInfoOnMount, false)
	setDefault(&d.Spec.StorageCapacity, false)
	setDefault(&d.Spec.FSGroupPolicy, storagev1.ReadWriteOnceWithFSTypeFSGroupPolicy)
	setDefault(&d.Spec.RequiresRepublish, false)
	setDefault(&d.Spec.SELinuxMount, false)
	setDefault(&d.Spec.PreventPodSchedulingIfMissing, false)
	if len(d.Spec.VolumeLifecycleModes) == 0 {
		d.Spec.VolumeLifecycleModes = []storagev1.VolumeLifecycleMode{storagev1.VolumeLifecyclePersistent}
	}
}

func setDefault[V any](p **V, value V) {
	if *p == nil {
		*p = &value
	}
}

// sameMutableFields compares what counts as a change of the specification.
func sameMutableFields(a, b *storagev1.CSIDriverSpec) bool {
	return equality.Semantic.DeepEqual(a.TokenRequests, b.TokenRequests) && equality.Semantic.DeepEqual(a.RequiresRepublish, b.RequiresRepublish) &&
		equality.Semantic.DeepEqual(a.SELinuxMount, b.SELinuxMount) &&
		equality.Semantic.DeepEqual(a.NodeAllocatableUpdatePeriodSeconds, b.NodeAllocatableUpdatePeriodSeconds) &&
		equality.Semantic.DeepEqual(a.ServiceAccountTokenInSecrets, b.ServiceAccountTokenInSecrets) &&
		equality.Semantic.DeepEqual(a.PreventPodSchedulingIfMissing, b.PreventPodSchedulingIfMissing)
}

func validateDriverSpec(spec *storagev1.CSIDriverSpec, at *field.Path) field.ErrorList {
	var errs field.ErrorList
	if spec.FSGroupPolicy != nil {
		errs = append(errs, notSupported(at.Child("fsGroupPolicy"), *spec.FSGroupPolicy,
			storagev1.FileFSGroupPolicy, storagev1.NoneFSGroupPolicy, storagev1.ReadWriteOnceWithFSTypeFSGroupPolicy)...)
	}
	errs = append(errs, validateTokenRequests(spec.TokenRequests, at.Child("tokenRequests"))...)
	for _, mode := range spec.VolumeLifecycleModes {
		errs = append(errs, notSupported(at.Child("volumeLifecycleModes"), mode, storagev1.VolumeLifecyclePersistent, storagev1.VolumeLifecycleEphemeral)...)
	}
	if s := spec.NodeAllocatableUpdatePeriodSeconds; s != nil && *s < minPeriodSeconds {
		errs = append(errs, field.Invalid(at.Child("nodeAllocatableUpdatePeriodSeconds"), *s, "must be greater than or equal to 10 seconds"))
	}
	if s := spec.ServiceAccountTokenInSecrets; s != nil && len(spec.TokenRequests) == 0 {
		errs = append(errs, field.Invalid(at.Child("serviceAccountTokenInSecrets"), *s, "serviceAccountTokenInSecrets is set but no tokenRequests are specified"))
	}
	return errs
}

func validateTokenRequests(requests []storagev1.TokenRequest, at *field.Path) field.ErrorList {
	var errs field.ErrorList
	seen := map[string]bool{}
	for i, r := range requests {
		if seen[r.Audience] {
			errs = append(errs, field.Duplicate(at.Index(i).Child("audience"), r.Audience))
			continue
		}
		seen[r.Audience] = true
		if r.ExpirationSeconds == nil {
			continue
		}
		own, s := at.Index(i).Child("expirationSeconds"), *r.ExpirationSeconds
		if s < minTokenSeconds {
			errs = append(errs, field.Invalid(own, s, "may not specify a duration less than 10 minutes"))
		}
		if s > maxTokenSeconds {
			errs = append(errs, field.Invalid(own, s, "may not specify a duration larger than 2^32 seconds"))
		}
	}
	return errs
}

func driverWarnings(spec, old *storagev1.CSIDriverSpec) []string {
	changed := old.ServiceAccountTokenInSecrets != nil || !equality.Semantic.DeepEqual(spec.TokenRequests, old.TokenRequests)
	if changed && len(spec.TokenRequests) > 0 && spec.ServiceAccountTokenInSecrets == nil {
		return []string{tokensInAttributes}
	}
	return nil
}

func driverColumns() []kinds.Column[*storagev1.CSIDriver] {
	type T = *storagev1.CSIDriver
	doc := storagev1.CSIDriverSpec{}.SwaggerDoc()
	boolean := func(name, key string, value func(*storagev1.CSIDriverSpec) *bool, fallback bool) kinds.Column[T] {
		return kinds.Column[T]{Name: name, Type: "boolean", Description: doc[key], Cell: func(d T) any { return ptr.Deref(value(&d.Spec), fallback) }}
	}
	return []kinds.Column[T]{
		kinds.NameColumn[T](),
		boolean("AttachRequired", "attachRequired", func(s *storagev1.CSIDriverSpec) *bool { return s.AttachRequired }, true),
		boolean("PodInfoOnMount", "podInfoOnMount", func(s *storagev1.CSIDriverSpec) *bool { return s.PodInfoOnMount }, false),
		boolean("StorageCapacity", "storageCapacity", func(s *storagev1.CSIDriverSpec) *bool { return s.StorageCapacity }, false),
		{Name: "TokenRequests", Description: doc["tokenRequests"], Cell: func(d T) any {
			if len(d.Spec.TokenRequests) == 0 {
				return "<unset>"
			}
			var audiences []string
			for _, r := range d.Spec.TokenRequests {
				audiences = append(audiences, r.Audience)
			}
			return strings.Join(audiences, ",")
		}},
		boolean("RequiresRepublish", "requiresRepublish", func(s *storagev1.CSIDriverSpec) *bool { return s.RequiresRepublish }, false),
		{Name: "Modes", Description: doc["volumeLifecycleModes"], Cell: func(d T) any {
			if len(d.Spec.VolumeLifecycleModes) == 0 {
				return "<none>"
			}
			var modes []string
			for _, m := range d.Spec.VolumeLifecycleModes {
				modes = append(modes, string(m))
			}
			return strings.Join(modes, ",")
		}},
		kinds.AgeColumn[T](),
	}
}
