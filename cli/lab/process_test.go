package lab

import (
	"os"
	"os/exec"
	"syscall"
	"testing"
)

func TestProcessIsKnownByMoreThanItsNumber(t *testing.T) {
	sleeper := exec.CommandContext(t.Context(), "sleep", "60")
	if err := sleeper.Start(); err != nil {
		t.Fatal(err)
	}
	known, err := remember(sleeper.Process.Pid)
	if err != nil {
		t.Fatal(err)
	}
	if !known.alive() {
		t.Error("a running process counts as dead")
	}
	for name, other := range map[string]process{
		"another start": {known.PID, "1", known.Boot}, "another boot": {known.PID, known.Start, "x"}, "none": {},
	} {
		if other.alive() {
			t.Errorf("%s: counts as the same", name)
		}
		if err := other.signal(syscall.SIGKILL); err != nil {
			t.Error(err)
		}
	}
	if !known.alive() {
		t.Fatal("a process with the same number was killed")
	}
	if err := known.signal(syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	if err := sleeper.Wait(); err == nil {
		t.Error("the process was not killed")
	}
	if known.alive() {
		t.Error("a dead process counts as running")
	}
	if _, err := remember(os.Getpid()); err != nil {
		t.Error(err)
	}
}
