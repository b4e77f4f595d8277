// Package testhost gives tests a machine of their own: the test binary runs itself again in new network and mount
// namespaces and in a cgroup of its own, so that what it attaches, routes and mounts never touches the real machine and
// goes with it.
//
// It is for tests only. [Main] belongs in TestMain; everything else takes the *testing.T that ends it.
package testhost

import (
	"bufio"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/podvine/podvine/dataplane/internal/nsrun"
)

const (
	insideVariable = "PODVINE_TEST_HOST_CGROUP"
	// cgroupRemovalLimit bounds the wait for the last process of the test's cgroup.
	cgroupRemovalLimit = 10 * time.Second
	pollInterval       = 5 * time.Millisecond
)

// Main runs the tests in a machine of their own and returns the exit code.
func Main(m *testing.M) int {
	if os.Getenv(insideVariable) == "" {
		code, err := outer()
		if err != nil {
			fmt.Fprintln(os.Stderr, "test host:", err)
			return 1
		}
		return code
	}
	if err := inner(); err != nil {
		fmt.Fprintln(os.Stderr, "test host:", err)
		return 1
	}
	return m.Run()
}

func outer() (code int, err error) {
	root, err := unifiedRoot()
	if err != nil {
		return 0, err
	}
	cgroup := filepath.Join(root, "podvine-test-"+strconv.Itoa(os.Getpid()))
	if err := os.Mkdir(cgroup, 0o755); err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, removeCgroup(cgroup)) }()
	fd, err := os.Open(cgroup)
	if err != nil {
		return 0, err
	}
	defer fd.Close()
	here, there, err := factoryPair()
	if err != nil {
		return 0, err
	}
	defer there.Close()
	go serveFactory(here)
	cmd := exec.Command("/proc/self/exe", os.Args[1:]...)
	cmd.ExtraFiles = []*os.File{there}
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.Env = append(os.Environ(), insideVariable+"="+cgroup)
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Unshareflags: syscall.CLONE_NEWNET | syscall.CLONE_NEWNS,
		Pdeathsig:    syscall.SIGKILL,
		UseCgroupFD:  true,
		CgroupFD:     int(fd.Fd()),
	}
	err = cmd.Run()
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		return exit.ExitCode(), nil
	}
	return 0, err
}

func inner() error {
	unix.CloseOnExec(factoryFD)
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("make mounts private: %w", err)
	}
	lo, err := netlink.LinkByName("lo")
	if err != nil {
		return err
	}
	return netlink.LinkSetUp(lo)
}

func removeCgroup(path string) error {
	deadline := time.Now().Add(cgroupRemovalLimit)
	for {
		err := removeTree(path)
		if err == nil || time.Now().After(deadline) {
			return err
		}
		time.Sleep(pollInterval)
	}
}

// removeTree removes a cgroup and those below it.
func removeTree(path string) error {
	entries, err := os.ReadDir(path)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	for _, e := range entries {
		if e.IsDir() {
			if err := removeTree(filepath.Join(path, e.Name())); err != nil {
				return err
			}
		}
	}
	return os.Remove(path)
}

// unifiedRoot finds where the unified cgroup hierarchy is mounted.
func unifiedRoot() (string, error) {
	f, err := os.Open("/proc/self/mountinfo")
	if err != nil {
		return "", err
	}
	defer f.Close()
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		before, after, _ := strings.Cut(lines.Text(), " - ")
		if fields := strings.Fields(before); strings.HasPrefix(after, "cgroup2 ") && len(fields) > 4 {
			return fields[4], nil
		}
	}
	return "", errors.New("no unified cgroup hierarchy is mounted")
}

// Host is what a test works with.
type Host struct {
	// Cgroup holds the test's own processes.
	Cgroup string
	// BPFFSDir is a folder, not made yet, on a bpf file system of the test.
	BPFFSDir string
	// StateDir is an empty folder.
	StateDir string
}

// New returns a host for one test.
func New(t testing.TB) *Host {
	t.Helper()
	cgroup := os.Getenv(insideVariable)
	if cgroup == "" {
		t.Fatal("the test's TestMain does not call testhost.Main")
	}
	bpffs := t.TempDir()
	must(t, unix.Mount("bpf", bpffs, "bpf", 0, ""))
	t.Cleanup(func() { must(t, unix.Unmount(bpffs, unix.MNT_DETACH)) })
	return &Host{Cgroup: cgroup, BPFFSDir: filepath.Join(bpffs, "podvine"), StateDir: filepath.Join(t.TempDir(), "podnet")}
}

