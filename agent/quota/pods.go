package quota

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apiserver/pkg/admission"
	quotav1 "k8s.io/apiserver/pkg/quota/v1"
	"k8s.io/apiserver/pkg/quota/v1/generic"
	resourcehelper "k8s.io/component-helpers/resource"

	"github.com/podvine/podvine/agent/phase"
)

// podEvaluator counts pods and what they ask for, as long as they may run.
type podEvaluator struct {
	evaluator
	now func() time.Time
}

var _ quotav1.Evaluator = (*podEvaluator)(nil)

func explicit() []corev1.ResourceName {
	return []corev1.ResourceName{corev1.ResourceCPU, corev1.ResourceMemory, corev1.ResourceRequestsCPU, corev1.ResourceRequestsMemory,
		corev1.ResourceLimitsCPU, corev1.ResourceLimitsMemory}
}

// Constraints implements quotav1.Evaluator: what is limited, each container must ask for.
func (e *podEvaluator) Constraints(required []corev1.ResourceName, item runtime.Object) error {
	pod, ok := item.(*corev1.Pod)
	if !ok {
		return fmt.Errorf("expected a pod, got %T", item)
	}
	required = quotav1.Intersection(required, explicit())
	if len(required) == 0 {
		return nil
	}
	missing := map[corev1.ResourceName][]string{}
	podLevel := usageOf(resourcesOf(pod.Spec.Resources))
	containers := slices.Concat(pod.Spec.InitContainers, pod.Spec.Containers)
	for _, c := range containers {
		said := usageOf(c.Resources.Requests, c.Resources.Limits)
		for _, name := range required {
			if _, own := said[name]; own {
				continue
			}
			if _, all := podLevel[name]; !all {
				missing[name] = append(missing[name], c.Name)
			}
		}
	}
	if len(missing) == 0 {
		return nil
	}
	var parts []string
	for _, name := range slices.Sorted(maps.Keys(missing)) {
		slices.Sort(missing[name])
		parts = append(parts, fmt.Sprintf("%s for: %s", name, strings.Join(missing[name], ",")))
	}
	return fmt.Errorf("must specify %s", strings.Join(parts, "; "))
}

func resourcesOf(r *corev1.ResourceRequirements) (requests, limits corev1.ResourceList) {
	if r == nil {
		return nil, nil
	}
	return r.Requests, r.Limits
}

// Handles implements quotav1.Evaluator: pods change what they use by a resize only.
func (e *podEvaluator) Handles(a admission.Attributes) bool {
	switch a.GetSubresource() {
	case "":
		return a.GetOperation() == admission.Create
	case "resize":
		return a.GetOperation() == admission.Update
	}
	return false
}

// Matches implements quotav1.Evaluator.
func (e *podEvaluator) Matches(q *corev1.ResourceQuota, item runtime.Object) (bool, error) {
	return generic.Matches(q, item, e.MatchingResources, podInScope)
}

// MatchingScopes implements quotav1.Evaluator.
func (e *podEvaluator) MatchingScopes(item runtime.Object, scopes []corev1.ScopedResourceSelectorRequirement) ([]corev1.ScopedResourceSelectorRequirement, error) {
	return matching(item, scopes, podInScope)
}

func matching(item runtime.Object, scopes []corev1.ScopedResourceSelectorRequirement, in generic.MatchesScopeFunc) (found []corev1.ScopedResourceSelectorRequirement, err error) {
	for _, scope := range scopes {
		ok, err := in(scope, item)
		if err != nil {
			return nil, err
		}
		if ok {
			found = append(found, scope)
		}
	}
	return found, nil
}

// MatchingResources implements quotav1.Evaluator.
func (e *podEvaluator) MatchingResources(input []corev1.ResourceName) []corev1.ResourceName {
	known := append(explicit(), corev1.ResourceEphemeralStorage, corev1.ResourceRequestsEphemeralStorage, corev1.ResourceLimitsEphemeralStorage,
		corev1.ResourcePods, generic.ObjectCountQuotaResourceNameFor(e.resource))
	result := quotav1.Intersection(input, known)
	for _, name := range input {
		isHugePages := strings.HasPrefix(string(name), corev1.ResourceHugePagesPrefix) ||
			strings.HasPrefix(string(name), corev1.ResourceRequestsHugePagesPrefix)
		requested, isRequest := strings.CutPrefix(string(name), corev1.DefaultResourceRequestsPrefix)
		isExtended := isRequest && strings.Contains(requested, "/") && !strings.Contains(requested, corev1.ResourceDefaultNamespacePrefix)
		if isHugePages || isExtended {
			result = append(result, name)
		}
	}
	return result
}

