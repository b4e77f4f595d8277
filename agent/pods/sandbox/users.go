package sandbox

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"syscall"

	"golang.org/x/sys/unix"
)

// pinOwned makes a user namespace and the pod's others inside it. No thread of
// this process may enter a new user namespace, so a helper does, for a moment.
func pinOwned(o Options) (err error) {
	flags := 0
	for _, p := range o.pins() {
		flags |= p.flag
	}
	ids := []syscall.SysProcIDMap{{ContainerID: 0, HostID: int(o.Users.FirstID), Size: int(o.Users.Count)}}
	cmd := exec.Command(o.Users.Helper[0], o.Users.Helper[1:]...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: uintptr(flags), UidMappings: ids, GidMappings: ids, GidMappingsEnableSetgroups: true, Pdeathsig: syscall.SIGKILL}
	// Its death must not hang on which thread started it.
	err = onThread(func() error {
		if err := cmd.Start(); err != nil {
			return fmt.Errorf("make user namespace: %w", err)
		}
		from := fmt.Sprintf("/proc/%d/ns", cmd.Process.Pid)
		err := enterAndName(o, from)
		if err == nil {
			err = pinAll(o, from)
		}
		if kerr := cmd.Process.Kill(); kerr != nil && !errors.Is(kerr, os.ErrProcessDone) {
			err = errors.Join(err, fmt.Errorf("end helper: %w", kerr))
		}
		// Its exit status is the kill.
		_ = cmd.Wait()
		return err
	})
	return err
}

// enterAndName brings the loopback up and sets the host name, from a thread
// inside the new namespaces.
func enterAndName(o Options, from string) error {
	if o.HostNetwork {
		return nil
	}
	return onThread(func() error {
		for _, ns := range []pin{{"net", unix.CLONE_NEWNET}, {"uts", unix.CLONE_NEWUTS}} {
			fd, err := unix.Open(from+"/"+ns.name, unix.O_RDONLY|unix.O_CLOEXEC, 0)
			if err != nil {
				return fmt.Errorf("open %s namespace: %w", ns.name, err)
			}
			err = unix.Setns(fd, ns.flag)
			unix.Close(fd)
			if err != nil {
				return fmt.Errorf("enter %s namespace: %w", ns.name, err)
			}
		}
		if err := loopbackUp(); err != nil {
			return err
		}
		if err := unix.Sethostname([]byte(o.Hostname)); err != nil {
			return fmt.Errorf("set host name: %w", err)
		}
		return nil
	})
}
