package api_test

import (
	"context"
	"slices"
	"testing"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/watch"

	"github.com/podvine/podvine/agent/api"
	"github.com/podvine/podvine/agent/api/apitest"
)

// TestHeartbeatsAreMadeUp: who lives is shown in leases and conditions, and nothing of it is ever written.
func TestHeartbeatsAreMadeUp(t *testing.T) {
	died := time.Now().Add(time.Hour).Truncate(time.Second) // after the node's creation
	c := apitest.Start(t, func(o *apitest.Options) {
		o.Adjust = func(config *api.Config) {
			config.Alive = func(name string) (bool, time.Time) {
				switch name {
				case "alive", "foreign":
					return true, time.Time{}
				case "dead":
					return false, died
				}
				return false, time.Time{}
			}
		}
	})
	client := c.Client(t)
	nodes, leases := client.CoreV1().Nodes(), client.CoordinationV1().Leases(corev1.NamespaceNodeLease)
	for _, name := range []string{"alive", "dead", "unknown", "foreign"} {
		n := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: name}, Status: corev1.NodeStatus{Conditions: []corev1.NodeCondition{{Type: corev1.NodeReady,
			Status: corev1.ConditionTrue, LastHeartbeatTime: metav1.Unix(1, 0), LastTransitionTime: metav1.Unix(1, 0)}}}}
		if _, err := nodes.Create(t.Context(), n, metav1.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	foreign := &coordinationv1.Lease{ObjectMeta: metav1.ObjectMeta{Name: "foreign"}, Spec: coordinationv1.LeaseSpec{HolderIdentity: new("an agent of its own")}}
	if _, err := leases.Create(t.Context(), foreign, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	before := c.LastIndex()

	get := func(name string) *coordinationv1.Lease {
		t.Helper()
		lease, err := leases.Get(t.Context(), name, metav1.GetOptions{})
		if err != nil {
			t.Fatal(err)
		}
		return lease
	}
	if lease := get("alive"); *lease.Spec.HolderIdentity != "alive" || time.Since(lease.Spec.RenewTime.Time) > 20*time.Second ||
		lease.OwnerReferences[0].Name != "alive" || lease.UID == "" || lease.ResourceVersion == "" {
		t.Errorf("lease of a living node: %+v", lease)
	}
	if lease := get("dead"); !lease.Spec.RenewTime.Time.Equal(died) {
		t.Errorf("lease of a dead node: renewed at %s, want %s", lease.Spec.RenewTime, died)
	}
	if lease := get("foreign"); *lease.Spec.HolderIdentity != "an agent of its own" {
		t.Errorf("a stored lease is hidden: %+v", lease)
	}
	if _, err := leases.Get(t.Context(), "unknown", metav1.GetOptions{}); !apierrors.IsNotFound(err) {
		t.Errorf("lease of an unknown node: %v", err)
	}
	list, err := client.CoordinationV1().Leases("").List(t.Context(), metav1.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for i := range list.Items {
		if list.Items[i].Namespace == corev1.NamespaceNodeLease {
			names = append(names, list.Items[i].Name)
		}
	}
	if slices.Sort(names); !slices.Equal(names, []string{"alive", "dead", "foreign"}) {
		t.Errorf("leases listed: %v", names)
	}
	if list, err = leases.List(t.Context(), metav1.ListOptions{FieldSelector: "metadata.name=dead"}); err != nil || len(list.Items) != 1 {
		t.Errorf("selected by name: %v, %v", list, err)
	}
	node, err := nodes.Get(t.Context(), "alive", metav1.GetOptions{})
	if err != nil || time.Since(node.Status.Conditions[0].LastHeartbeatTime.Time) > 6*time.Minute || node.Status.Conditions[0].LastTransitionTime.Unix() != 1 {
		t.Errorf("heartbeat: %v, %v", node.Status.Conditions, err)
	}
	if after := c.LastIndex(); after != before {
		t.Errorf("%d log entries were made by reading", after-before)
	}
	watchHeartbeats(t, client.CoordinationV1().Leases(corev1.NamespaceNodeLease).Watch, func() error {
		return nodes.Delete(t.Context(), "alive", metav1.DeleteOptions{})
	})
}

// watchHeartbeats sees the leases that are there, the end of these, and that a node's goes with it.
func watchHeartbeats(t *testing.T, open func(context.Context, metav1.ListOptions) (watch.Interface, error), remove func() error) {
	t.Helper()
	w, err := open(t.Context(), metav1.ListOptions{SendInitialEvents: new(true), AllowWatchBookmarks: true,
		ResourceVersionMatch: metav1.ResourceVersionMatchNotOlderThan})
	if err != nil {
		t.Fatal(err)
	}
	defer w.Stop()
	var initial []string
	deadline := time.After(30 * time.Second)
	for {
		select {
		case <-deadline:
			t.Fatalf("no end of the watch; initially %v", initial)
		case event, ok := <-w.ResultChan():
			if !ok {
				t.Fatal("the watch ended")
			}
			lease := event.Object.(*coordinationv1.Lease)
			switch event.Type {
			case watch.Added:
				initial = append(initial, lease.Name)
			case watch.Bookmark:
				if lease.Annotations[metav1.InitialEventsAnnotationKey] != "true" {
					continue
				}
				if slices.Sort(initial); !slices.Equal(initial, []string{"alive", "dead", "foreign"}) {
					t.Errorf("watched initially: %v", initial)
				}
				if err := remove(); err != nil {
					t.Fatal(err)
				}
			case watch.Deleted:
				if lease.Name != "alive" {
					t.Errorf("%s went", lease.Name)
				}
				return
			}
		}
	}
}
