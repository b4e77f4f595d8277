package addresses

import (
	"slices"
	"testing"
	"testing/synctest"
	"time"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"pgregory.net/rapid"

	"github.com/podvine/podvine/agent/control/loop/looptest"
)

const serviceRange = "10.96.0.0/12"

func service(name string, ips ...string) *corev1.Service {
	s := &corev1.Service{
		ObjectMeta: metav1.ObjectMeta{Namespace: "n", Name: name, UID: types.UID("uid-" + name)},
		Spec:       corev1.ServiceSpec{Type: corev1.ServiceTypeClusterIP, ClusterIPs: ips},
	}
	if len(ips) > 0 {
		s.Spec.ClusterIP = ips[0]
	}
	return s
}

func address(ip, of string) *networkingv1.IPAddress {
	return &networkingv1.IPAddress{
		ObjectMeta: metav1.ObjectMeta{Name: ip, UID: types.UID("uid-" + ip), Labels: map[string]string{networkingv1.LabelManagedBy: managedBy}},
		Spec:       networkingv1.IPAddressSpec{ParentRef: &networkingv1.ParentReference{Resource: "services", Namespace: "n", Name: of}},
	}
}

func cidr(name string, ranges ...string) *networkingv1.ServiceCIDR {
	return &networkingv1.ServiceCIDR{
		ObjectMeta: metav1.ObjectMeta{Name: name, UID: types.UID("uid-" + name), Finalizers: []string{cidrFinalizer}},
		Spec:       networkingv1.ServiceCIDRSpec{CIDRs: ranges},
	}
}

func deleted(c *networkingv1.ServiceCIDR, at time.Time) *networkingv1.ServiceCIDR {
	c.DeletionTimestamp = &metav1.Time{Time: at}
	return c
}

func start(t *testing.T, objects ...runtime.Object) *looptest.Cluster {
	t.Helper()
	c := looptest.New(t, objects...)
	l, err := New(Config{Client: c.Client, Informers: c.Informers, Logger: c.Logger(), ServiceRanges: []string{serviceRange}})
	c.Must(err)
	c.Start(l)
	return c
}

func TestDefaultRange(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := start(t, service("kubernetes", "10.96.0.1"), address("10.96.0.1", "kubernetes"))
		defer c.Stop()
		got, err := c.Client.NetworkingV1().ServiceCIDRs().Get(t.Context(), DefaultCIDRName, metav1.GetOptions{})
		c.Must(err)
		if !slices.Equal(got.Spec.CIDRs, []string{serviceRange}) || !slices.Contains(got.Finalizers, cidrFinalizer) {
			t.Errorf("range %v, finalizers %v", got.Spec.CIDRs, got.Finalizers)
		}
		if !meta.IsStatusConditionTrue(got.Status.Conditions, networkingv1.ServiceCIDRConditionReady) {
			t.Errorf("conditions %v, want ready", got.Status.Conditions)
		}
		calls := len(c.Client.Actions())
		c.Pass(3 * looptest.SettleTime)
		if extra := len(c.Client.Actions()) - calls; extra != 0 {
			t.Errorf("%d calls while nothing changes", extra)
		}
	})
}

