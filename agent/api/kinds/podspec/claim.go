package podspec

import (
	"reflect"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	metav1validation "k8s.io/apimachinery/pkg/apis/meta/v1/validation"
	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// claimTemplate checks the claim that an ephemeral volume makes: of its metadata only labels and annotations count.
func claimTemplate(t *corev1.PersistentVolumeClaimTemplate, at *field.Path) field.ErrorList {
	meta := at.Child("metadata")
	errs := apivalidation.ValidateAnnotations(t.Annotations, meta.Child("annotations"))
	errs = append(errs, metav1validation.ValidateLabels(t.Labels, meta.Child("labels"))...)
	errs = append(errs, OnlyLabels(&t.ObjectMeta, meta)...)
	return append(errs, ValidateClaimSpec(&t.Spec, false, at.Child("spec"))...)
}

// OnlyLabels reports what the metadata of a template has beside labels and annotations.
func OnlyLabels(meta *metav1.ObjectMeta, at *field.Path) field.ErrorList {
	var errs field.ErrorList
	v := reflect.ValueOf(meta).Elem()
	for i := range v.NumField() {
		name := v.Type().Field(i).Name
		if name != "Labels" && name != "Annotations" && !v.Field(i).IsZero() {
			errs = append(errs, field.Forbidden(at.Child(strings.ToLower(name[:1])+name[1:]), "cannot be set"))
		}
	}
	return errs
}

// ValidateClaimSpec reports the errors of a persistent volume claim's specification. anyGroup accepts sources of groups that
// are no names, which older objects may have.
func ValidateClaimSpec(spec *corev1.PersistentVolumeClaimSpec, anyGroup bool, at *field.Path) field.ErrorList {
	errs := ValidateAccessModes(spec.AccessModes, at.Child("accessModes"))
	if spec.Selector != nil {
		errs = append(errs, metav1validation.ValidateLabelSelector(spec.Selector, metav1validation.LabelSelectorValidationOptions{}, at.Child("selector"))...)
	}
	storage := at.Child("resources").Key(string(corev1.ResourceStorage))
	if amount, ok := spec.Resources.Requests[corev1.ResourceStorage]; !ok {
		errs = append(errs, field.Required(storage, ""))
	} else if amount.Sign() <= 0 {
		errs = append(errs, field.Invalid(storage, amount.String(), "must be greater than zero"))
	}
	if spec.StorageClassName != nil && *spec.StorageClassName != "" {
		errs = append(errs, objectName(*spec.StorageClassName, at.Child("storageClassName"))...)
	}
	if spec.VolumeMode != nil {
		errs = append(errs, OneOf(*spec.VolumeMode, at.Child("volumeMode"), corev1.PersistentVolumeBlock, corev1.PersistentVolumeFilesystem)...)
	}
	if spec.VolumeAttributesClassName != nil && *spec.VolumeAttributesClassName != "" {
		errs = append(errs, objectName(*spec.VolumeAttributesClassName, at.Child("volumeAttributesClassName"))...)
	}
	if s := spec.DataSource; s != nil {
		errs = append(errs, dataSource(s.APIGroup, s.Kind, s.Name, anyGroup, at.Child("dataSource"))...)
	}
	if s := spec.DataSourceRef; s != nil {
		errs = append(errs, dataSource(s.APIGroup, s.Kind, s.Name, anyGroup, at.Child("dataSourceRef"))...)
	}
	return errs
}

// ClaimWarnings warns of sizes of a claim that are no whole number of bytes. at is where the claim is.
func ClaimWarnings(spec *corev1.PersistentVolumeClaimSpec, at *field.Path) []string {
	w := &warner{}
	w.fractions(spec.Resources.Limits, at.Child("resources", "limits"), corev1.ResourceStorage)
	w.fractions(spec.Resources.Requests, at.Child("resources", "requests"), corev1.ResourceStorage)
	return w.out
}

// ValidateAccessModes reports the errors of a claim's access modes.
func ValidateAccessModes(modes []corev1.PersistentVolumeAccessMode, at *field.Path) field.ErrorList {
	if len(modes) == 0 {
		return field.ErrorList{field.Required(at, "at least 1 access mode is required")}
	}
	var errs field.ErrorList
	alone := false
	kinds := sets.New(modes...)
	for _, m := range modes {
		errs = append(errs, OneOf(m, at, corev1.ReadOnlyMany, corev1.ReadWriteMany, corev1.ReadWriteOnce, corev1.ReadWriteOncePod)...)
		alone = alone || m == corev1.ReadWriteOncePod
	}
	if alone && kinds.Len() > 1 {
		errs = append(errs, field.Forbidden(at, "may not use ReadWriteOncePod with other access modes"))
	}
	return errs
}

// ShortAccessModes lists access modes by their abbreviations, as tables show them.
func ShortAccessModes(modes []corev1.PersistentVolumeAccessMode) string {
	var out []string
	for _, m := range []struct {
		mode  corev1.PersistentVolumeAccessMode
		short string
	}{{corev1.ReadWriteOnce, "RWO"}, {corev1.ReadOnlyMany, "ROX"}, {corev1.ReadWriteMany, "RWX"}, {corev1.ReadWriteOncePod, "RWOP"}} {
		if slices.Contains(modes, m.mode) {
			out = append(out, m.short)
		}
	}
	return strings.Join(out, ",")
}

// OrUnset is what tables show of a value that may be missing.
func OrUnset[T ~string](value *T) T {
	if value == nil {
		return "<unset>"
	}
	return *value
}

func dataSource(group *string, kind, name string, anyGroup bool, at *field.Path) field.ErrorList {
	errs := required(name, at.Child("name"))
	errs = append(errs, required(kind, at.Child("kind"))...)
	if group == nil || *group == "" {
		if kind != "PersistentVolumeClaim" {
			errs = append(errs, field.Invalid(at, kind, "must be 'PersistentVolumeClaim' when referencing the default apiGroup"))
		}
		return errs
	}
	if anyGroup {
		return errs
	}
	return append(errs, invalid(at.Child("apiGroup"), *group, validation.IsDNS1123Subdomain(*group))...)
}
