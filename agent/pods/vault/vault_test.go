package vault

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"testing"
)

func open(t *testing.T, dir string) *Vault {
	t.Helper()
	v, err := Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func TestEntriesSurviveAndAreEncrypted(t *testing.T) {
	dir := t.TempDir()
	v := open(t, dir)
	for _, key := range []string{"a", "b"} {
		if err := v.Put("things", key, map[string]string{"k": "treasure-" + key}); err != nil {
			t.Fatal(err)
		}
	}
	v = open(t, dir)
	var got map[string]string
	if err := v.Get("things", "a", &got); err != nil || got["k"] != "treasure-a" {
		t.Errorf("got %v, %v", got, err)
	}
	keys, err := v.Keys("things")
	slices.Sort(keys)
	if err != nil || !slices.Equal(keys, []string{"a", "b"}) {
		t.Errorf("keys %v, %v", keys, err)
	}
	err = filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		raw, err := os.ReadFile(path)
		if bytes.Contains(raw, []byte("treasure")) {
			t.Errorf("%s is readable", path)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(v.Delete("things", "a"), v.Delete("things", "a")); err != nil {
		t.Error(err)
	}
	if err := v.Get("things", "a", &got); !errors.Is(err, ErrMissing) {
		t.Errorf("deleted entry: %v", err)
	}
}

func TestTornEntriesDoNotHideOthers(t *testing.T) {
	dir := t.TempDir()
	v := open(t, dir)
	if err := errors.Join(v.Put("k", "good", 1), v.Put("k", "torn", 2)); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(v.path("k", "torn"), 20); err != nil {
		t.Fatal(err)
	}
	keys, err := v.Keys("k")
	if err == nil || !slices.Equal(keys, []string{"good"}) {
		t.Errorf("keys %v, %v", keys, err)
	}
}

func TestAnotherNodesKeyOpensNothing(t *testing.T) {
	a, b := t.TempDir(), t.TempDir()
	if err := open(t, a).Put("k", "x", 1); err != nil {
		t.Fatal(err)
	}
	foreign := open(t, b)
	foreign.dir = a
	var got int
	if err := foreign.Get("k", "x", &got); err == nil {
		t.Error("a foreign key opened the entry")
	}
}
