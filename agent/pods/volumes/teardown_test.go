package volumes

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// The pods' folder may be a link to another disk; what is mounted below it is the users' all the same.
func TestTeardownThroughALinkSparesWhatIsMounted(t *testing.T) {
	real, volume := t.TempDir(), t.TempDir()
	link := filepath.Join(t.TempDir(), "kubelet")
	must(t, os.Symlink(real, link))
	must(t, os.WriteFile(filepath.Join(volume, "precious"), []byte("x"), 0o600))
	target := filepath.Join(link, "pod", "volume-subpaths", "v", "c", "0")
	must(t, os.MkdirAll(target, 0o755))
	must(t, unix.Mount(volume, target, "", unix.MS_BIND, ""))
	t.Cleanup(func() {
		if err := unmountBelow(real); err != nil {
			t.Error(err)
		}
	})
	must(t, Teardown(filepath.Join(link, "pod")))
	if _, err := os.Stat(filepath.Join(volume, "precious")); err != nil {
		t.Fatal("teardown removed the content of a mounted volume")
	}
	if raw, err := os.ReadFile("/proc/self/mountinfo"); err != nil || strings.Contains(string(raw), real) {
		t.Errorf("still mounted, or %v", err)
	}
	must(t, Teardown(filepath.Join(link, "pod")))
}
