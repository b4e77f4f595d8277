package policies

import (
	"testing"
	"testing/synctest"

	admissionv1 "k8s.io/api/admissionregistration/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/podvine/podvine/agent/control/loop"
	"github.com/podvine/podvine/agent/control/loop/looptest"
)

// TestAPolicyIsCheckedOnceAGeneration: what the check finds is in the status, for the generation that was checked.
func TestAPolicyIsCheckedOnceAGeneration(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		seen := &admissionv1.ValidatingAdmissionPolicy{ObjectMeta: metav1.ObjectMeta{Name: "seen", Generation: 4}}
		seen.Status.ObservedGeneration = 4
		c := looptest.New(t, &admissionv1.ValidatingAdmissionPolicy{ObjectMeta: metav1.ObjectMeta{Name: "p", Generation: 1}}, seen)
		defer c.Stop()
		checks := 0
		l, err := New(loop.Wiring{Client: c.Client, Informers: c.Informers, Logger: c.Logger()},
			func(p *admissionv1.ValidatingAdmissionPolicy) []admissionv1.ExpressionWarning {
				checks++
				return []admissionv1.ExpressionWarning{{FieldRef: "spec.validations[0].expression", Warning: "no such field"}}
			})
		c.Must(err)
		c.Start(l)
		policies := c.Client.AdmissionregistrationV1().ValidatingAdmissionPolicies()
		p, err := policies.Get(t.Context(), "p", metav1.GetOptions{})
		c.Must(err)
		if checks != 1 || p.Status.ObservedGeneration != 1 || len(p.Status.TypeChecking.ExpressionWarnings) != 1 {
			t.Errorf("%d checks, status %+v", checks, p.Status)
		}
		p.Generation = 2
		_, err = policies.Update(t.Context(), p, metav1.UpdateOptions{})
		c.Must(err)
		c.Settle()
		p, err = policies.Get(t.Context(), "p", metav1.GetOptions{})
		c.Must(err)
		if checks != 2 || p.Status.ObservedGeneration != 2 {
			t.Errorf("%d checks, status %+v", checks, p.Status)
		}
	})
}
