// Package cgroup works on cgroups in every hierarchy at once, whether the machine mounts version 2, version 1 or both. A
// cgroup is named by its path below the root ("podvine/besteffort"). The package keeps no state.
package cgroup

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
	"syscall"
	"time"
)

// Tree is one mounted hierarchy: version 2, or one or more controllers of version 1.
type Tree struct {
	// Mount is where it is mounted.
	Mount string
	// Type is the file system's: "cgroup" (version 1) or "cgroup2".
	Type string
	// Options mount the same tree again ("cpu", or "none", "name=systemd").
	Options []string
}

// Trees lists the machine's hierarchies, from /proc/self/mountinfo.
func Trees() ([]Tree, error) {
	content, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return nil, fmt.Errorf("list cgroup trees: %w", err)
	}
	var found []Tree
	for line := range strings.Lines(string(content)) {
		before, after, ok := strings.Cut(line, " - ")
		if !ok {
			continue
		}
		left, right := strings.Fields(before), strings.Fields(after)
		if len(left) < 5 || len(right) < 3 || right[0] != "cgroup" && right[0] != "cgroup2" {
			continue
		}
		tree := Tree{Mount: left[4], Type: right[0]}
		if tree.Type == "cgroup" {
			tree.Options = versionOneOptions(right[2])
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

// Unified returns the mount point of the version 2 tree, below which programs of the service proxy are attached.
func Unified() (string, error) {
	trees, err := Trees()
	if err != nil {
		return "", err
	}
	for _, tree := range trees {
		if tree.Type == "cgroup2" {
			return tree.Mount, nil
		}
	}
	return "", errors.New("find the cgroup version 2 tree: none is mounted")
}

func (t Tree) folder(path string) string { return filepath.Join(t.Mount, path) }

// Make makes the cgroup, and those above it, in every tree. A version 1 cpuset is empty when made, and nothing runs in an
// empty one, so it gets what its parent has.
func Make(path string) error {
	trees, err := Trees()
	if err != nil {
		return err
	}
	for _, tree := range trees {
		folder := tree.Mount
		for element := range strings.SplitSeq(path, "/") {
			folder = filepath.Join(folder, element)
			if err := os.MkdirAll(folder, 0o755); err != nil {
				return fmt.Errorf("make cgroup: %w", err)
			}
			if slices.Contains(tree.Options, "cpuset") {
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

// Join moves this process, with all of its threads, into the cgroup in every tree.
func Join(path string) error {
	trees, err := Trees()
	if err != nil {
		return err
	}
	self := []byte(strconv.Itoa(os.Getpid()))
	for _, tree := range trees {
		if err := os.WriteFile(filepath.Join(tree.folder(path), "cgroup.procs"), self, 0o644); err != nil {
			return fmt.Errorf("join cgroup %s: %w", path, err)
		}
	}
	return nil
}

// Freeze stops every process of the cgroup where it stands, or lets them all go on.
func Freeze(path string, frozen bool) error {
	trees, err := Trees()
	if err != nil {
		return err
	}
	for _, tree := range trees {
		var file, state string
		switch {
		case tree.Type == "cgroup2":
			file, state = "cgroup.freeze", map[bool]string{true: "1", false: "0"}[frozen]
		case slices.Contains(tree.Options, "freezer"):
			file, state = "freezer.state", map[bool]string{true: "FROZEN", false: "THAWED"}[frozen]
		default:
			continue
		}
		if err := os.WriteFile(filepath.Join(tree.folder(path), file), []byte(state), 0o644); err != nil {
			return fmt.Errorf("freeze cgroup %s: %w", path, err)
		}
	}
	return nil
}

// Kill sends SIGKILL to every process in the cgroup and below it.
func Kill(path string) error {
	trees, err := Trees()
	if err != nil {
		return err
	}
	for _, tree := range trees {
		err := filepath.WalkDir(tree.folder(path), func(folder string, entry fs.DirEntry, err error) error {
			if err != nil || !entry.IsDir() {
				return err
			}
			return killAll(filepath.Join(folder, "cgroup.procs"))
		})
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("kill cgroup %s: %w", path, err)
		}
	}
	return nil
}

func killAll(list string) error {
	content, err := os.ReadFile(list)
	if err != nil {
		return err
	}
	for field := range strings.FieldsSeq(string(content)) {
		pid, err := strconv.Atoi(field)
		if err != nil {
			return err
		}
		if err := syscall.Kill(pid, syscall.SIGKILL); err != nil && !errors.Is(err, syscall.ESRCH) {
			return err
		}
	}
	return nil
}

// Remove removes the cgroup and all below it from every tree, once their processes have ended; it waits for that until
// ctx ends. A cgroup that is not there is no error.
func Remove(ctx context.Context, path string) error {
	trees, err := Trees()
	if err != nil {
		return err
	}
	for _, tree := range trees {
		if err := removeTree(ctx, tree.folder(path)); err != nil {
			return err
		}
	}
	return nil
}

// RemoveIfEmpty removes the cgroup from every tree in which nothing is below it.
func RemoveIfEmpty(path string) error {
	trees, err := Trees()
	if err != nil {
		return err
	}
	for _, tree := range trees {
		err := os.Remove(tree.folder(path))
		if err != nil && !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, syscall.EBUSY) && !errors.Is(err, syscall.ENOTEMPTY) {
			return fmt.Errorf("remove cgroup: %w", err)
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
