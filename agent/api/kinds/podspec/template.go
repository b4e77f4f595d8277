package podspec

import (
	"fmt"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// ValidateReplicaTemplate reports the errors of the template of pods that are kept running: it must carry the labels
// that the selector looks for, and its pods must always be restarted. kind is the workload's name in texts.
func ValidateReplicaTemplate(template *corev1.PodTemplateSpec, selector labels.Selector, replicas int32, kind string, path *field.Path, opts Options) field.ErrorList {
	var errs field.ErrorList
	if !selector.Empty() && !selector.Matches(labels.Set(template.Labels)) {
		errs = append(errs, field.Invalid(path.Child("metadata", "labels"), template.Labels, "`selector` does not match template `labels`"))
	}
	errs = append(errs, ValidateTemplate(template, path, opts)...)
	if replicas > 1 {
		errs = append(errs, readOnlyDisks(template.Spec.Volumes, path.Child("spec", "volumes"))...)
	}
	if template.Spec.RestartPolicy != corev1.RestartPolicyAlways {
		errs = append(errs, field.NotSupported(path.Child("spec", "restartPolicy"), template.Spec.RestartPolicy, []corev1.RestartPolicy{corev1.RestartPolicyAlways}))
	}
	if template.Spec.ActiveDeadlineSeconds != nil {
		errs = append(errs, field.Forbidden(path.Child("spec", "activeDeadlineSeconds"), "activeDeadlineSeconds in "+kind+" is not Supported"))
	}
	return errs
}

// readOnlyDisks demands that a disk which several pods share is mounted for reading.
func readOnlyDisks(volumes []corev1.Volume, path *field.Path) field.ErrorList {
	var errs field.ErrorList
	for i, v := range volumes {
		if v.GCEPersistentDisk != nil && !v.GCEPersistentDisk.ReadOnly {
			errs = append(errs, field.Invalid(path.Index(i).Child("gcePersistentDisk", "readOnly"), false,
				"must be true for replicated pods > 1; GCE PD can only be mounted on multiple machines if it is read-only"))
		}
	}
	return errs
}

// TemplateWarnings are the warnings about a pod template at a path; old is nil for a new one.
func TemplateWarnings(template, old *corev1.PodTemplateSpec, path *field.Path) []string {
	var was *corev1.PodSpec
	if old != nil {
		was = &old.Spec
	}
	return Warnings(&template.Spec, &template.ObjectMeta, was, path)
}

// NameWarnings warns of names that pods cannot carry as host names.
func NameWarnings(name string) []string {
	if messages := validation.IsDNS1123Label(name); len(messages) > 0 {
		return []string{fmt.Sprintf("metadata.name: this is used in Pod names and hostnames, which can result in surprising behavior; a DNS label is recommended: %v", messages)}
	}
	return nil
}

// ContainerColumns returns the names and the images of a template's containers, as wide tables show them.
func ContainerColumns(spec *corev1.PodSpec) (names, images string) {
	for i, c := range spec.Containers {
		if i > 0 {
			names += ","
			images += ","
		}
		names += c.Name
		images += c.Image
	}
	return names, images
}
