package lab

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/podvine/podvine/agent/cgroup"
	"github.com/podvine/podvine/agent/join"
)

// cgroupRoot is the cgroup, in every hierarchy, below which labs keep their hosts.
const cgroupRoot = "podvine-lab"

// cgroupPath is the cgroup of a lab's host, or with host "" of the whole lab.
func cgroupPath(lab, host string) string { return path.Join(cgroupRoot, lab, host) }

const (
	// goAhead is what a host's first process waits for on its start pipe: its network is there.
	goAhead = "go\n"
	// startPipe is that pipe's file descriptor.
	startPipe = 3
	// endTimeout bounds the wait for a killed host's processes and mounts to be gone.
	endTimeout = 20 * time.Second
)

// start brings the host up: a first process in namespaces and cgroups of its own, plugged into the switch. A host that is no
// member of the cluster yet joins it with the token.
func (l *Lab) start(host *Host, token string) error {
	if host.Up() {
		return nil
	}
	if err := l.makeDisk(host); err != nil {
		return err
	}
	if err := cgroup.Make(cgroupPath(l.Name, host.Name)); err != nil {
		return err
	}
	reader, writer, err := os.Pipe()
	if err != nil {
		return fmt.Errorf("make the start pipe of %s: %w", host.Name, err)
	}
	defer reader.Close()
	host.Init, err = l.boot(host, reader, token)
	if err == nil {
		err = l.plugIn(host)
	}
	if err == nil {
		_, err = io.WriteString(writer, goAhead)
	}
	// Without the go-ahead the first process ends when the pipe closes.
	return errors.Join(err, writer.Close(), l.save())
}

// boot runs the hidden command that enters the cgroups, starts the first process and prints its ID.
func (l *Lab) boot(host *Host, pipe *os.File, token string) (process, error) {
	log, err := os.OpenFile(l.LogPath(host), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return process{}, fmt.Errorf("open the log of %s: %w", host.Name, err)
	}
	defer log.Close()
	command := exec.Command("/proc/self/exe", "lab", "boot", "--name", l.Name, host.Name)
	command.ExtraFiles, command.Stderr = []*os.File{pipe}, log
	if token != "" {
		command.Env = append(os.Environ(), join.TokenVariable+"="+token)
	}
	command.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	printed, err := command.Output()
	if err != nil {
		return process{}, fmt.Errorf("boot %s (its log is %s): %w", host.Name, l.LogPath(host), err)
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(printed)))
	if err != nil {
		return process{}, fmt.Errorf("boot %s: %w", host.Name, err)
	}
	return remember(pid)
}

// Boot is the hidden command between a `lab up` and a host's first process. It becomes a part of the host's cgroups,
// which a cgroup namespace takes as its root when it is made, starts [Init] in new namespaces and prints its process ID.
func Boot(name, hostName string, out io.Writer) error {
	if err := cgroup.Join(cgroupPath(name, hostName)); err != nil {
		return err
	}
	binary, err := os.Executable()
	if err != nil {
		return fmt.Errorf("find this program: %w", err)
	}
	command := exec.Command(binary, "lab", "init", "--name", name, "--binary", binary, hostName)
	command.ExtraFiles = []*os.File{os.NewFile(startPipe, "start")}
	command.Stdout, command.Stderr = os.Stderr, os.Stderr
	command.SysProcAttr = &syscall.SysProcAttr{
		Setsid: true,
		Cloneflags: syscall.CLONE_NEWNS | syscall.CLONE_NEWUTS | syscall.CLONE_NEWIPC | syscall.CLONE_NEWPID |
			syscall.CLONE_NEWNET | syscall.CLONE_NEWCGROUP,
	}
	if err := command.Start(); err != nil {
		return fmt.Errorf("start the first process of %s: %w", hostName, err)
	}
	_, err = fmt.Fprintln(out, command.Process.Pid)
	return err
}

// LogPath is the file with everything that the host's agent has printed.
func (l *Lab) LogPath(host *Host) string { return l.path("hosts", host.Name, "agent.log") }

func (l *Lab) diskPath(host *Host) string { return l.path("hosts", host.Name, "disk.img") }

// mountPath is where the host's root file system is mounted, in the host's own mount namespace alone.
func (l *Lab) mountPath(host *Host) string { return l.path("hosts", host.Name, "root") }

// makeDisk makes the host's folder and disk image where they are missing.
func (l *Lab) makeDisk(host *Host) error {
	if err := os.MkdirAll(l.mountPath(host), 0o755); err != nil {
		return fmt.Errorf("make the folder of %s: %w", host.Name, err)
	}
	disk := l.diskPath(host)
	if _, err := os.Stat(disk); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	image, err := os.OpenFile(disk+".new", os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o600)
	if err != nil {
		return fmt.Errorf("make the disk of %s: %w", host.Name, err)
	}
	if err := errors.Join(image.Truncate(diskBytes), image.Close()); err != nil {
		return fmt.Errorf("make the disk of %s: %w", host.Name, err)
	}
	// Without lazy initialisation, since nothing but a sparse file is behind it and the kernel would write to it later.
	options := "lazy_itable_init=0,lazy_journal_init=0,nodiscard"
	if out, err := exec.Command("mkfs.ext4", "-q", "-m", "0", "-J", "size=64", "-N", "262144", "-E", options, disk+".new").CombinedOutput(); err != nil {
		return fmt.Errorf("make the disk of %s: mkfs.ext4: %w: %s", host.Name, err, out)
	}
	return os.Rename(disk+".new", disk)
}

// kill ends the host at once, as a power cut would, and waits until the kernel has taken everything down.
func (l *Lab) kill(ctx context.Context, host *Host) error {
	if host.Init == (process{}) {
		return nil
	}
	if host.Up() {
		if err := l.mendDisk(host); err != nil { // nor does one that waits for its disk
			return err
		}
		if err := cgroup.Freeze(cgroupPath(l.Name, host.Name), false); err != nil { // a frozen process does not die
			return err
		}
		if err := host.Init.signal(syscall.SIGKILL); err != nil {
			return fmt.Errorf("kill %s: %w", host.Name, err)
		}
	}
	ctx, cancel := context.WithTimeout(ctx, endTimeout)
	defer cancel()
	if err := cgroup.Remove(ctx, cgroupPath(l.Name, host.Name)); err != nil {
		return fmt.Errorf("wait for the end of %s: %w", host.Name, err)
	}
	host.Init = process{}
	return l.save()
}
