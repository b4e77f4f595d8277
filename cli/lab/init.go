package lab

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/podvine/podvine/agent/cgroup"
)

// agentRestartPause is how long a host waits before it starts an agent that ended, as systemd would.
const agentRestartPause = time.Second

// The machine speaks to a host's first process in signals.
const (
	signalKillAgent  = syscall.SIGUSR1 // kill -9 the agent and keep it down
	signalStartAgent = syscall.SIGUSR2 // let it run again
)

// binaryPath is where a host finds its podvine.
const binaryPath = "/usr/local/bin/podvine"

// Init is the first process of a test host. It builds the host's file system with binary as its podvine, starts the agent
// with args and keeps it running, and reaps what others leave behind. It returns only when the host is to end.
func Init(name, hostName, binary string, args []string) error {
	pipe := os.NewFile(startPipe, "start")
	word, err := io.ReadAll(pipe)
	if err := errors.Join(err, pipe.Close()); err != nil {
		return fmt.Errorf("wait for the network: %w", err)
	}
	if string(word) != goAhead {
		return errors.New("wait for the network: the command that started this host gave up")
	}
	l := &Lab{Name: name, dir: filepath.Join(Root, name)}
	host := &Host{Name: hostName}
	if err := l.enterRoot(host, binary); err != nil {
		return fmt.Errorf("build the file system of %s: %w", hostName, err)
	}
	if err := unix.Sethostname([]byte(hostName)); err != nil {
		return fmt.Errorf("name the host: %w", err)
	}
	if err := writeIdentity(name, hostName); err != nil {
		return fmt.Errorf("name the host: %w", err)
	}
	return supervise(args)
}

// enterRoot makes the host's root: the machine's own root below an overlay on the host's disk, so that the host has every
// program of the machine and every write stays on its disk.
func (l *Lab) enterRoot(host *Host, binary string) error {
	trees, err := cgroup.Trees()
	if err != nil {
		return err
	}
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("make mounts private: %w", err)
	}
	base := l.mountPath(host)
	if err := unix.Mount("tmpfs", base, "tmpfs", 0, "mode=755"); err != nil {
		return fmt.Errorf("mount on %s: %w", base, err)
	}
	disk, root := filepath.Join(base, "disk"), filepath.Join(base, "root")
	if err := makeFolders(disk, root); err != nil {
		return err
	}
	if out, err := exec.Command("mount", "-o", "loop,noatime", l.diskPath(host), disk).CombinedOutput(); err != nil {
		return fmt.Errorf("mount the disk: %w: %s", err, out)
	}
	upper, work := filepath.Join(disk, "upper"), filepath.Join(disk, "work")
	if err := makeFolders(upper, work); err != nil {
		return err
	}
	if err := unix.Mount("overlay", root, "overlay", 0, fmt.Sprintf("lowerdir=/,upperdir=%s,workdir=%s", upper, work)); err != nil {
		return fmt.Errorf("mount the overlay: %w", err)
	}
	if err := mountDisk(disk, root, binary); err != nil {
		return err
	}
	if err := mountKernel(root, trees); err != nil {
		return err
	}
	return pivot(root)
}

// mountDisk puts the folders that hold much, or that another overlay needs, on the disk itself.
func mountDisk(disk, root, program string) error {
	for name, target := range map[string]string{"podvine": "/var/lib/podvine", "kubelet": "/var/lib/kubelet", "log": "/var/log"} {
		source, target := filepath.Join(disk, name), filepath.Join(root, target)
		if err := makeFolders(source, target); err != nil {
			return err
		}
		if err := unix.Mount(source, target, "", unix.MS_BIND, ""); err != nil {
			return fmt.Errorf("mount %s: %w", target, err)
		}
	}
	binary := filepath.Join(root, binaryPath)
	if err := os.WriteFile(binary, nil, 0o755); err != nil {
		return err
	}
	if err := unix.Mount(program, binary, "", unix.MS_BIND, ""); err != nil {
		return fmt.Errorf("mount %s: %w", binary, err)
	}
	return nil
}

