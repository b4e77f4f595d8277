package disruption

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	v1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/intstr"
	"pgregory.net/rapid"

	"github.com/podvine/podvine/agent/control/loop/looptest"
)

var start = time.Unix(1_000_000, 0)

func budget(change ...func(*policyv1.PodDisruptionBudget)) *policyv1.PodDisruptionBudget {
	b := &policyv1.PodDisruptionBudget{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: "b", Generation: 3},
		Spec: policyv1.PodDisruptionBudgetSpec{Selector: &metav1.LabelSelector{MatchLabels: map[string]string{"app": "a"}}}}
	for _, f := range change {
		f(b)
	}
	return b
}

func atLeast(s string) func(*policyv1.PodDisruptionBudget) {
	return func(b *policyv1.PodDisruptionBudget) { v := intstr.Parse(s); b.Spec.MinAvailable = &v }
}

func atMost(s string) func(*policyv1.PodDisruptionBudget) {
	return func(b *policyv1.PodDisruptionBudget) { v := intstr.Parse(s); b.Spec.MaxUnavailable = &v }
}

func booked(pod string, ago time.Duration) func(*policyv1.PodDisruptionBudget) {
	return func(b *policyv1.PodDisruptionBudget) {
		b.Status.DisruptedPods = map[string]metav1.Time{pod: metav1.NewTime(start.Add(-ago))}
	}
}

// world makes pods from words: "a:ready b:ready,leaving c/set2:ready d/:": after the slash stands the controller, "set" if none
// is said.
func world(b *policyv1.PodDisruptionBudget, words string) View {
	view := View{Budget: b, Scales: map[types.UID]Scale{}}
	for _, word := range strings.Fields(words) {
		name, states, _ := strings.Cut(word, ":")
		name, owner, said := strings.Cut(name, "/")
		if !said {
			owner = "set"
		}
		p := &v1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: name, UID: types.UID(name)}, Status: v1.PodStatus{Phase: v1.PodRunning}}
		if owner != "" {
			yes := true
			p.OwnerReferences = []metav1.OwnerReference{{Kind: "ReplicaSet", Name: owner, UID: types.UID(owner), Controller: &yes}}
		}
		looptest.Put(p, strings.Split(states, ","), nil, start.Add(-time.Hour))
		view.Pods = append(view.Pods, p)
	}
	return view
}

func (v View) with(scales ...Scale) View {
	for _, s := range scales {
		v.Scales[s.UID] = s
	}
	return v
}

func said(plan Plan) string {
	s := plan.Status
	out := []string{fmt.Sprintf("%d of %d/%d allowed %d", s.CurrentHealthy, s.DesiredHealthy, s.ExpectedPods, s.DisruptionsAllowed)}
	if c := meta.FindStatusCondition(s.Conditions, policyv1.DisruptionAllowedCondition); c != nil {
		out = append(out, fmt.Sprintf("%s=%s", c.Reason, c.Status))
	}
	if len(s.DisruptedPods) > 0 {
		out = append(out, fmt.Sprint(len(s.DisruptedPods), " going"))
	}
	for _, e := range plan.Events {
		out = append(out, e.Reason)
	}
	out = append(out, looptest.Said("kept", plan.Kept)...)
	if plan.Again > 0 {
		out = append(out, "again "+plan.Again.String())
	}
	return strings.Join(out, ", ")
}

