package pod

import (
	"context"
	"maps"
	"slices"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/apiserver/pkg/registry/rest"

	"github.com/podvine/podvine/agent/api/coverage"
	"github.com/podvine/podvine/agent/api/kinds/podspec"
)

// resizeStrategy takes over what containers are given, and how they take it.
type resizeStrategy struct{ rest.RESTUpdateStrategy }

// PrepareForUpdate implements rest.RESTUpdateStrategy.
func (resizeStrategy) PrepareForUpdate(_ context.Context, obj, old runtime.Object) {
	p, was := obj.(*corev1.Pod), old.(*corev1.Pod)
	kept := keep(p, was)
	takeSizes(kept.Spec.Containers, p.Spec.Containers)
	takeSizes(kept.Spec.InitContainers, p.Spec.InitContainers)
	if p.Spec.Resources != nil {
		kept.Spec.Resources = p.Spec.Resources
	}
	*p = *kept
	countGeneration(p, was)
}

// takeSizes gives containers of the same name the wanted resources.
func takeSizes(containers, wanted []corev1.Container) {
	for i := range containers {
		for j := range wanted {
			if wanted[j].Name == containers[i].Name {
				containers[i].Resources = wanted[j].Resources
				containers[i].ResizePolicy = wanted[j].ResizePolicy
			}
		}
	}
}

// ValidateUpdate implements rest.RESTUpdateStrategy.
func (resizeStrategy) ValidateUpdate(_ context.Context, obj, old runtime.Object) field.ErrorList {
	p, was := obj.(*corev1.Pod), old.(*corev1.Pod)
	spec := field.NewPath("spec")
	if _, ok := was.Annotations[corev1.MirrorPodAnnotationKey]; ok {
		return field.ErrorList{field.Forbidden(field.NewPath(""), "static pods cannot be resized")}
	}
	if was.Spec.OS != nil && was.Spec.OS.Name == corev1.Windows {
		return field.ErrorList{field.Forbidden(field.NewPath(""), "windows pods cannot be resized")}
	}
	errs := validateChange(p, was)
	fresh := p.DeepCopy()
	fresh.Status.QOSClass = ""
	if class := QOSClass(fresh); class != QOSClass(was) {
		errs = append(errs, field.Invalid(spec, class, "Pod QOS Class may not change as a result of resizing"))
	}
	errs = append(errs, resized(p.Spec.Containers, was.Spec.Containers, spec.Child("containers"))...)
	errs = append(errs, resized(p.Spec.InitContainers, was.Spec.InitContainers, spec.Child("initContainers"))...)

	rest := p.Spec.DeepCopy()
	undoSizes(rest.Containers, was.Spec.Containers, func(*corev1.Container) bool { return true })
	undoSizes(rest.InitContainers, was.Spec.InitContainers, isSidecar)
	if rest.Resources != nil {
		var before corev1.ResourceRequirements
		if was.Spec.Resources != nil {
			before = *was.Spec.Resources
		}
		undo(rest.Resources, &before)
	}
	if !equality.Semantic.DeepEqual(*rest, was.Spec) {
		errs = append(errs, field.Forbidden(spec, "only cpu and memory resources are mutable"))
	}
	return podspec.Unique(errs)
}

// undoSizes takes back the changes of CPU and memory that may be made.
func undoSizes(containers, old []corev1.Container, resizable func(*corev1.Container) bool) {
	for i := range containers {
		if i < len(old) && resizable(&old[i]) {
			containers[i].ResizePolicy = old[i].ResizePolicy
			undo(&containers[i].Resources, &old[i].Resources)
		}
	}
}

func undo(r, old *corev1.ResourceRequirements) {
	r.Limits = undoList(r.Limits, old.Limits)
	r.Requests = undoList(r.Requests, old.Requests)
}

func undoList(list, old corev1.ResourceList) corev1.ResourceList {
	out := maps.Clone(list)
	for _, name := range []corev1.ResourceName{corev1.ResourceCPU, corev1.ResourceMemory} {
		delete(out, name)
		if q, ok := old[name]; ok {
			if out == nil {
				out = corev1.ResourceList{}
			}
			out[name] = q
		}
	}
	return out
}

// resized refuses that what was bounded becomes unbounded.
func resized(now, old []corev1.Container, path *field.Path) field.ErrorList {
	var errs field.ErrorList
	for i := range now {
		if i >= len(old) {
			break
		}
		at := path.Index(i).Child("resources")
		if removed(now[i].Resources.Limits, old[i].Resources.Limits) {
			errs = append(errs, field.Forbidden(at.Child("limits"), "resource limits cannot be removed"))
		}
		if removed(now[i].Resources.Requests, old[i].Resources.Requests) {
			errs = append(errs, field.Forbidden(at.Child("requests"), "resource requests cannot be removed"))
		}
	}
	return errs
}

func removed(now, old corev1.ResourceList) bool {
	names := slices.Collect(maps.Keys(old))
	return slices.ContainsFunc(names, func(name corev1.ResourceName) bool {
		_, ok := now[name]
		return !ok && (name == corev1.ResourceCPU || name == corev1.ResourceMemory)
	})
}

// WarningsOnUpdate implements rest.RESTUpdateStrategy.
func (resizeStrategy) WarningsOnUpdate(_ context.Context, obj, _ runtime.Object) []string {
	return coverage.For(obj, "resize").Warnings(obj)
}
