package control_test

import (
	"context"
	"encoding/json"
	"fmt"

	v1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/client-go/kubernetes"

	"github.com/podvine/podvine/agent/control"
)

const widgets = `{"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition", "metadata": {"name": "widgets.example.com"}, "spec": {
 "group": "example.com", "scope": "Namespaced", "names": {"plural": "widgets", "kind": "Widget"}, "versions": [{"name": "v1", "served": true, "storage": true,
 "schema": {"openAPIV3Schema": {"type": "object", "properties": {"spec": {"type": "object", "properties": {"replicas": {"type": "integer"}}},
 "status": {"type": "object", "properties": {"replicas": {"type": "integer"}}}}}},
 "subresources": {"scale": {"specReplicasPath": ".spec.replicas", "statusReplicasPath": ".status.replicas"}}}]}}`

// guards has budgets hold back evictions: of a deployment's pods, and of those of a custom resource that has a scale.
func (r *real) guards(ctx context.Context) {
	r.Helper()
	budgets, one := r.PolicyV1().PodDisruptionBudgets("shop"), intstr.FromInt32(1)
	budget := func(name string) {
		_, err := budgets.Create(ctx, &policyv1.PodDisruptionBudget{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: policyv1.PodDisruptionBudgetSpec{
			MaxUnavailable: &one, Selector: &metav1.LabelSelector{MatchLabels: map[string]string{"app": name}}}}, metav1.CreateOptions{})
		r.must(err)
	}
	says := func(name string, expected, allowed int32) {
		r.until("count for "+name, func() (bool, string) {
			said := r.playNode("shop")
			b, err := budgets.Get(ctx, name, metav1.GetOptions{})
			r.must(err)
			return b.Status.ExpectedPods == expected && b.Status.DisruptionsAllowed == allowed, fmt.Sprintf("%s, status %+v", said, b.Status)
		})
	}
	budget("web")
	says("web", 3, 1)
	pods, err := r.CoreV1().Pods("shop").List(ctx, metav1.ListOptions{LabelSelector: "app=web"})
	r.must(err)
	as, groups := control.User(control.NameRebalancer) // whose rights are for this
	rebalancer := kubernetes.NewForConfigOrDie(r.cluster.Server.ClientConfig(&user.DefaultInfo{Name: as, Groups: groups}))
	evict := func(name string) error {
		return rebalancer.PolicyV1().Evictions("shop").Evict(ctx, &policyv1.Eviction{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: name}})
	}
	r.must(evict(pods.Items[0].Name))
	if err := evict(pods.Items[1].Name); !apierrors.HasStatusCause(err, policyv1.DisruptionBudgetCause) {
		r.Errorf("a second eviction: %v", err)
	}
	says("web", 3, 1)
	r.must(budgets.Delete(ctx, "web", metav1.DeleteOptions{}))

	raw := r.Discovery().RESTClient()
	_, err = raw.Post().AbsPath("/apis/apiextensions.k8s.io/v1/customresourcedefinitions").Body([]byte(widgets)).DoRaw(ctx)
	r.must(err)
	var widget metav1.PartialObjectMetadata
	r.until("make a custom resource", func() (bool, string) {
		answer, err := raw.Post().AbsPath("/apis/example.com/v1/namespaces/shop/widgets").SetHeader("Accept", "application/json").
			Body([]byte(`{"apiVersion": "example.com/v1", "kind": "Widget", "metadata": {"name": "w"}, "spec": {"replicas": 2}}`)).DoRaw(ctx)
		if err == nil {
			err = json.Unmarshal(answer, &widget)
		}
		return err == nil, fmt.Sprint(err)
	})
	yes := true
	for _, name := range []string{"w-0", "w-1"} {
		_, err := r.CoreV1().Pods("shop").Create(ctx, &v1.Pod{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{"app": "widget"},
			OwnerReferences: []metav1.OwnerReference{{APIVersion: "example.com/v1", Kind: "Widget", Name: "w", UID: widget.UID, Controller: &yes}}},
			Spec: v1.PodSpec{Containers: []v1.Container{{Name: "c", Image: "v1"}}}}, metav1.CreateOptions{})
		r.must(err)
	}
	budget("widget")
	says("widget", 2, 1)
	_, err = raw.Delete().AbsPath("/apis/example.com/v1/namespaces/shop/widgets/w").DoRaw(ctx)
	r.must(err)
	r.until("end the custom resource's pods", func() (bool, string) {
		r.playNode("shop")
		_, err := r.CoreV1().Pods("shop").Get(ctx, "w-0", metav1.GetOptions{})
		return apierrors.IsNotFound(err), fmt.Sprint(err)
	})
	r.must(budgets.Delete(ctx, "widget", metav1.DeleteOptions{}))
}
