package statefulset

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/podvine/podvine/agent/control/loop/looptest"
	"github.com/podvine/podvine/agent/control/workloads/history"
)

var start = time.Unix(1_000_000, 0)

func testSet(replicas int32, change ...func(*appsv1.StatefulSet)) *appsv1.StatefulSet {
	app := map[string]string{"app": "db"}
	zero := int32(0)
	set := &appsv1.StatefulSet{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "db", UID: "set", Generation: 3},
		Spec: appsv1.StatefulSetSpec{Replicas: &replicas, ServiceName: "db", Selector: &metav1.LabelSelector{MatchLabels: app},
			PodManagementPolicy: appsv1.OrderedReadyPodManagement,
			UpdateStrategy: appsv1.StatefulSetUpdateStrategy{Type: appsv1.RollingUpdateStatefulSetStrategyType,
				RollingUpdate: &appsv1.RollingUpdateStatefulSetStrategy{Partition: &zero}},
			Template: v1.PodTemplateSpec{ObjectMeta: metav1.ObjectMeta{Labels: app}, Spec: v1.PodSpec{Containers: []v1.Container{{Name: "c", Image: "new"}}}}}}
	for _, f := range change {
		f(set)
	}
	return set
}

func inParallel(s *appsv1.StatefulSet) { s.Spec.PodManagementPolicy = appsv1.ParallelPodManagement }
func onDelete(s *appsv1.StatefulSet) {
	s.Spec.UpdateStrategy = appsv1.StatefulSetUpdateStrategy{Type: appsv1.OnDeleteStatefulSetStrategyType}
}
func from(ordinal int32) func(*appsv1.StatefulSet) {
	return func(s *appsv1.StatefulSet) { s.Spec.Ordinals = &appsv1.StatefulSetOrdinals{Start: ordinal} }
}
func partition(n int32) func(*appsv1.StatefulSet) {
	return func(s *appsv1.StatefulSet) { s.Spec.UpdateStrategy.RollingUpdate.Partition = &n }
}
func away(n intstr.IntOrString) func(*appsv1.StatefulSet) {
	return func(s *appsv1.StatefulSet) { s.Spec.UpdateStrategy.RollingUpdate.MaxUnavailable = &n }
}
func minReady(seconds int32) func(*appsv1.StatefulSet) {
	return func(s *appsv1.StatefulSet) { s.Spec.MinReadySeconds = seconds }
}
func claimed(scaled, deleted appsv1.PersistentVolumeClaimRetentionPolicyType) func(*appsv1.StatefulSet) {
	return func(s *appsv1.StatefulSet) {
		s.Spec.VolumeClaimTemplates = []v1.PersistentVolumeClaim{{ObjectMeta: metav1.ObjectMeta{Name: "data"}}}
		s.Spec.PersistentVolumeClaimRetentionPolicy = &appsv1.StatefulSetPersistentVolumeClaimRetentionPolicy{WhenScaled: scaled, WhenDeleted: deleted}
	}
}

// revisionOfImage is the set's revision whose template has the image.
func revisionOfImage(set *appsv1.StatefulSet, image string, number int64) *appsv1.ControllerRevision {
	template := set.Spec.Template.DeepCopy()
	template.Spec.Containers[0].Image = image
	r, err := history.New(set, kind(), template, number, nil)
	if err != nil {
		panic(err) // a template of the test's own always has a JSON form
	}
	return r
}

// world makes a view from words: "0:new,ready 1:old 2:new,leaving".
func world(set *appsv1.StatefulSet, words string) View {
	old, fresh := revisionOfImage(set, "old", 1), revisionOfImage(set, "new", 2)
	set.Status.CurrentRevision = old.Name
	view := View{Set: set, Revisions: []*appsv1.ControllerRevision{old, fresh}, Claims: map[string]*v1.PersistentVolumeClaim{}, Deleted: map[types.UID]bool{}}
	for word := range strings.FieldsSeq(words) {
		var n int
		number, rest, _ := strings.Cut(word, ":")
		if _, err := fmt.Sscan(number, &n); err != nil {
			panic(err)
		}
		states := strings.Split(rest, ",")
		revision := fresh
		if slices.Contains(states, "old") {
			revision = old
		}
		p := newPod(set, &set.Spec.Template, revision.Name, n)
		p.UID, p.Status.Phase = types.UID(p.Name), v1.PodRunning
		looptest.Put(p, states, view.Deleted, start)
		view.Pods = append(view.Pods, p)
	}
	return view
}

