package agent

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/podvine/podvine/agent/cgroup"
	"github.com/podvine/podvine/dataplane/podnet"
	"github.com/podvine/podvine/dataplane/services"
	"github.com/podvine/podvine/dataplane/tunnel"
)

const (
	// bpffsDir holds pinned programs and maps.
	bpffsDir = "/sys/fs/bpf/podvine"
	// runDir holds what does not outlive a reboot.
	runDir = "/run/podvine"
	// cgroupName is the cgroup below which all pods are.
	cgroupName = "podvine"
	// endTimeout bounds the wait for killed processes to be gone.
	endTimeout = 20 * time.Second
)

// Reset removes every trace of the agent from the machine: processes, mounts, cgroups, network, programs and data. It refuses
// while an agent runs, and may be repeated. progress hears of each step.
func Reset(ctx context.Context, config Config, progress func(step string)) error {
	unlock, err := lockForReset(config)
	if err != nil {
		return err
	}
	defer unlock()
	if err := removeTraces(ctx, config, progress); err != nil {
		return err
	}
	progress("removing data")
	return removeAll(config)
}

// removeTraces removes what the agent made on the machine but for its files. It may be repeated.
func removeTraces(ctx context.Context, config Config, progress func(step string)) error {
	ctx, cancel := context.WithTimeout(ctx, endTimeout)
	defer cancel()
	steps := []struct {
		name string
		do   func() error
	}{
		{"ending pods", func() error { return cgroup.Kill(cgroupName) }},
		{"ending shims and netd", func() error { return killPrograms(filepath.Join(config.DataDir, "programs")) }},
		{"removing the tunnel", func() error { return tunnel.Reset(filepath.Join(config.DataDir, "tunnel")) }},
		{"removing the service proxy", func() error { return services.Reset(bpffsDir) }},
		{"removing the pod network", func() error {
			return podnet.Reset(podnet.Config{StateDir: filepath.Join(config.DataDir, "network"), BPFFSDir: bpffsDir, Logger: slog.New(slog.DiscardHandler)})
		}},
		{"unmounting", func() error { return unmountBelow(runDir, config.DataDir, config.KubeletDir) }},
		{"removing cgroups", func() error { return cgroup.Remove(ctx, cgroupName) }},
	}
	for _, step := range steps {
		progress(step.name)
		if err := step.do(); err != nil {
			return fmt.Errorf("%s: %w", step.name, err)
		}
	}
	return nil
}

// lockForReset makes sure that no agent runs. Without a data folder there is nothing to lock.
func lockForReset(config Config) (unlock func(), err error) {
	lock, err := os.Open(filepath.Join(config.DataDir, "lock"))
	if errors.Is(err, fs.ErrNotExist) {
		return func() {}, nil
	}
	if err != nil {
		return nil, fmt.Errorf("open the data folder: %w", err)
	}
	if err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		if errors.Is(err, syscall.EWOULDBLOCK) {
			err = errors.New("the agent runs: stop it first")
		}
		return nil, errors.Join(fmt.Errorf("lock the data folder %s: %w", config.DataDir, err), lock.Close())
	}
	return func() { lock.Close() }, nil
}

// killPrograms ends every process whose program lies in the folder, and waits until they are gone.
func killPrograms(folder string) error {
	const pause = 20 * time.Millisecond
	for deadline := time.Now().Add(endTimeout); ; {
		running, err := programsOf(folder)
		if err != nil || len(running) == 0 {
			return err
		}
		for _, pid := range running {
			if err := syscall.Kill(pid, syscall.SIGKILL); err != nil && !errors.Is(err, syscall.ESRCH) {
				return fmt.Errorf("end process %d: %w", pid, err)
			}
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("processes %v do not end", running)
		}
		time.Sleep(pause)
	}
}

func programsOf(folder string) ([]int, error) {
	links, err := filepath.Glob("/proc/[0-9]*/exe")
	if err != nil {
		return nil, err
	}
	// The same path in another mount namespace is another file: that of a lab's host, say.
	own, err := os.Readlink("/proc/self/ns/mnt")
	if err != nil {
		return nil, err
	}
	var running []int
	for _, link := range links {
		program, programErr := os.Readlink(link)
		namespace, namespaceErr := os.Readlink(filepath.Join(filepath.Dir(link), "ns/mnt"))
		if programErr != nil || namespaceErr != nil {
			continue // a kernel thread, or a process that has just ended
		}
		if namespace == own && strings.HasPrefix(program, folder+"/") {
			pid, err := strconv.Atoi(strings.Split(link, "/")[2])
			if err != nil {
				return nil, err
			}
			running = append(running, pid)
		}
	}
	return running, nil
}

// unmountBelow unmounts everything that is mounted in the folders, the innermost first, and makes sure that nothing is left:
// what is mounted there may be a user's own folder, and the folders are about to be deleted. Namespaces of pods are mounts
// too.
func unmountBelow(folders ...string) error {
	targets, err := mountsBelow(folders)
	if err != nil {
		return err
	}
	for _, target := range slices.Backward(targets) {
		if err := unix.Unmount(target, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW); err != nil && !errors.Is(err, unix.EINVAL) && !errors.Is(err, unix.ENOENT) {
			return fmt.Errorf("unmount %s: %w", target, err)
		}
	}
	left, err := mountsBelow(folders)
	if err == nil && len(left) > 0 {
		err = fmt.Errorf("%s are still mounted: nothing is deleted", strings.Join(left, ", "))
	}
	return err
}

// mountsBelow lists what is mounted in the folders, in the order in which it was mounted. Labs are other machines as far as
// this one is concerned.
func mountsBelow(folders []string) ([]string, error) {
	content, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return nil, err
	}
	var real []string
	for _, folder := range folders {
		resolved, err := filepath.EvalSymlinks(folder) // mountinfo knows no symbolic links
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, err
		}
		real = append(real, resolved)
	}
	var targets []string
	for line := range strings.Lines(string(content)) {
		fields := strings.Fields(line)
		if len(fields) < 5 {
			continue
		}
		target := unescape(fields[4])
		below := func(folder string) bool {
			return strings.HasPrefix(target, folder+"/") && !strings.HasPrefix(target, folder+"/labs/")
		}
		if slices.ContainsFunc(real, below) {
			targets = append(targets, target)
		}
	}
	return targets, nil
}

// unescape turns the kernel's octal escapes in a mount's path back.
func unescape(path string) string {
	return strings.NewReplacer(`\040`, " ", `\011`, "\t", `\012`, "\n", `\134`, `\`).Replace(path)
}

// removeAll removes the agent's files. The data folder itself may be a mount, so its content goes first; labs stay, since
// they are other machines as far as this one is concerned, and so do the files of those names.
func removeAll(config Config, kept ...string) error {
	gone := []string{
		runDir, bpffsDir, config.ConfigDir, filepath.Join(config.KubeletDir, "pods"),
		filepath.Join(config.LogDir, "pods"), filepath.Join(config.LogDir, "containers"),
	}
	entries, err := os.ReadDir(config.DataDir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	for _, entry := range entries {
		if entry.Name() != "labs" && !slices.Contains(kept, entry.Name()) {
			gone = append(gone, filepath.Join(config.DataDir, entry.Name()))
		}
	}
	for _, path := range gone {
		if err := os.RemoveAll(path); err != nil {
			return err
		}
	}
	for _, path := range []string{config.DataDir, config.KubeletDir} {
		err := os.Remove(path)
		if err != nil && !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, syscall.ENOTEMPTY) && !errors.Is(err, syscall.EBUSY) {
			return err
		}
	}
	return nil
}
