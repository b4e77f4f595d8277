package workloads_test

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"testing"
	"testing/synctest"

	appsv1 "k8s.io/api/apps/v1"
	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	clienttesting "k8s.io/client-go/testing"

	"github.com/podvine/podvine/agent/control/loop"
	"github.com/podvine/podvine/agent/control/loop/looptest"
	"github.com/podvine/podvine/agent/control/workloads/deployment"
	"github.com/podvine/podvine/agent/control/workloads/replicaset"
)

// bench is a cluster with both loops, in virtual time.
type bench struct {
	*testing.T
	*looptest.Cluster
}

func run(t *testing.T, test func(b *bench)) {
	synctest.Test(t, func(t *testing.T) {
		c := looptest.New(t)
		defer c.Stop()
		sets, err := replicaset.New(loop.Wiring{Client: c.Client, Informers: c.Informers, Logger: c.Logger()})
		c.Must(err)
		deployments, err := deployment.New(loop.Wiring{Client: c.Client, Informers: c.Informers, Logger: c.Logger()})
		c.Must(err)
		c.Start(sets, deployments)
		test(&bench{t, c})
	})
}

func web(size int32) *appsv1.Deployment {
	app := map[string]string{"app": "web"}
	deadline := int32(600)
	return &appsv1.Deployment{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "web", Annotations: map[string]string{"team": "a"}},
		Spec: appsv1.DeploymentSpec{Replicas: &size, ProgressDeadlineSeconds: &deadline,
			Strategy: appsv1.DeploymentStrategy{Type: appsv1.RollingUpdateDeploymentStrategyType},
			Selector: &metav1.LabelSelector{MatchLabels: app},
			Template: v1.PodTemplateSpec{ObjectMeta: metav1.ObjectMeta{Labels: app},
				Spec: v1.PodSpec{Containers: []v1.Container{{Name: "c", Image: "v1"}}}}}}
}

func (b *bench) create(d *appsv1.Deployment) {
	b.Helper()
	_, err := b.Client.AppsV1().Deployments("default").Create(b.Context(), d, metav1.CreateOptions{})
	b.Must(err)
	b.Settle()
}

func (b *bench) change(f func(*appsv1.Deployment)) {
	b.Helper()
	d := b.get()
	f(d)
	_, err := b.Client.AppsV1().Deployments("default").Update(b.Context(), d, metav1.UpdateOptions{})
	b.Must(err)
	b.Settle()
}

func (b *bench) get() *appsv1.Deployment {
	b.Helper()
	d, err := b.Client.AppsV1().Deployments("default").Get(b.Context(), "web", metav1.GetOptions{})
	b.Must(err)
	return d.DeepCopy()
}

func (b *bench) pods() []v1.Pod {
	b.Helper()
	list, err := b.Client.CoreV1().Pods("default").List(b.Context(), metav1.ListOptions{})
	b.Must(err)
	return list.Items
}

// up plays the node agent: all pods become ready, a few at a time.
func (b *bench) up() {
	b.Helper()
	for range 20 {
		changed := false
		for _, p := range b.pods() {
			if len(p.Status.Conditions) > 0 {
				continue
			}
			p.Status.Phase = v1.PodRunning
			p.Status.Conditions = []v1.PodCondition{{Type: v1.PodReady, Status: v1.ConditionTrue, LastTransitionTime: metav1.Now()}}
			_, err := b.Client.CoreV1().Pods("default").UpdateStatus(b.Context(), &p, metav1.UpdateOptions{})
			b.Must(err)
			changed = true
		}
		b.Settle()
		if !changed {
			return
		}
	}
	b.Fatal("pods kept changing")
}

func (b *bench) images() map[string]int {
	images := map[string]int{}
	for _, p := range b.pods() {
		images[p.Spec.Containers[0].Image]++
	}
	return images
}

// idle fails for any write within the next minutes.
func (b *bench) idle() {
	b.Helper()
	b.Client.ClearActions()
	b.Pass(10 * looptest.SettleTime * 6)
	for _, action := range b.Client.Actions() {
		if action.GetVerb() != "watch" && action.GetVerb() != "list" {
			b.Errorf("idle loop did %s %s", action.GetVerb(), action.GetResource().Resource)
		}
	}
}

