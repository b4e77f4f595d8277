package endpoints

import (
	"fmt"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/intstr"
	"pgregory.net/rapid"
)

// port is an endpoint as a client sees it.
type port struct {
	ip, name string
	number   int32
	ready    bool
}

func flatten(subsets []corev1.EndpointSubset) map[port]int {
	out := map[port]int{}
	for _, s := range subsets {
		for _, p := range s.Ports {
			for _, a := range s.Addresses {
				out[port{a.IP, p.Name, p.Port, true}]++
			}
			for _, a := range s.NotReadyAddresses {
				out[port{a.IP, p.Name, p.Port, false}]++
			}
		}
	}
	return out
}

// Repacking keeps what is reachable, once, gives each set of ports one subset, and does not depend on the order.
func TestRepackKeepsContent(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		ports := func(n int) []corev1.EndpointPort {
			var out []corev1.EndpointPort
			for i := range n {
				out = append(out, corev1.EndpointPort{Name: fmt.Sprint("p", i), Port: int32(80 + i), Protocol: corev1.ProtocolTCP})
			}
			return out
		}
		var parts []corev1.EndpointSubset
		for i := range rapid.IntRange(0, 20).Draw(t, "pods") {
			a := []corev1.EndpointAddress{{IP: fmt.Sprintf("10.0.0.%d", i), TargetRef: &corev1.ObjectReference{UID: types.UID(fmt.Sprint(i))}}}
			ready := rapid.Bool().Draw(t, "ready")
			for _, p := range ports(rapid.IntRange(1, 3).Draw(t, "ports")) {
				s := corev1.EndpointSubset{Ports: []corev1.EndpointPort{p}}
				if ready {
					s.Addresses = a
				} else {
					s.NotReadyAddresses = a
				}
				parts = append(parts, s)
			}
		}
		packed := repack(parts)
		want, got := flatten(parts), flatten(packed)
		if len(want) != len(got) {
			t.Fatalf("%d endpoints, want %d", len(got), len(want))
		}
		for p := range want {
			if got[p] != 1 {
				t.Fatalf("%v is there %d times", p, got[p])
			}
		}
		if len(packed) > 3 {
			t.Fatalf("%d subsets for three sets of ports", len(packed))
		}
		shuffled := rapid.Permutation(parts).Draw(t, "order")
		if again := repack(shuffled); fmt.Sprint(again) != fmt.Sprint(packed) {
			t.Fatalf("order matters: %v and %v", again, packed)
		}
		if twice := repack(packed); fmt.Sprint(twice) != fmt.Sprint(packed) {
			t.Fatalf("packing again changes: %v and %v", twice, packed)
		}
	})
}

func TestTruncate(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var subsets []corev1.EndpointSubset
		total, ready := 0, 0
		for range rapid.IntRange(0, 5).Draw(t, "subsets") {
			var s corev1.EndpointSubset
			for range rapid.IntRange(0, 6).Draw(t, "ready") {
				s.Addresses = append(s.Addresses, corev1.EndpointAddress{})
			}
			for range rapid.IntRange(1, 6).Draw(t, "not ready") {
				s.NotReadyAddresses = append(s.NotReadyAddresses, corev1.EndpointAddress{})
			}
			total, ready = total+len(s.Addresses)+len(s.NotReadyAddresses), ready+len(s.Addresses)
			subsets = append(subsets, s)
		}
		limit := rapid.IntRange(0, 40).Draw(t, "limit")
		kept, truncated := truncate(subsets, limit)
		left, leftReady := 0, 0
		for _, s := range kept {
			left, leftReady = left+len(s.Addresses)+len(s.NotReadyAddresses), leftReady+len(s.Addresses)
		}
		if left != min(total, limit) || leftReady != min(ready, limit) || truncated != (total > limit) {
			t.Fatalf("kept %d (%d ready) of %d (%d ready), limit %d, truncated %v", left, leftReady, total, ready, limit, truncated)
		}
	})
}

