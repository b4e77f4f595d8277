package volumes

import (
	"errors"
	"fmt"
	"os"
	"strings"

	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
)

// hugePage is the page size in bytes, as the mount option has it, of a volume of
// huge pages; "" is for other media. The plain medium stands for the one size
// that the pod's containers ask for.
func (p Pod) hugePage(v *corev1.EmptyDirVolumeSource) (string, error) {
	if v.Medium != corev1.StorageMediumHugePages {
		size, ok := strings.CutPrefix(string(v.Medium), string(corev1.StorageMediumHugePagesPrefix))
		if !ok {
			return "", nil
		}
		return pageBytes(size)
	}
	sizes := map[string]bool{}
	for _, list := range [][]corev1.Container{p.Facts.Pod.Spec.InitContainers, p.Facts.Pod.Spec.Containers} {
		for i := range list {
			for name := range list[i].Resources.Limits {
				if size, ok := strings.CutPrefix(string(name), corev1.ResourceHugePagesPrefix); ok {
					sizes[size] = true
				}
			}
		}
	}
	if len(sizes) != 1 {
		return "", fmt.Errorf("emptyDir medium HugePages needs exactly one size of huge pages in the pod, not %d", len(sizes))
	}
	for size := range sizes {
		return pageBytes(size)
	}
	return "", nil
}

func pageBytes(size string) (string, error) {
	q, err := resource.ParseQuantity(size)
	if err != nil {
		return "", fmt.Errorf("read huge page size %q: %w", size, err)
	}
	if q.Sign() <= 0 {
		return "", errors.New("a huge page has no size")
	}
	return fmt.Sprint(q.Value()), nil
}

// ensureHuge mounts huge pages at dir, once.
func ensureHuge(dir, page string, mode uint32, group int) error {
	if err := os.MkdirAll(dir, 0o777); err != nil {
		return fmt.Errorf("make volume folder: %w", err)
	}
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		return fmt.Errorf("look at volume: %w", err)
	}
	if st.Type == unix.HUGETLBFS_MAGIC {
		return nil
	}
	opts := fmt.Sprintf("pagesize=%s,mode=%o", page, mode)
	if group >= 0 {
		opts += fmt.Sprintf(",gid=%d", group)
	}
	if err := unix.Mount("nodev", dir, "hugetlbfs", 0, opts); err != nil {
		return fmt.Errorf("mount huge pages of %s bytes: %w", page, err)
	}
	return nil
}
