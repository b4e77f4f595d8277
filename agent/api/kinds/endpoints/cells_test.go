package endpoints

import (
	"fmt"
	"testing"

	corev1 "k8s.io/api/core/v1"
)

func TestCells(t *testing.T) {
	many := func(ready int, ports ...int32) []corev1.EndpointSubset {
		var s corev1.EndpointSubset
		for i := range ready {
			s.Addresses = append(s.Addresses, corev1.EndpointAddress{IP: fmt.Sprintf("192.0.2.%d", i+1)})
		}
		for _, p := range ports {
			s.Ports = append(s.Ports, corev1.EndpointPort{Port: p})
		}
		return []corev1.EndpointSubset{s}
	}
	cases := []struct {
		subsets []corev1.EndpointSubset
		want    string
	}{
		{nil, "<none>"},
		{many(1, 80), "192.0.2.1:80"},
		{many(2), "192.0.2.1,192.0.2.2"},
		{many(2, 80, 81), "192.0.2.1:80,192.0.2.2:80,192.0.2.1:81 + 1 more..."},
		{[]corev1.EndpointSubset{{Addresses: []corev1.EndpointAddress{{IP: "fd00::1"}}, Ports: []corev1.EndpointPort{{Port: 80}}}}, "[fd00::1]:80"},
		{[]corev1.EndpointSubset{{NotReadyAddresses: []corev1.EndpointAddress{{IP: "192.0.2.1"}}, Ports: []corev1.EndpointPort{{Port: 80}}}}, ""},
	}
	for _, c := range cases {
		if got := addressesCell(c.subsets); got != c.want {
			t.Errorf("%v: %q, want %q", c.subsets, got, c.want)
		}
	}
}
