package volumes

import (
	"os"
	"path/filepath"
	"testing"
)

// subPathPod is a pod folder whose mounts end with the test.
func subPathPod(t *testing.T) Pod {
	t.Helper()
	p := Pod{Dir: filepath.Join(t.TempDir(), "pod")}
	t.Cleanup(func() {
		if err := unmountBelow(p.Dir); err != nil {
			t.Error(err)
		}
	})
	return p
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// What a container left in its volume must not lead the next one's mount out of it.
func TestSubPathStaysInTheVolume(t *testing.T) {
	p, volume, host := subPathPod(t), t.TempDir(), t.TempDir()
	must(t, os.WriteFile(filepath.Join(host, "secret"), []byte("host"), 0o600))
	must(t, os.MkdirAll(filepath.Join(volume, "real"), 0o755))
	must(t, os.WriteFile(filepath.Join(volume, "real", "file"), []byte("inside"), 0o600))
	for name, to := range map[string]string{
		"folder": host, "file": filepath.Join(host, "secret"), "up": "../" + filepath.Base(host), "magic": "/proc/self/root",
		"inner": "real", "innerfile": "real/file",
	} {
		must(t, os.Symlink(to, filepath.Join(volume, name)))
	}
	for _, sub := range []string{"folder", "file", "up", "magic", "folder/secret", "../" + filepath.Base(host)} {
		if to, err := p.bindSubPath(volume, sub, "v", "c", 0); err == nil {
			t.Errorf("subPath %s was mounted at %s", sub, to)
		}
	}
	to, err := p.bindSubPath(volume, "innerfile", "v", "c", 0)
	must(t, err)
	if st, err := os.Lstat(to); err != nil || !st.Mode().IsRegular() {
		t.Fatalf("a link inside the volume was mounted as %v, %v", st, err)
	}
	if got, err := os.ReadFile(to); err != nil || string(got) != "inside" {
		t.Errorf("read %q, %v", got, err)
	}
	to, err = p.bindSubPath(volume, "inner", "v", "c", 1)
	must(t, err)
	if got, err := os.ReadFile(filepath.Join(to, "file")); err != nil || string(got) != "inside" {
		t.Errorf("read %q, %v", got, err)
	}
}

// A second start of the container binds anew and leaves the volume alone.
func TestSubPathIsBoundAgain(t *testing.T) {
	p, volume := subPathPod(t), t.TempDir()
	for range 3 {
		to, err := p.bindSubPath(volume, "a/b", "v", "c", 0)
		must(t, err)
		must(t, os.WriteFile(filepath.Join(to, "kept"), []byte("x"), 0o600))
	}
	if _, err := os.Stat(filepath.Join(volume, "a", "b", "kept")); err != nil {
		t.Error(err)
	}
	mounts, err := mountsBelow(p.Dir)
	if err != nil || len(mounts) != 1 {
		t.Errorf("mounts %v, %v", mounts, err)
	}
}
