package workloads_test

import (
	"fmt"
	"strings"
	"testing"
	"testing/synctest"

	appsv1 "k8s.io/api/apps/v1"
	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/podvine/podvine/agent/control/loop"
	"github.com/podvine/podvine/agent/control/loop/looptest"
	"github.com/podvine/podvine/agent/control/workloads/statefulset"
)

func runStateful(t *testing.T, test func(b *bench)) {
	synctest.Test(t, func(t *testing.T) {
		c := looptest.New(t)
		defer c.Stop()
		loop, err := statefulset.New(loop.Wiring{Client: c.Client, Informers: c.Informers, Logger: c.Logger()})
		c.Must(err)
		c.Start(loop)
		test(&bench{t, c})
	})
}

func db(size int32) *appsv1.StatefulSet {
	app, zero := map[string]string{"app": "db"}, int32(0)
	return &appsv1.StatefulSet{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "db"}, Spec: appsv1.StatefulSetSpec{
		Replicas: &size, ServiceName: "db", Selector: &metav1.LabelSelector{MatchLabels: app},
		UpdateStrategy: appsv1.StatefulSetUpdateStrategy{Type: appsv1.RollingUpdateStatefulSetStrategyType,
			RollingUpdate: &appsv1.RollingUpdateStatefulSetStrategy{Partition: &zero}},
		VolumeClaimTemplates: []v1.PersistentVolumeClaim{{ObjectMeta: metav1.ObjectMeta{Name: "data"}}},
		Template: v1.PodTemplateSpec{ObjectMeta: metav1.ObjectMeta{Labels: app},
			Spec: v1.PodSpec{Containers: []v1.Container{{Name: "c", Image: "v1"}}}}}}
}

func (b *bench) stateful() *appsv1.StatefulSet {
	b.Helper()
	set, err := b.Client.AppsV1().StatefulSets("default").Get(b.Context(), "db", metav1.GetOptions{})
	b.Must(err)
	return set.DeepCopy()
}

func (b *bench) changeStateful(f func(*appsv1.StatefulSet)) {
	b.Helper()
	set := b.stateful()
	f(set)
	_, err := b.Client.AppsV1().StatefulSets("default").Update(b.Context(), set, metav1.UpdateOptions{})
	b.Must(err)
	b.Settle()
}

func (b *bench) createStateful(set *appsv1.StatefulSet) {
	b.Helper()
	_, err := b.Client.AppsV1().StatefulSets("default").Create(b.Context(), set, metav1.CreateOptions{})
	b.Must(err)
	b.Settle()
}

// podWords are the pods by name, with the image.
func (b *bench) podWords() string {
	b.Helper()
	var out []string
	for _, p := range b.pods() {
		out = append(out, p.Name+" "+p.Spec.Containers[0].Image)
	}
	return strings.Join(out, ", ")
}

// TestStatefulSet goes the way of a user: create, scale, roll out to a part, to all, back, and shrink.
func TestStatefulSet(t *testing.T) {
	runStateful(t, func(b *bench) {
		b.createStateful(db(3))
		if got := b.podWords(); got != "db-0 v1" {
			b.Errorf("at first %s", got)
		}
		b.up()
		if got := b.podWords(); got != "db-0 v1, db-1 v1, db-2 v1" {
			b.Errorf("when all are up %s", got)
		}
		one := int32(1)
		b.changeStateful(func(s *appsv1.StatefulSet) {
			s.Spec.Template.Spec.Containers[0].Image, s.Spec.UpdateStrategy.RollingUpdate.Partition = "v2", &one
		})
		b.up()
		if got, s := b.podWords(), b.stateful().Status; got != "db-0 v1, db-1 v2, db-2 v2" || s.UpdatedReplicas != 2 || s.CurrentRevision == s.UpdateRevision {
			b.Errorf("behind the partition %s, status %+v", got, s)
		}
		zero := int32(0)
		b.changeStateful(func(s *appsv1.StatefulSet) { s.Spec.UpdateStrategy.RollingUpdate.Partition = &zero })
		b.up()
		if got, s := b.podWords(), b.stateful().Status; got != "db-0 v2, db-1 v2, db-2 v2" || s.CurrentRevision != s.UpdateRevision {
			b.Errorf("rolled out %s, status %+v", got, s)
		}
		b.changeStateful(func(s *appsv1.StatefulSet) { s.Spec.Template.Spec.Containers[0].Image = "v1" })
		b.up()
		revisions, err := b.Client.AppsV1().ControllerRevisions("default").List(b.Context(), metav1.ListOptions{})
		b.Must(err)
		numbers := ""
		for _, r := range revisions.Items {
			numbers += fmt.Sprint(r.Revision, " ")
		}
		if got := b.podWords(); got != "db-0 v1, db-1 v1, db-2 v1" || len(revisions.Items) != 2 || !strings.Contains(numbers, "3 ") {
			b.Errorf("undone %s, revisions %s", got, numbers)
		}
		b.changeStateful(func(s *appsv1.StatefulSet) { s.Spec.Replicas = &one })
		claims, err := b.Client.CoreV1().PersistentVolumeClaims("default").List(b.Context(), metav1.ListOptions{})
		b.Must(err)
		if got := b.podWords(); got != "db-0 v1" || len(claims.Items) != 3 {
			b.Errorf("shrunk to %s, %d claims, want all three kept", got, len(claims.Items))
		}
		b.idle()
	})
}

// TestStatefulSetTakesOver: pods and revisions that an earlier set of the name left behind become the new one's, as they are.
func TestStatefulSetTakesOver(t *testing.T) {
	runStateful(t, func(b *bench) {
		b.createStateful(db(2))
		b.up()
		before := b.pods()
		orphan := func(o metav1.Object) { o.SetOwnerReferences(nil) }
		b.Must(b.Client.AppsV1().StatefulSets("default").Delete(b.Context(), "db", metav1.DeleteOptions{}))
		b.Settle()
		revisions, err := b.Client.AppsV1().ControllerRevisions("default").List(b.Context(), metav1.ListOptions{})
		b.Must(err)
		for i := range revisions.Items {
			orphan(&revisions.Items[i])
			_, err := b.Client.AppsV1().ControllerRevisions("default").Update(b.Context(), &revisions.Items[i], metav1.UpdateOptions{})
			b.Must(err)
		}
		for i := range before {
			orphan(&before[i])
			_, err := b.Client.CoreV1().Pods("default").Update(b.Context(), &before[i], metav1.UpdateOptions{})
			b.Must(err)
		}
		b.createStateful(db(2))
		b.up()
		after := b.pods()
		owned := 0
		for i := range after {
			if after[i].UID == before[i].UID && metav1.IsControlledBy(&after[i], b.stateful()) {
				owned++
			}
		}
		if owned != 2 || len(after) != 2 {
			b.Errorf("%d of %d pods were taken over", owned, len(after))
		}
	})
}
