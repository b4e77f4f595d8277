package bootstrap

import (
	"context"
	"testing"

	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes/fake"
)

func TestPolicyIsWellFormed(t *testing.T) {
	o := Policy()
	roles := map[string]bool{}
	for _, r := range o.ClusterRoles {
		if roles[r.Name] {
			t.Errorf("cluster role %s is there twice", r.Name)
		}
		roles[r.Name] = true
		if len(r.Rules) == 0 && r.AggregationRule == nil {
			t.Errorf("cluster role %s allows nothing", r.Name)
		}
		for _, rule := range r.Rules {
			if len(rule.Verbs) == 0 || len(rule.Resources) == 0 == (len(rule.NonResourceURLs) == 0) {
				t.Errorf("cluster role %s: incomplete rule %v", r.Name, rule)
			}
		}
	}
	for _, b := range o.ClusterRoleBindings {
		if !roles[b.RoleRef.Name] {
			t.Errorf("binding %s refers to the unknown role %s", b.Name, b.RoleRef.Name)
		}
	}
	namespaced := map[string]bool{}
	for _, r := range o.Roles {
		namespaced[r.Namespace+"/"+r.Name] = true
	}
	for _, b := range o.RoleBindings {
		if !namespaced[b.Namespace+"/"+b.RoleRef.Name] {
			t.Errorf("binding %s/%s refers to the unknown role %s", b.Namespace, b.Name, b.RoleRef.Name)
		}
	}
}

func TestReconcile(t *testing.T) {
	ctx := context.Background()
	mine := rbacv1.PolicyRule{Verbs: []string{"get"}, APIGroups: []string{"mine.example.com"}, Resources: []string{"things"}}
	client := fake.NewClientset(
		&rbacv1.ClusterRole{ObjectMeta: metav1.ObjectMeta{Name: "system:kube-dns"}, Rules: []rbacv1.PolicyRule{mine}},
		&rbacv1.ClusterRole{ObjectMeta: metav1.ObjectMeta{Name: "system:discovery", Annotations: map[string]string{rbacv1.AutoUpdateAnnotationKey: "false"}}},
	)
	for range 2 { // the second time changes nothing
		if err := Reconcile(ctx, client); err != nil {
			t.Fatal(err)
		}
	}
	want := Policy()
	roles, err := client.RbacV1().ClusterRoles().List(ctx, metav1.ListOptions{})
	if err != nil || len(roles.Items) != len(want.ClusterRoles) {
		t.Fatalf("%d cluster roles, want %d (%v)", len(roles.Items), len(want.ClusterRoles), err)
	}
	bindings, err := client.RbacV1().RoleBindings("").List(ctx, metav1.ListOptions{})
	if err != nil || len(bindings.Items) != len(want.RoleBindings) {
		t.Fatalf("%d role bindings, want %d (%v)", len(bindings.Items), len(want.RoleBindings), err)
	}
	dns, err := client.RbacV1().ClusterRoles().Get(ctx, "system:kube-dns", metav1.GetOptions{})
	if err != nil || len(dns.Rules) != 5 {
		t.Fatalf("system:kube-dns has %v, want the user's rule and the four default ones (%v)", dns.Rules, err)
	}
	left, err := client.RbacV1().ClusterRoles().Get(ctx, "system:discovery", metav1.GetOptions{})
	if err != nil || len(left.Rules) != 0 {
		t.Fatalf("system:discovery was updated although it says not to: %v (%v)", left.Rules, err)
	}
}

func TestReconcileStopsWithContext(t *testing.T) {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if err := Reconcile(ctx, fake.NewClientset()); err == nil {
		t.Fatal("no error of a context that has ended")
	}
}