func TestDecide(t *testing.T) {
	three, ten := Scale{"set", 3}, Scale{"set2", 10}
	for _, test := range []struct {
		name, want string
		view       View
	}{
		{"a number that must stay", "3 of 2/3 allowed 1, SufficientPods=True", world(budget(atLeast("2")), "a:ready b:ready c:ready")},
		{"just enough", "2 of 2/3 allowed 0, InsufficientPods=False", world(budget(atLeast("2")), "a:ready b:ready c:")},
		{"a number needs no scale", "1 of 0/1 allowed 1, SufficientPods=True", world(budget(atLeast("0")), "a/:ready")},
		{"one that leaves is not healthy", "1 of 2/2 allowed 0, InsufficientPods=False", world(budget(atLeast("2")), "a:ready b:ready,leaving")},
		{"a share that must stay, rounded up", "3 of 2/3 allowed 1, SufficientPods=True", world(budget(atLeast("50%")), "a:ready b:ready c:ready").with(three)},
		{"a number that may go", "3 of 2/3 allowed 1, SufficientPods=True", world(budget(atMost("1")), "a:ready b:ready c:ready").with(three)},
		{"a share that may go, rounded up", "3 of 2/3 allowed 1, SufficientPods=True", world(budget(atMost("10%")), "a:ready b:ready c:ready").with(three)},
		{"more may go than there are", "3 of 0/3 allowed 3, SufficientPods=True", world(budget(atMost("9")), "a:ready b:ready c:ready").with(three)},
		{"none may go", "3 of 3/3 allowed 0, InsufficientPods=False", world(budget(atMost("0")), "a:ready b:ready c:ready").with(three)},
		{"of what there should be, not of what there is", "1 of 2/3 allowed 0, InsufficientPods=False", world(budget(atMost("1")), "a:ready").with(three)},
		{"of two controllers", "2 of 12/13 allowed 0, InsufficientPods=False", world(budget(atMost("1")), "a:ready b/set2:ready").with(three, ten)},
		{"two sets of one deployment count once", "2 of 2/3 allowed 0, InsufficientPods=False",
			func() View {
				v := world(budget(atMost("1")), "a/old:ready b/new:ready")
				v.Scales["old"], v.Scales["new"] = Scale{"d", 3}, Scale{"d", 3}
				return v
			}()},
		{"no pods", "0 of 0/0 allowed 0, InsufficientPods=False, NoPods", world(budget(atMost("1")), "")},
		{"no limit", "1 of 0/0 allowed 0, InsufficientPods=False", world(budget(), "a:ready")},
		{"pods of nobody do not count", "2 of 2/3 allowed 0, InsufficientPods=False, UnmanagedPods", world(budget(atMost("1")), "a:ready b/:ready").with(three)},
		{"a controller that is gone", "0 of 0/0 allowed 0, SyncFailed=False, CalculateExpectedPodCountFailed, again 30s", world(budget(atMost("1")), "a:ready")},
		{"a scale that cannot be read", "0 of 0/0 allowed 0, SyncFailed=False, CalculateExpectedPodCountFailed, again 30s",
			func() View {
				v := world(budget(atMost("1")), "a:ready").with(three)
				v.Failure = errors.New("no")
				return v
			}()},
		{"one that shall go", "2 of 2/3 allowed 0, InsufficientPods=False, 1 going, again 1m0s", world(budget(atLeast("2"), booked("a", time.Minute)), "a:ready b:ready c:ready")},
		{"one that goes now", "2 of 2/3 allowed 0, InsufficientPods=False", world(budget(atLeast("2"), booked("a", time.Minute)), "a:ready,leaving b:ready c:ready")},
		{"one that did not go in time", "3 of 2/3 allowed 1, SufficientPods=True, kept a", world(budget(atLeast("2"), booked("a", 2*time.Minute)), "a:ready b:ready c:ready")},
		{"one that is gone", "3 of 2/3 allowed 1, SufficientPods=True", world(budget(atLeast("2"), booked("x", time.Minute)), "a:ready b:ready c:ready")},
	} {
		t.Run(test.name, func(t *testing.T) {
			before := test.view.Budget.DeepCopy()
			plan := Decide(test.view, start)
			if got := said(plan); got != test.want {
				t.Errorf("says %q, want %q", got, test.want)
			}
			if fmt.Sprint(before) != fmt.Sprint(test.view.Budget) {
				t.Error("the budget was changed in place")
			}
			if failed := strings.Contains(test.want, "SyncFailed"); failed == (plan.Status.ObservedGeneration == 3) {
				t.Errorf("observed generation %d", plan.Status.ObservedGeneration)
			}
			again := test.view
			again.Budget = before
			again.Budget.Status = plan.Status
			if second := Decide(again, start.Add(time.Second)); !strings.Contains(test.want, "SyncFailed") && fmt.Sprint(second.Status) != fmt.Sprint(plan.Status) {
				t.Errorf("decides again for %+v, was %+v", second.Status, plan.Status)
			}
		})
	}
}