// TestRollout goes the way of a user: create, set image, undo, scale.
func TestRollout(t *testing.T) {
	run(t, func(b *bench) {
		b.create(web(3))
		b.up()
		if s := b.get().Status; s.AvailableReplicas != 3 || s.UpdatedReplicas != 3 || b.get().Annotations["deployment.kubernetes.io/revision"] != "1" {
			b.Fatalf("status %+v", s)
		}
		b.change(func(d *appsv1.Deployment) { d.Spec.Template.Spec.Containers[0].Image = "v2" })
		if got := fmt.Sprint(b.images()); got != "map[v1:3 v2:1]" {
			b.Errorf("half way: %s, want three old and the surge of one", got)
		}
		b.up()
		if got := fmt.Sprint(b.images()); got != "map[v2:3]" {
			b.Errorf("after: %s", got)
		}
		b.change(func(d *appsv1.Deployment) { d.Spec.Template.Spec.Containers[0].Image = "v1" })
		b.up()
		d := b.get()
		if got := fmt.Sprint(b.images()); got != "map[v1:3]" || d.Annotations["deployment.kubernetes.io/revision"] != "3" {
			b.Errorf("after undo: %s, revision %s", got, d.Annotations["deployment.kubernetes.io/revision"])
		}
		five := int32(5)
		b.change(func(d *appsv1.Deployment) { d.Spec.Replicas = &five })
		b.up()
		if s := b.get().Status; s.AvailableReplicas != 5 {
			b.Errorf("after scaling %+v", s)
		}
		sets, err := b.Client.AppsV1().ReplicaSets("default").List(b.Context(), metav1.ListOptions{})
		b.Must(err)
		if len(sets.Items) != 2 || sets.Items[0].Annotations["team"] != "a" {
			b.Errorf("%d sets, annotations %v", len(sets.Items), sets.Items[0].Annotations)
		}
	})
}

// TestIdleWritesNothing: after all is done, time brings no write, through full passes too.
func TestIdleWritesNothing(t *testing.T) {
	run(t, func(b *bench) {
		b.create(web(2))
		b.up()
		b.idle()
	})
}

// TestRefusedPods: a template that the API refuses costs few requests, is told, and recovers by itself.
func TestRefusedPods(t *testing.T) {
	run(t, func(b *bench) {
		var healed atomic.Bool
		var tries atomic.Int64
		b.Client.PrependReactor("create", "pods", func(clienttesting.Action) (bool, runtime.Object, error) {
			if tries.Add(1); !healed.Load() {
				return true, nil, errors.New("pods is forbidden: exceeded quota")
			}
			return false, nil, nil
		})
		b.create(web(50))
		if n := tries.Load(); n == 0 || n > 20 {
			b.Errorf("%d tries within %s", n, looptest.SettleTime)
		}
		found := false
		for _, c := range b.get().Status.Conditions {
			found = found || c.Type == appsv1.DeploymentReplicaFailure && c.Reason == "FailedCreate" && c.Message == "pods is forbidden: exceeded quota"
		}
		if !found {
			b.Errorf("conditions %+v", b.get().Status.Conditions)
		}
		healed.Store(true)
		b.Pass(4 * looptest.SettleTime)
		if got := len(b.pods()); got != 50 {
			b.Errorf("%d pods after the quota was raised, want 50", got)
		}
		for _, c := range b.get().Status.Conditions {
			if c.Type == appsv1.DeploymentReplicaFailure {
				b.Errorf("still %+v", c)
			}
		}
	})
}

// TestStaleReads: with an informer that shows nothing new, no pod is made twice.
func TestStaleReads(t *testing.T) {
	run(t, func(b *bench) {
		b.create(web(3))
		for range 5 {
			b.change(func(d *appsv1.Deployment) {
				metav1.SetMetaDataAnnotation(&d.ObjectMeta, "touch", fmt.Sprint(b.Client.Actions()))
			})
		}
		creations := 0
		for _, action := range b.Client.Actions() {
			if action.Matches("create", "pods") {
				creations++
			}
		}
		if creations != 3 {
			b.Errorf("%d pods created, want 3", creations)
		}
	})
}

// TestAdoption: a set and its pods made by hand under the right labels become the Deployment's.
func TestAdoption(t *testing.T) {
	run(t, func(b *bench) {
		d := web(1)
		one := int32(1)
		set := &appsv1.ReplicaSet{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "by-hand", Labels: d.Spec.Selector.MatchLabels},
			Spec: appsv1.ReplicaSetSpec{Replicas: &one, Selector: d.Spec.Selector, Template: d.Spec.Template}}
		_, err := b.Client.AppsV1().ReplicaSets("default").Create(b.Context(), set, metav1.CreateOptions{})
		b.Must(err)
		b.Settle()
		b.create(d)
		b.up()
		sets, err := b.Client.AppsV1().ReplicaSets("default").List(context.Background(), metav1.ListOptions{})
		b.Must(err)
		if len(sets.Items) != 1 || len(sets.Items[0].OwnerReferences) != 1 || sets.Items[0].OwnerReferences[0].Name != "web" || len(b.pods()) != 1 {
			b.Errorf("%d sets, owners %v, %d pods", len(sets.Items), sets.Items[0].OwnerReferences, len(b.pods()))
		}
	})
}
