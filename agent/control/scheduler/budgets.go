package scheduler

import (
	policyv1 "k8s.io/api/policy/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
)

// Budget is a PodDisruptionBudget, compiled. Never changed.
type Budget struct {
	Namespace, Name string
	selector        labels.Selector
	// allowed is how many more pods may go, disrupted those that are going and are counted already.
	allowed   int32
	disrupted map[string]metav1.Time
}

// NewBudget compiles a disruption budget.
func NewBudget(object *policyv1.PodDisruptionBudget) *Budget {
	return &Budget{Namespace: object.Namespace, Name: object.Name, selector: selector(object.Spec.Selector),
		allowed: object.Status.DisruptionsAllowed, disrupted: object.Status.DisruptedPods}
}

// protects tells whether the eviction of the pod counts against the budget.
func (b *Budget) protects(pod *Pod) bool {
	object := pod.Object
	if b.Namespace != object.Namespace || len(object.Labels) == 0 || b.selector.Empty() {
		return false
	}
	_, going := b.disrupted[object.Name]
	return !going && b.selector.Matches(labels.Set(object.Labels))
}

// violating tells for each pod whether its eviction, after those before it, exceeds a budget.
func violating(pods []*Pod, budgets []*Budget) []bool {
	exceeds := make([]bool, len(pods))
	taken := make([]int32, len(budgets))
	for i, pod := range pods {
		for k, budget := range budgets {
			if budget.protects(pod) {
				taken[k]++
				exceeds[i] = exceeds[i] || taken[k] > budget.allowed
			}
		}
	}
	return exceeds
}
