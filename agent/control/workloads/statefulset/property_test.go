package statefulset

import (
	"fmt"
	"maps"
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

// sim is a cluster with one set: what is, what the loop is shown, and what it remembers.
type sim struct {
	*rapid.T
	set       *appsv1.StatefulSet
	real      map[string]*v1.Pod // by name, as the API holds them
	shown     map[string]*v1.Pod // what an informer behind shows
	deleted   map[types.UID]bool // the loop's memory of its deletions
	revisions []*appsv1.ControllerRevision
	made      int
	now       time.Time
}

func (s *sim) show() { s.shown = maps.Clone(s.real) }

func (s *sim) up(p *v1.Pod) bool {
	return p != nil && p.DeletionTimestamp == nil && running(p)
}

func (s *sim) upCount() (count int) {
	for i := range size(s.set) {
		if s.up(s.real[podName(s.set, first(s.set)+i)]) {
			count++
		}
	}
	return count
}

// act decides and carries out, and checks what must never be.
func (s *sim) act() {
	view := View{Set: s.set, Revisions: s.revisions, Deleted: map[types.UID]bool{}}
	for _, name := range slices.Sorted(maps.Keys(s.shown)) {
		p := s.shown[name]
		view.Pods = append(view.Pods, p)
		if s.deleted[p.UID] && p.DeletionTimestamp == nil {
			view.Deleted[p.UID] = true
		}
	}
	plan, err := Decide(view, s.now)
	if err != nil {
		s.Fatal(err)
	}
	if r := plan.NewRevision; r != nil {
		s.revisions = append(s.revisions, r)
		return
	}
	if r := plan.Renumbered; r != nil {
		for i := range s.revisions {
			if s.revisions[i].Name == r.Name {
				s.revisions[i] = r
			}
		}
	}
	s.checkOrder(plan)
	before := s.upCount()
	for _, r := range plan.Delete {
		if p := s.real[r.Pod.Name]; p != nil && p.UID == r.Pod.UID && (!r.Exact || p == r.Pod) {
			next := p.DeepCopy()
			next.DeletionTimestamp = &metav1.Time{Time: s.now}
			s.real[p.Name] = next
			s.deleted[p.UID] = true
		}
	}
	if floor := size(s.set) - maxUnavailable(s.set); s.upCount() < min(before, floor) {
		s.Fatalf("%d of %d pods are up after deleting %s, %d before, %d may be away", s.upCount(), size(s.set), said(plan), before, maxUnavailable(s.set))
	}
	for _, p := range plan.Create {
		if _, taken := s.real[p.Name]; taken {
			continue // the API refuses a second pod of the name
		}
		s.made++
		p.UID = types.UID(fmt.Sprint("pod", s.made))
		p.Status.Phase = v1.PodPending
		s.real[p.Name] = p
	}
	s.set.Status = plan.Status
}

// checkOrder: a set in order makes or ends one pod at a time, and none above one that is not up.
func (s *sim) checkOrder(plan Plan) {
	for _, p := range plan.Create {
		if s.shown[p.Name] != nil {
			s.Fatalf("makes %s, which is there", p.Name)
		}
	}
	if s.set.Spec.PodManagementPolicy == appsv1.ParallelPodManagement {
		return
	}
	if len(plan.Create) > 1 {
		s.Fatalf("makes %d pods at once", len(plan.Create))
	}
	for _, p := range plan.Create {
		n, _ := ordinal(s.set, p.Name)
		for below := first(s.set); below < n; below++ {
			if !s.up(s.shown[podName(s.set, below)]) {
				s.Fatalf("makes %s before number %d is up", p.Name, below)
			}
		}
	}
}

// nature is what others do: agents start and end pods, pods break and heal, users change the set.
func (s *sim) nature() {
	names := slices.Sorted(maps.Keys(s.real))
	switch what := rapid.IntRange(0, 7).Draw(s.T, "what"); {
	case what == 0:
		replicas := rapid.Int32Range(0, 5).Draw(s.T, "replicas")
		s.set.Spec.Replicas = &replicas
	case what == 1:
		s.set = s.set.DeepCopy()
		s.set.Spec.Template.Spec.Containers[0].Image = rapid.SampledFrom([]string{"a", "b", "c"}).Draw(s.T, "image")
	case what == 2:
		s.show()
	case len(names) > 0:
		name := rapid.SampledFrom(names).Draw(s.T, "pod")
		s.live(name, rapid.IntRange(0, 4).Draw(s.T, "change"))
	}
}

func (s *sim) live(name string, change int) {
	p := s.real[name].DeepCopy()
	ready := v1.PodCondition{Type: v1.PodReady, Status: v1.ConditionTrue, LastTransitionTime: metav1.NewTime(s.now)}
	switch {
	case p.DeletionTimestamp != nil:
		delete(s.real, name)
		return // the informer shows it later, as it does the loop's own writes
	case change == 0:
		p.Status.Phase, p.Status.Conditions = v1.PodRunning, nil
	case change == 1:
		p.Status.Phase, p.Status.Conditions = v1.PodFailed, nil
	default:
		p.Status.Phase, p.Status.Conditions = v1.PodRunning, []v1.PodCondition{ready}
	}
	if s.shown[name] == s.real[name] {
		s.shown[name] = p // what agents report is shown at once
	}
	s.real[name] = p
}

func newSim(t *rapid.T) *sim {
	set := testSet(rapid.Int32Range(0, 5).Draw(t, "size"), from(rapid.Int32Range(0, 2).Draw(t, "first")),
		away(intstr.FromInt32(rapid.Int32Range(1, 3).Draw(t, "away"))))
	if rapid.Bool().Draw(t, "parallel") {
		inParallel(set)
	}
	return &sim{T: t, set: set, real: map[string]*v1.Pod{}, shown: map[string]*v1.Pod{}, deleted: map[types.UID]bool{}, now: start}
}

// TestNeverTooFewNeverOutOfOrder is safety: whatever happens, and however far behind the informer is.
func TestNeverTooFewNeverOutOfOrder(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := newSim(t)
		for range rapid.IntRange(1, 60).Draw(t, "steps") {
			if rapid.Bool().Draw(t, "ours") {
				s.act()
			} else {
				s.nature()
			}
		}
	})
}