// said is a plan in words, in the order of its doing.
func said(plan Plan) string {
	out := append(looptest.Said("adopt", plan.Adopt), looptest.Said("release", plan.Release)...)
	out = append(out, looptest.Said("claim", plan.CreateClaims)...)
	for _, r := range plan.Delete {
		out = append(out, "delete "+r.Pod.Name)
	}
	for _, p := range plan.Create {
		out = append(out, "create "+p.Name+" "+p.Spec.Containers[0].Image)
	}
	return strings.Join(out, ", ")
}

func decided(t *testing.T, view View, now time.Time) Plan {
	t.Helper()
	plan, err := Decide(view, now)
	if err != nil {
		t.Fatal(err)
	}
	return plan
}

func TestDecide(t *testing.T) {
	retain, remove := appsv1.RetainPersistentVolumeClaimRetentionPolicyType, appsv1.DeletePersistentVolumeClaimRetentionPolicyType
	for _, test := range []struct {
		name, pods, want string
		set              *appsv1.StatefulSet
	}{
		{name: "the first pod", set: testSet(3), want: "create db-0 new"},
		{name: "the next waits until the one before is ready", set: testSet(3), pods: "0:new"},
		{name: "the next", set: testSet(3), pods: "0:new,ready", want: "create db-1 new"},
		{name: "ready for too short a time", set: testSet(3, minReady(30)), pods: "0:new,ready"},
		{name: "all at once", set: testSet(3, inParallel), want: "create db-0 new, create db-1 new, create db-2 new"},
		{name: "ordinals start elsewhere", set: testSet(2, from(5)), pods: "5:new,ready", want: "create db-6 new"},
		{name: "a pod before the start is one too many", set: testSet(1, from(1)), pods: "0:new,ready 1:new,ready", want: "delete db-0"},
		{name: "a name is taken until its pod is gone", set: testSet(1), pods: "0:new,leaving"},
		{name: "a gap is filled before anything else", set: testSet(3), pods: "0:new,ready 2:new,ready", want: "create db-1 new"},
		{name: "nothing follows a pod that is not ready", set: testSet(3), pods: "0:new,ready 1:new 3:new,ready"},
		{name: "a failed pod is replaced", set: testSet(1), pods: "0:new,failed", want: "delete db-0"},
		{name: "so is one that ended", set: testSet(1), pods: "0:new,ended", want: "delete db-0"},

		{name: "shrinks from the highest, one by one", set: testSet(1), pods: "0:new,ready 1:new,ready 2:new,ready", want: "delete db-2"},
		{name: "the next waits until the one above is gone", set: testSet(1), pods: "0:new,ready 1:new,ready 2:new,ready,leaving"},
		{name: "own deletion unseen", set: testSet(1), pods: "0:new,ready 1:new,ready 2:new,ready,deleted"},
		{name: "does not shrink while a pod below is not ready", set: testSet(0), pods: "0:new 1:new 2:new"},
		{name: "ends the only one that is not ready", set: testSet(0), pods: "0:new,ready 1:new,ready 2:new", want: "delete db-2"},
		{name: "ends what has ended by itself, without waiting", set: testSet(0), pods: "0:new,failed 1:new,failed", want: "delete db-1"},
		{name: "shrinks at once", set: testSet(1, inParallel), pods: "0:new,ready 1:new 2:new,ready", want: "delete db-2, delete db-1"},

		{name: "rolls from the highest", set: testSet(3), pods: "0:old,ready 1:old,ready 2:old,ready", want: "delete db-2"},
		{name: "makes the new one", set: testSet(3), pods: "0:old,ready 1:old,ready", want: "create db-2 new"},
		{name: "waits for the new one", set: testSet(3), pods: "0:old,ready 1:old,ready 2:new"},
		{name: "goes on", set: testSet(3), pods: "0:old,ready 1:old,ready 2:new,ready", want: "delete db-1"},
		{name: "own deletion unseen while rolling", set: testSet(3), pods: "0:old,ready 1:old,ready 2:old,ready,deleted"},
		{name: "two at a time", set: testSet(4, inParallel, away(intstr.FromInt32(2))), pods: "0:old,ready 1:old,ready 2:old,ready 3:old,ready", want: "delete db-3, delete db-2"},
		{name: "a third, rounded up", set: testSet(4, inParallel, away(intstr.FromString("30%"))), pods: "0:old,ready 1:old,ready 2:old,ready 3:old,ready", want: "delete db-3, delete db-2"},
		{name: "one is away already", set: testSet(4, inParallel, away(intstr.FromInt32(2))), pods: "0:new 1:old,ready 2:old,ready 3:old,ready", want: "delete db-3"},
		{name: "what is away costs nothing", set: testSet(3, inParallel), pods: "0:old,ready 1:old,ready 2:old", want: "delete db-2"},
		{name: "and no more than that goes", set: testSet(3, inParallel), pods: "0:old,ready 1:old 2:new", want: "delete db-1"},
		{name: "the partition stays", set: testSet(3, partition(2)), pods: "0:old,ready 1:old,ready 2:new,ready"},
		{name: "a pod below the partition comes back as it was", set: testSet(3, partition(2)), pods: "0:old,ready 2:new,ready", want: "create db-1 old"},
		{name: "a partition counts from the start", set: testSet(3, partition(2), from(5)), pods: "5:old,ready 7:new,ready", want: "create db-6 old"},
		{name: "on delete, nothing rolls", set: testSet(2, onDelete), pods: "0:old,ready 1:old,ready"},
		{name: "on delete, what comes back is new", set: testSet(2, onDelete), pods: "0:old,ready", want: "create db-1 new"},

		{name: "adopts and releases", set: testSet(1), pods: "0:new,ready,orphan 1:new,relabelled", want: "adopt db-0, release db-1"},
		{name: "does not adopt what leaves", set: testSet(1), pods: "0:new,orphan,leaving", want: "create db-0 new"},
		{name: "claims come first", set: testSet(1, claimed(retain, retain)), want: "claim data-db-0, create db-0 new"},
		{name: "a pending pod gets its claim again", set: testSet(1, claimed(retain, remove)), pods: "0:new,pending", want: "claim data-db-0"},
	} {
		t.Run(test.name, func(t *testing.T) {
			if got := said(decided(t, world(test.set, test.pods), start.Add(10*time.Second))); got != test.want {
				t.Errorf("%q, want %q", got, test.want)
			}
		})
	}
}