// TestNeverBelow: however pods come, fail, are evicted and go, what the budget allows never leads below what must stay.
func TestNeverBelow(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		wanted := rapid.Int32Range(1, 6).Draw(t, "replicas")
		limit := rapid.SampledFrom([]func(*policyv1.PodDisruptionBudget){atLeast("1"), atLeast("2"), atLeast("50%"), atLeast("100%"), atMost("1"), atMost("34%")}).Draw(t, "limit")
		b, now := budget(limit), start
		live, made := []*v1.Pod{}, 0
		for range 60 {
			view := View{Budget: b, Pods: live, Scales: map[types.UID]Scale{"set": {"set", wanted}}}
			plan := Decide(view, now)
			b = b.DeepCopy()
			b.Status = plan.Status
			healthy := int32(0)
			for _, p := range live {
				if len(p.Status.Conditions) > 0 && p.DeletionTimestamp == nil {
					healthy++
				}
			}
			if plan.Status.DisruptionsAllowed > 0 && healthy-plan.Status.DisruptionsAllowed-int32(len(plan.Status.DisruptedPods)) < plan.Status.DesiredHealthy {
				t.Fatalf("%d of %d healthy ones may go, %d are going, %d must stay", plan.Status.DisruptionsAllowed, healthy, len(plan.Status.DisruptedPods), plan.Status.DesiredHealthy)
			}
			switch rapid.IntRange(0, 4).Draw(t, "step") {
			case 0: // a pod comes
				if len(live) < int(wanted) {
					made++
					live = append(live, world(b, fmt.Sprintf("p%d:ready", made)).Pods...)
				}
			case 1: // the API books an eviction
				if i := rapid.IntRange(0, 5).Draw(t, "victim"); i < len(live) && b.Status.DisruptionsAllowed > 0 && live[i].DeletionTimestamp == nil {
					b.Status.DisruptionsAllowed--
					if b.Status.DisruptedPods == nil {
						b.Status.DisruptedPods = map[string]metav1.Time{}
					}
					b.Status.DisruptedPods[live[i].Name] = metav1.NewTime(now)
				}
			case 2: // what was booked begins to go
				for _, p := range live {
					if _, going := b.Status.DisruptedPods[p.Name]; going {
						p.DeletionTimestamp = &metav1.Time{Time: now}
					}
				}
			case 3: // what goes is gone
				left := []*v1.Pod{}
				for _, p := range live {
					if p.DeletionTimestamp == nil {
						left = append(left, p)
					}
				}
				live = left
			case 4:
				now = now.Add(time.Duration(rapid.IntRange(1, 100).Draw(t, "seconds")) * time.Second)
			}
		}
	})
}

func TestStale(t *testing.T) {
	target := func(reason string, ago time.Duration) *v1.Pod {
		return &v1.Pod{Status: v1.PodStatus{Phase: v1.PodRunning, Conditions: []v1.PodCondition{{Type: v1.DisruptionTarget, Status: v1.ConditionTrue,
			Reason: reason, LastTransitionTime: metav1.NewTime(start.Add(-ago))}}}}
	}
	leaving, ended := target("EvictionByEvictionAPI", time.Hour), target("EvictionByEvictionAPI", time.Hour)
	leaving.DeletionTimestamp, ended.Status.Phase = &metav1.Time{}, v1.PodFailed
	for name, test := range map[string]struct {
		pod   *v1.Pod
		stale bool
		left  time.Duration
	}{
		"says nothing":      {&v1.Pod{}, false, 0},
		"says so just now":  {target("EvictionByEvictionAPI", 30*time.Second), false, 90 * time.Second},
		"said so too long":  {target("EvictionByEvictionAPI", 2*time.Minute), true, 0},
		"said by its node":  {target(v1.PodReasonTerminationByKubelet, time.Hour), false, 0},
		"is being deleted":  {leaving, false, 0},
		"has ended by then": {ended, false, 0},
	} {
		if stale, left := Stale(test.pod, start); stale != test.stale || left != test.left {
			t.Errorf("%s: %v, %v", name, stale, left)
		}
	}
}
