// Package persistentvolumeclaim serves v1 PersistentVolumeClaim: a user's wish for storage that outlives pods.
//
// Here are the defaults, the rules and the columns; nothing binds claims to volumes yet. A claim is kept from going
// while pods use it by a finalizer that is set here and taken away by agent/control/volumes. Everything is a pure
// function and safe for concurrent use. Test with `go test ./agent/api/kinds/persistentvolumeclaim`.
package persistentvolumeclaim

import (
	"context"
	"fmt"
	"maps"
	"slices"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/diff"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/component-helpers/storage/volume"

	"github.com/podvine/podvine/agent/api/kinds"
	"github.com/podvine/podvine/agent/api/kinds/podspec"
)

// protection keeps a claim while pods use it.
const protection = "kubernetes.io/pvc-protection"

// Resource returns the kind.
func Resource() kinds.Resource {
	return &kinds.Kind[*corev1.PersistentVolumeClaim]{
		GroupVersion:     corev1.SchemeGroupVersion,
		Kind:             "PersistentVolumeClaim",
		Resource:         "persistentvolumeclaims",
		Singular:         "persistentvolumeclaim",
		ShortNames:       []string{"pvc"},
		Namespaced:       true,
		New:              func() *corev1.PersistentVolumeClaim { return &corev1.PersistentVolumeClaim{} },
		NewList:          func() runtime.Object { return &corev1.PersistentVolumeClaimList{} },
		Default:          setDefaults,
		PrepareForCreate: prepareForCreate,
		PrepareForUpdate: prepareForUpdate,
		Validate: func(_ context.Context, c *corev1.PersistentVolumeClaim) field.ErrorList {
			return validate(c, false)
		},
		ValidateUpdate: validateUpdate,
		WarningsOnCreate: func(_ context.Context, c *corev1.PersistentVolumeClaim) []string {
			return podspec.ClaimWarnings(&c.Spec, field.NewPath("spec"))
		},
		WarningsOnUpdate: func(_ context.Context, c, _ *corev1.PersistentVolumeClaim) []string {
			return podspec.ClaimWarnings(&c.Spec, field.NewPath("spec"))
		},
		ReturnDeletedObject: true,
		Columns:             columns(),
		Status: &kinds.Status[*corev1.PersistentVolumeClaim]{
			PrepareForUpdate: func(_ context.Context, c, old *corev1.PersistentVolumeClaim) {
				c.Spec = old.Spec
				if old.Status.HealthStatus == nil {
					c.Status.HealthStatus = nil // not on by default
				}
			},
			ValidateUpdate: validateStatusUpdate,
		},
	}
}

func setDefaults(c *corev1.PersistentVolumeClaim) {
	podspec.DefaultClaimSpec(&c.Spec)
	if c.Status.Phase == "" {
		c.Status.Phase = corev1.ClaimPending
	}
}

func prepareForCreate(_ context.Context, c *corev1.PersistentVolumeClaim) {
	c.Status = corev1.PersistentVolumeClaimStatus{Phase: corev1.ClaimPending}
	dropCrossNamespace(&c.Spec)
	matchSources(&c.Spec)
	if !slices.Contains(c.Finalizers, protection) {
		c.Finalizers = append(c.Finalizers, protection)
	}
}

func prepareForUpdate(_ context.Context, c, old *corev1.PersistentVolumeClaim) {
	if old.Spec.DataSourceRef == nil || old.Spec.DataSourceRef.Namespace == nil {
		dropCrossNamespace(&c.Spec)
	}
	// A client that knows one of the two sources only leaves the other away.
	if old.Spec.DataSource != nil && old.Spec.DataSourceRef != nil {
		matchSources(&c.Spec)
	}
}

// dropCrossNamespace takes the namespace of the source away: sources of other namespaces are not on by default.
func dropCrossNamespace(spec *corev1.PersistentVolumeClaimSpec) {
	if spec.DataSourceRef != nil {
		spec.DataSourceRef.Namespace = nil
	}
}