// mountKernel mounts what the kernel offers: each host sees its own processes, network and cgroups.
func mountKernel(root string, trees []cgroup.Tree) error {
	mounts := []struct {
		fstype, target, data string
		flags                uintptr
	}{
		{"proc", "/proc", "", 0},
		{"tmpfs", "/run", "mode=755", 0},
		{"tmpfs", "/tmp", "mode=1777", 0},
		{"sysfs", "/sys", "", 0},
		{"bpf", "/sys/fs/bpf", "", 0},
	}
	for _, m := range mounts {
		if err := unix.Mount(m.fstype, filepath.Join(root, m.target), m.fstype, m.flags, m.data); err != nil {
			return fmt.Errorf("mount %s: %w", m.target, err)
		}
	}
	if err := unix.Mount("/dev", filepath.Join(root, "dev"), "", unix.MS_BIND|unix.MS_REC, ""); err != nil {
		return fmt.Errorf("mount /dev: %w", err)
	}
	if err := unix.Mount("tmpfs", filepath.Join(root, "dev/shm"), "tmpfs", 0, "mode=1777"); err != nil {
		return fmt.Errorf("mount /dev/shm: %w", err)
	}
	const top = "/sys/fs/cgroup"
	if trees[0].Mount != top || len(trees) > 1 {
		if err := unix.Mount("tmpfs", filepath.Join(root, top), "tmpfs", 0, "mode=755"); err != nil {
			return fmt.Errorf("mount %s: %w", top, err)
		}
	}
	for _, tree := range trees {
		target := filepath.Join(root, tree.Mount)
		if err := makeFolders(target); err != nil {
			return err
		}
		if err := unix.Mount(tree.Type, target, tree.Type, 0, strings.Join(tree.Options, ",")); err != nil {
			return fmt.Errorf("mount %s: %w", tree.Mount, err)
		}
	}
	return makeFolders(filepath.Join(root, "run/netns"), filepath.Join(root, "run/lock"))
}

// pivot makes root the root, and forgets the machine's.
func pivot(root string) error {
	if err := unix.Chdir(root); err != nil {
		return err
	}
	if err := unix.PivotRoot(".", "."); err != nil {
		return fmt.Errorf("change the root: %w", err)
	}
	if err := unix.Unmount(".", unix.MNT_DETACH); err != nil {
		return fmt.Errorf("leave the machine's root: %w", err)
	}
	return unix.Chdir("/")
}

func makeFolders(paths ...string) error {
	for _, path := range paths {
		if err := os.MkdirAll(path, 0o755); err != nil {
			return err
		}
	}
	return nil
}

// writeIdentity gives the host what differs between machines.
func writeIdentity(lab, host string) error {
	sum := sha256.Sum256([]byte("podvine lab " + lab + "/" + host))
	for path, content := range map[string]string{
		"/etc/machine-id": hex.EncodeToString(sum[:16]) + "\n",
		"/etc/hostname":   host + "\n",
		"/etc/hosts":      "127.0.0.1 localhost\n::1 localhost\n127.0.1.1 " + host + "\n",
	} {
		if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
			return err
		}
	}
	return nil
}

// supervise keeps the agent running until the host is told to end, and reaps every child, its own or adopted.
func supervise(args []string) error {
	signals := make(chan os.Signal, 16)
	signal.Notify(signals, syscall.SIGCHLD, syscall.SIGTERM, signalKillAgent, signalStartAgent)
	agent, err := startAgent(args)
	if err != nil {
		return err
	}
	var held, ending bool
	restart := time.NewTimer(0)
	restart.Stop()
	for {
		select {
		case s := <-signals:
			switch s {
			case syscall.SIGCHLD:
				if slices.Contains(reap(), agent) {
					agent = 0
					if ending {
						return nil
					}
					restart.Reset(agentRestartPause)
				}
			case syscall.SIGTERM:
				ending = true
				if agent == 0 {
					return nil
				}
				err = syscall.Kill(agent, syscall.SIGTERM)
			case signalKillAgent:
				held = true
				if agent != 0 {
					err = syscall.Kill(agent, syscall.SIGKILL)
				}
			case signalStartAgent:
				held = false
				restart.Reset(0)
			}
		case <-restart.C:
			if !held && agent == 0 {
				agent, err = startAgent(args)
			}
		}
		if err != nil && !errors.Is(err, syscall.ESRCH) {
			return err
		}
	}
}

func startAgent(args []string) (int, error) {
	if pid, skewed, err := startSkewed(args); skewed {
		return pid, err
	}
	process, err := os.StartProcess(binaryPath, append([]string{binaryPath, "agent"}, args...), &os.ProcAttr{
		Dir: "/", Env: os.Environ(), Files: []*os.File{nil, os.Stdout, os.Stderr},
	})
	if err != nil {
		return 0, fmt.Errorf("start the agent: %w", err)
	}
	pid := process.Pid
	return pid, process.Release() // reap waits for every child
}

// reap collects the children that have ended, and returns their process IDs.
func reap() []int {
	var ended []int
	for {
		pid, err := syscall.Wait4(-1, nil, syscall.WNOHANG, nil)
		if errors.Is(err, syscall.EINTR) {
			continue
		}
		if err != nil || pid <= 0 {
			return ended
		}
		ended = append(ended, pid)
	}
}
