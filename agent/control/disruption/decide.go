package disruption

import (
	"fmt"
	"time"

	v1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/intstr"
	budgets "k8s.io/component-helpers/apps/poddisruptionbudget"

	"github.com/podvine/podvine/agent/control/loop"
	"github.com/podvine/podvine/agent/control/workloads/pods"
)

const (
	// DeletionTimeoutSeconds is how long an eviction that was booked counts as one while its pod is still there and not
	// being deleted; after it the eviction failed. As in Kubernetes.
	DeletionTimeoutSeconds = 120
	// failedAgainSeconds is when a budget is looked at again whose pods could not be counted: what was missing (a kind, its
	// scale) may have come without an event.
	failedAgainSeconds = 30
)

// View is what a decision about a budget looks at.
type View struct {
	Budget *policyv1.PodDisruptionBudget
	// Pods that it selects.
	Pods []*v1.Pod
	// Scales are what the pods' controllers want, by the UID of the controller that a pod names. Needed where [NeedsScale].
	Scales map[types.UID]Scale
	// Failure is why the scales are not known.
	Failure error
}

// Scale is what a controller, or the one above it, wants.
type Scale struct {
	// UID of the one that says how many.
	UID      types.UID
	Replicas int32
}

// Plan is what to do: the status is written if it differs.
type Plan struct {
	Status policyv1.PodDisruptionBudgetStatus
	Events []loop.Event
	// Kept were to be evicted, and are there still.
	Kept  []*v1.Pod
	Again time.Duration
}

// NeedsScale tells whether a budget depends on how many pods there should be, not only on how many there are.
func NeedsScale(spec *policyv1.PodDisruptionBudgetSpec) bool {
	return spec.MaxUnavailable != nil || spec.MinAvailable != nil && spec.MinAvailable.Type == intstr.String
}

// Decide is pure. It changes nothing of the view.
func Decide(view View, now time.Time) Plan {
	plan := Plan{Status: *view.Budget.Status.DeepCopy()}
	if len(view.Pods) == 0 {
		plan.event(v1.EventTypeNormal, "NoPods", "No matching pods found")
	}
	expected, desired, err := plan.count(view)
	if err != nil {
		plan.event(v1.EventTypeWarning, "CalculateExpectedPodCountFailed", fmt.Sprintf("Failed to calculate the number of expected pods: %v", err))
		plan.fail(err, now)
		return plan
	}
	disrupted := plan.disrupted(view, now)
	healthy := int32(0)
	for _, pod := range view.Pods {
		_, going := disrupted[pod.Name]
		if ready, _ := pods.Ready(pod); ready && !going && pod.DeletionTimestamp == nil {
			healthy++
		}
	}
	allowed := max(0, healthy-desired)
	if expected <= 0 {
		allowed = 0 // of pods that just come nobody knows yet how many there shall be
	}
	next := &policyv1.PodDisruptionBudget{Status: plan.Status}
	s := &next.Status
	s.CurrentHealthy, s.DesiredHealthy, s.ExpectedPods, s.DisruptionsAllowed = healthy, desired, expected, allowed
	s.DisruptedPods, s.ObservedGeneration = disrupted, view.Budget.Generation
	if !budgets.ConditionsAreUpToDate(next) {
		budgets.UpdateDisruptionAllowedCondition(next)
		stamp(s.Conditions, view.Budget.Status.Conditions, now)
	}
	plan.Status = next.Status
	return plan
}

func (p *Plan) event(kind, reason, message string) {
	p.Events = append(p.Events, loop.Event{Type: kind, Reason: reason, Message: message})
}

// count says how many pods there should be, and how many of them healthy.
func (p *Plan) count(view View) (expected, desired int32, err error) {
	spec := &view.Budget.Spec
	if !NeedsScale(spec) {
		if spec.MinAvailable == nil {
			return 0, 0, nil
		}
		return int32(len(view.Pods)), spec.MinAvailable.IntVal, nil
	}
	if expected, err = p.expected(view); err != nil {
		return 0, 0, err
	}
	amount := spec.MinAvailable
	if spec.MaxUnavailable != nil {
		amount = spec.MaxUnavailable
	}
	n, err := intstr.GetScaledValueFromIntOrPercent(amount, int(expected), true)
	if err != nil {
		return 0, 0, err
	}
	if spec.MaxUnavailable != nil {
		return expected, max(0, expected-int32(n)), nil
	}
	return expected, int32(n), nil
}

