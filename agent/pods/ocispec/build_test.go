package ocispec

import (
	"slices"
	"strings"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	"github.com/podvine/podvine/agent/pods/runtime"
)

// weakHost is a machine without CAP_SYS_RESOURCE.
func weakHost() Host {
	h := Host{Bounding: map[string]bool{}, OOMScoreAdjMin: 0, MemoryBytes: 1 << 30}
	for _, c := range capabilityNames() {
		h.Bounding[c] = c != "CAP_SYS_RESOURCE"
	}
	return h
}

func input(change func(p *corev1.Pod, c *corev1.Container)) Input {
	p := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "p", Namespace: "ns"}}
	c := &corev1.Container{Name: "c"}
	change(p, c)
	in := Input{Pod: p, Container: c, QOS: corev1.PodQOSBestEffort, Host: weakHost(), CgroupPath: "/x"}
	in.Image = runtime.ImageInfo{}
	in.Image.Config.Entrypoint, in.Image.Config.Cmd = []string{"/entry"}, []string{"cmd"}
	return in
}

func mustBuild(t *testing.T, in Input) (*specs.Spec, string) {
	t.Helper()
	s, notices, err := Build(in)
	if err != nil {
		t.Fatal(err)
	}
	return s, strings.Join(notices, "; ")
}

func TestWhatTheHostCannotGiveIsLeftOut(t *testing.T) {
	in := input(func(_ *corev1.Pod, c *corev1.Container) {
		c.SecurityContext = &corev1.SecurityContext{Capabilities: &corev1.Capabilities{Add: []corev1.Capability{"SYS_RESOURCE", "SYS_TIME"}}}
	})
	in.QOS = corev1.PodQOSGuaranteed
	s, said := mustBuild(t, in)
	have := s.Process.Capabilities.Bounding
	if slices.Contains(have, "CAP_SYS_RESOURCE") || !slices.Contains(have, "CAP_SYS_TIME") {
		t.Errorf("capabilities %v", have)
	}
	if *s.Process.OOMScoreAdj != 0 {
		t.Errorf("OOM score %d", *s.Process.OOMScoreAdj)
	}
	if !strings.Contains(said, "CAP_SYS_RESOURCE") || !strings.Contains(said, "-997 raised to 0") {
		t.Errorf("notices %q", said)
	}
}

func TestArguments(t *testing.T) {
	for _, c := range []struct {
		command, args []string
		want          string
	}{
		{nil, nil, "/entry cmd"},
		{nil, []string{"a"}, "/entry a"},
		{[]string{"/c"}, nil, "/c"},
		{[]string{"/c"}, []string{"a"}, "/c a"},
	} {
		in := input(func(*corev1.Pod, *corev1.Container) {})
		in.Command, in.Args = c.command, c.args
		s, _ := mustBuild(t, in)
		if got := strings.Join(s.Process.Args, " "); got != c.want {
			t.Errorf("%v %v gives %q, want %q", c.command, c.args, got, c.want)
		}
	}
}

func TestSeccomp(t *testing.T) {
	with := func(kind corev1.SeccompProfileType) Input {
		return input(func(p *corev1.Pod, _ *corev1.Container) {
			p.Spec.SecurityContext = &corev1.PodSecurityContext{SeccompProfile: &corev1.SeccompProfile{Type: kind}}
		})
	}
	if s, _ := mustBuild(t, with(corev1.SeccompProfileTypeRuntimeDefault)); s.Linux.Seccomp == nil {
		t.Error("RuntimeDefault filters nothing")
	}
	if s, _ := mustBuild(t, with(corev1.SeccompProfileTypeUnconfined)); s.Linux.Seccomp != nil {
		t.Error("Unconfined filters")
	}
	in := with(corev1.SeccompProfileTypeLocalhost)
	in.Host.SeccompRoot = t.TempDir()
	in.Pod.Spec.SecurityContext.SeccompProfile.LocalhostProfile = ptr.To("../outside.json")
	if _, _, err := Build(in); err == nil {
		t.Error("a profile outside the folder was read")
	}
}

func TestResources(t *testing.T) {
	q := resource.MustParse
	c := corev1.Container{Resources: corev1.ResourceRequirements{
		Requests: corev1.ResourceList{corev1.ResourceCPU: q("100m")},
		Limits:   corev1.ResourceList{corev1.ResourceCPU: q("5m"), corev1.ResourceMemory: q("1Mi")},
	}}
	res := Resources(&c, Host{LimitSwap: true})
	if *res.CPU.Shares != 102 || *res.CPU.Quota != 1000 || *res.Memory.Limit != 1<<20 || *res.Memory.Swap != 1<<20 {
		t.Errorf("CPU %+v, memory %+v", res.CPU, res.Memory)
	}
	pod := &corev1.Pod{Spec: corev1.PodSpec{Containers: []corev1.Container{c, {}}}}
	if l := PodLimits(pod, 99); l.MemoryBytes != 0 || l.CPUQuotaMicros != 0 || l.CPUShares != 102 || l.Pids != 99 {
		t.Errorf("a container without limits leaves the pod limits %+v", l)
	}
	pod.Spec.Containers = []corev1.Container{c, c}
	if l := PodLimits(pod, 99); l.MemoryBytes != 2<<20 || l.CPUShares != 204 {
		t.Errorf("pod limits %+v", l)
	}
}

func TestHostnameFits(t *testing.T) {
	p := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: strings.Repeat("a", 62) + "-b"}}
	if h := Hostname(p); h != strings.Repeat("a", 62) {
		t.Errorf("host name %q", h)
	}
}
