package volumes

import (
	"errors"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"

	"pgregory.net/rapid"
)

func write(t testing.TB, dir string, files map[string]File) bool {
	t.Helper()
	changed, err := WriteAtomic(dir, files, nil)
	if err != nil {
		t.Fatal(err)
	}
	return changed
}

func TestWriteAtomicShowsExactlyTheFiles(t *testing.T) {
	dir := t.TempDir()
	rapid.Check(t, func(rt *rapid.T) {
		names := rapid.SliceOfDistinct(rapid.SampledFrom([]string{"a", "b", "c.txt", "deep/x", "deep/y"}), func(s string) string { return s }).Draw(rt, "names")
		files := map[string]File{}
		for _, n := range names {
			files[n] = File{Data: []byte(rapid.String().Draw(rt, n)), Mode: 0o640}
		}
		write(t, dir, files)
		if write(t, dir, files) {
			rt.Fatal("the same files count as a change")
		}
		for n, f := range files {
			got, err := os.ReadFile(filepath.Join(dir, n))
			if err != nil || string(got) != string(f.Data) {
				rt.Fatalf("%s reads %q, %v", n, got, err)
			}
			st, err := os.Stat(filepath.Join(dir, n))
			if err != nil || st.Mode().Perm() != 0o640 {
				rt.Fatalf("%s has mode %v, %v", n, st.Mode(), err)
			}
		}
		entries, err := os.ReadDir(dir)
		if err != nil {
			rt.Fatal(err)
		}
		want := map[string]bool{dataLink: true}
		for n := range files {
			want[filepath.ToSlash(firstElement(n))] = true
		}
		for _, e := range entries {
			if !want[e.Name()] && !e.IsDir() {
				rt.Fatalf("%s is left", e.Name())
			}
		}
	})
}

func firstElement(p string) string {
	for {
		d := filepath.Dir(p)
		if d == "." {
			return p
		}
		p = d
	}
}

// TestReadersSeeWholeVersions reads two files through one open folder while
// versions change: they always belong together.
func TestReadersSeeWholeVersions(t *testing.T) {
	dir := t.TempDir()
	version := func(s string) map[string]File {
		return map[string]File{"a": {Data: []byte(s), Mode: 0o644}, "b": {Data: []byte(s), Mode: 0o644}}
	}
	write(t, dir, version("0"))
	var stop atomic.Bool
	done := make(chan struct{})
	go func() {
		defer close(done)
		for !stop.Load() {
			before, errBefore := os.Readlink(filepath.Join(dir, dataLink))
			_, err := os.Stat(filepath.Join(dir, "a"))
			folder, errAfter := os.Readlink(filepath.Join(dir, dataLink))
			if err := errors.Join(errBefore, errAfter); err != nil {
				t.Errorf("a reader saw no version: %v", err)
				return
			}
			// On its way into a version that is replaced and removed meanwhile, a reader finds nothing.
			if err != nil && before == folder {
				t.Errorf("a reader saw no file: %v", err)
				return
			}
			a, errA := os.ReadFile(filepath.Join(dir, folder, "a"))
			b, errB := os.ReadFile(filepath.Join(dir, folder, "b"))
			if errA == nil && errB == nil && string(a) != string(b) {
				t.Errorf("a is %q while b is %q", a, b)
				return
			}
		}
	}()
	for i := range 200 {
		write(t, dir, version(string(rune('a'+i%26))))
	}
	stop.Store(true)
	<-done
}

func TestFilesCannotLeaveTheVolume(t *testing.T) {
	if _, err := WriteAtomic(t.TempDir(), map[string]File{"../out": {}}, nil); err == nil {
		t.Error("a file was written outside the volume")
	}
}
