package api_test

import (
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/client-go/kubernetes"

	"github.com/podvine/podvine/agent/api/apitest"
	"github.com/podvine/podvine/agent/api/apitest/kubectl"
)

// evictions plays the loop and the node: no control loop runs here.
type evictions struct {
	*testing.T
	kubernetes.Interface
	ns string
}

func (e *evictions) pod(name string, labels map[string]string, phase corev1.PodPhase, ready bool) {
	e.Helper()
	p, err := e.CoreV1().Pods(e.ns).Create(e.Context(), &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: labels},
		Spec: corev1.PodSpec{NodeName: "n", Containers: []corev1.Container{{Name: "c", Image: "i"}}}}, metav1.CreateOptions{})
	if err != nil {
		e.Fatal(err)
	}
	p.Status.Phase = phase
	if ready {
		p.Status.Conditions = []corev1.PodCondition{{Type: corev1.PodReady, Status: corev1.ConditionTrue}}
	}
	if _, err := e.CoreV1().Pods(e.ns).UpdateStatus(e.Context(), p, metav1.UpdateOptions{}); err != nil {
		e.Fatal(err)
	}
}

func (e *evictions) budget(name, app string, status policyv1.PodDisruptionBudgetStatus) {
	e.Helper()
	one := intstr.FromInt32(1)
	b, err := e.PolicyV1().PodDisruptionBudgets(e.ns).Create(e.Context(), &policyv1.PodDisruptionBudget{ObjectMeta: metav1.ObjectMeta{Name: name},
		Spec: policyv1.PodDisruptionBudgetSpec{MinAvailable: &one, Selector: &metav1.LabelSelector{MatchLabels: map[string]string{"app": app}}}}, metav1.CreateOptions{})
	if err != nil {
		e.Fatal(err)
	}
	b.Status = status
	if _, err := e.PolicyV1().PodDisruptionBudgets(e.ns).UpdateStatus(e.Context(), b, metav1.UpdateOptions{}); err != nil {
		e.Fatal(err)
	}
}

// evict asks once: the client would ask a server that names a time to wait for again, ten times.
func (e *evictions) evict(pod string, options *metav1.DeleteOptions) error {
	eviction := &policyv1.Eviction{ObjectMeta: metav1.ObjectMeta{Namespace: e.ns, Name: pod}, DeleteOptions: options}
	return e.PolicyV1().RESTClient().Post().MaxRetries(0).AbsPath("/api/v1").Namespace(e.ns).Resource("pods").Name(pod).SubResource("eviction").
		Body(eviction).Do(e.Context()).Error()
}

func testEvictions(t *testing.T, c *apitest.Cluster, k *kubectl.Kubectl) {
	e := &evictions{t, c.Client(t), "evictions"}
	namespace(t, k, e.ns)
	if _, err := e.CoreV1().ServiceAccounts(e.ns).Create(t.Context(), &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Name: "default"}}, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	t.Run("many at once stay within the budget", func(t *testing.T) { (&evictions{t, e.Interface, e.ns}).many() })
	t.Run("who may go", func(t *testing.T) { (&evictions{t, e.Interface, e.ns}).cases() })
}

func (e *evictions) many() {
	const pods, allowed = 20, 7
	for i := range pods {
		e.pod(fmt.Sprint("many-", i), map[string]string{"app": "many"}, corev1.PodRunning, true)
	}
	e.budget("many", "many", policyv1.PodDisruptionBudgetStatus{ObservedGeneration: 1, DisruptionsAllowed: allowed, CurrentHealthy: pods, DesiredHealthy: pods - allowed, ExpectedPods: pods})
	if err := e.evict("many-0", &metav1.DeleteOptions{DryRun: []string{metav1.DryRunAll}}); err != nil {
		e.Error("dry run:", err)
	}
	var group sync.WaitGroup
	var done, refused atomic.Int32
	for i := range pods {
		group.Go(func() {
			switch err := e.evict(fmt.Sprint("many-", i), nil); {
			case err == nil:
				done.Add(1)
			case apierrors.IsTooManyRequests(err) && apierrors.HasStatusCause(err, policyv1.DisruptionBudgetCause):
				refused.Add(1)
			default:
				e.Errorf("evict: %v", err)
			}
		})
	}
	group.Wait()
	b, err := e.PolicyV1().PodDisruptionBudgets(e.ns).Get(e.Context(), "many", metav1.GetOptions{})
	if err != nil || done.Load() != allowed || refused.Load() != pods-allowed || b.Status.DisruptionsAllowed != 0 || len(b.Status.DisruptedPods) != allowed {
		e.Errorf("%d went, %d stayed: %+v, %v", done.Load(), refused.Load(), b.Status, err)
	}
}

func (e *evictions) cases() {
	full := policyv1.PodDisruptionBudgetStatus{ObservedGeneration: 1, CurrentHealthy: 1, DesiredHealthy: 1, ExpectedPods: 1}
	short := policyv1.PodDisruptionBudgetStatus{ObservedGeneration: 1, DesiredHealthy: 1, ExpectedPods: 1}
	e.budget("full", "full", full)
	e.budget("short", "short", short)
	e.budget("twice-a", "twice", full)
	e.budget("twice-b", "twice", full)
	e.budget("new", "new", policyv1.PodDisruptionBudgetStatus{})
	other := types.UID("other")
	for i, test := range []struct {
		app     string
		phase   corev1.PodPhase
		ready   bool
		options *metav1.DeleteOptions
		want    string // part of the error; empty goes
	}{
		{app: "none", phase: corev1.PodRunning, ready: true},
		{app: "full", phase: corev1.PodRunning, ready: true, want: "Cannot evict pod as it would violate the pod's disruption budget."},
		{app: "full", phase: corev1.PodRunning, ready: true, options: &metav1.DeleteOptions{DryRun: []string{metav1.DryRunAll}}, want: "violate"},
		{app: "full", phase: corev1.PodRunning},
		{app: "short", phase: corev1.PodRunning, want: "violate"},
		{app: "full", phase: corev1.PodPending},
		{app: "full", phase: corev1.PodSucceeded},
		{app: "full", phase: corev1.PodFailed},
		{app: "new", phase: corev1.PodRunning, ready: true, want: "violate"},
		{app: "twice", phase: corev1.PodRunning, ready: true, want: "This pod has more than one PodDisruptionBudget, which the eviction subresource does not support."},
		{app: "none", phase: corev1.PodRunning, options: &metav1.DeleteOptions{Preconditions: &metav1.Preconditions{UID: &other}}, want: "precondition failed: UID"},
	} {
		name := fmt.Sprint("case-", i)
		e.pod(name, map[string]string{"app": test.app}, test.phase, test.ready)
		err := e.evict(name, test.options)
		if (err == nil) != (test.want == "") || err != nil && !strings.Contains(err.Error(), test.want) {
			e.Errorf("%+v: %v", test, err)
		}
		if test.app == "new" {
			if seconds, ok := apierrors.SuggestsClientDelay(err); !ok || seconds != 10 {
				e.Errorf("to be tried again after %d s, %v", seconds, ok)
			}
		}
		p, getErr := e.CoreV1().Pods(e.ns).Get(e.Context(), name, metav1.GetOptions{})
		if gone := apierrors.IsNotFound(getErr) || getErr == nil && p.DeletionTimestamp != nil; gone != (test.want == "") {
			e.Errorf("%+v: gone is %v, %v", test, gone, getErr)
		}
	}
}
