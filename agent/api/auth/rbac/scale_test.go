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

// visits counts the objects that an indexer hands out, by whatever method: what a decision looks at.
type visits struct {
	cache.Indexer
	count *int
}

func (v visits) seen(objs []any) []any {
	*v.count += len(objs)
	return objs
}

func (v visits) List() []any { return v.seen(v.Indexer.List()) }

func (v visits) ListKeys() []string {
	keys := v.Indexer.ListKeys()
	*v.count += len(keys)
	return keys
}

func (v visits) Get(obj any) (any, bool, error) {
	*v.count++
	return v.Indexer.Get(obj)
}

func (v visits) GetByKey(key string) (any, bool, error) {
	*v.count++
	return v.Indexer.GetByKey(key)
}

func (v visits) Index(name string, obj any) ([]any, error) {
	objs, err := v.Indexer.Index(name, obj)
	return v.seen(objs), err
}

func (v visits) IndexKeys(name, value string) ([]string, error) {
	keys, err := v.Indexer.IndexKeys(name, value)
	*v.count += len(keys)
	return keys, err
}

func (v visits) ListIndexFuncValues(name string) []string {
	values := v.Indexer.ListIndexFuncValues(name)
	*v.count += len(values)
	return values
}

func (v visits) ByIndex(name, value string) ([]any, error) {
	objs, err := v.Indexer.ByIndex(name, value)
	return v.seen(objs), err
}

func TestOthersBindingsCostNothing(t *testing.T) {
	for _, n := range []int{0, 10_000} {
		a, visited := ofMany(t, n), 0
		a.rules.bindings, a.rules.clusterBindings = visits{a.rules.bindings, &visited}, visits{a.rules.clusterBindings, &visited}
		if decision, _, err := a.Authorize(t.Context(), question()); decision != authorizer.DecisionAllow || err != nil {
			t.Fatalf("decision %v, %v", decision, err)
		}
		if visited != 1 {
			t.Errorf("a decision among %d bindings of others looks at %d, and should at the user's own", n, visited)
		}
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