// matchSources fills the one of the two sources that is missing. Of the older one, only claims and snapshots are kept.
func matchSources(spec *corev1.PersistentVolumeClaimSpec) {
	if s := spec.DataSource; s != nil && spec.DataSourceRef == nil && !olderKind(s) {
		spec.DataSource = nil
		return
	}
	switch s, ref := spec.DataSource, spec.DataSourceRef; {
	case s != nil && ref == nil:
		spec.DataSourceRef = &corev1.TypedObjectReference{APIGroup: s.APIGroup, Kind: s.Kind, Name: s.Name}
	case s == nil && ref != nil && ref.Namespace == nil:
		spec.DataSource = &corev1.TypedLocalObjectReference{APIGroup: ref.APIGroup, Kind: ref.Kind, Name: ref.Name}
	}
}

func olderKind(s *corev1.TypedLocalObjectReference) bool {
	group := ""
	if s.APIGroup != nil {
		group = *s.APIGroup
	}
	return s.Kind == "PersistentVolumeClaim" && group == "" || s.Kind == "VolumeSnapshot" && group == "snapshot.storage.k8s.io"
}

// validate reports the errors of a claim. An old one may have sources of groups that are no names.
func validate(c *corev1.PersistentVolumeClaim, old bool) field.ErrorList {
	errs := kinds.ValidateObjectMeta(&c.ObjectMeta, true, apivalidation.NameIsDNSSubdomain, field.NewPath("metadata"))
	at := field.NewPath("spec")
	errs = append(errs, podspec.ValidateClaimSpec(&c.Spec, old, at)...)
	if s, ref := c.Spec.DataSource, c.Spec.DataSourceRef; s != nil && ref != nil && ref.Namespace == nil {
		same := corev1.TypedObjectReference{APIGroup: s.APIGroup, Kind: s.Kind, Name: s.Name}
		if !equality.Semantic.DeepEqual(&same, ref) {
			errs = append(errs, field.Invalid(at, at.Child("dataSource"), "must match dataSourceRef"))
		}
	}
	return errs
}

// validateUpdate: a claim stays what it was, but that it may be bound, and that a bound one may grow.
func validateUpdate(_ context.Context, c, old *corev1.PersistentVolumeClaim) field.ErrorList {
	errs := validate(c, true)
	errs = append(errs, kinds.ValidateObjectMetaUpdate(&c.ObjectMeta, &old.ObjectMeta, field.NewPath("metadata"))...)
	at := field.NewPath("spec")
	now, was := c.Spec.DeepCopy(), old.Spec.DeepCopy()
	if was.VolumeName == "" {
		was.VolumeName = now.VolumeName
	}
	if class := corev1.BetaStorageClassAnnotation; was.StorageClassName == nil && old.Annotations[class] == c.Annotations[class] && c.Annotations[class] == "" {
		was.StorageClassName = now.StorageClassName // the default class that came later
	}
	if c.Status.Phase == corev1.ClaimBound {
		if now.Resources.Requests != nil {
			now.Resources.Requests[corev1.ResourceStorage] = was.Resources.Requests[corev1.ResourceStorage]
		}
		now.VolumeAttributesClassName = was.VolumeAttributesClassName
	}
	if !equality.Semantic.DeepEqual(now, was) {
		errs = append(errs, field.Forbidden(at, fmt.Sprintf("spec is immutable after creation except resources.requests and volumeAttributesClassName for bound claims\n%v",
			diff.Diff(podspec.InternalView(was), podspec.InternalView(now)))))
	}
	size, before := c.Spec.Resources.Requests[corev1.ResourceStorage], old.Spec.Resources.Requests[corev1.ResourceStorage]
	if real := old.Status.Capacity[corev1.ResourceStorage]; size.Cmp(before) < 0 && size.Cmp(real) <= 0 {
		errs = append(errs, field.Forbidden(at.Child("resources", "requests", "storage"), "field can not be less than status.capacity"))
	}
	errs = append(errs, apivalidation.ValidateImmutableField(c.Spec.VolumeMode, old.Spec.VolumeMode, at.Child("volumeMode"))...)
	if old.Spec.VolumeAttributesClassName != nil && c.Spec.VolumeAttributesClassName == nil {
		errs = append(errs, field.Forbidden(at.Child("volumeAttributesClassName"), "update from non-nil value to nil is forbidden"))
	}
	return errs
}

