package service

import (
	"fmt"
	"net/netip"
	"strings"
	"sync"
	"testing"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"
	"pgregory.net/rapid"

	"github.com/podvine/podvine/agent/api/kinds"
)

func single() kinds.Settings { return kinds.Settings{ServiceRanges: []string{"10.96.0.0/12"}} }

func small() kinds.Settings {
	return kinds.Settings{ServiceRanges: []string{"10.96.0.0/27"}, NodePortFirst: 30000, NodePortLast: 30019}
}

func dual() kinds.Settings {
	return kinds.Settings{ServiceRanges: []string{"10.96.0.0/24", "fd00:96::/112"}}
}

func typed(t corev1.ServiceType) func(*corev1.ServiceSpec) {
	return func(s *corev1.ServiceSpec) { s.Type = t }
}

// A service goes through every type; after each change the records are what it holds.
func TestTypesTakeAndRelease(t *testing.T) {
	c := newCluster(t, single())
	s, err := c.create(c.service("web"))
	must(t, err)
	c.check(t)
	ip := s.Spec.ClusterIP
	if address, err := netip.ParseAddr(ip); err != nil || !netip.MustParsePrefix("10.96.0.0/12").Contains(address) {
		t.Fatalf("address %q", ip)
	}

	s, err = c.change("web", typed(corev1.ServiceTypeNodePort))
	must(t, err)
	c.check(t)
	port := s.Spec.Ports[0].NodePort
	if s.Spec.ClusterIP != ip || port < 30000 || port > 32767 || s.Spec.ExternalTrafficPolicy != corev1.ServiceExternalTrafficPolicyCluster {
		t.Errorf("node port service %+v", s.Spec)
	}

	s, err = c.change("web", func(s *corev1.ServiceSpec) {
		s.Type, s.ExternalTrafficPolicy = corev1.ServiceTypeLoadBalancer, corev1.ServiceExternalTrafficPolicyLocal
	})
	must(t, err)
	c.check(t)
	if s.Spec.Ports[0].NodePort != port || s.Spec.HealthCheckNodePort == 0 || s.Spec.HealthCheckNodePort == port {
		t.Errorf("load balancer %+v", s.Spec)
	}

	s, err = c.change("web", func(s *corev1.ServiceSpec) {
		s.Ports = append(s.Ports, corev1.ServicePort{Name: "dns", Port: 80, Protocol: corev1.ProtocolUDP})
		s.Ports[0].Name = "http"
	})
	must(t, err)
	c.check(t)
	if s.Spec.Ports[1].NodePort != port {
		t.Errorf("ports %+v: the same port of another protocol shares the node port", s.Spec.Ports)
	}

	s, err = c.change("web", func(s *corev1.ServiceSpec) { s.Type, s.ExternalName = corev1.ServiceTypeExternalName, "db.example.com" })
	must(t, err)
	c.check(t)
	if s.Spec.ClusterIP != "" || s.Spec.ClusterIPs != nil || s.Spec.IPFamilies != nil || s.Spec.Ports[0].NodePort != 0 || s.Spec.HealthCheckNodePort != 0 ||
		s.Spec.AllocateLoadBalancerNodePorts != nil || s.Spec.ExternalTrafficPolicy != "" || s.Spec.InternalTrafficPolicy != nil {
		t.Errorf("external name %+v", s.Spec)
	}

	s, err = c.change("web", func(s *corev1.ServiceSpec) { s.Type, s.ExternalName = corev1.ServiceTypeClusterIP, "" })
	must(t, err)
	c.check(t)
	if s.Spec.ClusterIP == "" {
		t.Error("no address after an external name")
	}
	must(t, c.delete("web"))
	c.check(t)
}

func TestRequestedAddressesAndPorts(t *testing.T) {
	c := newCluster(t, single())
	with := func(ip string, port int32) func(*corev1.ServiceSpec) {
		return func(s *corev1.ServiceSpec) {
			s.Type, s.ClusterIP, s.Ports[0].NodePort = corev1.ServiceTypeNodePort, ip, port
		}
	}
	_, err := c.create(c.service("first", with("10.96.0.10", 30007)))
	must(t, err)
	refusals := map[string]struct {
		change func(*corev1.ServiceSpec)
		want   string
	}{
		"taken address": {with("10.96.0.10", 0), "provided IP is already allocated"},
		"outside":       {with("10.1.1.1", 0), "The range of valid IPs is 10.96.0.0/12"},
		"network":       {with("10.96.0.0", 0), "is not in the valid range"},
		"taken port":    {with("", 30007), "provided port is already allocated"},
		"port outside":  {with("", 80), "The range of valid ports is 30000-32767"},
	}
	for name, r := range refusals {
		_, err := c.create(c.service("second", r.change))
		if !apierrors.IsInvalid(err) || !strings.Contains(err.Error(), r.want) {
			t.Errorf("%s: %v, want %q", name, err, r.want)
		}
		c.check(t)
	}
	_, err = c.change("first", func(s *corev1.ServiceSpec) { s.Ports[0].NodePort = 30008 })
	must(t, err)
	_, err = c.create(c.service("second", with("", 30007)))
	must(t, err)
	c.check(t)
	if _, err := c.change("first", func(s *corev1.ServiceSpec) { s.Ports[0].NodePort = 30007 }); !apierrors.IsInvalid(err) {
		t.Errorf("update to a taken port: %v", err)
	}
	c.check(t)
}

