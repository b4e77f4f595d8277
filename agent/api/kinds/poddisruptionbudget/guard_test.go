package poddisruptionbudget

import (
	"fmt"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"pgregory.net/rapid"
)

func budget(allowed int32, change ...func(*policyv1.PodDisruptionBudget)) *policyv1.PodDisruptionBudget {
	b := &policyv1.PodDisruptionBudget{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: "b", Generation: 1}}
	b.Status = policyv1.PodDisruptionBudgetStatus{ObservedGeneration: 1, DisruptionsAllowed: allowed, DesiredHealthy: 2, CurrentHealthy: 2 + allowed}
	for _, f := range change {
		f(b)
	}
	return b
}

func TestBook(t *testing.T) {
	unobserved := func(b *policyv1.PodDisruptionBudget) { b.Generation = 2 }
	failed := func(b *policyv1.PodDisruptionBudget) {
		b.Status.Conditions = []metav1.Condition{{Type: policyv1.DisruptionAllowedCondition, Status: metav1.ConditionFalse, Reason: policyv1.SyncFailedReason, Message: "no scale"}}
	}
	full := func(b *policyv1.PodDisruptionBudget) {
		b.Status.DisruptedPods = map[string]metav1.Time{}
		for i := range maxDisrupted + 1 {
			b.Status.DisruptedPods[fmt.Sprint(i)] = metav1.Time{}
		}
	}
	for name, test := range map[string]struct {
		b     *policyv1.PodDisruptionBudget
		is    func(error) bool
		cause string
		after int32
	}{
		"not counted yet": {budget(1, unobserved), apierrors.IsTooManyRequests, "The disruption budget b is still being processed by the server.", 10},
		"used up":         {budget(0), apierrors.IsTooManyRequests, "The disruption budget b needs 2 healthy pods and has 2 currently", 0},
		"not countable":   {budget(0, failed), apierrors.IsTooManyRequests, "The disruption budget b does not allow evicting pods currently because it failed sync: no scale", 0},
		"negative":        {budget(-1), apierrors.IsForbidden, "", 0},
		"too many booked": {budget(1, full), apierrors.IsForbidden, "", 0},
	} {
		next, err := book(test.b, "p", time.Now())
		if next != nil || !test.is(err) {
			t.Errorf("%s: %v, %v", name, next, err)
			continue
		}
		details := err.(*apierrors.StatusError).ErrStatus.Details
		if details.RetryAfterSeconds != test.after || test.cause != "" && (len(details.Causes) != 1 || details.Causes[0].Message != test.cause || details.Causes[0].Type != policyv1.DisruptionBudgetCause) {
			t.Errorf("%s: %+v", name, details)
		}
	}
}

// TestBooksNoMore: as many bookings are granted as were allowed, each noted, and the budget that was looked at is not changed.
func TestBooksNoMore(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		allowed := rapid.Int32Range(0, 6).Draw(t, "allowed")
		b, granted := budget(allowed), int32(0)
		for i := range rapid.IntRange(0, 10).Draw(t, "asked") {
			before := b.DeepCopy()
			next, err := book(b, fmt.Sprint("p", i), time.Unix(int64(i), 0))
			if b.Status.DisruptionsAllowed != before.Status.DisruptionsAllowed || len(b.Status.DisruptedPods) != len(before.Status.DisruptedPods) {
				t.Fatal("the budget was changed in place")
			}
			if err != nil {
				continue
			}
			granted++
			b = next
		}
		if granted > allowed || b.Status.DisruptionsAllowed != allowed-granted || len(b.Status.DisruptedPods) != int(granted) {
			t.Fatalf("granted %d of %d, left %d, booked %d", granted, allowed, b.Status.DisruptionsAllowed, len(b.Status.DisruptedPods))
		}
		if granted > 0 && granted == allowed && b.Status.Conditions[0].Reason != policyv1.InsufficientPodsReason {
			t.Fatalf("conditions %+v", b.Status.Conditions)
		}
	})
}

func TestUnreadyPodsMayGo(t *testing.T) {
	always := func(b *policyv1.PodDisruptionBudget) {
		p := policyv1.AlwaysAllow
		b.Spec.UnhealthyPodEvictionPolicy = &p
	}
	disrupted := func(b *policyv1.PodDisruptionBudget) { b.Status.CurrentHealthy = 1 }
	nobody := func(b *policyv1.PodDisruptionBudget) { b.Status.CurrentHealthy, b.Status.DesiredHealthy = 0, 0 }
	ready := &corev1.Pod{Status: corev1.PodStatus{Conditions: []corev1.PodCondition{{Type: corev1.PodReady, Status: corev1.ConditionTrue}}}}
	for name, test := range map[string]struct {
		b    *policyv1.PodDisruptionBudget
		pod  *corev1.Pod
		want bool
	}{
		"ready":                           {budget(0, always), ready, false},
		"enough others":                   {budget(0), &corev1.Pod{}, true},
		"not enough others":               {budget(0, disrupted), &corev1.Pod{}, false},
		"none wanted":                     {budget(0, nobody), &corev1.Pod{}, false},
		"not enough others, always allow": {budget(0, disrupted, always), &corev1.Pod{}, true},
	} {
		if got := exempt(test.b, test.pod); got != test.want {
			t.Errorf("%s: %v", name, got)
		}
	}
}
