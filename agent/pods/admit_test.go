package pods

import (
	"os"
	"path/filepath"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/tools/cache"

	"github.com/podvine/podvine/agent/pods/lifecycle"
)

func named(uid string) *corev1.Pod {
	return &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: uid, UID: types.UID(uid)}}
}

// Pods that ended stay known for as long as the API keeps them, but the node has room for others.
func TestEndedPodsTakeNoPlace(t *testing.T) {
	a := &Agent{cfg: Config{MaxPods: 2}, workers: map[types.UID]*worker{}}
	for uid, rec := range map[string]podRecord{
		"running":   {Status: corev1.PodStatus{Phase: corev1.PodRunning}},
		"succeeded": {Status: corev1.PodStatus{Phase: corev1.PodSucceeded}},
		"failed":    {Status: corev1.PodStatus{Phase: corev1.PodFailed}},
		"refused":   {Rejected: &lifecycle.Rejection{Reason: "OutOfpods"}},
	} {
		rec.Pod = named(uid)
		a.workers[types.UID(uid)] = newWorker(a, rec)
	}
	if why := a.admit(named("new")); why != nil {
		t.Errorf("refused: %s", why.Message)
	}
	a.workers["second"] = newWorker(a, podRecord{Pod: named("second")})
	if a.admit(named("new")) == nil {
		t.Error("a third pod was let in where two fit")
	}
}

// What others were given counts, until they end or the API has forgotten them.
func TestPodsTakeWhatTheyAskFor(t *testing.T) {
	a := &Agent{cfg: Config{MaxPods: 9}, workers: map[types.UID]*worker{}}
	a.node.alloc = corev1.ResourceList{corev1.ResourceCPU: resource.MustParse("2")}
	asks := func(uid, cpu string) *corev1.Pod {
		pod := named(uid)
		pod.Spec.Containers = []corev1.Container{{Name: "c", Resources: corev1.ResourceRequirements{Requests: corev1.ResourceList{corev1.ResourceCPU: resource.MustParse(cpu)}}}}
		return pod
	}
	first := newWorker(a, podRecord{Pod: asks("first", "1500m")})
	a.workers["first"] = first
	if why := a.admit(asks("second", "600m")); why == nil || why.Reason != "OutOfcpu" {
		t.Errorf("more than is left: %+v", why)
	}
	if why := a.admit(asks("third", "500m")); why != nil {
		t.Errorf("as much as is left: %+v", why)
	}
	first.deleted()
	if why := a.admit(asks("second", "600m")); why != nil {
		t.Errorf("after the API has forgotten the first: %+v", why)
	}
}

// storeWith lets something happen as its list is taken.
type storeWith struct {
	cache.Store
	meanwhile func()
}

func (s storeWith) List() []any {
	defer s.meanwhile()
	return s.Store.List()
}

func TestPodThatComesDuringTheFirstLookIsKept(t *testing.T) {
	a := &Agent{workers: map[types.UID]*worker{}}
	gone := newWorker(a, podRecord{Pod: named("gone")})
	a.workers["gone"] = gone
	late := newWorker(a, podRecord{Pod: named("late")})
	store := storeWith{cache.NewStore(cache.MetaNamespaceKeyFunc), func() { a.workers["late"] = late }}
	a.endUnknown(store)
	if late.pod().DeletionTimestamp != nil {
		t.Error("a pod that came meanwhile was ended")
	}
	if gone.pod().DeletionTimestamp == nil {
		t.Error("a pod that the API does not know goes on")
	}
}

func TestLogLinksAreOneContainers(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{"p_ns_app-0123.log", "p_ns_app-side-4567.log", "p_ns_application-89.log"} {
		if err := os.Symlink("/nowhere", filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	got, err := logLinks(filepath.Join(dir, "p_ns_app-"))
	if err != nil || len(got) != 1 || filepath.Base(got[0]) != "p_ns_app-0123.log" {
		t.Errorf("links %v, %v", got, err)
	}
}
