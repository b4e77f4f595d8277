package podtest

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

const (
	sweepTries  = 200
	removeTries = 200
)

// sweep ends every process that belongs to the folders (shims have one of them
// as working folder, containers are in the cgroup), then removes mounts,
// cgroups and files.
func (d Dirs) sweep() (err error) {
	for range removeTries {
		// Containerd cleans up behind shims that ended, beside us, and adds a name while we remove the others.
		if err = errors.Join(d.halt(), os.RemoveAll(d.Root)); !errors.Is(err, unix.ENOTEMPTY) {
			return err
		}
		time.Sleep(waitPause)
	}
	return err
}

func (d Dirs) halt() error {
	for range sweepTries {
		pids := append(d.shims(), d.contained()...)
		if len(pids) == 0 {
			break
		}
		for _, pid := range pids {
			if err := unix.Kill(pid, unix.SIGKILL); err != nil && err != unix.ESRCH {
				return fmt.Errorf("kill %d: %w", pid, err)
			}
		}
		time.Sleep(waitPause)
	}
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return err
	}
	lines := strings.Split(string(mounts), "\n")
	for i := len(lines) - 1; i >= 0; i-- {
		f := strings.Fields(lines[i])
		if len(f) > 4 && strings.HasPrefix(f[4], d.Root+"/") {
			if err := unix.Unmount(f[4], unix.MNT_DETACH); err != nil && err != unix.EINVAL {
				return fmt.Errorf("unmount %s: %w", f[4], err)
			}
		}
	}
	var errs []error
	roots, err := filepath.Glob("/sys/fs/cgroup/*/" + d.Cgroup)
	if err != nil {
		return err
	}
	for _, r := range append(roots, "/sys/fs/cgroup/"+d.Cgroup) {
		errs = append(errs, removeCgroup(r))
	}
	return errors.Join(errs...)
}

func removeCgroup(dir string) error {
	entries, err := os.ReadDir(dir)
	if os.IsNotExist(err) {
		return nil
	}
	if err != nil {
		return err
	}
	for _, e := range entries {
		if e.IsDir() {
			if err := removeCgroup(filepath.Join(dir, e.Name())); err != nil {
				return err
			}
		}
	}
	for range sweepTries {
		if err = unix.Rmdir(dir); err == nil || errors.Is(err, unix.ENOENT) {
			return nil
		}
		time.Sleep(waitPause)
	}
	return fmt.Errorf("remove cgroup %s: %w", dir, err)
}

// shims are the processes that work in our folders.
func (d Dirs) shims() []int {
	var out []int
	procs, err := filepath.Glob("/proc/[0-9]*/cwd")
	if err != nil {
		return nil
	}
	for _, p := range procs {
		if to, err := os.Readlink(p); err == nil && strings.HasPrefix(to, d.Root+"/") {
			if pid, err := strconv.Atoi(strings.Split(p, "/")[2]); err == nil && pid != os.Getpid() {
				out = append(out, pid)
			}
		}
	}
	return out
}

// contained are the processes in our cgroup.
func (d Dirs) contained() []int {
	var out []int
	for _, root := range []string{"/sys/fs/cgroup/pids/" + d.Cgroup, "/sys/fs/cgroup/" + d.Cgroup} {
		err := filepath.WalkDir(root, func(path string, e os.DirEntry, err error) error {
			if err != nil || !e.IsDir() {
				return nil //nolint:nilerr // it went while we looked
			}
			raw, err := os.ReadFile(filepath.Join(path, "cgroup.procs"))
			if err != nil {
				return nil //nolint:nilerr // likewise
			}
			for _, f := range strings.Fields(string(raw)) {
				if pid, err := strconv.Atoi(f); err == nil {
					out = append(out, pid)
				}
			}
			return nil
		})
		if err != nil {
			return out
		}
	}
	return out
}

// Left lists processes and mounts that still belong to the folders.
func (d Dirs) Left() []string {
	var out []string
	for _, pid := range append(d.shims(), d.contained()...) {
		cmd, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
		if err == nil {
			out = append(out, fmt.Sprintf("%d %s", pid, strings.ReplaceAll(string(cmd), "\x00", " ")))
		}
	}
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return append(out, err.Error())
	}
	for line := range strings.Lines(string(mounts)) {
		if strings.Contains(line, d.Root+"/") {
			out = append(out, strings.TrimSpace(line))
		}
	}
	return out
}

// Reboot ends every process and mount of the folders, as a power cut would; the
// files stay.
func (d Dirs) Reboot(t testing.TB) {
	t.Helper()
	if err := d.halt(); err != nil {
		t.Fatal(err)
	}
}
