package ocispec

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
)

// HugePages is one size of huge pages that the kernel knows.
type HugePages struct {
	// PageBytes is the size of a page, TotalBytes what is set aside for them.
	PageBytes, TotalBytes int64
}

// hugePageRoot has a folder a size, as hugepages-2048kB.
const hugePageRoot = "/sys/kernel/mm/hugepages"

// DetectHugePages reads what huge pages this machine has, from sysfs.
func DetectHugePages() ([]HugePages, error) { return hugePagesIn(hugePageRoot) }

func hugePagesIn(root string) ([]HugePages, error) {
	dirs, err := filepath.Glob(filepath.Join(root, "hugepages-*kB"))
	if err != nil {
		return nil, fmt.Errorf("list huge pages: %w", err)
	}
	var out []HugePages
	for _, dir := range dirs {
		var kib int64
		if _, err := fmt.Sscanf(filepath.Base(dir), "hugepages-%dkB", &kib); err != nil {
			return nil, fmt.Errorf("read size of %s: %w", dir, err)
		}
		raw, err := os.ReadFile(filepath.Join(dir, "nr_hugepages"))
		if err != nil {
			return nil, fmt.Errorf("count huge pages: %w", err)
		}
		n, err := strconv.ParseInt(strings.TrimSpace(string(raw)), 10, 64)
		if err != nil {
			return nil, fmt.Errorf("count huge pages: %w", err)
		}
		out = append(out, HugePages{kib << 10, n * kib << 10})
	}
	return out, nil
}

// Resource is the name under which pods ask for these pages.
func (h HugePages) Resource() corev1.ResourceName {
	return corev1.ResourceName(corev1.ResourceHugePagesPrefix + resource.NewQuantity(h.PageBytes, resource.BinarySI).String())
}

// cgroupName is the size in the words of the kernel's cgroup files.
func (h HugePages) cgroupName() string {
	n, units := h.PageBytes, []string{"B", "KB", "MB", "GB", "TB"}
	for len(units) > 1 && n%1024 == 0 {
		n, units = n/1024, units[1:]
	}
	return strconv.FormatInt(n, 10) + units[0]
}

// hugePageLimits lets a container use the huge pages that it asked for, and no
// others.
func hugePageLimits(c *corev1.Container, h Host) (limits []specs.LinuxHugepageLimit, notice string) {
	asks := false
	for name := range c.Resources.Limits {
		asks = asks || strings.HasPrefix(string(name), corev1.ResourceHugePagesPrefix)
	}
	if !h.HugeTLB {
		if asks {
			notice = "huge page limits are not enforced: this host has no hugetlb cgroup"
		}
		return nil, notice
	}
	for _, size := range h.HugePages {
		q := c.Resources.Limits[size.Resource()]
		limits = append(limits, specs.LinuxHugepageLimit{Pagesize: size.cgroupName(), Limit: uint64(q.Value())})
	}
	return limits, ""
}
