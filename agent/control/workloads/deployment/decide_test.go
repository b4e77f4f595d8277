package deployment

import (
	"fmt"
	"slices"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/intstr"
	"pgregory.net/rapid"
)

// world plays the rest of the cluster: sets follow their specs, pods become available or break, in any order.
type world struct {
	d    *appsv1.Deployment
	sets []*appsv1.ReplicaSet
	now  time.Time
	made int
}

func newWorld(size int32, strategy appsv1.DeploymentStrategy) *world {
	deadline, history := int32(600), int32(10)
	w := &world{now: time.Unix(1_000_000, 0)}
	w.d = &appsv1.Deployment{
		ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "web", UID: "d", Generation: 1},
		Spec: appsv1.DeploymentSpec{Replicas: &size, Strategy: strategy, ProgressDeadlineSeconds: &deadline,
			RevisionHistoryLimit: &history, Selector: &metav1.LabelSelector{MatchLabels: map[string]string{"app": "web"}},
			Template: v1.PodTemplateSpec{ObjectMeta: metav1.ObjectMeta{Labels: map[string]string{"app": "web"}},
				Spec: v1.PodSpec{Containers: []v1.Container{{Name: "c", Image: "v1"}}}}},
	}
	return w
}

func rollingUpdate(surge, unavailable intstr.IntOrString) appsv1.DeploymentStrategy {
	return appsv1.DeploymentStrategy{Type: appsv1.RollingUpdateDeploymentStrategyType,
		RollingUpdate: &appsv1.RollingUpdateDeployment{MaxSurge: &surge, MaxUnavailable: &unavailable}}
}

// step decides and carries out.
func (w *world) step() Plan {
	w.now = w.now.Add(time.Second)
	plan := Decide(View{Deployment: w.d, Sets: w.sets}, w.now)
	if plan.Revision != "" {
		metav1.SetMetaDataAnnotation(&w.d.ObjectMeta, annotationRevision, plan.Revision)
	}
	if plan.Create != nil {
		w.made++
		set := plan.Create.DeepCopy()
		set.UID, set.Generation = types.UID(fmt.Sprintf("rs%d", w.made)), 1
		set.CreationTimestamp = metav1.NewTime(w.now)
		w.sets = append(w.sets, set)
	}
	for _, next := range plan.Update {
		at := slices.IndexFunc(w.sets, func(s *appsv1.ReplicaSet) bool { return s.UID == next.UID })
		w.sets[at] = next
	}
	for _, gone := range plan.Delete {
		w.sets = slices.DeleteFunc(w.sets, func(s *appsv1.ReplicaSet) bool { return s.UID == gone.UID })
	}
	w.d.Status = plan.Status
	return plan
}

// follow brings one set's status part of the way to its spec: on shrinking the pods that are not available go first.
func (w *world) follow(set *appsv1.ReplicaSet, grow, readied int32) {
	s := set.DeepCopy()
	s.Status.Replicas = min(s.Status.Replicas+grow, *s.Spec.Replicas)
	s.Status.AvailableReplicas = min(s.Status.AvailableReplicas+readied, s.Status.Replicas)
	s.Status.ReadyReplicas, s.Status.ObservedGeneration = s.Status.AvailableReplicas, s.Generation
	w.sets[slices.Index(w.sets, set)] = s
}

func (w *world) total() (pods, available int32) {
	for _, s := range w.sets {
		pods += max(*s.Spec.Replicas, 0)
		available += min(s.Status.AvailableReplicas, *s.Spec.Replicas)
	}
	return pods, available
}

func (w *world) settle(t interface{ Fatalf(string, ...any) }) {
	for range 500 {
		plan := w.step()
		idle := plan.Create == nil && len(plan.Update) == 0 && len(plan.Delete) == 0
		for _, s := range slices.Clone(w.sets) {
			if s.Status.AvailableReplicas != *s.Spec.Replicas || s.Status.Replicas != *s.Spec.Replicas {
				idle = false
				w.follow(s, 1000, 1000)
			}
		}
		if idle && complete(w.d, &w.d.Status) {
			return
		}
	}
	t.Fatalf("not complete after 500 steps: %+v", w.d.Status)
}

