package endpoints

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"testing/synctest"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/utils/ptr"

	"github.com/podvine/podvine/agent/control/loop/looptest"
)

func service(name string, change ...func(*corev1.Service)) *corev1.Service {
	s := &corev1.Service{
		ObjectMeta: metav1.ObjectMeta{Namespace: "n", Name: name, UID: "svc-uid", Labels: map[string]string{"team": "a"}},
		Spec: corev1.ServiceSpec{
			Type: corev1.ServiceTypeClusterIP, ClusterIP: "10.96.0.9", ClusterIPs: []string{"10.96.0.9"},
			IPFamilies: []corev1.IPFamily{corev1.IPv4Protocol}, Selector: map[string]string{"app": "web"},
			Ports: []corev1.ServicePort{{Name: "http", Port: 80, Protocol: corev1.ProtocolTCP, TargetPort: intstr.FromString("web")}},
		},
	}
	for _, f := range change {
		f(s)
	}
	return s
}

func pod(name, ip string, change ...func(*corev1.Pod)) *corev1.Pod {
	p := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: "n", Name: name, UID: types.UID("uid-" + name), Labels: map[string]string{"app": "web"}, ResourceVersion: "1"},
		Spec: corev1.PodSpec{NodeName: "node", Containers: []corev1.Container{{
			Name: "c", Ports: []corev1.ContainerPort{{Name: "web", ContainerPort: 8080, Protocol: corev1.ProtocolTCP}}}}},
		Status: corev1.PodStatus{
			Phase: corev1.PodRunning, PodIP: ip, PodIPs: []corev1.PodIP{{IP: ip}},
			Conditions: []corev1.PodCondition{{Type: corev1.PodReady, Status: corev1.ConditionTrue}},
		},
	}
	for _, f := range change {
		f(p)
	}
	return p
}

func unready(p *corev1.Pod) { p.Status.Conditions[0].Status = corev1.ConditionFalse }

func node() *corev1.Node {
	return &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "node", Labels: map[string]string{corev1.LabelTopologyZone: "zone-a"}}}
}

func start(t *testing.T, objects ...runtime.Object) *looptest.Cluster {
	t.Helper()
	c := looptest.New(t, objects...)
	l, err := New(Config{Client: c.Client, Informers: c.Informers, Logger: c.Logger()})
	c.Must(err)
	c.Start(l)
	return c
}

func slicesOf(t *testing.T, c *looptest.Cluster, name string) []discoveryv1.EndpointSlice {
	t.Helper()
	list, err := c.Client.DiscoveryV1().EndpointSlices("n").List(t.Context(), metav1.ListOptions{LabelSelector: discoveryv1.LabelServiceName + "=" + name})
	c.Must(err)
	slices.SortFunc(list.Items, func(a, b discoveryv1.EndpointSlice) int { return len(b.Endpoints) - len(a.Endpoints) })
	return list.Items
}

func addresses(s *discoveryv1.EndpointSlice) map[string]discoveryv1.Endpoint {
	out := map[string]discoveryv1.Endpoint{}
	for _, e := range s.Endpoints {
		out[e.Addresses[0]] = e
	}
	return out
}