func TestPodsCarryTheirIdentity(t *testing.T) {
	set := testSet(1, from(4), claimed("", ""))
	set.Spec.Template.Spec.Volumes = []v1.Volume{{Name: "data"}, {Name: "tmp"}}
	p := decided(t, world(set, ""), start).Create[0]
	got := fmt.Sprint(p.Name, p.GenerateName, p.Spec.Hostname, p.Spec.Subdomain, p.Labels[appsv1.PodIndexLabel], p.Labels[appsv1.StatefulSetPodNameLabel],
		p.Spec.Volumes[0].PersistentVolumeClaim.ClaimName, len(p.Spec.Volumes), p.Labels[appsv1.StatefulSetRevisionLabel] != "")
	if want := "db-4db-4db4db-4data-db-42 true"; got != want {
		t.Errorf("%s, want %s", got, want)
	}
}

func TestStatus(t *testing.T) {
	set := testSet(3, minReady(10))
	view := world(set, "0:old,ready 1:old 2:new,ready,leaving")
	plan := decided(t, view, start.Add(4*time.Second))
	s := plan.Status
	got := fmt.Sprint(s.Replicas, s.ReadyReplicas, s.AvailableReplicas, s.CurrentReplicas, s.UpdatedReplicas, s.ObservedGeneration, *s.CollisionCount)
	if got != "3 2 0 2 0 3 0" || s.CurrentRevision != view.Revisions[0].Name || s.UpdateRevision != view.Revisions[1].Name || plan.Again != 6*time.Second {
		t.Errorf("status %s, %+v, again in %s", got, s, plan.Again)
	}
	if plan := decided(t, view, start.Add(10*time.Second)); plan.Status.AvailableReplicas != 1 || plan.Again != 0 {
		t.Errorf("after the time %+v, again in %s", plan.Status, plan.Again)
	}
}

func TestTheUpdateBecomesCurrent(t *testing.T) {
	view := world(testSet(2), "0:new,ready 1:new,ready")
	s := decided(t, view, start).Status
	if s.CurrentRevision != s.UpdateRevision || s.CurrentReplicas != 2 {
		t.Errorf("done: %+v", s)
	}
	s = decided(t, world(testSet(2), "0:new,ready 1:new"), start).Status
	if s.CurrentRevision == s.UpdateRevision {
		t.Errorf("one is not ready: %+v", s)
	}
}

