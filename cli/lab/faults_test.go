package lab

import (
	"context"
	"errors"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// bareLab is a lab whose hosts are first processes without agents: enough for the network and the disks.
func bareLab(t *testing.T, name string, hosts int) *Lab {
	t.Helper()
	l, err := create(name)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		l.Hosts = nil
		if err := errors.Join(l.save(), l.Close(), Down(context.Background(), name)); err != nil {
			t.Error(err)
		}
	})
	if err := l.makeSwitch(); err != nil {
		t.Fatal(err)
	}
	for i := range hosts {
		host := &Host{Name: hostName(i + 1), Address: hostAddress(i + 1)}
		l.Hosts = append(l.Hosts, host)
		image := filepath.Join(t.TempDir(), "disk.img")
		script := "truncate -s 64M " + image + " && mkfs.ext4 -q -m 0 " + image + " && mount -o loop,noatime " + image +
			" /var/log && echo up && exec sleep 600"
		first := exec.Command("unshare", "--mount", "--net", "sh", "-c", script)
		first.Stderr = os.Stderr
		out, err := first.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := first.Start(); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			if host.Up() {
				if err := l.mendDisk(host); err != nil {
					t.Error(err)
				}
			}
			if err := first.Process.Kill(); err != nil {
				t.Error(err)
			}
			if err := first.Wait(); err == nil {
				t.Error("the first process was not killed")
			}
		})
		if _, err := out.Read(make([]byte, 8)); err != nil {
			t.Fatalf("wait for %s: %v", host.Name, err)
		}
		if host.Init, err = remember(first.Process.Pid); err != nil {
			t.Fatal(err)
		}
		if err := l.plugIn(host); err != nil {
			t.Fatal(err)
		}
	}
	if err := l.save(); err != nil {
		t.Fatal(err)
	}
	return l
}

// hears tells whether a datagram arrives. Who has which address is known to all, so that one direction alone counts.
func hears(t *testing.T, from, to *Host) bool {
	t.Helper()
	const limit, pause = 400 * time.Millisecond, 20 * time.Millisecond
	before := received(t, to)
	inside(t, from, "bash", "-c", "echo x > /dev/udp/"+to.Address.String()+"/9")
	for begun := time.Now(); time.Since(begun) < limit; <-time.After(pause) {
		if received(t, to) > before {
			return true
		}
	}
	return false
}

// received counts the datagrams that came to ports where nothing listens.
func received(t *testing.T, host *Host) int {
	t.Helper()
	count, err := strconv.Atoi(strings.Fields(inside(t, host, "grep", "^Udp: [0-9]", "/proc/net/snmp"))[2])
	if err != nil {
		t.Fatal(err)
	}
	return count
}

func inside(t *testing.T, host *Host, command ...string) string {
	t.Helper()
	target := strconv.Itoa(host.Init.PID)
	out, err := exec.Command("nsenter", append([]string{"--target", target, "--net", "--mount", "--"}, command...)...).CombinedOutput()
	if err != nil {
		t.Fatalf("%v in %s: %v: %s", command, host.Name, err, out)
	}
	return string(out)
}

func TestCuts(t *testing.T) {
	l := bareLab(t, "cut-test", 3)
	for _, host := range l.Hosts {
		for _, other := range l.Hosts {
			if host != other {
				mac := strings.TrimSpace(inside(t, other, "sh", "-c", "ip -o link show eth0 | sed 's/.*ether //; s/ .*//'"))
				inside(t, host, "ip", "neigh", "replace", other.Address.String(), "lladdr", mac, "dev", "eth0", "nud", "permanent")
			}
		}
	}
	h1, h2, h3 := l.Hosts[0], l.Hosts[1], l.Hosts[2]
	expect := func(what string, want map[[2]*Host]bool) {
		t.Helper()
		for pair, open := range want {
			if got := hears(t, pair[0], pair[1]); got != open {
				t.Errorf("%s: %s reaches %s: %v, want %v", what, pair[0].Name, pair[1].Name, got, open)
			}
		}
	}
	expect("whole", map[[2]*Host]bool{{h1, h2}: true, {h2, h1}: true})
	if err := l.Cut(h1, h2, true); err != nil {
		t.Fatal(err)
	}
	expect("cut one way", map[[2]*Host]bool{{h1, h2}: false, {h2, h1}: true, {h1, h3}: true})
	if err := l.Cut(h1, h2, false); err != nil {
		t.Fatal(err)
	}
	expect("cut", map[[2]*Host]bool{{h1, h2}: false, {h2, h1}: false, {h2, h3}: true})
	if err := l.Isolate(h3); err != nil {
		t.Fatal(err)
	}
	expect("isolated", map[[2]*Host]bool{{h1, h3}: false, {h3, h2}: false})
	read, err := Read(l.Name)
	if err != nil || len(read.Cuts) != 4 {
		t.Errorf("the lab remembers %v, %v", read.Cuts, err)
	}
	if err := l.Heal(); err != nil {
		t.Fatal(err)
	}
	expect("healed", map[[2]*Host]bool{{h1, h2}: true, {h2, h1}: true, {h3, h1}: true})
	if err := l.Cut(h1, h1, false); err == nil {
		t.Error("a host was cut from itself")
	}
}

