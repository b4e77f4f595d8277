package workloads_test

import (
	"fmt"
	"testing"
	"testing/synctest"

	appsv1 "k8s.io/api/apps/v1"
	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/podvine/podvine/agent/control/loop"
	"github.com/podvine/podvine/agent/control/loop/looptest"
	"github.com/podvine/podvine/agent/control/workloads/daemonset"
	"github.com/podvine/podvine/agent/control/workloads/replicationcontroller"
)

// TestDaemonSet: a pod on each node, on new ones too, of the newest template, and none where a node is no more fit.
func TestDaemonSet(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		node := func(name string) *v1.Node { return &v1.Node{ObjectMeta: metav1.ObjectMeta{Name: name}} }
		c := looptest.New(t, node("a"), node("b"))
		defer c.Stop()
		loop, err := daemonset.New(loop.Wiring{Client: c.Client, Informers: c.Informers, Logger: c.Logger()})
		c.Must(err)
		c.Start(loop)
		b := &bench{t, c}
		app, one := map[string]string{"app": "d"}, intstr.FromInt32(1)
		sets := b.Client.AppsV1().DaemonSets("default")
		_, err = sets.Create(b.Context(), &appsv1.DaemonSet{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "d"}, Spec: appsv1.DaemonSetSpec{
			Selector: &metav1.LabelSelector{MatchLabels: app},
			UpdateStrategy: appsv1.DaemonSetUpdateStrategy{Type: appsv1.RollingUpdateDaemonSetStrategyType,
				RollingUpdate: &appsv1.RollingUpdateDaemonSet{MaxUnavailable: &one}},
			Template: v1.PodTemplateSpec{ObjectMeta: metav1.ObjectMeta{Labels: app}, Spec: v1.PodSpec{Containers: []v1.Container{{Name: "c", Image: "v1"}}}}}}, metav1.CreateOptions{})
		b.Must(err)
		b.Settle()
		b.up()
		_, err = b.Client.CoreV1().Nodes().Create(b.Context(), node("c"), metav1.CreateOptions{})
		b.Must(err)
		b.Settle()
		b.up()
		if got := fmt.Sprint(b.images()); got != "map[v1:3]" {
			b.Errorf("on three nodes %s", got)
		}
		set, err := sets.Get(b.Context(), "d", metav1.GetOptions{})
		b.Must(err)
		next := set.DeepCopy()
		next.Spec.Template.Spec.Containers[0].Image = "v2"
		_, err = sets.Update(b.Context(), next, metav1.UpdateOptions{})
		b.Must(err)
		b.Settle()
		if got := fmt.Sprint(b.images()); got != "map[v1:2 v2:1]" {
			b.Errorf("half way %s", got)
		}
		b.up()
		if set, err = sets.Get(b.Context(), "d", metav1.GetOptions{}); err != nil || set.Status.UpdatedNumberScheduled != 3 || set.Status.NumberAvailable != 3 {
			b.Errorf("status %+v, %v", set.Status, err)
		}
		b.idle()
		cleared, err := b.Client.CoreV1().Nodes().Get(b.Context(), "c", metav1.GetOptions{})
		b.Must(err)
		cleared = cleared.DeepCopy()
		cleared.Spec.Taints = []v1.Taint{{Key: "cleared", Effect: v1.TaintEffectNoExecute}}
		_, err = b.Client.CoreV1().Nodes().Update(b.Context(), cleared, metav1.UpdateOptions{})
		b.Must(err)
		b.Settle()
		if got := fmt.Sprint(b.images()); got != "map[v2:2]" {
			b.Errorf("after clearing a node %s", got)
		}
	})
}

// TestReplicationController grows, shrinks and then writes nothing.
func TestReplicationController(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := looptest.New(t)
		defer c.Stop()
		loop, err := replicationcontroller.New(loop.Wiring{Client: c.Client, Informers: c.Informers, Logger: c.Logger()})
		c.Must(err)
		c.Start(loop)
		b := &bench{t, c}
		app, three, one := map[string]string{"app": "r"}, int32(3), int32(1)
		controllers := b.Client.CoreV1().ReplicationControllers("default")
		_, err = controllers.Create(b.Context(), &v1.ReplicationController{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "r"},
			Spec: v1.ReplicationControllerSpec{Replicas: &three, Selector: app, Template: &v1.PodTemplateSpec{
				ObjectMeta: metav1.ObjectMeta{Labels: app}, Spec: v1.PodSpec{Containers: []v1.Container{{Name: "c", Image: "v1"}}}}}}, metav1.CreateOptions{})
		b.Must(err)
		b.Settle()
		b.up()
		rc, err := controllers.Get(b.Context(), "r", metav1.GetOptions{})
		b.Must(err)
		if rc.Status.AvailableReplicas != 3 || rc.Status.FullyLabeledReplicas != 3 || len(b.pods()) != 3 {
			b.Errorf("%d pods, status %+v", len(b.pods()), rc.Status)
		}
		b.idle()
		next := rc.DeepCopy()
		next.Spec.Replicas = &one
		_, err = controllers.Update(b.Context(), next, metav1.UpdateOptions{})
		b.Must(err)
		b.Settle()
		pods := b.pods()
		if len(pods) != 1 || pods[0].OwnerReferences[0].Kind != "ReplicationController" {
			b.Errorf("%d pods, owners %v", len(pods), pods[0].OwnerReferences)
		}
	})
}
