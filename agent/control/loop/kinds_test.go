package loop_test

import (
	"testing"
	"testing/synctest"
	"time"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/kubernetes/fake"

	"github.com/podvine/podvine/agent/control/loop"
)

// TestKindsAreAskedForWithABackOff: a kind that is never served is asked for once a minute at most, and found once it is there.
func TestKindsAreAskedForWithABackOff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		client := fake.NewSimpleClientset()
		client.Resources = []*metav1.APIResourceList{{GroupVersion: "v1", APIResources: []metav1.APIResource{{Name: "pods", Kind: "Pod", Namespaced: true}}}}
		kinds := loop.NewKinds(client.Discovery())
		if found, err := kinds.Resource(schema.GroupResource{Resource: "pods"}); err != nil || found.Version != "v1" {
			t.Fatal(found, err)
		}
		widgets := schema.GroupVersionKind{Group: "example.com", Version: "v1", Kind: "Widget"}
		before := len(client.Actions())
		for range 3600 {
			if _, err := kinds.ResourceOf(widgets); !meta.IsNoMatchError(err) {
				t.Fatal(err)
			}
			time.Sleep(time.Second) // virtual
		}
		each := before // questions of one discovery: the first look made one
		if asked := (len(client.Actions()) - before) / each; asked < 30 || asked > 80 {
			t.Errorf("asked %d times in an hour", asked)
		}
		client.Resources = append(client.Resources, &metav1.APIResourceList{GroupVersion: "example.com/v1",
			APIResources: []metav1.APIResource{{Name: "widgets", Kind: "Widget", Namespaced: true}}})
		kinds.Changed()
		if found, err := kinds.ResourceOf(widgets); err != nil || found.Resource != "widgets" {
			t.Error(found, err)
		}
	})
}
