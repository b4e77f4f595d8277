package aggregation

import (
	"context"
	"log/slog"
	"testing"
	"time"

	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes/fake"
)

func role(name string, labels map[string]string, verbs ...string) *rbacv1.ClusterRole {
	r := &rbacv1.ClusterRole{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: labels}}
	for _, v := range verbs {
		r.Rules = append(r.Rules, rbacv1.PolicyRule{Verbs: []string{v}, APIGroups: []string{""}, Resources: []string{"pods"}})
	}
	return r
}

func aggregate(r *rbacv1.ClusterRole, label string) *rbacv1.ClusterRole {
	r.AggregationRule = &rbacv1.AggregationRule{ClusterRoleSelectors: []metav1.LabelSelector{{MatchLabels: map[string]string{label: "true"}}}}
	return r
}

func TestPlan(t *testing.T) {
	to := map[string]string{"to-all": "true"}
	roles := []*rbacv1.ClusterRole{
		role("b", to, "list", "get"), role("a", to, "get"), role("c", nil, "delete"), aggregate(role("all", to, "old"), "to-all"),
		aggregate(role("right", nil), "to-nothing"),
	}
	changes, err := Plan(roles)
	if err != nil || len(changes) != 1 || changes[0].Role != "all" || len(changes[0].Rules) != 2 ||
		changes[0].Rules[0].Verbs[0] != "get" || changes[0].Rules[1].Verbs[0] != "list" {
		t.Fatalf("%+v %v", changes, err)
	}
	if roles[3].Rules[0].Verbs[0] != "old" {
		t.Error("the role itself was changed")
	}
	roles[3].Rules = changes[0].Rules
	if changes, err := Plan(roles); len(changes) != 0 || err != nil {
		t.Errorf("a second plan changes %v (%v)", changes, err)
	}
	bad := aggregate(role("bad", nil), "x")
	bad.AggregationRule.ClusterRoleSelectors[0].MatchExpressions = []metav1.LabelSelectorRequirement{{Key: "a", Operator: "Bogus"}}
	if _, err := Plan([]*rbacv1.ClusterRole{bad}); err == nil {
		t.Error("no error of a bad selector")
	}
}

func TestLoop(t *testing.T) {
	client := fake.NewClientset(aggregate(role("all", nil), "to-all"), role("a", map[string]string{"to-all": "true"}, "get"))
	factory := informers.NewSharedInformerFactory(client, 0)
	loop, err := New(client, factory.Rbac().V1().ClusterRoles(), slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan struct{})
	t.Cleanup(func() { cancel(); <-ended; factory.Shutdown() })
	factory.Start(ctx.Done())
	go func() { loop.Run(ctx); close(ended) }()
	err = wait.PollUntilContextTimeout(ctx, 5*time.Millisecond, 20*time.Second, true, func(ctx context.Context) (bool, error) {
		r, err := client.RbacV1().ClusterRoles().Get(ctx, "all", metav1.GetOptions{})
		return err == nil && len(r.Rules) == 1 && r.Rules[0].Verbs[0] == "get", err
	})
	if err != nil {
		t.Fatal(err)
	}
}
