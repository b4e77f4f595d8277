package service

import (
	"slices"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/utils/ptr"
)

func TestCells(t *testing.T) {
	ingress := func(points ...corev1.LoadBalancerIngress) corev1.ServiceStatus {
		return corev1.ServiceStatus{LoadBalancer: corev1.LoadBalancerStatus{Ingress: points}}
	}
	cases := map[string]struct {
		spec   corev1.ServiceSpec
		status corev1.ServiceStatus
		want   []string // address, external address, ports, selector
	}{
		"cluster": {spec: corev1.ServiceSpec{ClusterIP: "10.96.0.9", ClusterIPs: []string{"10.96.0.9", "fd00::9"}, Selector: map[string]string{"b": "2", "a": "1"},
			Ports: []corev1.ServicePort{{Port: 80, Protocol: "TCP"}, {Port: 53, Protocol: "UDP", NodePort: 30053}}},
			want: []string{"10.96.0.9", "<none>", "80/TCP,53:30053/UDP", "a=1,b=2"}},
		"external addresses": {spec: corev1.ServiceSpec{ExternalIPs: []string{"192.0.2.1", "192.0.2.2"}}, want: []string{"<none>", "192.0.2.1,192.0.2.2", "<none>", "<none>"}},
		"external name":      {spec: corev1.ServiceSpec{Type: corev1.ServiceTypeExternalName, ExternalName: "a.example.com"}, want: []string{"<none>", "a.example.com", "<none>", "<none>"}},
		"pending":            {spec: corev1.ServiceSpec{Type: corev1.ServiceTypeLoadBalancer}, want: []string{"<none>", "<pending>", "<none>", "<none>"}},
		"balanced": {spec: corev1.ServiceSpec{Type: corev1.ServiceTypeLoadBalancer, ExternalIPs: []string{"192.0.2.1"}},
			status: ingress(corev1.LoadBalancerIngress{IP: "198.51.100.1"}, corev1.LoadBalancerIngress{Hostname: "lb.example.com"}, corev1.LoadBalancerIngress{IP: "198.51.100.1"}),
			want:   []string{"<none>", "192.0.2.1,198.51.100.1,lb.example.com", "<none>", "<none>"}},
	}
	for name, c := range cases {
		s := &corev1.Service{Spec: c.spec, Status: c.status}
		var got []string
		for _, column := range columns() {
			switch column.Name {
			case "Cluster-IP", "External-IP", "Port(s)", "Selector":
				got = append(got, column.Cell(s).(string))
			}
		}
		if !slices.Equal(got, c.want) {
			t.Errorf("%s: %q, want %q", name, got, c.want)
		}
	}
}

func TestWarnings(t *testing.T) {
	cases := map[string]struct {
		spec corev1.ServiceSpec
		want []string
	}{
		"none": {corev1.ServiceSpec{ClusterIPs: []string{"10.96.0.9"}, ExternalName: "", SessionAffinity: corev1.ServiceAffinityNone}, nil},
		"deprecated": {corev1.ServiceSpec{ExternalIPs: []string{"192.0.2.1"}, TrafficDistribution: ptr.To(corev1.ServiceTrafficDistributionPreferClose)}, []string{
			"spec.externalIPs is deprecated and may no longer be implemented in some clusters",
			`spec.trafficDistribution: "PreferClose" is deprecated; use "PreferSameZone"`}},
		"without effect": {corev1.ServiceSpec{ClusterIP: corev1.ClusterIPNone, ClusterIPs: []string{corev1.ClusterIPNone}, LoadBalancerIP: "192.0.2.1",
			SessionAffinity: corev1.ServiceAffinityClientIP, ExternalName: "x"}, []string{
			"spec.loadBalancerIP is ignored for headless services",
			"spec.SessionAffinity is ignored for headless services",
			`spec.externalName is ignored when spec.type is not "ExternalName"`}},
		"external name": {corev1.ServiceSpec{Type: corev1.ServiceTypeExternalName, ExternalName: "x", ExternalIPs: []string{"192.0.2.1"}},
			[]string{`spec.externalIPs is ignored when spec.type is "ExternalName"`}},
		"forms that others misread": {corev1.ServiceSpec{ClusterIPs: []string{"fd00:0::1"}, LoadBalancerIP: "010.0.0.1", LoadBalancerSourceRanges: []string{"10.0.0.1/8"}}, []string{
			`spec.clusterIPs[0]: IPv6 address "fd00:0::1" should be in RFC 5952 canonical format ("fd00::1")`,
			`spec.loadBalancerIP: non-standard IP address "010.0.0.1" is invalid: use "10.0.0.1"`,
			`spec.loadBalancerSourceRanges[0]: CIDR value "10.0.0.1/8" is ambiguous in this context (should be "10.0.0.0/8" or "10.0.0.1/32"?)`}},
	}
	for name, c := range cases {
		if got := warnings(&corev1.Service{Spec: c.spec}, nil); !slices.Equal(got, c.want) {
			t.Errorf("%s: %q, want %q", name, got, c.want)
		}
	}
}
