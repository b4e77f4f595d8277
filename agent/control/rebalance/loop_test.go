package rebalance

import (
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	v1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	clienttesting "k8s.io/client-go/testing"

	"github.com/podvine/podvine/agent/control/loop"
	"github.com/podvine/podvine/agent/control/loop/looptest"
)

// TestLoop: nothing is evicted while the setting is off; then one at a time, passing over those that budgets keep.
func TestLoop(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		view := world(nil, map[string][]string{"web": {"a", "a", "a", "a", "a"}})
		a, b := node("a", 0), node("b", 0)
		a.CreationTimestamp, b.CreationTimestamp = metav1.NewTime(time.Now().Add(-48*time.Hour)), metav1.NewTime(time.Now())
		objects := []runtime.Object{a, b, view.Sets[0], &v1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "default"}}}
		for _, p := range view.Pods {
			objects = append(objects, p)
		}
		c := looptest.New(t, objects...)
		defer c.Stop()
		var on atomic.Bool
		var asked, evicted []string
		c.Client.PrependReactor("create", "pods", func(action clienttesting.Action) (bool, runtime.Object, error) {
			if action.GetSubresource() != "eviction" {
				return false, nil, nil
			}
			name := action.(clienttesting.CreateAction).GetObject().(*policyv1.Eviction).Name
			asked = append(asked, name)
			if name == "web-0" {
				return true, nil, apierrors.NewTooManyRequests("Cannot evict pod as it would violate the pod's disruption budget.", 0)
			}
			evicted = append(evicted, name)
			pod, err := c.Client.Tracker().Get(v1.SchemeGroupVersion.WithResource("pods"), "default", name)
			if err != nil {
				return true, nil, err
			}
			moved := pod.(*v1.Pod).DeepCopy() // as if its set had made another, and the scheduler placed it
			moved.Spec.NodeName = "b"
			return true, nil, c.Client.Tracker().Update(v1.SchemeGroupVersion.WithResource("pods"), moved, "default")
		})
		l, err := New(loop.Wiring{Client: c.Client, Informers: c.Informers, Logger: c.Logger()}, on.Load)
		c.Must(err)
		c.Start(l)
		c.Pass(time.Minute)
		if len(asked) != 0 {
			t.Fatalf("evicts %v while the setting is off", asked)
		}
		on.Store(true)
		c.Pass(offSeconds*time.Second + time.Second)
		if len(evicted) == 0 || asked[0] != "web-0" {
			t.Errorf("asked for %v, evicted %v", asked, evicted)
		}
		c.Pass(5 * time.Minute)
		if len(evicted) != 2 {
			t.Errorf("evicted %v, want two of five", evicted)
		}
		c.Client.ClearActions()
		c.Pass(2 * JoinedMinutes * time.Minute)
		for _, action := range c.Client.Actions() {
			if action.GetVerb() != "watch" && action.GetVerb() != "list" && action.GetSubresource() != "eviction" {
				t.Errorf("idle loop did %s %s", action.GetVerb(), action.GetResource().Resource)
			}
		}
		before := len(asked)
		c.Pass(JoinedMinutes * time.Minute)
		if len(asked) != before {
			t.Errorf("asked for %d more long after the node joined", len(asked)-before)
		}
	})
}
