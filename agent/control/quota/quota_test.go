package quota

import (
	"testing"
	"testing/synctest"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	metadatafake "k8s.io/client-go/metadata/fake"
	"k8s.io/utils/ptr"
	"pgregory.net/rapid"

	"github.com/podvine/podvine/agent/control/loop"
	"github.com/podvine/podvine/agent/control/loop/looptest"
)

func amounts(pairs ...string) corev1.ResourceList {
	list := corev1.ResourceList{}
	for i := 0; i < len(pairs); i += 2 {
		list[corev1.ResourceName(pairs[i])] = resource.MustParse(pairs[i+1])
	}
	return list
}

func quotaOf(spec corev1.ResourceQuotaSpec) *corev1.ResourceQuota {
	return &corev1.ResourceQuota{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: "q"}, Spec: spec}
}

func podOf(name string, edit func(*corev1.Pod)) *corev1.Pod {
	p := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: name}, Spec: corev1.PodSpec{Containers: []corev1.Container{{
		Name: "c", Resources: corev1.ResourceRequirements{Requests: amounts("cpu", "100m"), Limits: amounts("cpu", "1", "memory", "1Gi")}}}}}
	if edit != nil {
		edit(p)
	}
	return p
}

func TestDecide(t *testing.T) {
	now := time.Unix(1_000_000, 0)
	pods := corev1.Resource("pods")
	deployments := schema.GroupResource{Group: "apps", Resource: "deployments"}
	deleting := func(ago time.Duration) *corev1.Pod {
		return podOf("d", func(p *corev1.Pod) {
			p.DeletionTimestamp, p.DeletionGracePeriodSeconds = &metav1.Time{Time: now.Add(-ago)}, ptr.To[int64](30)
		})
	}
	service := &corev1.Service{Spec: corev1.ServiceSpec{Type: corev1.ServiceTypeLoadBalancer, Ports: make([]corev1.ServicePort, 2)}}
	for name, test := range map[string]struct {
		spec    corev1.ResourceQuotaSpec
		status  corev1.ResourceList
		objects map[schema.GroupResource][]runtime.Object
		want    corev1.ResourceList
		again   time.Duration
	}{
		"nothing is there": {spec: corev1.ResourceQuotaSpec{Hard: amounts("pods", "3")}, want: amounts("pods", "0")},
		"requests and limits": {spec: corev1.ResourceQuotaSpec{Hard: amounts("cpu", "3", "requests.cpu", "3", "limits.memory", "9Gi")},
			objects: map[schema.GroupResource][]runtime.Object{pods: {podOf("a", nil), podOf("b", nil)}},
			want:    amounts("cpu", "200m", "requests.cpu", "200m", "limits.memory", "2Gi")},
		"an ended pod is an object and uses nothing": {spec: corev1.ResourceQuotaSpec{Hard: amounts("pods", "3", "count/pods", "3")},
			objects: map[schema.GroupResource][]runtime.Object{pods: {podOf("a", func(p *corev1.Pod) { p.Status.Phase = corev1.PodSucceeded })}},
			want:    amounts("pods", "0", "count/pods", "1")},
		"a pod in its grace period": {spec: corev1.ResourceQuotaSpec{Hard: amounts("pods", "3")},
			objects: map[schema.GroupResource][]runtime.Object{pods: {deleting(10 * time.Second)}}, want: amounts("pods", "1"), again: 20 * time.Second},
		"a pod after it": {spec: corev1.ResourceQuotaSpec{Hard: amounts("pods", "3")},
			objects: map[schema.GroupResource][]runtime.Object{pods: {deleting(31 * time.Second)}}, want: amounts("pods", "0")},
		"a scope": {spec: corev1.ResourceQuotaSpec{Hard: amounts("pods", "3"), Scopes: []corev1.ResourceQuotaScope{corev1.ResourceQuotaScopeBestEffort}},
			objects: map[schema.GroupResource][]runtime.Object{pods: {podOf("a", nil), podOf("b", func(p *corev1.Pod) { p.Spec.Containers[0].Resources = corev1.ResourceRequirements{} })}},
			want:    amounts("pods", "1")},
		"a scope selector": {spec: corev1.ResourceQuotaSpec{Hard: amounts("pods", "3"), ScopeSelector: &corev1.ScopeSelector{
			MatchExpressions: []corev1.ScopedResourceSelectorRequirement{{ScopeName: corev1.ResourceQuotaScopePriorityClass, Operator: corev1.ScopeSelectorOpIn, Values: []string{"high"}}}}},
			objects: map[schema.GroupResource][]runtime.Object{pods: {podOf("a", nil), podOf("b", func(p *corev1.Pod) { p.Spec.PriorityClassName = "high" })}},
			want:    amounts("pods", "1")},
		"services": {spec: corev1.ResourceQuotaSpec{Hard: amounts("services", "3", "services.nodeports", "3", "services.loadbalancers", "3")},
			objects: map[schema.GroupResource][]runtime.Object{corev1.Resource("services"): {service}},
			want:    amounts("services", "1", "services.nodeports", "2", "services.loadbalancers", "1")},
		"objects of any kind": {spec: corev1.ResourceQuotaSpec{Hard: amounts("count/deployments.apps", "3", "secrets", "3")},
			objects: map[schema.GroupResource][]runtime.Object{deployments: {&metav1.PartialObjectMetadata{}, &metav1.PartialObjectMetadata{}}},
			want:    amounts("count/deployments.apps", "2", "secrets", "0")},
		"what is no longer limited goes": {spec: corev1.ResourceQuotaSpec{Hard: amounts("pods", "3")}, status: amounts("pods", "0", "secrets", "5"), want: amounts("pods", "0")},
	} {
		q := quotaOf(test.spec)
		q.Status.Used = test.status
		plan, err := Decide(View{q, test.objects}, now)
		if err != nil || !plan.Changed || plan.Again != test.again || len(plan.Status.Used) != len(test.want) {
			t.Errorf("%s: %+v %v", name, plan, err)
		}
		for resource, want := range test.want {
			if got := plan.Status.Used[resource]; got.Cmp(want) != 0 {
				t.Errorf("%s: %s of %s, want %s", name, got.String(), resource, want.String())
			}
		}
		q.Status = plan.Status
		if again, err := Decide(View{q, test.objects}, now); err != nil || again.Changed {
			t.Errorf("%s: decided again: %+v %v", name, again, err)
		}
	}
}

