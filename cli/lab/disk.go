package lab

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// DiskFault is what a host's disk does.
type DiskFault string

// The faults of a disk.
const (
	// DiskOK undoes every other fault.
	DiskOK DiskFault = "ok"
	// DiskSlow lets a write through only now and then, see slowHold.
	DiskSlow DiskFault = "slow"
	// DiskHang has every write wait.
	DiskHang DiskFault = "hang"
	// DiskFull leaves no byte free.
	DiskFull DiskFault = "full"
)

// DiskFaults are all of them.
var DiskFaults = []DiskFault{DiskSlow, DiskHang, DiskFull, DiskOK}

const (
	// slowHold is how long a slow disk holds writes back, and slowPass how long it then lets them through. A write waits
	// 240 ms on average: the pace of a worn flash card. Kernels with neither dm-delay nor a throttle for the journal's own
	// thread can do this.
	slowHold = 500 * time.Millisecond
	slowPass = 20 * time.Millisecond

	ballastName = ".podvine-lab-ballast"
	// ballastPiece is the first size to fill a disk by; it is halved down to ballastLast.
	ballastPiece = 1 << 30
	ballastLast  = 4 << 10
)

// fsFreeze and fsThaw are FIFREEZE and FITHAW of linux/fs.h, which x/sys does not have.
const (
	fsFreeze = 0xc0045877
	fsThaw   = 0xc0045878
)

// SetDisk has the host's disk do what the fault says, from outside of the host.
func (l *Lab) SetDisk(host *Host, fault DiskFault) error {
	if !host.Up() {
		return fmt.Errorf("change the disk of %s: the host is down", host.Name)
	}
	if err := l.mendDisk(host); err != nil {
		return err
	}
	var err error
	switch fault {
	case DiskOK:
	case DiskHang:
		err = freezeDisk(host, true)
	case DiskFull:
		err = fillDisk(host)
	case DiskSlow:
		err = l.slowDisk(host)
	default:
		err = fmt.Errorf("no such fault: %q (there are %v)", fault, DiskFaults)
	}
	if err != nil {
		return fmt.Errorf("change the disk of %s: %w", host.Name, err)
	}
	return l.save()
}

// mendDisk undoes every fault of the disk of a host that is up.
func (l *Lab) mendDisk(host *Host) error {
	if err := host.Slower.signal(syscall.SIGKILL); err != nil {
		return fmt.Errorf("mend the disk of %s: %w", host.Name, err)
	}
	host.Slower = process{}
	if err := errors.Join(freezeDisk(host, false), os.RemoveAll(ballastPath(host))); err != nil {
		return fmt.Errorf("mend the disk of %s: %w", host.Name, err)
	}
	return l.save()
}

// diskFolder is a folder on the host's disk, as the machine sees it.
func diskFolder(host *Host) string {
	return filepath.Join("/proc", strconv.Itoa(host.Init.PID), "root/var/log")
}

func ballastPath(host *Host) string { return filepath.Join(diskFolder(host), ballastName) }

// freezeDisk holds all writes to the disk back, or lets them through; the disk may be so already.
func freezeDisk(host *Host, frozen bool) error {
	folder, err := os.Open(diskFolder(host))
	if err != nil {
		return err
	}
	defer folder.Close()
	request, verb, already := uint(fsThaw), "thaw", unix.EINVAL
	if frozen {
		request, verb, already = fsFreeze, "freeze", unix.EBUSY
	}
	if err := unix.IoctlSetInt(int(folder.Fd()), request, 0); err != nil && !errors.Is(err, already) {
		return fmt.Errorf("%s the file system: %w", verb, err)
	}
	return nil
}

// fillDisk takes every free block for a file that holds nothing, so that the machine's own disk does not fill.
func fillDisk(host *Host) error {
	ballast, err := os.OpenFile(ballastPath(host), os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer ballast.Close()
	var size int64
	for piece := int64(ballastPiece); piece >= ballastLast; {
		switch err := unix.Fallocate(int(ballast.Fd()), 0, size, piece); {
		case errors.Is(err, unix.ENOSPC):
			piece /= 2
		case errors.Is(err, unix.EINTR):
		case err != nil:
			return fmt.Errorf("fill the disk: %w", err)
		default:
			size += piece
		}
	}
	return nil
}

// slowDisk starts the process that holds the disk's writes back.
func (l *Lab) slowDisk(host *Host) error {
	command := exec.Command("/proc/self/exe", "lab", "slow", "--name", l.Name, host.Name)
	command.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := command.Start(); err != nil {
		return fmt.Errorf("start the process that slows the disk: %w", err)
	}
	var err error
	if host.Slower, err = remember(command.Process.Pid); err != nil {
		return err
	}
	return command.Process.Release()
}

// Slow is the hidden command that slows a host's disk until ctx or the host ends.
func Slow(ctx context.Context, name, hostName string) error {
	l, err := Read(name)
	if err != nil {
		return err
	}
	host, err := l.Host(hostName)
	if err != nil {
		return err
	}
	for frozen := true; host.Up(); frozen = !frozen {
		if err := freezeDisk(host, frozen); errors.Is(err, fs.ErrNotExist) {
			return nil
		} else if err != nil {
			return err
		}
		pause := slowPass
		if frozen {
			pause = slowHold
		}
		select {
		case <-ctx.Done():
			return freezeDisk(host, false)
		case <-time.After(pause):
		}
	}
	return nil
}