func TestDryRunWritesNothing(t *testing.T) {
	c := newCluster(t, single())
	s, err := c.create(c.service("web", typed(corev1.ServiceTypeNodePort)), metav1.DryRunAll)
	must(t, err)
	if s.Spec.ClusterIP == "" || s.Spec.Ports[0].NodePort == 0 {
		t.Errorf("a dry run shows no address or port: %+v", s.Spec)
	}
	c.check(t)
	_, err = c.create(c.service("web"))
	must(t, err)
	_, err = c.change("web", typed(corev1.ServiceTypeNodePort), metav1.DryRunAll)
	must(t, err)
	c.check(t)
}

func TestDualStack(t *testing.T) {
	c := newCluster(t, dual())
	policy := func(p corev1.IPFamilyPolicy) func(*corev1.ServiceSpec) {
		return func(s *corev1.ServiceSpec) { s.IPFamilyPolicy = ptr.To(p) }
	}
	s, err := c.create(c.service("both", policy(corev1.IPFamilyPolicyPreferDualStack)))
	must(t, err)
	c.check(t)
	if len(s.Spec.ClusterIPs) != 2 || s.Spec.IPFamilies[0] != corev1.IPv4Protocol || familyOf(s.Spec.ClusterIPs[1]) != corev1.IPv6Protocol {
		t.Fatalf("%+v", s.Spec)
	}
	s, err = c.change("both", policy(corev1.IPFamilyPolicySingleStack))
	must(t, err)
	c.check(t)
	if len(s.Spec.ClusterIPs) != 1 || len(s.Spec.IPFamilies) != 1 {
		t.Errorf("after giving up one family: %+v", s.Spec)
	}
	s, err = c.change("both", policy(corev1.IPFamilyPolicyRequireDualStack))
	must(t, err)
	c.check(t)
	if len(s.Spec.ClusterIPs) != 2 {
		t.Errorf("after asking for both again: %+v", s.Spec)
	}
	six, err := c.create(c.service("six", func(s *corev1.ServiceSpec) { s.IPFamilies = []corev1.IPFamily{corev1.IPv6Protocol} }))
	must(t, err)
	if len(six.Spec.ClusterIPs) != 1 || familyOf(six.Spec.ClusterIP) != corev1.IPv6Protocol {
		t.Errorf("%+v", six.Spec)
	}
	if _, err := newCluster(t, single()).create(c.service("both", policy(corev1.IPFamilyPolicyRequireDualStack))); !apierrors.IsInvalid(err) {
		t.Errorf("two families of a cluster with one: %v", err)
	}
}

// A further range is used once it is ready.
func TestFurtherRange(t *testing.T) {
	c := newCluster(t, single())
	ask := func() error {
		_, err := c.create(c.service("web", func(s *corev1.ServiceSpec) { s.ClusterIP = "10.200.0.7" }))
		return err
	}
	further := &networkingv1.ServiceCIDR{ObjectMeta: metav1.ObjectMeta{Name: "extra"}, Spec: networkingv1.ServiceCIDRSpec{CIDRs: []string{"10.200.0.0/24"}}}
	stored := &networkingv1.ServiceCIDR{}
	must(t, c.records.cidrs.Create(c.ctx, c.records.cidrs.key("extra"), further, stored, 0))
	if err := ask(); !apierrors.IsInvalid(err) {
		t.Errorf("an address of a range that is not ready: %v", err)
	}
	further = further.DeepCopy()
	further.Name, further.ResourceVersion = "ready", ""
	further.Status.Conditions = []metav1.Condition{{Type: networkingv1.ServiceCIDRConditionReady, Status: metav1.ConditionTrue}}
	must(t, c.records.cidrs.Create(c.ctx, c.records.cidrs.key("ready"), further, stored, 0))
	must(t, ask())
	c.check(t)
}