// Whatever was counted before, what is counted is what is there.
func TestDecideForgetsTheOldNumber(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		there := rapid.IntRange(0, 20).Draw(t, "there")
		q := quotaOf(corev1.ResourceQuotaSpec{Hard: amounts("pods", "5")})
		q.Status.Used = corev1.ResourceList{"pods": *resource.NewQuantity(int64(rapid.IntRange(0, 20).Draw(t, "before")), resource.DecimalSI)}
		view := View{q, map[schema.GroupResource][]runtime.Object{}}
		for range there {
			view.Objects[corev1.Resource("pods")] = append(view.Objects[corev1.Resource("pods")], podOf("p", nil))
		}
		plan, err := Decide(view, time.Unix(0, 0))
		if n := plan.Status.Used["pods"]; err != nil || n.Value() != int64(there) {
			t.Fatalf("%d pods are counted as %s: %v", there, n.String(), err)
		}
	})
}

func TestTheLoopGivesBackWhatIsGone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := looptest.New(t, quotaOf(corev1.ResourceQuotaSpec{Hard: amounts("pods", "5")}), podOf("a", nil), podOf("b", nil))
		defer c.Stop()
		scheme := runtime.NewScheme()
		c.Must(metav1.AddMetaToScheme(scheme))
		l, err := New(loop.Wiring{Client: c.Client, Informers: c.Informers, Logger: c.Logger()}, metadatafake.NewSimpleMetadataClient(scheme))
		c.Must(err)
		c.Start(l)
		used := func() int64 {
			q, err := c.Client.CoreV1().ResourceQuotas("ns").Get(t.Context(), "q", metav1.GetOptions{})
			c.Must(err)
			n := q.Status.Used["pods"]
			return n.Value()
		}
		if got := used(); got != 2 {
			t.Errorf("%d pods are counted, want 2", got)
		}
		c.Must(c.Client.CoreV1().Pods("ns").Delete(t.Context(), "a", metav1.DeleteOptions{}))
		c.Settle()
		if got := used(); got != 1 {
			t.Errorf("%d pods are counted, want 1", got)
		}
	})
}