// TestConverges is liveness: left alone, with agents that do their work, the set gets its pods, all of the last template.
func TestConverges(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := newSim(t)
		for range rapid.IntRange(0, 40).Draw(t, "steps") {
			if rapid.Bool().Draw(t, "ours") {
				s.act()
			} else {
				s.nature()
			}
		}
		for range 60 {
			for _, name := range slices.Sorted(maps.Keys(s.real)) {
				if p := s.real[name]; p.Status.Phase != v1.PodFailed || p.DeletionTimestamp != nil {
					s.live(name, 4)
				}
			}
			s.show()
			s.act()
		}
		s.show()
		if got := said(decidedBy(s)); got != "" || len(s.real) != size(s.set) || s.upCount() != size(s.set) {
			t.Fatalf("still to do: %q; %d pods, %d up, %d wanted", got, len(s.real), s.upCount(), size(s.set))
		}
		for name, p := range s.real {
			if p.Spec.Containers[0].Image != s.set.Spec.Template.Spec.Containers[0].Image {
				t.Fatalf("%s is of an older template", name)
			}
		}
		if status := s.set.Status; status.CurrentRevision != status.UpdateRevision || int(status.AvailableReplicas) != size(s.set) {
			t.Fatalf("status %+v", status)
		}
	})
}

func decidedBy(s *sim) Plan {
	plan, err := Decide(View{Set: s.set, Revisions: s.revisions, Pods: slices.Collect(maps.Values(s.shown))}, s.now)
	if err != nil {
		s.Fatal(err)
	}
	return plan
}
