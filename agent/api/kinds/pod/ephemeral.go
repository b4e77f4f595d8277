package pod

import (
	"context"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/diff"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/apiserver/pkg/registry/rest"

	"github.com/podvine/podvine/agent/api/coverage"
	"github.com/podvine/podvine/agent/api/kinds/podspec"
)

// ephemeralStrategy takes over new ephemeral containers and nothing else.
type ephemeralStrategy struct{ rest.RESTUpdateStrategy }

// PrepareForUpdate implements rest.RESTUpdateStrategy.
func (ephemeralStrategy) PrepareForUpdate(_ context.Context, obj, old runtime.Object) {
	p, was := obj.(*corev1.Pod), old.(*corev1.Pod)
	kept := keep(p, was)
	kept.Spec.EphemeralContainers = p.Spec.EphemeralContainers
	podspec.DropDisabled(&kept.Spec)
	*p = *kept
	countGeneration(p, was)
}

// keep is the old pod with the identity that the request has, so that its preconditions still hold.
func keep(p, old *corev1.Pod) *corev1.Pod {
	kept := old.DeepCopy()
	kept.Name, kept.Namespace, kept.ResourceVersion, kept.UID = p.Name, p.Namespace, p.ResourceVersion, p.UID
	kept.ManagedFields = p.ManagedFields
	return kept
}

func countGeneration(p, old *corev1.Pod) {
	p.Generation = old.Generation
	if !equality.Semantic.DeepEqual(p.Spec, old.Spec) {
		p.Generation++
	}
}

// ValidateUpdate implements rest.RESTUpdateStrategy: ephemeral containers come and stay.
func (ephemeralStrategy) ValidateUpdate(_ context.Context, obj, old runtime.Object) field.ErrorList {
	p, was := obj.(*corev1.Pod), old.(*corev1.Pod)
	errs := validateChange(p, was)
	path := field.NewPath("spec", "ephemeralContainers")
	if _, ok := was.Annotations[corev1.MirrorPodAnnotationKey]; ok {
		return append(errs, field.Forbidden(field.NewPath(""), "static pods do not support ephemeral containers"))
	}
	now := map[string]*corev1.EphemeralContainer{}
	for i := range p.Spec.EphemeralContainers {
		now[p.Spec.EphemeralContainers[i].Name] = &p.Spec.EphemeralContainers[i]
	}
	for i := range was.Spec.EphemeralContainers {
		before := &was.Spec.EphemeralContainers[i]
		switch c, ok := now[before.Name]; {
		case !ok:
			errs = append(errs, field.Forbidden(path, fmt.Sprintf("existing ephemeral containers %q may not be removed\n", before.Name)))
		case !equality.Semantic.DeepEqual(*c, *before):
			errs = append(errs, field.Forbidden(path, fmt.Sprintf("existing ephemeral containers %q may not be changed\n%v", before.Name,
				diff.Diff(podspec.InternalView(before), podspec.InternalView(c)))))
		}
	}
	return podspec.Unique(errs)
}

// WarningsOnUpdate implements rest.RESTUpdateStrategy.
func (ephemeralStrategy) WarningsOnUpdate(_ context.Context, obj, _ runtime.Object) []string {
	return coverage.For(obj, "ephemeralcontainers").Warnings(obj)
}