// expected adds up what the controllers of the pods want. Pods without one do not count.
func (p *Plan) expected(view View) (sum int32, err error) {
	if view.Failure != nil {
		return 0, view.Failure
	}
	wanted, unmanaged := map[types.UID]int32{}, false
	for _, pod := range view.Pods {
		controller := metav1.GetControllerOfNoCopy(pod)
		if controller == nil {
			unmanaged = true
			continue
		}
		scale, ok := view.Scales[controller.UID]
		if !ok {
			return 0, fmt.Errorf("found no controllers for pod %q", pod.Name)
		}
		wanted[scale.UID] = scale.Replicas
	}
	if unmanaged {
		p.event(v1.EventTypeWarning, "UnmanagedPods", fmt.Sprintf("Pods selected by this PodDisruptionBudget (selector: %v) were found to be unmanaged. "+
			"As a result, the status of the PDB cannot be calculated correctly, which may result in undefined behavior. "+
			"To account for these pods please set \".spec.minAvailable\" field of the PDB to an integer value.", view.Budget.Spec.Selector))
	}
	for _, replicas := range wanted {
		sum += replicas
	}
	return sum, nil
}

// disrupted keeps those of the booked evictions that may still come.
func (p *Plan) disrupted(view View, now time.Time) map[string]metav1.Time {
	left := map[string]metav1.Time{}
	for _, pod := range view.Pods {
		at, booked := view.Budget.Status.DisruptedPods[pod.Name]
		if !booked || pod.DeletionTimestamp != nil {
			continue
		}
		wait := at.Add(DeletionTimeoutSeconds * time.Second).Sub(now)
		if wait <= 0 {
			p.Kept = append(p.Kept, pod)
			continue
		}
		left[pod.Name] = at
		p.Again = pods.Sooner(p.Again, wait)
	}
	if len(left) == 0 {
		return nil
	}
	return left
}

// fail allows nothing: whoever cannot count must not let go.
func (p *Plan) fail(err error, now time.Time) {
	before := p.Status.DeepCopy().Conditions
	p.Status.DisruptionsAllowed = 0
	meta.SetStatusCondition(&p.Status.Conditions, metav1.Condition{Type: policyv1.DisruptionAllowedCondition, Status: metav1.ConditionFalse,
		Reason: policyv1.SyncFailedReason, Message: err.Error(), ObservedGeneration: p.Status.ObservedGeneration})
	stamp(p.Status.Conditions, before, now)
	p.Again = failedAgainSeconds * time.Second
}

// stamp gives conditions that changed the decision's time instead of the clock's.
func stamp(conditions, before []metav1.Condition, now time.Time) {
	for i := range conditions {
		if was := meta.FindStatusCondition(before, conditions[i].Type); was == nil || was.Status != conditions[i].Status {
			conditions[i].LastTransitionTime = metav1.NewTime(now)
		}
	}
}

// Stale tells whether a pod says of itself that it goes, although it does not: its eviction failed. left is when it will be so.
// What a node says of its own pods stands, and so does what stands on pods that have ended.
func Stale(pod *v1.Pod, now time.Time) (stale bool, left time.Duration) {
	if !pods.Active(pod) {
		return false, 0
	}
	for i := range pod.Status.Conditions {
		c := &pod.Status.Conditions[i]
		if c.Type != v1.DisruptionTarget || c.Status != v1.ConditionTrue || c.Reason == v1.PodReasonTerminationByKubelet {
			continue
		}
		left = c.LastTransitionTime.Add(DeletionTimeoutSeconds * time.Second).Sub(now)
		return left <= 0, max(0, left)
	}
	return false, 0
}