func TestRecordsAreRepaired(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		foreign := address("10.96.9.9", "nobody")
		foreign.Labels = nil
		c := start(t, service("kubernetes", "10.96.0.1"), service("headless", corev1.ClusterIPNone), service("moved", "10.96.0.4"),
			address("10.96.0.3", "gone"), address("10.96.0.5", "moved"), address("10.96.0.4", "moved"), foreign)
		defer c.Stop()
		list, err := c.Client.NetworkingV1().IPAddresses().List(t.Context(), metav1.ListOptions{})
		c.Must(err)
		got := map[string]string{}
		for _, a := range list.Items {
			got[a.Name] = a.Spec.ParentRef.Name
		}
		want := map[string]string{"10.96.0.1": "kubernetes", "10.96.0.4": "moved", "10.96.9.9": "nobody"}
		if len(got) != len(want) {
			t.Errorf("records %v, want %v", got, want)
		}
		for ip, name := range want {
			if got[ip] != name {
				t.Errorf("record %s is of %q, want %q", ip, got[ip], name)
			}
		}
		c.Must(c.Client.NetworkingV1().IPAddresses().Delete(t.Context(), "10.96.0.1", metav1.DeleteOptions{}))
		c.Settle()
		if _, err := c.Client.NetworkingV1().IPAddresses().Get(t.Context(), "10.96.0.1", metav1.GetOptions{}); err != nil {
			t.Errorf("a deleted record of a service is not back: %v", err)
		}
		c.Must(c.Client.CoreV1().Services("n").Delete(t.Context(), "moved", metav1.DeleteOptions{}))
		c.Settle()
		if _, err := c.Client.NetworkingV1().IPAddresses().Get(t.Context(), "10.96.0.4", metav1.GetOptions{}); err == nil {
			t.Error("the record of a deleted service stays")
		}
	})
}

func TestDeletionOfARange(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		extra := deleted(cidr("extra", "10.200.0.0/24"), time.Now())
		c := start(t, service("kubernetes", "10.96.0.1"), address("10.96.0.1", "kubernetes"), extra,
			service("web", "10.200.0.9"), address("10.200.0.9", "web"))
		defer c.Stop()
		get := func() *networkingv1.ServiceCIDR {
			got, err := c.Client.NetworkingV1().ServiceCIDRs().Get(t.Context(), "extra", metav1.GetOptions{})
			c.Must(err)
			return got
		}
		got := get()
		if ready := meta.FindStatusCondition(got.Status.Conditions, networkingv1.ServiceCIDRConditionReady); ready == nil ||
			ready.Reason != networkingv1.ServiceCIDRReasonTerminating || len(got.Finalizers) != 1 {
			t.Fatalf("a range in use: conditions %v, finalizers %v", got.Status.Conditions, got.Finalizers)
		}
		c.Must(c.Client.CoreV1().Services("n").Delete(t.Context(), "web", metav1.DeleteOptions{}))
		c.Settle()
		if got := get(); len(got.Finalizers) != 0 {
			t.Errorf("finalizers %v of a range that nobody uses", got.Finalizers)
		}
	})
}

func TestPlanCIDR(t *testing.T) {
	now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	ready := func(c *networkingv1.ServiceCIDR) *networkingv1.ServiceCIDR {
		c.Status.Conditions = []metav1.Condition{{Type: "Ready", Status: metav1.ConditionTrue, Reason: "NetworkReady", Message: "Kubernetes Service CIDR is ready"}}
		return c
	}
	bare := cidr("x", "10.200.0.0/24")
	bare.Finalizers = nil
	used := []*networkingv1.IPAddress{address("10.200.0.9", "web")}
	old := now.Add(-time.Minute)
	cases := map[string]struct {
		cidr   *networkingv1.ServiceCIDR
		others []*networkingv1.ServiceCIDR
		used   []*networkingv1.IPAddress
		ranges []string
		check  func(cidrPlan) bool
	}{
		"new":     {bare, nil, nil, nil, func(p cidrPlan) bool { return len(p.finalizers) == 1 && p.condition.Status == metav1.ConditionTrue }},
		"settled": {ready(cidr("x", "10.200.0.0/24")), nil, used, nil, func(p cidrPlan) bool { return p.finalizers == nil && p.condition == nil && p.again == 0 }},
		"default becomes dual-stack": {ready(cidr(DefaultCIDRName, serviceRange)), nil, nil, []string{serviceRange, "fd00::/108"},
			func(p cidrPlan) bool { return len(p.cidrs) == 2 }},
		"deleted just now": {deleted(cidr("x", "10.200.0.0/24"), now), nil, nil, nil,
			func(p cidrPlan) bool { return p.finalizers == nil && p.again == deletionGrace }},
		"deleted, unused": {deleted(cidr("x", "10.200.0.0/24"), old), nil, nil, nil,
			func(p cidrPlan) bool { return p.finalizers != nil && len(p.finalizers) == 0 }},
		"deleted, in use": {deleted(cidr("x", "10.200.0.0/24"), old), nil, used, nil,
			func(p cidrPlan) bool { return p.finalizers == nil && p.condition.Status == metav1.ConditionFalse }},
		"deleted, held by another": {deleted(cidr("x", "10.200.0.0/24"), old), []*networkingv1.ServiceCIDR{cidr("y", "10.200.0.0/16")}, used, nil,
			func(p cidrPlan) bool { return p.finalizers != nil && len(p.finalizers) == 0 }},
	}
	for name, c := range cases {
		ranges := c.ranges
		if ranges == nil {
			ranges = []string{serviceRange}
		}
		if plan := planCIDR(c.cidr, append(c.others, c.cidr), c.used, ranges, now); !c.check(plan) {
			t.Errorf("%s: %+v", name, plan)
		}
	}
}