// Netns makes a network namespace with loopback up and returns its path.
func Netns(t testing.TB) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "netns")
	must(t, os.WriteFile(path, nil, 0o600))
	// A thread that enters a new namespace is thrown away with its goroutine; the bind mount keeps the namespace.
	must(t, nsrun.In("/proc/self/ns/net", func() error {
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			return err
		}
		source := fmt.Sprintf("/proc/self/task/%d/ns/net", unix.Gettid())
		return unix.Mount(source, path, "", unix.MS_BIND, "")
	}))
	t.Cleanup(func() { must(t, unix.Unmount(path, unix.MNT_DETACH)) })
	must(t, nsrun.In(path, func() error {
		lo, err := netlink.LinkByName("lo")
		if err != nil {
			return err
		}
		return netlink.LinkSetUp(lo)
	}))
	return path
}

// Outside is another machine, connected to the host's link "uplink".
type Outside struct {
	// Netns is the path of its network namespace: for servers and settings.
	Netns string
	// Place is what clients give to speak from there.
	Place string
}

// The addresses of the host and of the machine outside.
const (
	HostIPv4    = "192.0.2.1"
	HostIPv6    = "2001:db8::1"
	OutsideIPv4 = "192.0.2.2"
	OutsideIPv6 = "2001:db8::2"
)

// NewOutside connects a machine outside. It knows no route to pods or services.
func NewOutside(t testing.TB) *Outside {
	t.Helper()
	netns := Netns(t)
	o := &Outside{Netns: netns, Place: outsidePrefix + netns}
	fd, err := os.Open(o.Netns)
	must(t, err)
	defer fd.Close()
	pair := &netlink.Veth{
		LinkAttrs: netlink.LinkAttrs{Name: "uplink", TxQLen: -1}, PeerName: "eth0", PeerNamespace: netlink.NsFd(fd.Fd()),
	}
	must(t, netlink.LinkAdd(pair))
	t.Cleanup(func() {
		link, err := netlink.LinkByName("uplink")
		must(t, err)
		must(t, netlink.LinkDel(link))
	})
	must(t, raise("uplink", HostIPv4+"/24", HostIPv6+"/64"))
	must(t, nsrun.In(o.Netns, func() error { return raise("eth0", OutsideIPv4+"/24", OutsideIPv6+"/64") }))
	for _, end := range []struct{ netns, link string }{{"", "uplink"}, {o.Netns, "eth0"}} {
		Eventually(t, exchangeLimit, "link "+end.link+" is up", func() bool { return isUp(end.netns, end.link) })
	}
	return o
}

func raise(name string, addrs ...string) error {
	link, err := netlink.LinkByName(name)
	if err != nil {
		return err
	}
	for _, a := range addrs {
		addr, err := netlink.ParseAddr(a)
		if err != nil {
			return err
		}
		if addr.IP.To4() == nil {
			addr.Flags = unix.IFA_F_NODAD
		}
		if err := netlink.AddrAdd(link, addr); err != nil {
			return err
		}
	}
	return netlink.LinkSetUp(link)
}

// Eventually polls until the condition holds or the limit is over.
func Eventually(t testing.TB, limit time.Duration, what string, condition func() bool) {
	t.Helper()
	deadline := time.Now().Add(limit)
	for !condition() {
		if time.Now().After(deadline) {
			t.Fatalf("after %s still not: %s", limit, what)
		}
		time.Sleep(pollInterval)
	}
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// Route adds a route in a network namespace.
func Route(t testing.TB, netns, destination, via string) {
	t.Helper()
	must(t, nsrun.In(netns, func() error {
		to, err := netlink.ParseIPNet(destination)
		if err != nil {
			return err
		}
		return netlink.RouteAdd(&netlink.Route{Dst: to, Gw: net.ParseIP(via)})
	}))
}

// isUp reports whether a link carries packets, which the kernel lets it do only some time after it was raised.
func isUp(netns, link string) bool {
	up := false
	err := nsrun.In(netns, func() error {
		l, err := netlink.LinkByName(link)
		up = err == nil && l.Attrs().OperState == netlink.OperUp
		return err
	})
	return err == nil && up
}