func TestSelectorService(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		terminating := func(p *corev1.Pod) {
			p.DeletionTimestamp, p.Finalizers = ptr.To(metav1.Now()), []string{"example.com/wait"}
		}
		c := start(t, node(), service("web"), pod("a", "10.244.0.1"), pod("b", "10.244.0.2", unready), pod("c", "10.244.0.3", terminating),
			pod("other", "10.244.0.4", func(p *corev1.Pod) { p.Labels = nil }),
			pod("done", "10.244.0.5", func(p *corev1.Pod) { p.Status.Phase = corev1.PodSucceeded }))
		defer c.Stop()

		list := slicesOf(t, c, "web")
		if len(list) != 1 {
			t.Fatalf("%d slices, want 1", len(list))
		}
		s := list[0]
		if s.Labels[discoveryv1.LabelManagedBy] != sliceController || s.Labels["team"] != "a" || !metav1.IsControlledBy(&s, service("web")) {
			t.Errorf("labels %v, owners %v", s.Labels, s.OwnerReferences)
		}
		if len(s.Ports) != 1 || *s.Ports[0].Port != 8080 || *s.Ports[0].Name != "http" {
			t.Errorf("ports %v, want http 8080 by its name in the pod", s.Ports)
		}
		got := addresses(&s)
		type condition struct{ ready, serving, terminating bool }
		want := map[string]condition{"10.244.0.1": {true, true, false}, "10.244.0.2": {false, false, false}, "10.244.0.3": {false, true, true}}
		if len(got) != len(want) {
			t.Errorf("endpoints %v, want %v", got, want)
		}
		for ip, w := range want {
			e := got[ip].Conditions
			if g := (condition{ptr.Deref(e.Ready, false), ptr.Deref(e.Serving, false), ptr.Deref(e.Terminating, false)}); g != w {
				t.Errorf("%s: %+v, want %+v", ip, g, w)
			}
		}
		if ptr.Deref(got["10.244.0.1"].Zone, "") != "zone-a" || ptr.Deref(got["10.244.0.1"].NodeName, "") != "node" {
			t.Errorf("endpoint %v does not say where it is", got["10.244.0.1"])
		}

		ep, err := c.Client.CoreV1().Endpoints("n").Get(t.Context(), "web", metav1.GetOptions{})
		c.Must(err)
		if len(ep.Subsets) != 1 || len(ep.Subsets[0].Addresses) != 1 || len(ep.Subsets[0].NotReadyAddresses) != 1 || ep.Subsets[0].Ports[0].Port != 8080 {
			t.Errorf("endpoints %+v", ep.Subsets)
		}

		writes := len(c.Client.Actions())
		c.Pass(3 * looptest.SettleTime)
		if extra := len(c.Client.Actions()) - writes; extra != 0 {
			t.Errorf("%d calls while nothing changes", extra)
		}

		gone := pod("a", "10.244.0.1")
		c.Must(c.Client.CoreV1().Pods("n").Delete(t.Context(), gone.Name, metav1.DeleteOptions{}))
		c.Settle()
		if _, ok := addresses(&slicesOf(t, c, "web")[0])["10.244.0.1"]; ok {
			t.Error("the deleted pod is still an endpoint")
		}
		c.Must(c.Client.CoreV1().Services("n").Delete(t.Context(), "web", metav1.DeleteOptions{}))
		c.Settle()
		if _, err := c.Client.CoreV1().Endpoints("n").Get(t.Context(), "web", metav1.GetOptions{}); err == nil {
			t.Error("the endpoints of a deleted service stay")
		}
	})
}

func TestSlicesHoldAHundred(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		objects := []runtime.Object{node(), service("web")}
		for i := range 250 {
			objects = append(objects, pod(fmt.Sprintf("p%03d", i), fmt.Sprintf("10.244.%d.%d", i/200, i%200+1)))
		}
		c := start(t, objects...)
		defer c.Stop()
		list := slicesOf(t, c, "web")
		total := 0
		for _, s := range list {
			if len(s.Endpoints) > maxEndpointsPerSlice {
				t.Errorf("a slice has %d endpoints", len(s.Endpoints))
			}
			total += len(s.Endpoints)
		}
		if total != 250 || len(list) != 3 {
			t.Errorf("%d endpoints in %d slices, want 250 in 3", total, len(list))
		}
	})
}

func TestPublishNotReadyAndHeadlessDual(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dual := service("db", func(s *corev1.Service) {
			s.Spec.ClusterIP, s.Spec.ClusterIPs = corev1.ClusterIPNone, []string{corev1.ClusterIPNone}
			s.Spec.IPFamilies = []corev1.IPFamily{corev1.IPv4Protocol, corev1.IPv6Protocol}
			s.Spec.PublishNotReadyAddresses = true
		})
		p := pod("db-0", "10.244.0.1", unready, func(p *corev1.Pod) {
			p.Status.PodIPs = append(p.Status.PodIPs, corev1.PodIP{IP: "fd00::1"})
			p.Spec.Hostname, p.Spec.Subdomain = "db-0", "db"
		})
		c := start(t, node(), dual, p)
		defer c.Stop()
		families := map[discoveryv1.AddressType]int{}
		for _, s := range slicesOf(t, c, "db") {
			families[s.AddressType] = len(s.Endpoints)
			e := s.Endpoints[0]
			if !*e.Conditions.Ready || ptr.Deref(e.Hostname, "") != "db-0" {
				t.Errorf("endpoint %+v: want ready, with a host name", e)
			}
			if _, ok := s.Labels[corev1.IsHeadlessService]; !ok {
				t.Error("the slice does not say that the service is headless")
			}
		}
		if families[discoveryv1.AddressTypeIPv4] != 1 || families[discoveryv1.AddressTypeIPv6] != 1 {
			t.Errorf("slices %v, want one of each family", families)
		}
		ep, err := c.Client.CoreV1().Endpoints("n").Get(t.Context(), "db", metav1.GetOptions{})
		c.Must(err)
		if len(ep.Subsets) != 1 || len(ep.Subsets[0].Addresses) != 1 || ep.Subsets[0].Addresses[0].Hostname != "db-0" {
			t.Errorf("endpoints %+v, want one ready address of the first family", ep.Subsets)
		}
	})
}

