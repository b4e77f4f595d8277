package sandbox

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// Whatever step a crash cuts Make off at, the next Make leaves everything there.
func TestMakeAfterACrash(t *testing.T) {
	o := Options{Dir: filepath.Join(t.TempDir(), "ns"), Hostname: "pod"}
	t.Cleanup(func() {
		if err := Remove(o.Dir); err != nil {
			t.Error(err)
		}
	})
	made := func(wantFresh bool) {
		t.Helper()
		paths, fresh, err := Make(o)
		if err != nil || fresh != wantFresh {
			t.Fatalf("fresh %v, %v", fresh, err)
		}
		var st, parent unix.Stat_t
		if err := unix.Stat(paths.Shm, &st); err != nil {
			t.Fatal(err)
		}
		if err := unix.Stat(o.Dir, &parent); err != nil {
			t.Fatal(err)
		}
		if st.Dev == parent.Dev {
			t.Error("nothing is mounted for /dev/shm")
		}
	}
	made(true)
	made(false)
	// Only the shared memory was there yet.
	for _, p := range o.pins() {
		if err := unix.Unmount(filepath.Join(o.Dir, p.name), unix.MNT_DETACH); err != nil {
			t.Fatal(err)
		}
	}
	made(true)
	if err := Remove(o.Dir); err != nil {
		t.Fatal(err)
	}
	// Nothing but the folder was there yet.
	if err := os.MkdirAll(o.Dir, 0o711); err != nil {
		t.Fatal(err)
	}
	made(true)
}

// Nobody else's step may follow the pins, by which Make knows its work.
func TestPinsComeLast(t *testing.T) {
	o := Options{Dir: filepath.Join(t.TempDir(), "ns"), Hostname: "pod"}
	t.Cleanup(func() {
		if err := Remove(o.Dir); err != nil {
			t.Error(err)
		}
	})
	if _, _, err := Make(o); err != nil {
		t.Fatal(err)
	}
	raw, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		t.Fatal(err)
	}
	// The kernel lists what is mounted in one place in the order of the mounts.
	shm := strings.Index(string(raw), " "+filepath.Join(o.Dir, "shm")+" ")
	if shm < 0 {
		t.Fatal("the shared memory is not mounted")
	}
	for _, p := range o.pins() {
		if at := strings.Index(string(raw), " "+filepath.Join(o.Dir, p.name)+" "); at < shm {
			t.Errorf("%s was pinned before the shared memory was there", p.name)
		}
	}
}