// Usage implements quotav1.Evaluator.
func (e *podEvaluator) Usage(item runtime.Object) (corev1.ResourceList, error) {
	pod, ok := item.(*corev1.Pod)
	if !ok {
		return nil, fmt.Errorf("expected a pod, got %T", item)
	}
	one := *resource.NewQuantity(1, resource.DecimalSI)
	used := corev1.ResourceList{}
	if Runs(pod, e.now()) {
		options := resourcehelper.PodResourcesOptions{UseStatusResources: true}
		used = usageOf(resourcehelper.PodRequests(pod, options), resourcehelper.PodLimits(pod, options))
		used[corev1.ResourcePods] = one
	}
	used[generic.ObjectCountQuotaResourceNameFor(e.resource)] = one
	return used, nil
}

// Runs says that a pod may use something: it has not ended, and its time to end is not over.
func Runs(pod *corev1.Pod, now time.Time) bool {
	if phase.Ended(pod.Status.Phase) {
		return false
	}
	until, ends := RunsUntil(pod)
	return !ends || !now.After(until)
}

// RunsUntil is when a pod that is being deleted counts no more.
func RunsUntil(pod *corev1.Pod) (until time.Time, ends bool) {
	if pod.DeletionTimestamp == nil || pod.DeletionGracePeriodSeconds == nil {
		return time.Time{}, false
	}
	return pod.DeletionTimestamp.Add(time.Duration(*pod.DeletionGracePeriodSeconds) * time.Second), true
}

// usageOf names requests and limits as quotas do.
func usageOf(requests, limits corev1.ResourceList) corev1.ResourceList {
	used := corev1.ResourceList{}
	for name, amount := range requests {
		plain := name == corev1.ResourceCPU || name == corev1.ResourceMemory || name == corev1.ResourceEphemeralStorage ||
			strings.HasPrefix(string(name), corev1.ResourceHugePagesPrefix)
		if plain {
			used[name] = amount
		}
		if plain || strings.Contains(string(name), "/") {
			used[corev1.DefaultResourceRequestsPrefix+name] = amount
		}
	}
	for name, amount := range limits {
		if name == corev1.ResourceCPU || name == corev1.ResourceMemory || name == corev1.ResourceEphemeralStorage {
			used["limits."+name] = amount
		}
	}
	return used
}

// UsageStats implements quotav1.Evaluator.
func (e *podEvaluator) UsageStats(options quotav1.UsageStatsOptions) (quotav1.UsageStats, error) {
	return generic.CalculateUsageStats(options, e.list, podInScope, e.Usage)
}

// podInScope says that a pod is in a scope of a quota.
func podInScope(scope corev1.ScopedResourceSelectorRequirement, item runtime.Object) (bool, error) {
	pod, ok := item.(*corev1.Pod)
	if !ok {
		return false, fmt.Errorf("expected a pod, got %T", item)
	}
	terminating := pod.Spec.ActiveDeadlineSeconds != nil && *pod.Spec.ActiveDeadlineSeconds >= 0
	switch scope.ScopeName {
	case corev1.ResourceQuotaScopeTerminating:
		return terminating, nil
	case corev1.ResourceQuotaScopeNotTerminating:
		return !terminating, nil
	case corev1.ResourceQuotaScopeBestEffort:
		return isBestEffort(pod), nil
	case corev1.ResourceQuotaScopeNotBestEffort:
		return !isBestEffort(pod), nil
	case corev1.ResourceQuotaScopePriorityClass:
		return selects(scope, pod.Spec.PriorityClassName)
	case corev1.ResourceQuotaScopeCrossNamespacePodAffinity:
		return crossesNamespaces(pod), nil
	}
	return false, nil
}

// isBestEffort says that no container of a pod asks for CPU or memory.
func isBestEffort(pod *corev1.Pod) bool {
	asks := func(lists ...corev1.ResourceList) bool {
		return slices.ContainsFunc(lists, func(l corev1.ResourceList) bool { return !l.Cpu().IsZero() || !l.Memory().IsZero() })
	}
	for _, c := range slices.Concat(pod.Spec.InitContainers, pod.Spec.Containers) {
		if asks(c.Resources.Requests, c.Resources.Limits) {
			return false
		}
	}
	return !asks(resourcesOf(pod.Spec.Resources))
}

// crossesNamespaces says that a pod's affinity looks at pods of other namespaces.
func crossesNamespaces(pod *corev1.Pod) bool {
	a := pod.Spec.Affinity
	if a == nil {
		return false
	}
	var terms []corev1.PodAffinityTerm
	add := func(required []corev1.PodAffinityTerm, preferred []corev1.WeightedPodAffinityTerm) {
		terms = append(terms, required...)
		for _, p := range preferred {
			terms = append(terms, p.PodAffinityTerm)
		}
	}
	if p := a.PodAffinity; p != nil {
		add(p.RequiredDuringSchedulingIgnoredDuringExecution, p.PreferredDuringSchedulingIgnoredDuringExecution)
	}
	if p := a.PodAntiAffinity; p != nil {
		add(p.RequiredDuringSchedulingIgnoredDuringExecution, p.PreferredDuringSchedulingIgnoredDuringExecution)
	}
	return slices.ContainsFunc(terms, func(t corev1.PodAffinityTerm) bool { return len(t.Namespaces) > 0 || t.NamespaceSelector != nil })
}
