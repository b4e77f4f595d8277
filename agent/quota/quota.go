// Package quota tells what objects use of a ResourceQuota, as Kubernetes counts it. Admission charges by it, and a control
// loop counts by it what is there; so it is of neither.
//
// Everything here is pure but for the lists and the time that the caller hands in; it is safe for concurrent use.
package quota

import (
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/selection"
	quotav1 "k8s.io/apiserver/pkg/quota/v1"
	"k8s.io/apiserver/pkg/quota/v1/generic"
)

// List returns what lists a resource's objects in a namespace; admission, which never counts, returns nil.
type List func(schema.GroupResource) generic.ListFuncByNamespace

// Evaluators are those of the built-in resources of which a quota counts more than objects, or counts them under a name
// without "count/".
func Evaluators(list List, now func() time.Time) []quotav1.Evaluator {
	core := func(resource string) schema.GroupResource { return corev1.Resource(resource) }
	evaluators := []quotav1.Evaluator{
		&podEvaluator{evaluator{core("pods"), list(core("pods"))}, now},
		&serviceEvaluator{evaluator{core("services"), list(core("services"))}},
		&claimEvaluator{evaluator{core("persistentvolumeclaims"), list(core("persistentvolumeclaims"))}},
	}
	for _, resource := range []string{"configmaps", "secrets", "replicationcontrollers", "resourcequotas"} {
		evaluators = append(evaluators, generic.NewObjectCountEvaluator(core(resource), list(core(resource)), corev1.ResourceName(resource)))
	}
	return evaluators
}

// Uncounted are the resources that quotas leave alone.
func Uncounted() map[schema.GroupResource]struct{} {
	ignored := map[schema.GroupResource]struct{}{
		{Group: "authentication.k8s.io", Resource: "tokenreviews"}:             {},
		{Group: "authorization.k8s.io", Resource: "subjectaccessreviews"}:      {},
		{Group: "authorization.k8s.io", Resource: "selfsubjectaccessreviews"}:  {},
		{Group: "authorization.k8s.io", Resource: "localsubjectaccessreviews"}: {},
		{Group: "authorization.k8s.io", Resource: "selfsubjectrulesreviews"}:   {},
		{Group: "events.k8s.io", Resource: "events"}:                           {},
	}
	for _, resource := range []string{"bindings", "componentstatuses", "events"} {
		ignored[corev1.Resource(resource)] = struct{}{}
	}
	return ignored
}

// evaluator is what all have in common.
type evaluator struct {
	resource schema.GroupResource
	list     generic.ListFuncByNamespace
}

// GroupResource implements quotav1.Evaluator.
func (e evaluator) GroupResource() schema.GroupResource { return e.resource }

// UncoveredQuotaScopes implements quotav1.Evaluator. Nothing is limited without a quota here.
func (e evaluator) UncoveredQuotaScopes([]corev1.ScopedResourceSelectorRequirement, []corev1.ScopedResourceSelectorRequirement) ([]corev1.ScopedResourceSelectorRequirement, error) {
	return nil, nil
}

// selects says that a scope with a selector of names picks name, "" being none.
func selects(scope corev1.ScopedResourceSelectorRequirement, name string) (bool, error) {
	if scope.Operator == corev1.ScopeSelectorOpExists {
		return name != "", nil
	}
	operators := map[corev1.ScopeSelectorOperator]selection.Operator{corev1.ScopeSelectorOpIn: selection.In,
		corev1.ScopeSelectorOpNotIn: selection.NotIn, corev1.ScopeSelectorOpDoesNotExist: selection.DoesNotExist}
	requirement, err := labels.NewRequirement(string(scope.ScopeName), operators[scope.Operator], scope.Values)
	if err != nil {
		return false, err
	}
	set := labels.Set{}
	if name != "" {
		set[string(scope.ScopeName)] = name
	}
	return requirement.Matches(set), nil
}
