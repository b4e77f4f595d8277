package lab

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"syscall"
)

// process is a process that outlives the command that started it. The kernel gives its number to another one after its end
// or a reboot, so it is known by number and start time together.
type process struct {
	PID int `json:"pid"`
	// Start is when it started, in clock ticks since the machine did.
	Start string `json:"start"`
	// Boot identifies the life of the machine.
	Boot string `json:"boot"`
}

// remember returns the identity of a process that runs.
func remember(pid int) (process, error) {
	start, _, err := stat(pid)
	if err != nil {
		return process{}, fmt.Errorf("remember process %d: %w", pid, err)
	}
	boot, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return process{}, fmt.Errorf("remember process %d: %w", pid, err)
	}
	return process{pid, start, strings.TrimSpace(string(boot))}, nil
}

// stat reads a process's start time and state.
func stat(pid int) (start, state string, err error) {
	const stateField, startField = 0, 19 // counted from the state, which follows the name
	content, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return "", "", err
	}
	_, rest, _ := strings.Cut(string(content), ") ")
	fields := strings.Fields(rest)
	if len(fields) <= startField {
		return "", "", fmt.Errorf("read /proc/%d/stat: %d fields", pid, len(fields))
	}
	return fields[startField], fields[stateField], nil
}

// alive tells whether the process is there and not a zombie.
func (p process) alive() bool {
	if p.PID == 0 {
		return false
	}
	now, err := remember(p.PID)
	if err != nil || now != p {
		return false
	}
	_, state, err := stat(p.PID)
	return err == nil && state != "Z" && state != "X"
}

// signal sends a signal to the process, if it is still the same.
func (p process) signal(signal syscall.Signal) error {
	if !p.alive() {
		return nil
	}
	if err := syscall.Kill(p.PID, signal); err != nil && !errors.Is(err, syscall.ESRCH) {
		return err
	}
	return nil
}