func TestAddressChanges(t *testing.T) {
	l := bareLab(t, "address-test", 2)
	h1, h2 := l.Hosts[0], l.Hosts[1]
	before := h2.Address
	next := netip.MustParseAddr("10.88.0.77")
	if err := l.SetAddress(h2, next); err != nil {
		t.Fatal(err)
	}
	if addresses := inside(t, h2, "ip", "-o", "-4", "address", "show", "dev", uplinkName); !strings.Contains(addresses, next.String()) || strings.Contains(addresses, before.String()+"/") {
		t.Errorf("the host's addresses are %s", addresses)
	}
	if !hears(t, h1, h2) || !hears(t, h2, h1) {
		t.Error("the host is not reached at its new address, or reaches nobody")
	}
	if route := inside(t, h2, "ip", "route", "show", "default"); !strings.Contains(route, switchAddress().String()) {
		t.Errorf("the host's default route is %q", route)
	}
	read, err := Read(l.Name)
	if err != nil || read.Hosts[1].Address != next {
		t.Errorf("the lab remembers %v, %v", read.Hosts[1].Address, err)
	}
	for _, wrong := range []netip.Addr{h1.Address, switchAddress(), netip.MustParseAddr("10.88.0.0"), netip.MustParseAddr("10.89.0.5"), {}} {
		if err := l.SetAddress(h2, wrong); err == nil {
			t.Errorf("the address %v was accepted", wrong)
		}
	}
	if err := l.SetAddress(h2, next); err != nil {
		t.Errorf("the same address again: %v", err)
	}
}

func TestDiskFaults(t *testing.T) {
	l := bareLab(t, "disk-test", 1)
	host := l.Hosts[0]
	write := func(size int) <-chan error {
		done := make(chan error, 1)
		go func() {
			file, err := os.Create(filepath.Join(diskFolder(host), "file"))
			if err != nil {
				done <- err
				return
			}
			_, err = file.Write(make([]byte, size))
			done <- errors.Join(err, file.Sync(), file.Close())
		}()
		return done
	}
	set := func(fault DiskFault) {
		t.Helper()
		if err := l.SetDisk(host, fault); err != nil {
			t.Fatal(err)
		}
	}
	set(DiskFull)
	if err := <-write(64 << 10); !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("written to a full disk: %v", err)
	}
	set(DiskOK)
	if err := <-write(64 << 10); err != nil {
		t.Errorf("written to a disk that is well again: %v", err)
	}
	set(DiskHang)
	set(DiskHang) // no error
	hanging := write(1)
	select {
	case err := <-hanging:
		t.Errorf("a write to a hanging disk ended: %v", err)
	case <-time.After(300 * time.Millisecond):
	}
	set(DiskOK)
	if err := <-hanging; err != nil {
		t.Errorf("a write that had waited: %v", err)
	}
	ctx, end := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- Slow(ctx, l.Name, host.Name) }()
	begun := time.Now()
	for range 3 {
		if err := <-write(1); err != nil {
			t.Fatal(err)
		}
	}
	if took := time.Since(begun); took < slowHold/2 {
		t.Errorf("three writes to a slow disk took %v", took)
	}
	end()
	if err := <-ended; err != nil {
		t.Errorf("slow the disk: %v", err)
	}
	if err := <-write(1); err != nil {
		t.Error(err)
	}
	if err := l.SetDisk(host, "wet"); err == nil {
		t.Error("a fault that is none was accepted")
	}
}
