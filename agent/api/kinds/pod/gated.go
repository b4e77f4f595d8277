package pod

import (
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/podvine/podvine/agent/api/kinds/podspec"
)

// narrowed allows a pod that waits for its gates to narrow where it can run, and takes those changes back.
func narrowed(spec, old *corev1.PodSpec, path *field.Path) field.ErrorList {
	var errs field.ErrorList
	if !equality.Semantic.DeepEqual(spec.NodeSelector, old.NodeSelector) {
		errs = append(errs, narrowedSelector(spec.NodeSelector, old.NodeSelector, path.Child("nodeSelector"))...)
		spec.NodeSelector = old.NodeSelector
	}
	var was *corev1.NodeAffinity
	if old.Affinity != nil {
		was = old.Affinity.NodeAffinity
	}
	var now *corev1.NodeAffinity
	if spec.Affinity != nil {
		now = spec.Affinity.NodeAffinity
	}
	if equality.Semantic.DeepEqual(was, now) {
		return errs
	}
	errs = append(errs, narrowedAffinity(now, was, path.Child("affinity", "nodeAffinity"))...)
	switch {
	case spec.Affinity == nil:
		spec.Affinity = &corev1.Affinity{NodeAffinity: was}
	case old.Affinity == nil && spec.Affinity.PodAffinity == nil && spec.Affinity.PodAntiAffinity == nil:
		spec.Affinity = nil
	default:
		spec.Affinity.NodeAffinity = was
	}
	return errs
}

func narrowedSelector(now, old map[string]string, path *field.Path) field.ErrorList {
	var errs field.ErrorList
	for _, key := range sets.List(sets.KeySet(old)) {
		if value, ok := now[key]; !ok || value != old[key] {
			errs = append(errs, field.Invalid(path, now, "only additions to spec.nodeSelector are allowed (no mutations or deletions)"))
			return errs
		}
	}
	return errs
}

func narrowedAffinity(now, old *corev1.NodeAffinity, path *field.Path) field.ErrorList {
	if old == nil || old.RequiredDuringSchedulingIgnoredDuringExecution == nil {
		return nil
	}
	at := path.Child("requiredDuringSchedulingIgnoredDuringExecution", "nodeSelectorTerms")
	was := old.RequiredDuringSchedulingIgnoredDuringExecution.NodeSelectorTerms
	var terms []corev1.NodeSelectorTerm
	if now != nil && now.RequiredDuringSchedulingIgnoredDuringExecution != nil {
		terms = now.RequiredDuringSchedulingIgnoredDuringExecution.NodeSelectorTerms
	}
	if len(was) > 0 && len(was) != len(terms) {
		return field.ErrorList{field.Invalid(at, podspec.InternalView(terms), "no additions/deletions to non-empty NodeSelectorTerms list are allowed")}
	}
	var errs field.ErrorList
	for i := range was {
		if len(was[i].MatchExpressions) == 0 && len(was[i].MatchFields) == 0 {
			if len(terms[i].MatchExpressions) > 0 || len(terms[i].MatchFields) > 0 {
				errs = append(errs, field.Invalid(at.Index(i), podspec.InternalView(terms[i]), "only additions are allowed (no mutations or deletions)"))
			}
			continue
		}
		if !extends(terms[i].MatchExpressions, was[i].MatchExpressions) || !extends(terms[i].MatchFields, was[i].MatchFields) {
			errs = append(errs, field.Invalid(at.Index(i), podspec.InternalView(terms[i]), "only additions are allowed (no mutations or deletions)"))
		}
	}
	return errs
}

// extends says whether the list begins with the old one.
func extends(now, old []corev1.NodeSelectorRequirement) bool {
	return len(now) >= len(old) && equality.Semantic.DeepEqual(now[:len(old)], old)
}