func TestDesiredEndpoints(t *testing.T) {
	when := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	pods := []*corev1.Pod{pod("a", "10.0.0.1"), pod("b", "10.0.0.2", unready)}
	first := desiredEndpoints(service("web"), pods, nil, when)
	if first == nil || first.Annotations[corev1.EndpointsLastChangeTriggerTime] != "2026-01-02T03:04:05Z" {
		t.Fatalf("first %+v", first)
	}
	if again := desiredEndpoints(service("web"), pods, first, time.Time{}); again != nil {
		t.Errorf("a second look wants %+v", again)
	}
	cases := map[string]struct {
		service *corev1.Service
		pods    []*corev1.Pod
		check   func(*corev1.Endpoints) bool
	}{
		"unready is not ready": {service("web"), pods, func(e *corev1.Endpoints) bool {
			return len(e.Subsets[0].Addresses) == 1 && len(e.Subsets[0].NotReadyAddresses) == 1
		}},
		"unready is published": {service("web", func(s *corev1.Service) { s.Spec.PublishNotReadyAddresses = true }), pods,
			func(e *corev1.Endpoints) bool { return len(e.Subsets[0].Addresses) == 2 }},
		"no pods": {service("web"), nil, func(e *corev1.Endpoints) bool { return e.Subsets == nil }},
		"a number as port": {service("web", func(s *corev1.Service) { s.Spec.Ports[0].TargetPort = intstr.FromInt32(99) }), pods,
			func(e *corev1.Endpoints) bool { return e.Subsets[0].Ports[0].Port == 99 }},
		"a name that no pod has": {service("web", func(s *corev1.Service) { s.Spec.Ports[0].TargetPort = intstr.FromString("x") }), pods,
			func(e *corev1.Endpoints) bool { return e.Subsets == nil }},
		"headless without ports": {service("web", func(s *corev1.Service) {
			s.Spec.Ports, s.Spec.ClusterIP = nil, corev1.ClusterIPNone
		}), pods, func(e *corev1.Endpoints) bool {
			_, headless := e.Labels[corev1.IsHeadlessService]
			return headless && len(e.Subsets) == 1 && len(e.Subsets[0].Ports) == 0
		}},
		"another family": {service("web", func(s *corev1.Service) { s.Spec.IPFamilies = []corev1.IPFamily{corev1.IPv6Protocol} }), pods,
			func(e *corev1.Endpoints) bool { return e.Subsets == nil }},
	}
	for name, c := range cases {
		if got := desiredEndpoints(c.service, c.pods, nil, time.Time{}); !c.check(got) {
			t.Errorf("%s: %+v", name, got)
		}
	}
}

// Applying a mirror plan leads to a state for which there is nothing to plan.
func TestMirrorPlanConverges(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		ep := &corev1.Endpoints{ObjectMeta: metav1.ObjectMeta{Namespace: "n", Name: "db", UID: "u"}}
		for i := range rapid.IntRange(0, 4).Draw(t, "subsets") {
			s := corev1.EndpointSubset{Ports: []corev1.EndpointPort{{Name: fmt.Sprint("p", i%2), Port: int32(1 + i%3), Protocol: corev1.ProtocolTCP}}}
			for j := range rapid.IntRange(1, 4).Draw(t, "addresses") {
				s.Addresses = append(s.Addresses, corev1.EndpointAddress{IP: fmt.Sprintf("10.0.%d.%d", i, j)}, corev1.EndpointAddress{IP: fmt.Sprintf("fd00::%d:%d", i, j)})
			}
			ep.Subsets = append(ep.Subsets, s)
		}
		manual := service("db", func(s *corev1.Service) { s.Spec.Selector = nil })
		foreign := &discoveryv1.EndpointSlice{ObjectMeta: metav1.ObjectMeta{Namespace: "n", Name: "stale"}, AddressType: discoveryv1.AddressTypeIPv4}
		plan := planMirror(manual, ep, []*discoveryv1.EndpointSlice{foreign})
		if len(plan.remove) != 1 {
			t.Fatalf("the stale slice stays: %+v", plan)
		}
		if next := planMirror(manual, ep, plan.create); len(next.create)+len(next.update)+len(next.remove) != 0 {
			t.Fatalf("a second look plans %+v", next)
		}
		if end := planMirror(nil, ep, plan.create); len(end.remove) != len(plan.create) || len(end.create)+len(end.update) != 0 {
			t.Fatalf("without the service: %+v", end)
		}
	})
}

// TestWhatIsMirrored: not more than so many addresses of a subset, none that is no address, and each as slices write it.
func TestWhatIsMirrored(t *testing.T) {
	many := func(count int) (list []corev1.EndpointAddress) {
		for i := range count {
			list = append(list, corev1.EndpointAddress{IP: fmt.Sprintf("10.0.%d.%d", i/250, i%250+1)})
		}
		return list
	}
	for _, test := range []struct {
		name                     string
		ready, waiting           []corev1.EndpointAddress
		written, skipped, broken int
	}{
		{"as many as may be", many(maxMirroredAddresses), nil, maxMirroredAddresses, 0, 0},
		{"some too many", many(maxMirroredAddresses + 3), nil, maxMirroredAddresses, 3, 0},
		{"ready ones first", many(maxMirroredAddresses), []corev1.EndpointAddress{{IP: "10.9.9.9"}}, maxMirroredAddresses, 1, 0},
		{"no address", []corev1.EndpointAddress{{IP: "10.0.0.1"}, {IP: "somewhere"}}, nil, 1, 0, 1},
		{"leading zeros", []corev1.EndpointAddress{{IP: "010.000.0.01"}}, nil, 1, 0, 0},
	} {
		ep := &corev1.Endpoints{ObjectMeta: metav1.ObjectMeta{Namespace: "n", Name: "db", UID: "u"},
			Subsets: []corev1.EndpointSubset{{Addresses: test.ready, NotReadyAddresses: test.waiting, Ports: []corev1.EndpointPort{{Port: 1}}}}}
		wanted, skipped, invalid := mirrored(ep)
		written := 0
		for _, slice := range wanted {
			for _, e := range slice.Endpoints {
				written++
				if strings.HasPrefix(e.Addresses[0], "0") || !*e.Conditions.Ready {
					t.Errorf("%s: endpoint %+v", test.name, e)
				}
			}
		}
		if written != test.written || skipped != test.skipped || invalid != test.broken {
			t.Errorf("%s: %d written, %d skipped, %d invalid", test.name, written, skipped, invalid)
		}
	}
}