// No range goes while an address would be left without one.
func TestNoAddressIsOrphaned(t *testing.T) {
	now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	rapid.Check(t, func(t *rapid.T) {
		choices := []string{"10.200.0.0/24", "10.200.0.0/16", "10.201.0.0/24", "fd00::/112"}
		var all []*networkingv1.ServiceCIDR
		for i, r := range rapid.SliceOfN(rapid.SampledFrom(choices), 1, 5).Draw(t, "ranges") {
			c := cidr(string(rune('a'+i)), r)
			if rapid.Bool().Draw(t, "deleted") {
				deleted(c, now.Add(-time.Hour))
			}
			all = append(all, c)
		}
		var used []*networkingv1.IPAddress
		for _, ip := range rapid.SliceOfDistinct(rapid.SampledFrom([]string{"10.200.0.1", "10.200.1.1", "10.201.0.1", "fd00::1"}), rapid.ID[string]).Draw(t, "used") {
			used = append(used, address(ip, "s"))
		}
		before := held(all, used)
		for { // deletions one after the other, each with what is left
			gone := -1
			for i, c := range all {
				if plan := planCIDR(c, all, used, []string{serviceRange}, now); c.DeletionTimestamp != nil && plan.finalizers != nil {
					gone = i
				}
			}
			if gone < 0 {
				break
			}
			all = slices.Delete(slices.Clone(all), gone, gone+1)
		}
		if after := held(all, used); after != before {
			t.Fatalf("%d addresses in ranges, %d before", after, before)
		}
	})
}

func held(all []*networkingv1.ServiceCIDR, used []*networkingv1.IPAddress) int {
	count := 0
	for _, a := range used {
		if slices.ContainsFunc(all, func(c *networkingv1.ServiceCIDR) bool { return orphaned(c, nil, []*networkingv1.IPAddress{a}) == 1 }) {
			count++
		}
	}
	return count
}

func TestInspect(t *testing.T) {
	nodePort := func(name string, port int32, age time.Duration) *corev1.Service {
		s := service(name, "10.96.0.7")
		s.Spec.Ports = []corev1.ServicePort{{NodePort: port}, {NodePort: port, Protocol: corev1.ProtocolUDP}}
		s.CreationTimestamp = metav1.NewTime(time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC).Add(-age))
		return s
	}
	records := map[string]*networkingv1.IPAddress{"10.96.0.7": address("10.96.0.7", "web")}
	older, younger := nodePort("web", 30000, time.Hour), nodePort("other", 30000, 0)
	if missing, found := inspect(older, records, []*corev1.Service{older, younger}); len(missing)+len(found) != 0 {
		t.Errorf("the older service: %v %v", missing, found)
	}
	if _, found := inspect(younger, records, []*corev1.Service{older, younger}); len(found) != 2 {
		t.Errorf("the younger service: %v, want its address and its port taken", found)
	}
	if missing, _ := inspect(service("web", "10.96.0.8"), nil, nil); !slices.Equal(missing, []string{"10.96.0.8"}) {
		t.Errorf("missing %v", missing)
	}
}