func TestMirror(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		manual := service("db", func(s *corev1.Service) { s.Spec.Selector = nil })
		ep := &corev1.Endpoints{
			ObjectMeta: metav1.ObjectMeta{Namespace: "n", Name: "db", UID: "ep-uid", Labels: map[string]string{"x": "y"}},
			Subsets: []corev1.EndpointSubset{{
				Addresses:         []corev1.EndpointAddress{{IP: "192.0.2.1", Hostname: "h"}, {IP: "2001:db8::1"}},
				NotReadyAddresses: []corev1.EndpointAddress{{IP: "192.0.2.2"}},
				Ports:             []corev1.EndpointPort{{Name: "sql", Port: 5432, Protocol: corev1.ProtocolTCP}},
			}},
		}
		c := start(t, manual, ep)
		defer c.Stop()
		list := slicesOf(t, c, "db")
		if len(list) != 2 || len(list[0].Endpoints) != 2 || list[1].AddressType != discoveryv1.AddressTypeIPv6 {
			t.Fatalf("slices %+v", list)
		}
		got := addresses(&list[0])
		if !*got["192.0.2.1"].Conditions.Ready || *got["192.0.2.2"].Conditions.Ready || *got["192.0.2.1"].Hostname != "h" {
			t.Errorf("endpoints %+v", got)
		}
		if list[0].Labels["x"] != "y" || !metav1.IsControlledBy(&list[0], ep) {
			t.Errorf("labels %v, owners %v", list[0].Labels, list[0].OwnerReferences)
		}

		changed := ep.DeepCopy()
		changed.Subsets[0].Addresses = changed.Subsets[0].Addresses[:1]
		_, err := c.Client.CoreV1().Endpoints("n").Update(t.Context(), changed, metav1.UpdateOptions{})
		c.Must(err)
		c.Settle()
		if list := slicesOf(t, c, "db"); len(list) != 1 {
			t.Errorf("%d slices after the last IPv6 address went, want 1", len(list))
		}
		skipped := changed.DeepCopy()
		skipped.ResourceVersion = ""
		skipped.Labels[discoveryv1.LabelSkipMirror] = "true"
		_, err = c.Client.CoreV1().Endpoints("n").Update(t.Context(), skipped, metav1.UpdateOptions{})
		c.Must(err)
		c.Settle()
		if list := slicesOf(t, c, "db"); len(list) != 0 {
			t.Errorf("%d slices of endpoints that ask not to be mirrored", len(list))
		}
	})
}

// A pod on a node that is not known is left out and tried again, and is there once the node is.
func TestUnknownNode(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := start(t, service("web"), pod("a", "10.244.0.1"))
		defer c.Stop()
		if list := slicesOf(t, c, "web"); len(list) != 1 || len(list[0].Endpoints) != 0 {
			t.Fatalf("slices %+v, want an empty one", list)
		}
		_, err := c.Client.CoreV1().Nodes().Create(t.Context(), node(), metav1.CreateOptions{})
		c.Must(err)
		c.Pass(4 * looptest.SettleTime)
		if list := slicesOf(t, c, "web"); len(list) != 1 || len(list[0].Endpoints) != 1 {
			t.Fatalf("slices %+v, want one with the pod", list)
		}
	})
}

func TestTrafficDistributionSetsHints(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		near := service("web", func(s *corev1.Service) {
			s.Spec.TrafficDistribution = ptr.To(corev1.ServiceTrafficDistributionPreferSameNode)
		})
		c := start(t, node(), near, pod("a", "10.244.0.1"))
		defer c.Stop()
		hints := slicesOf(t, c, "web")[0].Endpoints[0].Hints
		if hints == nil || len(hints.ForNodes) != 1 || hints.ForNodes[0].Name != "node" || len(hints.ForZones) != 1 {
			t.Errorf("hints %+v, want the node and its zone", hints)
		}
	})
}

// Running a second time, as a leader does that lost the lead and got it back, changes nothing.
func TestRunAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := looptest.New(t, node(), service("web"), pod("a", "10.244.0.1"))
		l, err := New(Config{Client: c.Client, Informers: c.Informers, Logger: c.Logger()})
		c.Must(err)
		c.Start()
		for range 2 {
			ctx, cancel := context.WithCancel(t.Context())
			done := make(chan error)
			go func() { done <- l.Run(ctx) }()
			c.Settle()
			cancel()
			if err := <-done; !errors.Is(err, context.Canceled) {
				t.Errorf("Run: %v", err)
			}
		}
		if list := slicesOf(t, c, "web"); len(list) != 1 {
			t.Errorf("%d slices, want 1", len(list))
		}
		c.Stop()
	})
}
