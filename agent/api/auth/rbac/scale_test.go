package rbac

import (
	"fmt"
	"testing"

	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/apiserver/pkg/authorization/authorizer"
	rbaclisters "k8s.io/client-go/listers/rbac/v1"
	"k8s.io/client-go/tools/cache"
)

// ofMany authorizes by a binding for the user and n for others, half of them in the namespace that is asked about.
func ofMany(tb testing.TB, n int) *Authorizer {
	tb.Helper()
	add := func(index cache.Indexer, object any) {
		if err := index.Add(object); err != nil {
			tb.Fatal(err)
		}
	}
	roles := cache.NewIndexer(cache.MetaNamespaceKeyFunc, cache.Indexers{})
	add(roles, &rbacv1.ClusterRole{ObjectMeta: metav1.ObjectMeta{Name: "reader"}, Rules: []rbacv1.PolicyRule{rule("get", "", "pods")}})
	clusterBindings := cache.NewIndexer(cache.MetaNamespaceKeyFunc, cache.Indexers{subjectIndex: indexClusterBinding})
	bindings := cache.NewIndexer(cache.MetaNamespaceKeyFunc, cache.Indexers{subjectIndex: indexBinding})
	ref := rbacv1.RoleRef{Kind: "ClusterRole", Name: "reader"}
	add(bindings, &rbacv1.RoleBinding{ObjectMeta: metav1.ObjectMeta{Name: "mine", Namespace: "ns"}, RoleRef: ref,
		Subjects: []rbacv1.Subject{{Kind: "User", Name: "alice"}}})
	for i := range n {
		name := fmt.Sprintf("other-%d", i)
		subjects := []rbacv1.Subject{{Kind: "User", Name: name}, {Kind: "Group", Name: name}}
		if i%2 == 0 {
			add(bindings, &rbacv1.RoleBinding{ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: "ns"}, RoleRef: ref, Subjects: subjects})
			continue
		}
		add(clusterBindings, &rbacv1.ClusterRoleBinding{ObjectMeta: metav1.ObjectMeta{Name: name}, RoleRef: ref, Subjects: subjects})
	}
	return NewAuthorizer(&Rules{clusterBindings: clusterBindings, bindings: bindings, clusterRoles: rbaclisters.NewClusterRoleLister(roles)})
}

func question() authorizer.AttributesRecord {
	return authorizer.AttributesRecord{User: &user.DefaultInfo{Name: "alice", Groups: []string{"dev", "system:authenticated"}},
		Verb: "get", Resource: "pods", ResourceRequest: true, Namespace: "ns"}
}

// What a decision allocates does not depend on how busy the machine is: it stands for the work.
func TestOthersBindingsCostNothing(t *testing.T) {
	work := map[int]float64{}
	for _, n := range []int{0, 10_000} {
		a := ofMany(t, n)
		work[n] = testing.AllocsPerRun(100, func() {
			if decision, _, err := a.Authorize(t.Context(), question()); decision != authorizer.DecisionAllow || err != nil {
				t.Fatalf("decision %v, %v", decision, err)
			}
		})
	}
	if work[10_000] > work[0] {
		t.Errorf("a decision among 10,000 bindings takes %v allocations, among none of others %v", work[10_000], work[0])
	}
}

func BenchmarkAuthorize(b *testing.B) {
	for _, n := range []int{10, 10_000} {
		a := ofMany(b, n)
		b.Run(fmt.Sprintf("bindings=%d", n), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if decision, _, err := a.Authorize(b.Context(), question()); decision != authorizer.DecisionAllow || err != nil {
					b.Fatalf("decision %v, %v", decision, err)
				}
			}
		})
	}
}
