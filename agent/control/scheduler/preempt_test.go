package scheduler_test

import (
	"errors"
	"testing"

	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	clienttesting "k8s.io/client-go/testing"

	"github.com/podvine/podvine/agent/control/loop/looptest"
)

func important(name, cpu string, priority int32) *v1.Pod {
	p := pod(name, cpu)
	p.Spec.Priority = &priority
	return p
}

// TestPreempts: a more important pod is nominated for the node, the victim is told why and goes, and the pod gets its
// room although another asked for it meanwhile.
func TestPreempts(t *testing.T) {
	run(t, func(t *testing.T, c *looptest.Cluster) {
		create(t, c, important("low", "700m", 1))
		c.Settle()
		nominated := ""
		c.Client.PrependReactor("delete", "pods", func(clienttesting.Action) (bool, runtime.Object, error) {
			high, err := c.Client.Tracker().Get(v1.SchemeGroupVersion.WithResource("pods"), "default", "high")
			c.Must(err)
			nominated = high.(*v1.Pod).Status.NominatedNodeName
			low, err := c.Client.Tracker().Get(v1.SchemeGroupVersion.WithResource("pods"), "default", "low")
			c.Must(err)
			if conditions := low.(*v1.Pod).Status.Conditions; len(conditions) == 0 || conditions[len(conditions)-1].Type != v1.DisruptionTarget ||
				conditions[len(conditions)-1].Reason != v1.PodReasonPreemptionByScheduler ||
				conditions[len(conditions)-1].Message != "default-scheduler: preempting to accommodate a higher priority pod" {
				t.Errorf("the victim's conditions: %+v", conditions)
			}
			return false, nil, nil
		})
		create(t, c, important("high", "700m", 100))
		create(t, c, important("late", "700m", 50))
		c.Settle()
		if nominated != "n1" {
			t.Errorf("nominated for %q when the victim went, want n1", nominated)
		}
		high := get(t, c, "high")
		if high.Spec.NodeName != "n1" || get(t, c, "late").Spec.NodeName != "" {
			t.Errorf("high is on %q, late on %q", high.Spec.NodeName, get(t, c, "late").Spec.NodeName)
		}
		if got := events(t, c, "Preempted"); len(got) != 1 || got[0] != "Preempted by pod "+string(high.UID)+" on node n1" {
			t.Errorf("Preempted events: %q", got)
		}
		if got := events(t, c, "FailedScheduling"); len(got) == 0 || got[0] != "0/1 nodes are available: 1 Insufficient cpu." {
			t.Errorf("FailedScheduling events: %q", got)
		}
	}, node("n1", "1"))
}

// TestPreemptsAgainAfterFailure: a victim that could not be evicted is evicted at the next try.
func TestPreemptsAgainAfterFailure(t *testing.T) {
	run(t, func(t *testing.T, c *looptest.Cluster) {
		create(t, c, important("low", "700m", 1))
		c.Settle()
		tries := 0
		c.Client.PrependReactor("delete", "pods", func(clienttesting.Action) (bool, runtime.Object, error) {
			tries++
			return tries == 1, nil, errors.New("no leader")
		})
		create(t, c, important("high", "700m", 100))
		c.Settle()
		if got := get(t, c, "high").Spec.NodeName; got != "n1" || tries != 2 {
			t.Errorf("high is on %q after %d evictions, want n1 after 2", got, tries)
		}
	}, node("n1", "1"))
}

// TestWithdrawsNomination: when the node that a pod waits for is gone, it is not nominated for it any more.
func TestWithdrawsNomination(t *testing.T) {
	run(t, func(t *testing.T, c *looptest.Cluster) {
		p := important("p", "700m", 1)
		p.Status.NominatedNodeName = "n1"
		create(t, c, important("other", "700m", 1))
		c.Settle()
		create(t, c, p)
		c.Settle()
		if got := get(t, c, "p").Status.NominatedNodeName; got != "" {
			t.Errorf("still nominated for %q, where nobody can be evicted", got)
		}
		c.Must(c.Client.CoreV1().Pods("default").Delete(t.Context(), "other", metav1.DeleteOptions{}))
		c.Settle()
		if got := get(t, c, "p").Spec.NodeName; got != "n1" {
			t.Errorf("p is on %q, want n1", got)
		}
	}, node("n1", "1"))
}
