package lab

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
)

// cgroupRoot is the folder, in every hierarchy, below which labs keep their hosts.
const cgroupRoot = "podvine-lab"

// hierarchy is one mounted cgroup tree: version 2, or one or more controllers of version 1.
type hierarchy struct {
	mount   string   // where it is mounted
	fstype  string   // "cgroup" or "cgroup2"
	options []string // what mounts the same tree again ("cpu", or "none", "name=systemd")
}

// hierarchies lists the machine's cgroup trees, from /proc/self/mountinfo.
func hierarchies() ([]hierarchy, error) {
	content, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return nil, fmt.Errorf("list cgroup trees: %w", err)
	}
	var found []hierarchy
	for line := range strings.Lines(string(content)) {
		before, after, ok := strings.Cut(line, " - ")
		if !ok {
			continue
		}
		left, right := strings.Fields(before), strings.Fields(after)
		if len(left) < 5 || len(right) < 3 || right[0] != "cgroup" && right[0] != "cgroup2" {
			continue
		}
		tree := hierarchy{mount: left[4], fstype: right[0]}
		if tree.fstype == "cgroup" {
			tree.options = versionOneOptions(right[2])
		}
		found = append(found, tree)
	}
	if len(found) == 0 {
		return nil, errors.New("list cgroup trees: none is mounted below /sys/fs/cgroup")
	}
	return found, nil
}

// versionOneOptions keeps, of a mount's super-block options, those that name the tree.
func versionOneOptions(superBlock string) []string {
	var options []string
	for option := range strings.SplitSeq(superBlock, ",") {
		switch {
		case strings.HasPrefix(option, "name="):
			options = append(options, "none", option)
		case option == "rw" || option == "ro" || strings.Contains(option, "=") || option == "xattr" || option == "clone_children" || option == "noprefix":
		default:
			options = append(options, option)
		}
	}
	return options
}

// folder is the cgroup of a lab's host, or of the whole lab, in this hierarchy.
func (h hierarchy) folder(elements ...string) string {
	return filepath.Join(append([]string{h.mount, cgroupRoot}, elements...)...)
}

// makeCgroup makes the host's cgroup in every hierarchy. A version 1 cpuset is empty when made, and nothing runs in an
// empty one, so it gets what its parent has.
func makeCgroup(lab, host string) error {
	trees, err := hierarchies()
	if err != nil {
		return err
	}
	for _, tree := range trees {
		for _, folder := range []string{tree.folder(), tree.folder(lab), tree.folder(lab, host)} {
			if err := os.MkdirAll(folder, 0o755); err != nil {
				return fmt.Errorf("make cgroup: %w", err)
			}
			if slices.Contains(tree.options, "cpuset") {
				if err := inheritCpuset(folder); err != nil {
					return fmt.Errorf("make cpuset: %w", err)
				}
			}
		}
	}
	return nil
}

func inheritCpuset(folder string) error {
	for _, name := range []string{"cpuset.cpus", "cpuset.mems"} {
		own, err := os.ReadFile(filepath.Join(folder, name))
		if err != nil {
			return err
		}
		if len(bytes.TrimSpace(own)) > 0 {
			continue
		}
		parent, err := os.ReadFile(filepath.Join(filepath.Dir(folder), name))
		if err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(folder, name), parent, 0o644); err != nil {
			return err
		}
	}
	return nil
}

// joinCgroup moves this process into the host's cgroup in every hierarchy. Only a process that is about to become a part
// of the host, or to end, may do it.
func joinCgroup(lab, host string) error {
	trees, err := hierarchies()
	if err != nil {
		return err
	}
	self := []byte(strconv.Itoa(os.Getpid()))
	for _, tree := range trees {
		if err := os.WriteFile(filepath.Join(tree.folder(lab, host), "cgroup.procs"), self, 0o644); err != nil {
			return fmt.Errorf("join cgroup of %s: %w", host, err)
		}
	}
	return nil
}

// freeze stops every process of the host where it stands, or lets them all go on.
func freeze(lab, host string, frozen bool) error {
	trees, err := hierarchies()
	if err != nil {
		return err
	}
	for _, tree := range trees {
		one, two := filepath.Join(tree.folder(lab, host), "freezer.state"), filepath.Join(tree.folder(lab, host), "cgroup.freeze")
		state := map[bool]string{true: "FROZEN", false: "THAWED"}[frozen]
		if tree.fstype == "cgroup2" {
			one, state = two, map[bool]string{true: "1", false: "0"}[frozen]
		} else if !slices.Contains(tree.options, "freezer") {
			continue
		}
		if err := os.WriteFile(one, []byte(state), 0o644); err != nil {
			return fmt.Errorf("freeze %s: %w", host, err)
		}
	}
	return nil
}

// removeCgroup removes the host's cgroup, or the lab's with host "", and all below it, once their processes have ended.
func removeCgroup(ctx context.Context, lab, host string) error {
	trees, err := hierarchies()
	if err != nil {
		return err
	}
	for _, tree := range trees {
		if err := removeTree(ctx, tree.folder(lab, host)); err != nil {
			return err
		}
		// The folder of all labs goes with the last of them; it stays while another lab is in it.
		if entries, err := filepath.Glob(filepath.Join(tree.folder(), "*", "cgroup.procs")); err == nil && len(entries) == 0 && host == "" {
			if err := os.Remove(tree.folder()); err != nil && !errors.Is(err, fs.ErrNotExist) {
				return fmt.Errorf("remove cgroup: %w", err)
			}
		}
	}
	return nil
}

// removeTree removes a cgroup from the leaves up. The kernel refuses while a process is still ending, so it tries again
// until ctx ends.
func removeTree(ctx context.Context, root string) error {
	const pause = 20 * time.Millisecond
	for {
		var folders []string
		err := filepath.WalkDir(root, func(path string, entry fs.DirEntry, err error) error {
			if err == nil && entry.IsDir() {
				folders = append(folders, path)
			}
			return err
		})
		for _, folder := range slices.Backward(folders) {
			if removed := os.Remove(folder); err == nil && !errors.Is(removed, fs.ErrNotExist) {
				err = removed
			}
		}
		if err == nil || errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("remove cgroup: %w", err)
		case <-time.After(pause):
		}
	}
}