func validateStatusUpdate(_ context.Context, c, old *corev1.PersistentVolumeClaim) field.ErrorList {
	errs := kinds.ValidateObjectMetaUpdate(&c.ObjectMeta, &old.ObjectMeta, field.NewPath("metadata"))
	at := field.NewPath("status")
	amounts := func(list corev1.ResourceList, at *field.Path) {
		for _, name := range slices.Sorted(maps.Keys(list)) {
			errs = append(errs, podspec.ValidateQuantity(name, list[name], at.Key(string(name)))...)
		}
	}
	amounts(c.Status.Capacity, at.Child("capacity"))
	amounts(c.Status.AllocatedResources, at.Child("allocatedResources"))
	for _, name := range slices.Sorted(maps.Keys(c.Status.AllocatedResources)) {
		if name != corev1.ResourceStorage {
			errs = append(errs, field.NotSupported(at.Child("allocatedResources"), name, []corev1.ResourceName{corev1.ResourceStorage}))
		}
	}
	return errs
}

func columns() []kinds.Column[*corev1.PersistentVolumeClaim] {
	spec, status := corev1.PersistentVolumeClaimSpec{}.SwaggerDoc(), corev1.PersistentVolumeClaimStatus{}.SwaggerDoc()
	bound := func(cell func(*corev1.PersistentVolumeClaim) any) func(*corev1.PersistentVolumeClaim) any {
		return func(c *corev1.PersistentVolumeClaim) any {
			if c.Spec.VolumeName == "" {
				return ""
			}
			return cell(c)
		}
	}
	return []kinds.Column[*corev1.PersistentVolumeClaim]{
		kinds.NameColumn[*corev1.PersistentVolumeClaim](),
		{Name: "Status", Description: status["phase"], Cell: func(c *corev1.PersistentVolumeClaim) any {
			if c.DeletionTimestamp != nil {
				return "Terminating"
			}
			return string(c.Status.Phase)
		}},
		{Name: "Volume", Description: spec["volumeName"], Cell: func(c *corev1.PersistentVolumeClaim) any { return c.Spec.VolumeName }},
		{Name: "Capacity", Description: status["capacity"], Cell: bound(func(c *corev1.PersistentVolumeClaim) any {
			size := c.Status.Capacity[corev1.ResourceStorage]
			return size.String()
		})},
		{Name: "Access Modes", Description: status["accessModes"], Cell: bound(func(c *corev1.PersistentVolumeClaim) any {
			return podspec.ShortAccessModes(c.Status.AccessModes)
		})},
		{Name: "StorageClass", Description: spec["storageClassName"], Cell: func(c *corev1.PersistentVolumeClaim) any { return volume.GetPersistentVolumeClaimClass(c) }},
		{Name: "VolumeAttributesClass", Description: spec["volumeAttributesClassName"], Cell: func(c *corev1.PersistentVolumeClaim) any {
			return podspec.OrUnset(c.Spec.VolumeAttributesClassName)
		}},
		kinds.AgeColumn[*corev1.PersistentVolumeClaim](),
		{Name: "VolumeMode", Priority: 1, Description: spec["volumeMode"], Cell: func(c *corev1.PersistentVolumeClaim) any {
			return string(podspec.OrUnset(c.Spec.VolumeMode))
		}},
	}
}
