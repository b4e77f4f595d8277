package podspec

import (
	"encoding/json"
	"fmt"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/podvine/podvine/agent/isolation"
)

// Annotations that mean something.
const (
	mirrorAnnotation       = corev1.MirrorPodAnnotationKey
	deletionCostAnnotation = corev1.PodDeletionCost
	tolerationsAnnotation  = corev1.TolerationsAnnotationKey
	appArmorPrefix         = corev1.DeprecatedAppArmorBetaContainerAnnotationKeyPrefix
)

// ValidateAnnotations checks the annotations of a pod or template that have a meaning of their own.
func ValidateAnnotations(annotations map[string]string, spec *corev1.PodSpec, path *field.Path, opts Options) field.ErrorList {
	var errs field.ErrorList
	if value, ok := annotations[mirrorAnnotation]; ok && spec.NodeName == "" {
		errs = append(errs, field.Invalid(path.Key(mirrorAnnotation), value, "must set spec.nodeName if mirror pod annotation is set"))
	}
	if text := annotations[tolerationsAnnotation]; text != "" {
		var list []corev1.Toleration
		if err := json.Unmarshal([]byte(text), &list); err != nil {
			errs = append(errs, field.Invalid(path, tolerationsAnnotation, err.Error()))
		} else if len(list) > 0 {
			errs = append(errs, ValidateTolerations(list, path.Child(tolerationsAnnotation))...)
		}
	}
	if cost, ok := annotations[deletionCostAnnotation]; ok && !opts.AllowInvalidDeletionCost && !isInt32(cost) {
		errs = append(errs, field.Invalid(path.Key(deletionCostAnnotation), cost, "must be a 32bit integer"))
	}
	if value, ok := annotations[isolation.Annotation]; ok && value != isolation.Stop {
		errs = append(errs, field.NotSupported(path.Key(isolation.Annotation), value, []string{isolation.Stop}))
	}
	return append(errs, appArmorAnnotations(annotations, spec, path)...)
}

func appArmorAnnotations(annotations map[string]string, spec *corev1.PodSpec, path *field.Path) field.ErrorList {
	var errs field.ErrorList
	names := sets.New[string]()
	for _, c := range spec.InitContainers {
		names.Insert(c.Name)
	}
	for _, c := range spec.Containers {
		names.Insert(c.Name)
	}
	for _, c := range spec.EphemeralContainers {
		names.Insert(c.Name)
	}
	for _, key := range sets.List(sets.KeySet(annotations)) {
		container, ok := strings.CutPrefix(key, appArmorPrefix)
		if !ok {
			continue
		}
		if !names.Has(container) {
			errs = append(errs, field.Invalid(path.Key(key), container, "container not found"))
		}
		if fault := AppArmorProfileFault(annotations[key]); fault != "" {
			errs = append(errs, field.Invalid(path.Key(key), annotations[key], fault))
		}
	}
	return errs
}

// AppArmorProfileFault says what is wrong with a profile as annotations write it, "" for one that is none or right.
func AppArmorProfileFault(value string) string {
	known := value == "" || value == corev1.DeprecatedAppArmorBetaProfileRuntimeDefault || value == corev1.DeprecatedAppArmorBetaProfileNameUnconfined
	if known || strings.HasPrefix(value, corev1.DeprecatedAppArmorBetaProfileNamePrefix) {
		return ""
	}
	return fmt.Sprintf("invalid AppArmor profile name: %q", value)
}

// AppArmorFromAnnotations gives containers whose AppArmor profile stands in an old annotation the field that
// replaced it.
func AppArmorFromAnnotations(meta *metav1.ObjectMeta, spec *corev1.PodSpec) {
	each := func(name string, sc **corev1.SecurityContext) {
		profile := AnnotatedProfile(meta.Annotations[appArmorPrefix+name])
		if profile == nil || (*sc != nil && (*sc).AppArmorProfile != nil) {
			return
		}
		if *sc == nil {
			*sc = &corev1.SecurityContext{}
		}
		(*sc).AppArmorProfile = profile
	}
	for i := range spec.Containers {
		each(spec.Containers[i].Name, &spec.Containers[i].SecurityContext)
	}
	for i := range spec.InitContainers {
		each(spec.InitContainers[i].Name, &spec.InitContainers[i].SecurityContext)
	}
}

// AnnotatedProfile reads an old annotation's value, nil when it says nothing.
func AnnotatedProfile(value string) *corev1.AppArmorProfile {
	switch {
	case value == corev1.DeprecatedAppArmorBetaProfileNameUnconfined:
		return &corev1.AppArmorProfile{Type: corev1.AppArmorProfileTypeUnconfined}
	case value == corev1.DeprecatedAppArmorBetaProfileRuntimeDefault:
		return &corev1.AppArmorProfile{Type: corev1.AppArmorProfileTypeRuntimeDefault}
	case strings.HasPrefix(value, corev1.DeprecatedAppArmorBetaProfileNamePrefix):
		name := strings.TrimPrefix(value, corev1.DeprecatedAppArmorBetaProfileNamePrefix)
		if name != "" {
			return &corev1.AppArmorProfile{Type: corev1.AppArmorProfileTypeLocalhost, LocalhostProfile: &name}
		}
	}
	return nil
}

// profilesMatch refuses an annotation and a field that name different AppArmor profiles.
func profilesMatch(meta *metav1.ObjectMeta, spec *corev1.PodSpec, path *field.Path) field.ErrorList {
	var errs field.ErrorList
	check := func(name string, sc *corev1.SecurityContext, at *field.Path) {
		said := AnnotatedProfile(meta.Annotations[appArmorPrefix+name])
		if said == nil || sc == nil || sc.AppArmorProfile == nil {
			return
		}
		own := sc.AppArmorProfile
		if own.Type != said.Type {
			errs = append(errs, field.Forbidden(at.Child("type"), "apparmor type in annotation and field must match"))
		} else if own.LocalhostProfile != nil && said.LocalhostProfile != nil && *own.LocalhostProfile != *said.LocalhostProfile {
			errs = append(errs, field.Forbidden(at.Child("localhostProfile"), "apparmor profile in annotation and field must match"))
		}
	}
	for i, c := range spec.Containers {
		check(c.Name, c.SecurityContext, path.Child("containers").Index(i).Child("securityContext", "appArmorProfile"))
	}
	for i, c := range spec.InitContainers {
		check(c.Name, c.SecurityContext, path.Child("initContainers").Index(i).Child("securityContext", "appArmorProfile"))
	}
	return errs
}

// ValidateProfileAnnotations refuses AppArmor annotations that contradict the fields.
func ValidateProfileAnnotations(meta *metav1.ObjectMeta, spec *corev1.PodSpec, path *field.Path) field.ErrorList {
	return profilesMatch(meta, spec, path)
}