// TestRolloutSafeAndLive: whatever order pods come up in, never more than wanted plus surge, never fewer
// available than wanted less unavailable; and when pods do come up, the rollout ends with only the new template.
func TestRolloutSafeAndLive(t *testing.T) {
	percentOrCount := func(t *rapid.T, name string) intstr.IntOrString {
		if rapid.Bool().Draw(t, name+" is a share") {
			return intstr.FromString(fmt.Sprintf("%d%%", rapid.IntRange(0, 100).Draw(t, name)))
		}
		return intstr.FromInt32(rapid.Int32Range(0, 5).Draw(t, name))
	}
	rapid.Check(t, func(t *rapid.T) {
		w := newWorld(rapid.Int32Range(0, 12).Draw(t, "size"), rollingUpdate(percentOrCount(t, "surge"), percentOrCount(t, "unavailable")))
		w.settle(t)
		surge, unavailable := fences(w.d)
		for range rapid.IntRange(1, 3).Draw(t, "changes") {
			w.d.Spec.Template.Spec.Containers[0].Image = rapid.SampledFrom([]string{"v1", "v2", "v3"}).Draw(t, "image")
			w.d.Generation++
			for range rapid.IntRange(0, 15).Draw(t, "steps") {
				_, before := w.total()
				w.step()
				pods, available := w.total()
				if pods > wanted(w.d)+surge {
					t.Fatalf("%d pods, at most %d+%d allowed", pods, wanted(w.d), surge)
				}
				if least := wanted(w.d) - unavailable; available < least && available < before {
					t.Fatalf("%d available, at least %d must stay", available, least)
				}
				set := rapid.SampledFrom(w.sets).Draw(t, "set")
				w.follow(set, rapid.Int32Range(0, 3).Draw(t, "grow"), rapid.Int32Range(0, 2).Draw(t, "ready"))
			}
		}
		w.settle(t)
		for _, s := range w.sets {
			if same := templateEqual(&s.Spec.Template, &w.d.Spec.Template); !same && *s.Spec.Replicas != 0 || same && *s.Spec.Replicas != wanted(w.d) {
				t.Fatalf("after the rollout %s has %d replicas", s.Name, *s.Spec.Replicas)
			}
		}
	})
}

// TestResizeDuringRollout: a new size is spread over all sets, and the rollout still ends.
func TestResizeDuringRollout(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := newWorld(rapid.Int32Range(0, 20).Draw(t, "size"), rollingUpdate(intstr.FromString("25%"), intstr.FromString("25%")))
		w.settle(t)
		for range rapid.IntRange(1, 4).Draw(t, "changes") {
			if rapid.Bool().Draw(t, "template too") {
				w.d.Spec.Template.Spec.Containers[0].Image = rapid.StringMatching("v[1-9]").Draw(t, "image")
			}
			size := rapid.Int32Range(0, 20).Draw(t, "new size")
			w.d.Spec.Replicas, w.d.Spec.Paused = &size, rapid.Bool().Draw(t, "paused")
			w.d.Generation++
			for range rapid.IntRange(0, 6).Draw(t, "steps") {
				w.step()
				set := rapid.SampledFrom(w.sets).Draw(t, "set")
				w.follow(set, rapid.Int32Range(0, 3).Draw(t, "grow"), rapid.Int32Range(0, 3).Draw(t, "ready"))
			}
			surge, _ := fences(w.d)
			w.step()
			w.step()
			if pods, _ := w.total(); pods > size+surge {
				t.Fatalf("%d pods after a resize to %d+%d", pods, size, surge)
			}
		}
		w.d.Spec.Paused = false
		w.d.Generation++
		w.settle(t)
	})
}

// TestProportional is Kubernetes' documented example: 10 replicas, surge 3, 8 old and 5 new, scaled to 15.
func TestProportional(t *testing.T) {
	w := newWorld(10, rollingUpdate(intstr.FromInt32(3), intstr.FromInt32(2)))
	w.settle(t)
	w.d.Spec.Template.Spec.Containers[0].Image = "v2"
	w.d.Generation++
	w.step() // makes the new set with 3
	w.step() // takes 2 from the old
	w.step() // grows the new to 5
	size := int32(15)
	w.d.Spec.Replicas = &size
	w.d.Generation++
	if got := fmt.Sprint(*w.sets[0].Spec.Replicas, *w.sets[1].Spec.Replicas); got != "8 5" {
		t.Fatalf("before: old and new have %s, want 8 5", got)
	}
	w.step()
	if got := fmt.Sprint(*w.sets[0].Spec.Replicas, *w.sets[1].Spec.Replicas); got != "11 7" {
		t.Errorf("after: old and new have %s, want 11 7", got)
	}
}

