package cgroup

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"
)

// TestLife makes a cgroup, puts a process into it, freezes, thaws and kills it, and removes the cgroup.
func TestLife(t *testing.T) {
	path := fmt.Sprintf("podvine-test-%d/inner", os.Getpid())
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		if err := Remove(ctx, filepath.Dir(path)); err != nil {
			t.Error(err)
		}
	})
	if err := Make(path); err != nil {
		t.Fatal(err)
	}
	sleeper := exec.CommandContext(ctx, "sleep", "60")
	if err := sleeper.Start(); err != nil {
		t.Fatal(err)
	}
	trees, err := Trees()
	if err != nil {
		t.Fatal(err)
	}
	for _, tree := range trees {
		if err := os.WriteFile(filepath.Join(tree.folder(path), "cgroup.procs"), fmt.Append(nil, sleeper.Process.Pid), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	for _, frozen := range []bool{true, false} {
		if err := Freeze(path, frozen); err != nil {
			t.Fatal(err)
		}
	}
	if err := RemoveIfEmpty(filepath.Dir(path)); err != nil {
		t.Error(err)
	}
	if err := Kill(filepath.Dir(path)); err != nil {
		t.Fatal(err)
	}
	if err := sleeper.Wait(); err == nil || sleeper.ProcessState.ExitCode() != -1 {
		t.Errorf("the process ended with %v", err)
	}
	if err := Remove(ctx, filepath.Dir(path)); err != nil {
		t.Fatal(err)
	}
	for _, tree := range trees {
		if _, err := os.Stat(tree.folder(filepath.Dir(path))); !os.IsNotExist(err) {
			t.Errorf("%s is still there: %v", tree.folder(filepath.Dir(path)), err)
		}
	}
	if err := Remove(ctx, path); err != nil {
		t.Errorf("remove what is not there: %v", err)
	}
}

func TestOptionsNameTheTree(t *testing.T) {
	for superBlock, want := range map[string]string{
		"rw,cpu,cpuacct":             "[cpu cpuacct]",
		"rw,xattr,name=systemd":      "[none name=systemd]",
		"rw,memory,release_agent=/x": "[memory]",
	} {
		if got := fmt.Sprint(versionOneOptions(superBlock)); got != want {
			t.Errorf("%s gives %s, want %s", superBlock, got, want)
		}
	}
}