// Many writers on a small range: each address and port goes to one service, and all that are there are given out.
func TestConcurrentWritersShareNothing(t *testing.T) {
	c := newCluster(t, small())
	const writers, usable = 40, 30 - 2 // without the API's and the DNS service's
	create := func(i int) error {
		_, err := c.create(c.service(fmt.Sprintf("s%02d", i), func(s *corev1.ServiceSpec) {
			if i%8 == 0 {
				s.Type = corev1.ServiceTypeNodePort
			}
		}))
		return err
	}
	var group sync.WaitGroup
	errs := make([]error, writers)
	for i := range writers {
		group.Go(func() { errs[i] = create(i) })
	}
	group.Wait()
	c.check(t)
	made := 0
	for _, err := range errs {
		switch {
		case err == nil:
			made++
		case !strings.Contains(err.Error(), errFull.Error()) && !apierrors.IsConflict(err):
			t.Errorf("create: %v", err)
		}
	}
	// Who lost too often was told to try again.
	for i := writers; create(i) == nil; i++ {
		made++
	}
	c.check(t)
	if made != usable {
		t.Errorf("%d services have an address, want %d", made, usable)
	}
}

func TestConcurrentClaimsOfOnePort(t *testing.T) {
	c := newCluster(t, single())
	var group sync.WaitGroup
	results := make([]error, 12)
	for i := range results {
		group.Go(func() {
			_, results[i] = c.create(c.service(fmt.Sprintf("s%02d", i), func(s *corev1.ServiceSpec) {
				s.Type, s.ClusterIP, s.Ports[0].NodePort = corev1.ServiceTypeNodePort, "10.96.7.7", 30007
			}))
		})
	}
	group.Wait()
	won := 0
	for _, err := range results {
		if err == nil {
			won++
		} else if !apierrors.IsInvalid(err) {
			t.Errorf("a loser is told %v", err)
		}
	}
	if won != 1 {
		t.Errorf("%d services have the same address and port", won)
	}
	c.check(t)
}

// A record that a service left behind (a restored backup, a bug) does not take its port away for ever.
func TestStaleRecordIsTakenOver(t *testing.T) {
	c := newCluster(t, single())
	gone := &corev1.Service{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: "gone"}}
	must(t, c.records.ports.Create(c.ctx, c.records.ports.key("30007"), portRecord(gone, 30007), &corev1.RangeAllocation{}, 0))
	_, err := c.create(c.service("web", func(s *corev1.ServiceSpec) {
		s.Type, s.Ports[0].NodePort = corev1.ServiceTypeNodePort, 30007
	}))
	must(t, err)
	c.check(t)
}

// Whatever is done to services in whatever order, the records are what they hold.
func TestRecordsFollowServices(t *testing.T) {
	c := newCluster(t, small())
	rapid.Check(t, func(t *rapid.T) {
		name := func() string { return fmt.Sprintf("s%d", rapid.IntRange(0, 5).Draw(t, "service")) }
		types := []corev1.ServiceType{corev1.ServiceTypeClusterIP, corev1.ServiceTypeNodePort, corev1.ServiceTypeLoadBalancer, corev1.ServiceTypeExternalName}
		spec := func(s *corev1.ServiceSpec) {
			s.Type = rapid.SampledFrom(types).Draw(t, "type")
			s.ExternalName = "a.example.com"
			s.Ports = nil
			for i := range rapid.IntRange(1, 3).Draw(t, "ports") {
				p := corev1.ServicePort{Name: fmt.Sprint("p", i), Port: int32(80 + i/2), Protocol: []corev1.Protocol{corev1.ProtocolTCP, corev1.ProtocolUDP}[i%2]}
				if (s.Type == corev1.ServiceTypeNodePort || s.Type == corev1.ServiceTypeLoadBalancer) && rapid.Bool().Draw(t, "ask") {
					p.NodePort = rapid.Int32Range(30000, 30019).Draw(t, "node port")
				}
				s.Ports = append(s.Ports, p)
			}
			if rapid.Bool().Draw(t, "local") && s.Type == corev1.ServiceTypeLoadBalancer {
				s.ExternalTrafficPolicy = corev1.ServiceExternalTrafficPolicyLocal
			}
		}
		var err error
		switch rapid.IntRange(0, 3).Draw(t, "operation") {
		case 0:
			_, err = c.create(c.service(name(), spec))
		case 1, 2:
			_, err = c.change(name(), spec)
		case 3:
			err = c.delete(name())
		}
		if apierrors.ReasonForError(err) == metav1.StatusReasonUnknown && err != nil {
			t.Fatalf("not an answer of the API: %v", err)
		}
		if err := c.consistent(); err != nil {
			t.Fatal(err)
		}
	})
}
