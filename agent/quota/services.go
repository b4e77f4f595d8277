package quota

import (
	"fmt"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apiserver/pkg/admission"
	quotav1 "k8s.io/apiserver/pkg/quota/v1"
	"k8s.io/apiserver/pkg/quota/v1/generic"
)

// serviceEvaluator counts services, their node ports and load balancers.
type serviceEvaluator struct{ evaluator }

var _ quotav1.Evaluator = (*serviceEvaluator)(nil)

// Constraints implements quotav1.Evaluator.
func (e *serviceEvaluator) Constraints([]corev1.ResourceName, runtime.Object) error { return nil }

// Handles implements quotav1.Evaluator: a service may become one of another type.
func (e *serviceEvaluator) Handles(a admission.Attributes) bool { return createdOrUpdated(a) }

func createdOrUpdated(a admission.Attributes) bool {
	return a.GetSubresource() == "" && (a.GetOperation() == admission.Create || a.GetOperation() == admission.Update)
}

// Matches implements quotav1.Evaluator.
func (e *serviceEvaluator) Matches(q *corev1.ResourceQuota, item runtime.Object) (bool, error) {
	return generic.Matches(q, item, e.MatchingResources, generic.MatchesNoScopeFunc)
}

// MatchingScopes implements quotav1.Evaluator.
func (e *serviceEvaluator) MatchingScopes(runtime.Object, []corev1.ScopedResourceSelectorRequirement) ([]corev1.ScopedResourceSelectorRequirement, error) {
	return nil, nil
}

// MatchingResources implements quotav1.Evaluator.
func (e *serviceEvaluator) MatchingResources(input []corev1.ResourceName) []corev1.ResourceName {
	return quotav1.Intersection(input, []corev1.ResourceName{generic.ObjectCountQuotaResourceNameFor(e.resource), corev1.ResourceServices,
		corev1.ResourceServicesNodePorts, corev1.ResourceServicesLoadBalancers})
}

// Usage implements quotav1.Evaluator.
func (e *serviceEvaluator) Usage(item runtime.Object) (corev1.ResourceList, error) {
	s, ok := item.(*corev1.Service)
	if !ok {
		return nil, fmt.Errorf("expected a service, got %T", item)
	}
	one, none := *resource.NewQuantity(1, resource.DecimalSI), resource.Quantity{Format: resource.DecimalSI}
	ports := *resource.NewQuantity(int64(len(s.Spec.Ports)), resource.DecimalSI)
	used := corev1.ResourceList{generic.ObjectCountQuotaResourceNameFor(e.resource): one, corev1.ResourceServices: one,
		corev1.ResourceServicesNodePorts: none, corev1.ResourceServicesLoadBalancers: none}
	switch s.Spec.Type {
	case corev1.ServiceTypeNodePort:
		used[corev1.ResourceServicesNodePorts] = ports
	case corev1.ServiceTypeLoadBalancer:
		used[corev1.ResourceServicesLoadBalancers] = one
		if s.Spec.AllocateLoadBalancerNodePorts == nil || *s.Spec.AllocateLoadBalancerNodePorts {
			used[corev1.ResourceServicesNodePorts] = ports
		}
	}
	return used, nil
}

// UsageStats implements quotav1.Evaluator.
func (e *serviceEvaluator) UsageStats(options quotav1.UsageStatsOptions) (quotav1.UsageStats, error) {
	return generic.CalculateUsageStats(options, e.list, generic.MatchesNoScopeFunc, e.Usage)
}
