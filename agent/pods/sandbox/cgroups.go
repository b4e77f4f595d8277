package sandbox

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// CgroupRoot is where cgroups are mounted.
const CgroupRoot = "/sys/fs/cgroup"

// Limits of a pod's cgroup; a zero field sets no limit.
type Limits struct {
	MemoryBytes int64
	// CPUShares is the weight in version 1's scale, 2 to 262144.
	CPUShares uint64
	// CPUQuotaMicros is the CPU time allowed in each CPUPeriodMicros.
	CPUQuotaMicros int64
	Pids           int64
}

// CPUPeriodMicros is the period over which a CPU quota holds.
const CPUPeriodMicros = 100_000

// Cgroups knows how this host's cgroups are mounted.
type Cgroups struct {
	root string
	v2   bool
}

// DetectCgroups looks at the host.
func DetectCgroups() (Cgroups, error) {
	var st unix.Statfs_t
	if err := unix.Statfs(CgroupRoot, &st); err != nil {
		return Cgroups{}, fmt.Errorf("find cgroups: %w", err)
	}
	return Cgroups{root: CgroupRoot, v2: st.Type == unix.CGROUP2_SUPER_MAGIC}, nil
}

// Unified tells whether the host has cgroup version 2 only.
func (c Cgroups) Unified() bool { return c.v2 }

// SwapAccounted tells whether memory limits can cover swap in version 1.
func (c Cgroups) SwapAccounted() bool {
	_, err := os.Stat(filepath.Join(c.root, "memory", "memory.memsw.limit_in_bytes"))
	return err == nil
}

// LimitsHugePages tells whether a cgroup can limit huge pages.
func (c Cgroups) LimitsHugePages() bool {
	if !c.v2 {
		_, err := os.Stat(filepath.Join(c.root, "hugetlb"))
		return err == nil
	}
	raw, err := os.ReadFile(filepath.Join(c.root, "cgroup.controllers"))
	return err == nil && slices.Contains(strings.Fields(string(raw)), "hugetlb")
}

// Make creates the cgroup path (relative, as podvine/burstable/podX) with its
// limits, or sets the limits of the one that is there.
func (c Cgroups) Make(path string, l Limits) error {
	if c.v2 {
		return c.makeUnified(path, l)
	}
	set := func(controller, file string, value int64) error {
		dir := filepath.Join(c.root, controller, path)
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return fmt.Errorf("make %s cgroup: %w", controller, err)
		}
		if value == 0 {
			return nil
		}
		if err := os.WriteFile(filepath.Join(dir, file), []byte(strconv.FormatInt(value, 10)), 0o644); err != nil {
			return fmt.Errorf("set %s: %w", file, err)
		}
		return nil
	}
	return errors.Join(
		set("memory", "memory.limit_in_bytes", l.MemoryBytes),
		set("cpu", "cpu.shares", int64(l.CPUShares)),
		set("cpu", "cpu.cfs_quota_us", l.CPUQuotaMicros),
		set("pids", "pids.max", l.Pids),
	)
}

func (c Cgroups) makeUnified(path string, l Limits) error {
	dir := c.root
	for part := range strings.SplitSeq(path, "/") {
		if err := os.WriteFile(filepath.Join(dir, "cgroup.subtree_control"), []byte("+cpu +memory +pids"), 0o644); err != nil {
			return fmt.Errorf("enable cgroup controllers in %s: %w", dir, err)
		}
		dir = filepath.Join(dir, part)
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return fmt.Errorf("make cgroup: %w", err)
		}
	}
	values := map[string]string{}
	if l.MemoryBytes > 0 {
		values["memory.max"] = strconv.FormatInt(l.MemoryBytes, 10)
	}
	if l.CPUShares > 0 {
		values["cpu.weight"] = strconv.FormatUint(1+(l.CPUShares-2)*9999/262142, 10)
	}
	if l.CPUQuotaMicros > 0 {
		values["cpu.max"] = fmt.Sprintf("%d %d", l.CPUQuotaMicros, CPUPeriodMicros)
	}
	if l.Pids > 0 {
		values["pids.max"] = strconv.FormatInt(l.Pids, 10)
	}
	for file, v := range values {
		if err := os.WriteFile(filepath.Join(dir, file), []byte(v), 0o644); err != nil {
			return fmt.Errorf("set %s: %w", file, err)
		}
	}
	return nil
}

const (
	removeTries = 50
	removePause = 10 * time.Millisecond
)

// Remove deletes the cgroup path and what lies below it from every hierarchy.
// The kernel frees a cgroup a moment after its last process; Remove waits for
// that, at most half a second.
func (c Cgroups) Remove(path string) error {
	if path == "" || strings.Contains(path, "..") {
		return fmt.Errorf("remove cgroup: bad path %q", path)
	}
	roots := []string{c.root}
	if !c.v2 {
		entries, err := os.ReadDir(c.root)
		if err != nil {
			return fmt.Errorf("list cgroup hierarchies: %w", err)
		}
		roots = roots[:0]
		for _, e := range entries {
			roots = append(roots, filepath.Join(c.root, e.Name()))
		}
	}
	var errs []error
	for _, root := range roots {
		errs = append(errs, removeTree(filepath.Join(root, path)))
	}
	return errors.Join(errs...)
}

func removeTree(dir string) error {
	entries, err := os.ReadDir(dir)
	if os.IsNotExist(err) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("list cgroup: %w", err)
	}
	for _, e := range entries {
		if e.IsDir() {
			if err := removeTree(filepath.Join(dir, e.Name())); err != nil {
				return err
			}
		}
	}
	for range removeTries {
		err = unix.Rmdir(dir)
		if err == nil || errors.Is(err, unix.ENOENT) {
			return nil
		}
		if !errors.Is(err, unix.EBUSY) {
			break
		}
		time.Sleep(removePause)
	}
	return fmt.Errorf("remove cgroup %s: %w", dir, err)
}