func TestRevisions(t *testing.T) {
	set := testSet(1)
	if plan := decided(t, View{Set: set}, start); plan.NewRevision == nil || plan.NewRevision.Revision != 1 || said(plan) != "" {
		t.Errorf("the first: %+v, %q", plan.NewRevision, said(plan))
	}
	old, fresh := revisionOfImage(set, "old", 1), revisionOfImage(set, "new", 2)
	set.Spec.Template.Spec.Containers[0].Image = "old" // undone
	plan := decided(t, View{Set: set, Revisions: []*appsv1.ControllerRevision{old, fresh}}, start)
	if plan.Renumbered == nil || plan.Renumbered.Name != old.Name || plan.Renumbered.Revision != 3 || old.Revision != 1 {
		t.Errorf("undone: %+v", plan.Renumbered)
	}
	one := int32(1)
	set.Spec.RevisionHistoryLimit = &one
	var all []*appsv1.ControllerRevision
	for i := range 5 {
		all = append(all, revisionOfImage(set, fmt.Sprint("v", i), int64(i+1)))
	}
	all = append(all, revisionOfImage(set, "old", 9))
	set.Status.CurrentRevision = all[0].Name
	plan = decided(t, View{Set: set, Revisions: all}, start)
	if len(plan.DeleteRevisions) != 3 || plan.DeleteRevisions[0] != all[1] || plan.DeleteRevisions[2] != all[3] {
		t.Errorf("to delete: %d", len(plan.DeleteRevisions))
	}
	collisions := int32(1)
	set.Status.CollisionCount = &collisions
	set.Spec.Template.Spec.Containers[0].Image = "yet another"
	first := revisionOfImage(set, "yet another", 1).Name
	if plan = decided(t, View{Set: set}, start); plan.NewRevision.Name == first {
		t.Error("a collision gives no new name")
	}
}

func TestClaimOwners(t *testing.T) {
	retain, remove := appsv1.RetainPersistentVolumeClaimRetentionPolicyType, appsv1.DeletePersistentVolumeClaimRetentionPolicyType
	for _, test := range []struct {
		scaled, deleted  appsv1.PersistentVolumeClaimRetentionPolicyType
		before           string
		inside, outsider string
	}{
		{scaled: retain, deleted: retain},
		{scaled: retain, deleted: retain, before: "set"},
		{scaled: retain, deleted: remove, inside: "set", outsider: "set"},
		{scaled: remove, deleted: retain, outsider: "db-1"},
		{scaled: remove, deleted: remove, inside: "set", outsider: "db-1"},
		{scaled: remove, deleted: remove, before: "other", inside: "other", outsider: "other"},
	} {
		set := testSet(1, claimed(test.scaled, test.deleted))
		view := world(set, "0:new,ready 1:new,ready")
		for _, name := range []string{"data-db-0", "data-db-1"} {
			claim := &v1.PersistentVolumeClaim{ObjectMeta: metav1.ObjectMeta{Name: name}}
			yes := true
			switch test.before {
			case "set":
				claim.OwnerReferences = []metav1.OwnerReference{{Kind: "StatefulSet", Name: "db", UID: "set", Controller: &yes}}
			case "other":
				claim.OwnerReferences = []metav1.OwnerReference{{Kind: "Else", Name: "else", UID: "other", Controller: &yes}}
			}
			view.Claims[name] = claim
		}
		owners := map[string]string{"data-db-0": test.before, "data-db-1": test.before}
		for _, claim := range decided(t, view, start).UpdateClaims {
			owners[claim.Name] = ""
			for _, r := range claim.OwnerReferences {
				owners[claim.Name] += string(r.UID)
			}
		}
		if owners["data-db-0"] != test.inside || owners["data-db-1"] != test.outsider {
			t.Errorf("scaled %s, deleted %s, before %q: owners %v", test.scaled, test.deleted, test.before, owners)
		}
	}
}

func TestAPodWaitsForTheEndOfItsOldClaim(t *testing.T) {
	set := testSet(1, claimed("Delete", "Retain"))
	view := world(set, "")
	view.Claims["data-db-0"] = &v1.PersistentVolumeClaim{ObjectMeta: metav1.ObjectMeta{Name: "data-db-0",
		OwnerReferences: []metav1.OwnerReference{{APIVersion: "v1", Kind: "Pod", Name: "db-0", UID: "before"}}}}
	if got := said(decided(t, view, start)); got != "" {
		t.Errorf("%q, want nothing", got)
	}
}
