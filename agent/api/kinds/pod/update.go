package pod

import (
	"context"
	"fmt"
	"math"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/util/diff"
	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/podvine/podvine/agent/api/kinds"
	"github.com/podvine/podvine/agent/api/kinds/podspec"
	"github.com/podvine/podvine/agent/isolation"
)

// changeable names the fields that a pod's owner may change, in Kubernetes' words.
const changeable = "`spec.containers[*].image`,`spec.initContainers[*].image`,`spec.activeDeadlineSeconds`," +
	"`spec.tolerations` (only additions to existing tolerations),`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)"

// validateUpdate reports the errors of a change through the main resource. It is allowed to change images, to shorten
// the deadline, to add tolerations and to take scheduling gates away; a gated pod may also narrow where it can go.
func validateUpdate(_ context.Context, p, old *corev1.Pod) field.ErrorList {
	spec := field.NewPath("spec")
	errs := validateChange(p, old)
	if len(p.Spec.Containers) != len(old.Spec.Containers) {
		return append(errs, field.Forbidden(spec.Child("containers"), "pod updates may not add or remove containers"))
	}
	if len(p.Spec.InitContainers) != len(old.Spec.InitContainers) {
		return append(errs, field.Forbidden(spec.Child("initContainers"), "pod updates may not add or remove containers"))
	}
	more, stop := deadline(p.Spec.ActiveDeadlineSeconds, old.Spec.ActiveDeadlineSeconds, spec.Child("activeDeadlineSeconds"))
	if errs = append(errs, more...); stop {
		return errs
	}
	errs = append(errs, onlyMoreTolerations(p.Spec.Tolerations, old.Spec.Tolerations, spec.Child("tolerations"))...)
	errs = append(errs, onlyFewerGates(p.Spec.SchedulingGates, old.Spec.SchedulingGates, spec.Child("schedulingGates"))...)

	rest := p.Spec.DeepCopy()
	takeBack(rest, &old.Spec)
	if len(old.Spec.SchedulingGates) > 0 {
		errs = append(errs, narrowed(rest, &old.Spec, spec)...)
	}
	if !equality.Semantic.DeepEqual(*rest, old.Spec) {
		errs = append(errs, field.Forbidden(spec, fmt.Sprintf("pod updates may not change fields other than %s\n%v", changeable,
			diff.Diff(podspec.InternalView(&old.Spec), podspec.InternalView(rest)))))
	}
	return podspec.Unique(errs)
}

// validateChange reports what is wrong with the changed pod and its metadata, whatever was changed.
func validateChange(p, old *corev1.Pod) field.ErrorList {
	meta := field.NewPath("metadata")
	errs := kinds.ValidateObjectMetaUpdate(&p.ObjectMeta, &old.ObjectMeta, meta)
	opts := podspec.OptionsFor(&old.Spec, &old.ObjectMeta)
	opts.Pod = true
	errs = append(errs, validateWhole(p, opts)...)
	return append(errs, annotationChanges(p.Annotations, old.Annotations, meta.Child("annotations"))...)
}

// takeBack undoes the changes that are allowed, so that what is left over must be equal.
func takeBack(spec, old *corev1.PodSpec) {
	for i := range spec.Containers {
		spec.Containers[i].Image = old.Containers[i].Image
	}
	for i := range spec.InitContainers {
		spec.InitContainers[i].Image = old.InitContainers[i].Image
	}
	spec.ActiveDeadlineSeconds = old.ActiveDeadlineSeconds
	spec.Tolerations = old.Tolerations
	spec.SchedulingGates = old.SchedulingGates
	if g, was := spec.TerminationGracePeriodSeconds, old.TerminationGracePeriodSeconds; g != nil && was != nil && *was < 0 && *g == 1 {
		spec.TerminationGracePeriodSeconds = was
	}
}

// deadline may be set, and shortened.
func deadline(now, old *int64, path *field.Path) (errs field.ErrorList, stop bool) {
	if now == nil {
		if old != nil {
			errs = append(errs, field.Invalid(path, now, "must not update from a positive integer to nil value"))
		}
		return errs, false
	}
	if *now < 0 || *now > math.MaxInt32 {
		return field.ErrorList{field.Invalid(path, *now, validation.InclusiveRangeError(0, math.MaxInt32))}, true
	}
	if old != nil && *old < *now {
		return field.ErrorList{field.Invalid(path, *now, "must be less than or equal to previous value")}, true
	}
	return nil, false
}

// onlyMoreTolerations keeps the old ones; for how long they tolerate may change.
func onlyMoreTolerations(now, old []corev1.Toleration, path *field.Path) field.ErrorList {
	for _, was := range old {
		found := false
		for _, t := range now {
			was.TolerationSeconds = t.TolerationSeconds
			found = found || equality.Semantic.DeepEqual(was, t)
		}
		if !found {
			return field.ErrorList{field.Forbidden(path, "existing toleration can not be modified except its tolerationSeconds")}
		}
	}
	return podspec.ValidateTolerations(now, path)
}

func onlyFewerGates(now, old []corev1.PodSchedulingGate, path *field.Path) field.ErrorList {
	if len(now) == 0 {
		return nil
	}
	had := sets.New[string]()
	for _, g := range old {
		had.Insert(g.Name)
	}
	var errs field.ErrorList
	for i, g := range now {
		if !had.Has(g.Name) {
			errs = append(errs, field.Forbidden(path.Index(i).Child("name"), fmt.Sprintf("only deletion is allowed, but found new scheduling gate '%s'", g.Name)))
		}
	}
	return errs
}

// annotationChanges refuses changes of annotations that the node has acted upon already.
func annotationChanges(now, old map[string]string, path *field.Path) field.ErrorList {
	var errs field.ErrorList
	if now[isolation.Annotation] != old[isolation.Annotation] {
		// The pod's containers were started with it or without.
		errs = append(errs, field.Forbidden(path.Key(isolation.Annotation), "may not be added, removed or updated"))
	}
	appArmor := func(key string) bool {
		return strings.HasPrefix(key, corev1.DeprecatedAppArmorBetaContainerAnnotationKeyPrefix)
	}
	for _, key := range sets.List(sets.KeySet(old)) {
		if value, ok := now[key]; ok && value == old[key] {
			continue
		}
		if appArmor(key) {
			errs = append(errs, field.Forbidden(path.Key(key), "may not remove or update AppArmor annotations"))
		}
		if key == corev1.MirrorPodAnnotationKey {
			errs = append(errs, field.Forbidden(path.Key(key), "may not remove or update mirror pod annotation"))
		}
	}
	for _, key := range sets.List(sets.KeySet(now)) {
		if _, ok := old[key]; ok {
			continue
		}
		if appArmor(key) {
			errs = append(errs, field.Forbidden(path.Key(key), "may not add AppArmor annotations"))
		}
		if key == corev1.MirrorPodAnnotationKey {
			errs = append(errs, field.Forbidden(path.Key(key), "may not add mirror pod annotation"))
		}
	}
	return errs
}
