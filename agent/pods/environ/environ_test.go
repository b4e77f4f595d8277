package environ

import (
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"
)

func TestExpand(t *testing.T) {
	get := Lookup([]Var{{"A", "1"}, {"B", "$(A)"}})
	for in, want := range map[string]string{
		"":            "",
		"plain":       "plain",
		"$(A)":        "1",
		"x$(A)y$(B)z": "x1y$(A)z",
		"$(NONE)":     "$(NONE)",
		"$$(A)":       "$(A)",
		"$$$(A)":      "$1",
		"$(A":         "$(A",
		"cost $5":     "cost $5",
		"end$":        "end$",
		"$()":         "$()",
	} {
		if got := Expand(in, get); got != want {
			t.Errorf("%q gives %q, want %q", in, got, want)
		}
	}
}

func TestResolve(t *testing.T) {
	host := Resolver{Servers: []string{"192.0.2.1"}, Searches: []string{"example.org"}, Options: []string{"timeout:1"}}
	of := func(policy corev1.DNSPolicy, hostNetwork bool) *corev1.Pod {
		return &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "ns"}, Spec: corev1.PodSpec{DNSPolicy: policy, HostNetwork: hostNetwork}}
	}
	const cluster = "search ns.svc.c.local svc.c.local c.local example.org\nnameserver 10.0.0.10\noptions ndots:5\n"
	const hosts = "search example.org\nnameserver 192.0.2.1\noptions timeout:1\n"
	none := of(corev1.DNSNone, false)
	none.Spec.DNSConfig = &corev1.PodDNSConfig{Nameservers: []string{"8.8.8.8", "8.8.8.8"}, Searches: []string{"s"}, Options: []corev1.PodDNSConfigOption{{Name: "edns0"}}}
	over := of(corev1.DNSClusterFirst, false)
	over.Spec.DNSConfig = &corev1.PodDNSConfig{Options: []corev1.PodDNSConfigOption{{Name: "ndots", Value: ptr.To("1")}}}
	for name, c := range map[string]struct {
		pod  *corev1.Pod
		want string
	}{
		"cluster first":               {of(corev1.DNSClusterFirst, false), cluster},
		"cluster first on the host":   {of(corev1.DNSClusterFirst, true), hosts},
		"cluster first with host net": {of(corev1.DNSClusterFirstWithHostNet, true), cluster},
		"default":                     {of(corev1.DNSDefault, false), hosts},
		"none":                        {none, "search s\nnameserver 8.8.8.8\noptions edns0\n"},
		"option replaced":             {over, strings.Replace(cluster, "ndots:5", "ndots:1", 1)},
	} {
		if got := Resolve(c.pod, []string{"10.0.0.10"}, "c.local", host).String(); got != c.want {
			t.Errorf("%s: got %q, want %q", name, got, c.want)
		}
	}
	if got := ParseResolver(hosts).String(); got != hosts {
		t.Errorf("parsed %q", got)
	}
}

func TestFieldsThatDoNotExist(t *testing.T) {
	if _, err := Field(Facts{Pod: &corev1.Pod{}}, "spec.secretWish"); err == nil {
		t.Error("an unknown field was found")
	}
}
