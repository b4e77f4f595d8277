package scheduler_test

import (
	"context"
	"errors"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"

	v1 "k8s.io/api/core/v1"
	apiresource "k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	clienttesting "k8s.io/client-go/testing"

	"github.com/podvine/podvine/agent/control/loop/looptest"
	"github.com/podvine/podvine/agent/control/scheduler"
)

func node(name, cpu string) *v1.Node {
	return &v1.Node{ObjectMeta: metav1.ObjectMeta{Name: name}, Status: v1.NodeStatus{Allocatable: v1.ResourceList{
		v1.ResourceCPU: apiresource.MustParse(cpu), v1.ResourceMemory: apiresource.MustParse("4Gi"),
		v1.ResourcePods: apiresource.MustParse("10")}}}
}

func pod(name, cpu string) *v1.Pod {
	return &v1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name},
		Spec: v1.PodSpec{SchedulerName: v1.DefaultSchedulerName, Containers: []v1.Container{{Name: "c",
			Resources: v1.ResourceRequirements{Requests: v1.ResourceList{v1.ResourceCPU: apiresource.MustParse(cpu)}}}}}}
}

// run starts a scheduler on a cluster in virtual time.
func run(t *testing.T, test func(t *testing.T, c *looptest.Cluster), objects ...runtime.Object) {
	synctest.Test(t, func(t *testing.T) {
		c := looptest.New(t, objects...)
		defer c.Stop()
		s, err := scheduler.New(scheduler.Config{Client: c.Client, Informers: c.Informers, Logger: c.Logger(), Seed: 1})
		c.Must(err)
		c.Start(s)
		test(t, c)
	})
}

func create(t *testing.T, c *looptest.Cluster, p *v1.Pod) {
	t.Helper()
	if _, err := c.Client.CoreV1().Pods(p.Namespace).Create(t.Context(), p, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
}

func get(t *testing.T, c *looptest.Cluster, name string) *v1.Pod {
	t.Helper()
	p, err := c.Client.CoreV1().Pods("default").Get(t.Context(), name, metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func events(t *testing.T, c *looptest.Cluster, reason string) (notes []string) {
	t.Helper()
	list, err := c.Client.EventsV1().Events("default").List(t.Context(), metav1.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range list.Items {
		if e.Reason == reason {
			notes = append(notes, e.Note)
		}
	}
	return notes
}

// TestBindsAndExplains: one pod fits, one does not and says so; when the first ends, the second gets its place.
func TestBindsAndExplains(t *testing.T) {
	run(t, func(t *testing.T, c *looptest.Cluster) {
		create(t, c, pod("first", "700m"))
		c.Settle()
		create(t, c, pod("second", "700m"))
		c.Settle()
		if got := get(t, c, "first").Spec.NodeName; got != "n1" {
			t.Fatalf("first is on %q, want n1", got)
		}
		if got := events(t, c, "Scheduled"); len(got) != 1 || got[0] != "Successfully assigned default/first to n1" {
			t.Errorf("Scheduled events: %q", got)
		}
		second := get(t, c, "second")
		if len(second.Status.Conditions) != 1 || second.Status.Conditions[0].Reason != v1.PodReasonUnschedulable ||
			!strings.HasPrefix(second.Status.Conditions[0].Message, "0/1 nodes are available: 1 Insufficient cpu.") {
			t.Errorf("second's conditions: %+v", second.Status.Conditions)
		}
		if got := events(t, c, "FailedScheduling"); len(got) != 1 {
			t.Errorf("FailedScheduling events: %q", got)
		}
		c.Must(c.Client.CoreV1().Pods("default").Delete(t.Context(), "first", metav1.DeleteOptions{}))
		c.Settle()
		if got := get(t, c, "second").Spec.NodeName; got != "n1" {
			t.Errorf("second is on %q after the first ended, want n1", got)
		}
	}, node("n1", "1"))
}

// TestRetriesFailedBinding: a binding that fails is taken back and tried again; nothing is bound twice.
func TestRetriesFailedBinding(t *testing.T) {
	run(t, func(t *testing.T, c *looptest.Cluster) {
		var tries atomic.Int64
		c.Client.PrependReactor("create", "pods/binding", func(clienttesting.Action) (bool, runtime.Object, error) {
			return tries.Add(1) <= 2, nil, errors.New("no leader")
		})
		create(t, c, pod("p", "700m"))
		c.Settle()
		if got := get(t, c, "p").Spec.NodeName; got != "n1" || tries.Load() != 3 {
			t.Errorf("on %q after %d tries, want n1 after 3", got, tries.Load())
		}
	}, node("n1", "1"))
}

// TestLeavesOthersAlone: pods of another scheduler, terminating and gated ones are not placed.
func TestLeavesOthersAlone(t *testing.T) {
	run(t, func(t *testing.T, c *looptest.Cluster) {
		foreign, gated := pod("foreign", "1m"), pod("gated", "1m")
		foreign.Spec.SchedulerName = "mine"
		gated.Spec.SchedulingGates = []v1.PodSchedulingGate{{Name: "wait"}}
		create(t, c, foreign)
		create(t, c, gated)
		c.Settle()
		for _, name := range []string{"foreign", "gated"} {
			if got := get(t, c, name).Spec.NodeName; got != "" {
				t.Errorf("%s was put on %q", name, got)
			}
		}
		open := get(t, c, "gated").DeepCopy()
		open.Spec.SchedulingGates = nil
		_, err := c.Client.CoreV1().Pods("default").Update(t.Context(), open, metav1.UpdateOptions{})
		c.Must(err)
		c.Settle()
		if got := get(t, c, "gated").Spec.NodeName; got != "n1" {
			t.Errorf("gated is on %q after its gate opened, want n1", got)
		}
	}, node("n1", "1"))
}

// TestRestarts: a second Run sees what the first one left, and an idle scheduler writes nothing.
func TestRestarts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := looptest.New(t, node("n1", "1"))
		defer c.Stop()
		s, err := scheduler.New(scheduler.Config{Client: c.Client, Informers: c.Informers, Logger: c.Logger()})
		c.Must(err)
		c.Start()
		for _, name := range []string{"a", "b"} {
			ctx, stop := context.WithCancel(t.Context())
			done := make(chan error)
			go func() { done <- s.Run(ctx) }()
			create(t, c, pod(name, "400m"))
			c.Settle()
			stop()
			if err := <-done; !errors.Is(err, context.Canceled) {
				t.Errorf("Run ended with %v", err)
			}
			if got := get(t, c, name).Spec.NodeName; got != "n1" {
				t.Errorf("%s is on %q, want n1", name, got)
			}
		}
	})
}
