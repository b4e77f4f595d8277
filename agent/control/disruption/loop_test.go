package disruption_test

import (
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	v1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/client-go/tools/record"

	"github.com/podvine/podvine/agent/control/disruption"
	"github.com/podvine/podvine/agent/control/loop"
	"github.com/podvine/podvine/agent/control/loop/looptest"
)

func owned(kind, name string) []metav1.OwnerReference {
	yes := true
	return []metav1.OwnerReference{{APIVersion: "apps/v1", Kind: kind, Name: name, UID: types.UID(name), Controller: &yes}}
}

// TestLoop follows pods and the size of their deployment, writes nothing when nothing changed, and takes back what did not come true.
func TestLoop(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		app, three, one := map[string]string{"app": "a"}, int32(3), intstr.FromInt32(1)
		c := looptest.New(t,
			&appsv1.Deployment{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: "d", UID: "d"}, Spec: appsv1.DeploymentSpec{Replicas: &three}},
			&appsv1.ReplicaSet{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: "r", UID: "r", OwnerReferences: owned("Deployment", "d")}, Spec: appsv1.ReplicaSetSpec{Replicas: &three}},
			&policyv1.PodDisruptionBudget{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: "b", Generation: 1},
				Spec: policyv1.PodDisruptionBudgetSpec{MaxUnavailable: &one, Selector: &metav1.LabelSelector{MatchLabels: app}}})
		defer c.Stop()
		wiring := loop.Wiring{Client: c.Client, Informers: c.Informers, Logger: c.Logger(), Recorder: record.NewFakeRecorder(100)}
		l, err := disruption.New(wiring, loop.NewKinds(c.Client.Discovery()))
		c.Must(err)
		stale, err := disruption.NewStale(wiring)
		c.Must(err)
		c.Start(l, stale)
		pods, budgets := c.Client.CoreV1().Pods("ns"), c.Client.PolicyV1().PodDisruptionBudgets("ns")
		status := func(want string) *policyv1.PodDisruptionBudget {
			t.Helper()
			c.Settle()
			b, err := budgets.Get(t.Context(), "b", metav1.GetOptions{})
			c.Must(err)
			s := b.Status
			if got := fmt.Sprintf("%d of %d/%d allowed %d", s.CurrentHealthy, s.DesiredHealthy, s.ExpectedPods, s.DisruptionsAllowed); got != want || s.ObservedGeneration != b.Generation {
				t.Errorf("says %q, want %q", got, want)
			}
			return b
		}
		status("0 of 0/0 allowed 0")
		for i := range 3 {
			_, err := pods.Create(t.Context(), &v1.Pod{ObjectMeta: metav1.ObjectMeta{Name: fmt.Sprint("p", i), Labels: app, OwnerReferences: owned("ReplicaSet", "r")},
				Status: v1.PodStatus{Phase: v1.PodRunning, Conditions: []v1.PodCondition{{Type: v1.PodReady, Status: v1.ConditionTrue}}}}, metav1.CreateOptions{})
			c.Must(err)
		}
		b := status("3 of 2/3 allowed 1")
		c.Client.ClearActions()
		c.Pass(time.Hour)
		if actions := c.Client.Actions(); len(actions) > 0 {
			t.Errorf("an idle loop does %v", actions)
		}

		// The API books an eviction, which comes to nothing.
		b.Status.DisruptionsAllowed, b.Status.DisruptedPods = 0, map[string]metav1.Time{"p0": metav1.Now()}
		_, err = budgets.UpdateStatus(t.Context(), b, metav1.UpdateOptions{})
		c.Must(err)
		p, err := pods.Get(t.Context(), "p0", metav1.GetOptions{})
		c.Must(err)
		p.Status.Conditions = append(p.Status.Conditions, v1.PodCondition{Type: v1.DisruptionTarget, Status: v1.ConditionTrue, Reason: "EvictionByEvictionAPI", LastTransitionTime: metav1.Now()})
		_, err = pods.UpdateStatus(t.Context(), p, metav1.UpdateOptions{})
		c.Must(err)
		status("2 of 2/3 allowed 0")
		c.Pass(disruption.DeletionTimeoutSeconds * time.Second)
		if b := status("3 of 2/3 allowed 1"); len(b.Status.DisruptedPods) != 0 {
			t.Errorf("still going: %v", b.Status.DisruptedPods)
		}
		p, err = pods.Get(t.Context(), "p0", metav1.GetOptions{})
		c.Must(err)
		for _, condition := range p.Status.Conditions {
			if condition.Type == v1.DisruptionTarget && condition.Status != v1.ConditionFalse {
				t.Errorf("says still that it goes: %+v", condition)
			}
		}

		d, err := c.Client.AppsV1().Deployments("ns").Get(t.Context(), "d", metav1.GetOptions{})
		c.Must(err)
		five := int32(5)
		d.Spec.Replicas = &five
		_, err = c.Client.AppsV1().Deployments("ns").Update(t.Context(), d, metav1.UpdateOptions{})
		c.Must(err)
		status("3 of 4/5 allowed 0")
	})
}
