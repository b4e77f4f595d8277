// Package sandbox makes what the containers of one pod share without any pause
// process: pinned network, IPC and UTS namespaces, /dev/shm, and the pod's
// cgroup with its limits.
//
// Ownership: everything of a pod lies below one folder (namespaces, shm) and
// one cgroup path, so that it can be found and removed after a crash. Make and
// Remove may be repeated.
//
// Concurrency: different pods may be made at once; calls for one pod must not
// overlap.
package sandbox

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"

	"golang.org/x/sys/unix"
)

// ShmBytes is the size of a pod's /dev/shm.
const ShmBytes = 64 << 20

// nsfsMagic is the file system type of a pinned namespace.
const nsfsMagic = 0x6e736673

// Options say what the pod has of its own.
type Options struct {
	// Dir holds the pins; it belongs to this package.
	Dir string
	// Hostname of the UTS namespace.
	Hostname string
	// HostNetwork and HostIPC leave the pod in the host's namespaces. A pod on
	// the host's network keeps the host's name too.
	HostNetwork, HostIPC bool
	// Users gives the pod a user namespace, which owns the others; nil is the
	// host's.
	Users *Users
}

// Users describe a user namespace: its IDs 0 to Count-1 are FirstID and up of
// the host.
type Users struct {
	FirstID, Count uint32
	// Helper is a program that waits; it holds the namespaces until they are pinned.
	Helper []string
}

// Paths are the pinned namespaces; "" is the host's.
type Paths struct {
	Net, IPC, UTS, Shm string
	// User is the namespace of Users, which says how it maps.
	User  string
	Users *Users
}

type pin struct {
	name string
	flag int
}

func (o Options) pins() []pin {
	var p []pin
	if !o.HostNetwork {
		p = append(p, pin{"net", unix.CLONE_NEWNET}, pin{"uts", unix.CLONE_NEWUTS})
	}
	if !o.HostIPC {
		p = append(p, pin{"ipc", unix.CLONE_NEWIPC})
	}
	if o.Users != nil {
		p = append(p, pin{"user", unix.CLONE_NEWUSER})
	}
	return p
}

// Make creates the pod's namespaces, or finds those that Make created before;
// fresh tells which.
func Make(o Options) (paths Paths, fresh bool, err error) {
	if complete(o) {
		return o.paths(), false, nil
	}
	if err := Remove(o.Dir); err != nil {
		return Paths{}, false, err
	}
	if err := os.MkdirAll(o.Dir, 0o711); err != nil {
		return Paths{}, false, fmt.Errorf("make sandbox folder: %w", err)
	}
	// The pins come last: with all of them there, everything is.
	if !o.HostIPC {
		if err := mountShm(o.Dir); err != nil {
			return Paths{}, false, errors.Join(err, Remove(o.Dir))
		}
	}
	if o.Users != nil {
		err = pinOwned(o)
	} else {
		err = onThread(func() error { return pinNamespaces(o) })
	}
	if err != nil {
		return Paths{}, false, errors.Join(err, Remove(o.Dir))
	}
	return o.paths(), true, nil
}

func (o Options) paths() Paths {
	p := Paths{Shm: "/dev/shm"}
	if !o.HostNetwork {
		p.Net, p.UTS = filepath.Join(o.Dir, "net"), filepath.Join(o.Dir, "uts")
	}
	if !o.HostIPC {
		p.IPC, p.Shm = filepath.Join(o.Dir, "ipc"), filepath.Join(o.Dir, "shm")
	}
	if o.Users != nil {
		p.User, p.Users = filepath.Join(o.Dir, "user"), o.Users
	}
	return p
}

// Exists tells whether Make's work of before is still there.
func Exists(o Options) bool { return complete(o) }

func complete(o Options) bool {
	if st, err := os.Stat(o.Dir); err != nil || !st.IsDir() {
		return false
	}
	for _, p := range o.pins() {
		var st unix.Statfs_t
		if unix.Statfs(filepath.Join(o.Dir, p.name), &st) != nil || st.Type != nsfsMagic {
			return false
		}
	}
	return true
}

func pinNamespaces(o Options) error {
	flags := 0
	for _, p := range o.pins() {
		flags |= p.flag
	}
	if flags == 0 {
		return nil
	}
	if err := unix.Unshare(flags); err != nil {
		return fmt.Errorf("make namespaces: %w", err)
	}
	if !o.HostNetwork {
		if err := loopbackUp(); err != nil {
			return err
		}
		if err := unix.Sethostname([]byte(o.Hostname)); err != nil {
			return fmt.Errorf("set host name: %w", err)
		}
	}
	return pinAll(o, fmt.Sprintf("/proc/self/task/%d/ns", unix.Gettid()))
}

// pinAll pins the namespaces in a folder of /proc.
func pinAll(o Options, from string) error {
	for _, p := range o.pins() {
		to := filepath.Join(o.Dir, p.name)
		if err := os.WriteFile(to, nil, 0o444); err != nil {
			return fmt.Errorf("make pin: %w", err)
		}
		if err := unix.Mount(filepath.Join(from, p.name), to, "", unix.MS_BIND, ""); err != nil {
			return fmt.Errorf("pin %s namespace: %w", p.name, err)
		}
	}
	return nil
}

// onThread runs f on a thread that is never unlocked: it ends with its
// goroutine, and what it was in lives on in pins.
func onThread(f func() error) error {
	errc := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		errc <- f()
	}()
	return <-errc
}

func loopbackUp() error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("open socket: %w", err)
	}
	defer unix.Close(fd)
	ifr, err := unix.NewIfreq("lo")
	if err != nil {
		return err
	}
	ifr.SetUint16(unix.IFF_UP | unix.IFF_RUNNING)
	if err := unix.IoctlIfreq(fd, unix.SIOCSIFFLAGS, ifr); err != nil {
		return fmt.Errorf("bring loopback up: %w", err)
	}
	return nil
}

func mountShm(dir string) error {
	to := filepath.Join(dir, "shm")
	if err := os.MkdirAll(to, 0o1777); err != nil {
		return fmt.Errorf("make shm folder: %w", err)
	}
	flags := uintptr(unix.MS_NOEXEC | unix.MS_NOSUID | unix.MS_NODEV)
	if err := unix.Mount("shm", to, "tmpfs", flags, fmt.Sprintf("mode=1777,size=%d", ShmBytes)); err != nil {
		return fmt.Errorf("mount shm: %w", err)
	}
	return nil
}

// Remove releases the pins below dir. Namespaces end with their last process.
func Remove(dir string) error {
	for _, name := range []string{"net", "uts", "ipc", "user", "shm"} {
		err := unix.Unmount(filepath.Join(dir, name), unix.MNT_DETACH)
		if err != nil && err != unix.EINVAL && err != unix.ENOENT {
			return fmt.Errorf("release %s: %w", name, err)
		}
	}
	if err := os.RemoveAll(dir); err != nil {
		return fmt.Errorf("remove sandbox folder: %w", err)
	}
	return nil
}

// Enter runs f on a thread inside the network namespace at path; "" is the
// host's.
func Enter(path string, f func() error) error {
	if path == "" {
		return f()
	}
	errc := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // the thread ends with this goroutine
		fd, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
		if err != nil {
			errc <- fmt.Errorf("open network namespace: %w", err)
			return
		}
		defer unix.Close(fd)
		if err := unix.Setns(fd, unix.CLONE_NEWNET); err != nil {
			errc <- fmt.Errorf("enter network namespace: %w", err)
			return
		}
		errc <- f()
	}()
	return <-errc
}
