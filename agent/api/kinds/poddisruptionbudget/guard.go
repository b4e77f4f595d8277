package poddisruptionbudget

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"

	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/apis/meta/internalversion"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	genericregistry "k8s.io/apiserver/pkg/registry/generic/registry"
	"k8s.io/apiserver/pkg/registry/rest"
	budgets "k8s.io/component-helpers/apps/poddisruptionbudget"
)

const (
	// maxDisrupted bounds the evictions that a budget has booked and that the loop has not seen done, as in Kubernetes.
	maxDisrupted = 2000
	// retryAfterSeconds is what a client is told to wait while the loop has not counted for the budget as it is now.
	retryAfterSeconds = 10

	violates = "Cannot evict pod as it would violate the pod's disruption budget."
)

// Guard decides on evictions by the budgets that are stored, and books them there. Safe for concurrent use once the kind is
// installed; two bookings never count as one, because each is made on the budget as it is stored.
type Guard struct{ store, status *genericregistry.Store }

// Disrupt books the disruption of a running pod, or returns why it must stay: an API status error. Where the pod may go for what
// it is now (not ready), unlessChanged is not nil: what to answer if the pod was changed before it is deleted. With dryRun nothing
// is booked.
func (g *Guard) Disrupt(ctx context.Context, pod *corev1.Pod, dryRun bool) (unlessChanged, err error) {
	found, err := g.of(ctx, pod)
	if err != nil || len(found) == 0 {
		return nil, err
	}
	if len(found) > 1 {
		return nil, &apierrors.StatusError{ErrStatus: metav1.Status{Status: metav1.StatusFailure, Code: http.StatusInternalServerError,
			Message: "This pod has more than one PodDisruptionBudget, which the eviction subresource does not support."}}
	}
	if b := found[0]; exempt(b, pod) {
		return unready(b), nil
	}
	if dryRun {
		_, err := book(found[0], pod.Name, time.Now())
		return nil, err
	}
	change := func(_ context.Context, _, old runtime.Object) (runtime.Object, error) {
		b, ok := old.(*policyv1.PodDisruptionBudget)
		if !ok {
			return nil, fmt.Errorf("unexpected object: %#v", old)
		}
		return book(b, pod.Name, time.Now())
	}
	_, _, err = g.status.Update(ctx, found[0].Name, rest.DefaultUpdatedObjectInfo(nil, change), rest.ValidateAllObjectFunc,
		rest.ValidateAllObjectUpdateFunc, false, &metav1.UpdateOptions{})
	if apierrors.IsConflict(err) {
		return nil, apierrors.NewTimeoutError(fmt.Sprintf("couldn't update PodDisruptionBudget %q due to conflicts", found[0].Name), retryAfterSeconds)
	}
	return nil, err
}

// of returns the budgets that protect the pod.
func (g *Guard) of(ctx context.Context, pod *corev1.Pod) (found []*policyv1.PodDisruptionBudget, err error) {
	if g.store == nil {
		return nil, errors.New("read disruption budgets: they are not served yet")
	}
	all, err := g.store.List(ctx, &internalversion.ListOptions{})
	if err != nil {
		return nil, err
	}
	list, ok := all.(*policyv1.PodDisruptionBudgetList)
	if !ok {
		return nil, fmt.Errorf("read disruption budgets: unexpected type %T", all)
	}
	for i := range list.Items {
		selector, err := metav1.LabelSelectorAsSelector(list.Items[i].Spec.Selector)
		if err != nil {
			continue // it selects nothing, for the loop neither
		}
		if selector.Matches(labels.Set(pod.Labels)) {
			found = append(found, &list.Items[i])
		}
	}
	return found, nil
}

// exempt tells whether the pod is not ready and may go for that reason.
func exempt(b *policyv1.PodDisruptionBudget, pod *corev1.Pod) bool {
	for i := range pod.Status.Conditions {
		if c := &pod.Status.Conditions[i]; c.Type == corev1.PodReady && c.Status == corev1.ConditionTrue {
			return false
		}
	}
	if p := b.Spec.UnhealthyPodEvictionPolicy; p != nil && *p == policyv1.AlwaysAllow {
		return true
	}
	return b.Status.DesiredHealthy > 0 && b.Status.CurrentHealthy >= b.Status.DesiredHealthy
}

// book returns the budget with one disruption more. It is pure and changes nothing of b.
func book(b *policyv1.PodDisruptionBudget, pod string, now time.Time) (*policyv1.PodDisruptionBudget, error) {
	refuse := func(why string) error {
		return apierrors.NewForbidden(policyv1.Resource("poddisruptionbudget"), b.Name, errors.New(why))
	}
	switch s := &b.Status; {
	case s.ObservedGeneration < b.Generation:
		return nil, unready(b)
	case s.DisruptionsAllowed < 0:
		return nil, refuse("pdb disruptions allowed is negative")
	case len(s.DisruptedPods) > maxDisrupted:
		return nil, refuse("DisruptedPods map too big - too many evictions not confirmed by PDB controller")
	case s.DisruptionsAllowed == 0:
		return nil, exhausted(b)
	}
	next := b.DeepCopy()
	next.Status.DisruptionsAllowed--
	if next.Status.DisruptionsAllowed == 0 {
		budgets.UpdateDisruptionAllowedCondition(next)
	}
	if next.Status.DisruptedPods == nil {
		next.Status.DisruptedPods = map[string]metav1.Time{}
	}
	next.Status.DisruptedPods[pod] = metav1.NewTime(now)
	return next, nil
}

// unready says that what is known of the budget may not hold any more.
func unready(b *policyv1.PodDisruptionBudget) error {
	return tooMany(retryAfterSeconds, fmt.Sprintf("The disruption budget %s is still being processed by the server.", b.Name))
}

func exhausted(b *policyv1.PodDisruptionBudget) error {
	if c := meta.FindStatusCondition(b.Status.Conditions, policyv1.DisruptionAllowedCondition); c != nil && c.Reason == policyv1.SyncFailedReason {
		return tooMany(0, fmt.Sprintf("The disruption budget %s does not allow evicting pods currently because it failed sync: %v", b.Name, c.Message))
	}
	return tooMany(0, fmt.Sprintf("The disruption budget %s needs %d healthy pods and has %d currently", b.Name, b.Status.DesiredHealthy, b.Status.CurrentHealthy))
}

func tooMany(afterSeconds int, cause string) error {
	err := apierrors.NewTooManyRequests(violates, afterSeconds)
	err.ErrStatus.Details.Causes = []metav1.StatusCause{{Type: policyv1.DisruptionBudgetCause, Message: cause}}
	return err
}
