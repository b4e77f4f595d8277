package ocispec

import (
	"os"
	"path/filepath"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
)

func TestHugePages(t *testing.T) {
	root := t.TempDir()
	for dir, n := range map[string]string{"hugepages-2048kB": "8\n", "hugepages-1048576kB": "1\n"} {
		if err := os.MkdirAll(filepath.Join(root, dir), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(root, dir, "nr_hugepages"), []byte(n), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	found, err := hugePagesIn(root)
	if err != nil || len(found) != 2 {
		t.Fatalf("found %v, %v", found, err)
	}
	want := map[corev1.ResourceName]HugePages{"hugepages-2Mi": {2 << 20, 16 << 20}, "hugepages-1Gi": {1 << 30, 1 << 30}}
	for _, h := range found {
		if want[h.Resource()] != h {
			t.Errorf("%s is %+v", h.Resource(), h)
		}
	}
	c := &corev1.Container{Resources: corev1.ResourceRequirements{Limits: corev1.ResourceList{"hugepages-2Mi": resource.MustParse("4Mi")}}}
	limits, notice := hugePageLimits(c, Host{HugeTLB: true, HugePages: found})
	got := map[string]uint64{}
	for _, l := range limits {
		got[l.Pagesize] = l.Limit
	}
	if notice != "" || len(got) != 2 || got["2MB"] != 4<<20 || got["1GB"] != 0 {
		t.Errorf("limits %v, notice %q", got, notice)
	}
	if limits, notice = hugePageLimits(c, Host{HugePages: found}); limits != nil || notice == "" {
		t.Errorf("without the cgroup: limits %v, notice %q", limits, notice)
	}
	if _, notice = hugePageLimits(&corev1.Container{}, Host{}); notice != "" {
		t.Errorf("who asks for nothing is told %q", notice)
	}
}
