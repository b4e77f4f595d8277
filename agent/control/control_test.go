package control_test

import (
	"context"
	"crypto/x509"
	"errors"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	v1 "k8s.io/api/core/v1"
	apiresource "k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/metadata"
	metadatafake "k8s.io/client-go/metadata/fake"

	"github.com/podvine/podvine/agent/control"
	"github.com/podvine/podvine/agent/control/loop/looptest"
)

type allAlive struct{}

func (allAlive) Alive(string) (bool, time.Time) { return true, time.Unix(1, 0) }

func noRequests(*x509.CertificateRequest, x509.KeyUsage, []x509.ExtKeyUsage, time.Duration, time.Time) ([]byte, error) {
	return nil, errors.New("nobody asks for a certificate here")
}

// bench is all loops on one fake cluster.
type bench struct {
	*testing.T
	*looptest.Cluster
	control *control.Control

	mu    sync.Mutex
	names []string
}

func run(t *testing.T, test func(b *bench)) {
	synctest.Test(t, func(t *testing.T) {
		ready := v1.NodeStatus{Conditions: []v1.NodeCondition{{Type: v1.NodeReady, Status: v1.ConditionTrue}}, Allocatable: v1.ResourceList{
			v1.ResourceCPU: apiresource.MustParse("4"), v1.ResourceMemory: apiresource.MustParse("4Gi"), v1.ResourcePods: apiresource.MustParse("10")}}
		c := looptest.New(t,
			&v1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "default"}, Status: v1.NamespaceStatus{Phase: v1.NamespaceActive}},
			&v1.Node{ObjectMeta: metav1.ObjectMeta{Name: "n1"}, Status: ready})
		defer c.Stop()
		b := &bench{T: t, Cluster: c}
		scheme := metadatafake.NewTestScheme()
		c.Must(metav1.AddMetaToScheme(scheme))
		content := metadatafake.NewSimpleMetadataClient(scheme)
		var err error
		b.control, err = control.New(control.Config{
			ClientFor: func(name string) kubernetes.Interface {
				b.mu.Lock()
				defer b.mu.Unlock()
				b.names = append(b.names, name)
				return c.Client
			},
			MetadataFor: func(string) metadata.Interface { return content },
			Informers:   c.Informers, Logger: c.Logger(), Liveness: allAlive{}, CA: func() []byte { return []byte("PEM") }, Sign: noRequests, ServiceRanges: []string{"10.96.0.0/12"},
		})
		c.Must(err)
		c.Start()
		test(b)
	})
}

// lead runs the loops while f does.
func (b *bench) lead(f func()) {
	b.Helper()
	ctx, stop := context.WithCancel(b.Context())
	done := make(chan error)
	go func() { done <- b.control.Run(ctx) }()
	b.Settle()
	f()
	stop()
	if err := <-done; !errors.Is(err, context.Canceled) {
		b.Errorf("Run ended with %v", err)
	}
}

func (b *bench) deploy(name string) {
	b.Helper()
	app := map[string]string{"app": name}
	two := int32(2)
	_, err := b.Client.AppsV1().Deployments("default").Create(b.Context(), &appsv1.Deployment{
		ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name},
		Spec: appsv1.DeploymentSpec{Replicas: &two, Selector: &metav1.LabelSelector{MatchLabels: app},
			Template: v1.PodTemplateSpec{ObjectMeta: metav1.ObjectMeta{Labels: app},
				Spec: v1.PodSpec{SchedulerName: v1.DefaultSchedulerName, Containers: []v1.Container{{Name: "c", Image: "i"}}}}},
	}, metav1.CreateOptions{})
	b.Must(err)
	b.Settle()
}

func (b *bench) placed() (count int) {
	b.Helper()
	pods, err := b.Client.CoreV1().Pods("default").List(b.Context(), metav1.ListOptions{})
	b.Must(err)
	for _, p := range pods.Items {
		if p.Spec.NodeName == "n1" {
			count++
		}
	}
	return count
}

// TestLeadLostAndGained: from a Deployment to pods on a node, twice; between, nothing is done.
func TestLeadLostAndGained(t *testing.T) {
	run(t, func(b *bench) {
		b.lead(func() {
			b.deploy("first")
			if got := b.placed(); got != 2 {
				b.Errorf("%d pods placed, want 2", got)
			}
			node, err := b.Client.CoreV1().Nodes().Get(b.Context(), "n1", metav1.GetOptions{})
			b.Must(err)
			if node.Spec.PodCIDR != "10.244.0.0/24" {
				b.Errorf("node has block %q", node.Spec.PodCIDR)
			}
			if _, err := b.Client.CoreV1().ServiceAccounts("default").Get(b.Context(), "default", metav1.GetOptions{}); err != nil {
				b.Error(err)
			}
		})
		b.deploy("second")
		if got := b.placed(); got != 2 {
			b.Errorf("%d pods placed while not leading, want 2", got)
		}
		b.lead(func() {
			if got := b.placed(); got != 4 {
				b.Errorf("%d pods placed after leading again, want 4", got)
			}
		})
	})
}

// TestIdleWritesNothing: an idle leader appends nothing to the log.
func TestIdleWritesNothing(t *testing.T) {
	run(t, func(b *bench) {
		b.lead(func() {
			b.deploy("web")
			b.Pass(time.Minute)
			b.Client.ClearActions()
			b.Pass(30 * time.Minute)
			for _, action := range b.Client.Actions() {
				if verb := action.GetVerb(); verb != "watch" && verb != "list" && verb != "get" {
					b.Errorf("idle loops did %s %s", verb, action.GetResource().Resource)
				}
			}
		})
	})
}

// TestKindsChanged: the collector asks which kinds there are now, not when it would have.
func TestKindsChanged(t *testing.T) {
	run(t, func(b *bench) {
		b.lead(func() {
			b.Pass(time.Second) // away from its own turns
			asked := func() (times int) {
				for _, action := range b.Client.Actions() {
					if action.GetResource().Resource == "group" || action.GetResource().Resource == "resource" {
						times++
					}
				}
				return times
			}
			b.Client.ClearActions()
			b.Pass(time.Second)
			if got := asked(); got != 0 {
				b.Fatalf("asked %d times without a reason: the test tells nothing", got)
			}
			b.control.KindsChanged()
			b.Pass(5 * time.Second)
			if asked() == 0 {
				b.Error("nobody asked which kinds there are")
			}
		})
	})
}

// TestIdentitiesAndMetrics: every identity is a known one, and every registry holds Kubernetes' names.
func TestIdentitiesAndMetrics(t *testing.T) {
	run(t, func(b *bench) {
		for _, name := range b.names {
			user, groups := control.User(name)
			account := strings.HasPrefix(user, "system:serviceaccount:kube-system:") && slices.Contains(groups, "system:serviceaccounts:kube-system")
			if !account && user != "system:kube-scheduler" && user != "system:apiserver" {
				b.Errorf("%s acts as %s %v", name, user, groups)
			}
		}
		b.lead(func() { b.deploy("web") })
		for loop, registry := range b.control.Registries() {
			families, err := registry.Gather()
			b.Must(err)
			want := "workqueue_adds_total"
			if loop == "scheduler" {
				want = "scheduler_schedule_attempts_total"
			}
			found := false
			for _, family := range families {
				found = found || family.GetName() == want
			}
			if !found {
				b.Errorf("%s has no %s", loop, want)
			}
		}
	})
}
