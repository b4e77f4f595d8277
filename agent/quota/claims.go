package quota

import (
	"fmt"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apiserver/pkg/admission"
	quotav1 "k8s.io/apiserver/pkg/quota/v1"
	"k8s.io/apiserver/pkg/quota/v1/generic"
	"k8s.io/component-helpers/storage/volume"
)

// classSuffix ends the name of a resource that counts for one storage class:
// gold.storageclass.storage.k8s.io/requests.storage.
const classSuffix = ".storageclass.storage.k8s.io/"

// claimEvaluator counts claims for storage, and the storage, also by class.
type claimEvaluator struct{ evaluator }

var _ quotav1.Evaluator = (*claimEvaluator)(nil)

// Constraints implements quotav1.Evaluator.
func (e *claimEvaluator) Constraints([]corev1.ResourceName, runtime.Object) error { return nil }

// Handles implements quotav1.Evaluator: a claim may grow.
func (e *claimEvaluator) Handles(a admission.Attributes) bool { return createdOrUpdated(a) }

// Matches implements quotav1.Evaluator.
func (e *claimEvaluator) Matches(q *corev1.ResourceQuota, item runtime.Object) (bool, error) {
	return generic.Matches(q, item, e.MatchingResources, claimInScope)
}

// MatchingScopes implements quotav1.Evaluator.
func (e *claimEvaluator) MatchingScopes(item runtime.Object, scopes []corev1.ScopedResourceSelectorRequirement) ([]corev1.ScopedResourceSelectorRequirement, error) {
	return matching(item, scopes, claimInScope)
}

// MatchingResources implements quotav1.Evaluator.
func (e *claimEvaluator) MatchingResources(input []corev1.ResourceName) (found []corev1.ResourceName) {
	for _, name := range input {
		plain := string(name)
		if _, rest, ok := strings.Cut(plain, classSuffix); ok {
			plain = rest
		}
		if plain == string(corev1.ResourcePersistentVolumeClaims) || plain == string(corev1.ResourceRequestsStorage) ||
			name == generic.ObjectCountQuotaResourceNameFor(e.resource) {
			found = append(found, name)
		}
	}
	return found
}

// Usage implements quotav1.Evaluator.
func (e *claimEvaluator) Usage(item runtime.Object) (corev1.ResourceList, error) {
	c, ok := item.(*corev1.PersistentVolumeClaim)
	if !ok {
		return nil, fmt.Errorf("expected a claim, got %T", item)
	}
	one := *resource.NewQuantity(1, resource.DecimalSI)
	class := volume.GetPersistentVolumeClaimClass(c)
	used := corev1.ResourceList{generic.ObjectCountQuotaResourceNameFor(e.resource): one, corev1.ResourcePersistentVolumeClaims: one}
	if class != "" {
		used[corev1.ResourceName(class+classSuffix+string(corev1.ResourcePersistentVolumeClaims))] = one
	}
	if storage, ok := c.Spec.Resources.Requests[corev1.ResourceStorage]; ok {
		if granted := c.Status.AllocatedResources[corev1.ResourceStorage]; granted.Cmp(storage) > 0 {
			storage = granted // a claim that shrinks again holds what it was given
		}
		storage.RoundUp(0)
		used[corev1.ResourceRequestsStorage] = storage
		if class != "" {
			used[corev1.ResourceName(class+classSuffix+string(corev1.ResourceRequestsStorage))] = storage
		}
	}
	return used, nil
}

// UsageStats implements quotav1.Evaluator.
func (e *claimEvaluator) UsageStats(options quotav1.UsageStatsOptions) (quotav1.UsageStats, error) {
	return generic.CalculateUsageStats(options, e.list, claimInScope, e.Usage)
}

// claimInScope says that a claim is in a scope of a quota.
func claimInScope(scope corev1.ScopedResourceSelectorRequirement, item runtime.Object) (bool, error) {
	c, ok := item.(*corev1.PersistentVolumeClaim)
	if !ok {
		return false, fmt.Errorf("expected a claim, got %T", item)
	}
	if scope.ScopeName != corev1.ResourceQuotaScopeVolumeAttributesClass {
		return false, nil
	}
	class := ""
	if c.Spec.VolumeAttributesClassName != nil {
		class = *c.Spec.VolumeAttributesClassName
	}
	return selects(scope, class)
}