// TestRevisions: each template gets the next revision, a rollback moves its old set to the newest.
func TestRevisions(t *testing.T) {
	w := newWorld(1, rollingUpdate(intstr.FromInt32(1), intstr.FromInt32(0)))
	limit := int32(2)
	w.d.Spec.RevisionHistoryLimit = &limit
	for _, image := range []string{"v1", "v2", "v1", "v3", "v4"} {
		w.d.Spec.Template.Spec.Containers[0].Image = image
		w.d.Generation++
		w.settle(t)
		w.step() // the written status brings one more decision, which prunes
	}
	if got := w.d.Annotations[annotationRevision]; got != "5" {
		t.Errorf("revision %s, want 5", got)
	}
	got := ""
	for _, s := range w.sets {
		got += fmt.Sprintf("%s=%s(%s) ", s.Spec.Template.Spec.Containers[0].Image, s.Annotations[annotationRevision], s.Annotations[annotationHistory])
	}
	if want := "v1=3(1) v3=4() v4=5() "; got != want {
		t.Errorf("sets %q, want %q (v2, the oldest, is beyond the history limit)", got, want)
	}
}

// TestConditions walks through a life: progressing, available, stuck, paused, resumed.
func TestConditions(t *testing.T) {
	w := newWorld(2, rollingUpdate(intstr.FromInt32(1), intstr.FromInt32(0)))
	check := func(when string, progressing, available string) {
		t.Helper()
		show := func(kind appsv1.DeploymentConditionType) string {
			if c := condition(w.d.Status.Conditions, kind); c != nil {
				return fmt.Sprintf("%s %s", c.Status, c.Reason)
			}
			return ""
		}
		if got := show(appsv1.DeploymentProgressing); got != progressing {
			t.Errorf("%s: Progressing is %q, want %q", when, got, progressing)
		}
		if got := show(appsv1.DeploymentAvailable); got != available {
			t.Errorf("%s: Available is %q, want %q", when, got, available)
		}
	}
	w.step()
	check("new", "True NewReplicaSetCreated", "False MinimumReplicasUnavailable")
	w.follow(w.sets[0], 2, 1)
	w.step()
	check("half", "True ReplicaSetUpdated", "False MinimumReplicasUnavailable")
	w.follow(w.sets[0], 0, 1)
	w.step()
	check("done", "True NewReplicaSetAvailable", "True MinimumReplicasAvailable")
	if got := condition(w.d.Status.Conditions, appsv1.DeploymentProgressing).Message; got != fmt.Sprintf("ReplicaSet %q has successfully progressed.", w.sets[0].Name) {
		t.Errorf("message %q", got)
	}
	w.d.Spec.Template.Spec.Containers[0].Image = "broken"
	w.d.Generation++
	plan := w.step()
	if plan.Again <= 0 {
		t.Error("nothing looks again when the deadline is over")
	}
	w.now = w.now.Add(601 * time.Second)
	w.step()
	check("stuck", "False ProgressDeadlineExceeded", "True MinimumReplicasAvailable")
	w.d.Spec.Template.Spec.Containers[0].Image = "fixed"
	w.d.Generation++
	w.settle(t)
	check("fixed", "True NewReplicaSetAvailable", "True MinimumReplicasAvailable")
	w.d.Spec.Paused = true
	w.d.Generation++
	w.step()
	check("paused", "Unknown DeploymentPaused", "True MinimumReplicasAvailable")
	w.d.Spec.Paused = false
	w.d.Generation++
	w.step()
	if got := condition(w.d.Status.Conditions, appsv1.DeploymentProgressing).Reason; got == reasonPaused {
		t.Errorf("still %s after the pause", got)
	}
}

// TestRecreate: the new set waits for the last old pod.
func TestRecreate(t *testing.T) {
	w := newWorld(2, appsv1.DeploymentStrategy{Type: appsv1.RecreateDeploymentStrategyType})
	w.settle(t)
	w.d.Spec.Template.Spec.Containers[0].Image = "v2"
	w.d.Generation++
	w.step()
	if len(w.sets) != 1 || *w.sets[0].Spec.Replicas != 0 {
		t.Fatalf("first step: %d sets, old one at %d", len(w.sets), *w.sets[0].Spec.Replicas)
	}
	w.follow(w.sets[0], 0, 0)
	last := map[types.UID][]*v1.Pod{w.sets[0].UID: {{Status: v1.PodStatus{Phase: v1.PodRunning}}}}
	if plan := Decide(View{Deployment: w.d, Sets: w.sets, Pods: last}, w.now); plan.Create != nil {
		t.Error("started anew while an old pod runs")
	}
	w.step()
	if len(w.sets) != 2 || *w.sets[1].Spec.Replicas != 2 {
		t.Fatalf("the new set was not made at once with all replicas")
	}
}
