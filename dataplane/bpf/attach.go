package bpf

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// Attach puts the socket programs on a cgroup of the unified hierarchy and so on every process below it. Links that an
// earlier agent pinned are switched to these programs in place.
func (s *Sockets) Attach(cgroupPath string) error {
	var stat unix.Stat_t
	if err := unix.Stat(cgroupPath, &stat); err != nil {
		return fmt.Errorf("look at cgroup %s: %w", cgroupPath, err)
	}
	p := &s.objects.socketsPrograms
	hooks := []struct {
		name    string
		attach  ebpf.AttachType
		program *ebpf.Program
	}{
		// What ends and what answers comes first: a connection that is translated must find its way back translated too.
		{"release", ebpf.AttachCgroupInetSockRelease, p.PvRelease},
		{"getpeername4", ebpf.AttachCgroupInet4GetPeername, p.PvGetpeername4},
		{"getpeername6", ebpf.AttachCgroupInet6GetPeername, p.PvGetpeername6},
		{"recvmsg4", ebpf.AttachCGroupUDP4Recvmsg, p.PvRecvmsg4},
		{"recvmsg6", ebpf.AttachCGroupUDP6Recvmsg, p.PvRecvmsg6},
		{"sendmsg4", ebpf.AttachCGroupUDP4Sendmsg, p.PvSendmsg4},
		{"sendmsg6", ebpf.AttachCGroupUDP6Sendmsg, p.PvSendmsg6},
		{"connect4", ebpf.AttachCGroupInet4Connect, p.PvConnect4},
		{"connect6", ebpf.AttachCGroupInet6Connect, p.PvConnect6},
	}
	for _, h := range hooks {
		pin := pinnedLink{
			path:    filepath.Join(s.dir, linksFolder, "cgroup-"+h.name),
			program: h.program,
			current: func(info *link.Info) bool {
				cgroup := info.Cgroup()
				return cgroup != nil && cgroup.CgroupId == stat.Ino
			},
			attach: func() (link.Link, error) {
				return link.AttachCgroup(link.CgroupOptions{Path: cgroupPath, Attach: h.attach, Program: h.program})
			},
		}
		if err := pin.ensure(); err != nil {
			return fmt.Errorf("attach %s: %w", h.name, unsupported("cgroup hook "+h.name, "5.8", err))
		}
	}
	return nil
}

// side is one of the places on a link where programs are.
type side struct {
	suffix string
	tcx    ebpf.AttachType
	parent uint32 // of the filter, on kernels without TCX
}

func sides() (in, out, pod, toPod, tunnel side) {
	return side{"in", ebpf.AttachTCXIngress, netlink.HANDLE_MIN_INGRESS},
		side{"out", ebpf.AttachTCXEgress, netlink.HANDLE_MIN_EGRESS},
		side{"pod", ebpf.AttachTCXIngress, netlink.HANDLE_MIN_INGRESS},
		side{"topod", ebpf.AttachTCXEgress, netlink.HANDLE_MIN_EGRESS},
		side{"tunnel", ebpf.AttachTCXIngress, netlink.HANDLE_MIN_INGRESS}
}

// AttachOutside puts the programs for the outside world on a link; name is the link's name.
func (p *Packets) AttachOutside(name string, ifindex int) error {
	in, out, _, _, _ := sides()
	if err := p.attach(name, ifindex, in, p.objects.PvFromOutside); err != nil {
		return err
	}
	return p.attach(name, ifindex, out, p.objects.PvToOutside)
}

// AttachPod puts the programs for a pod's packets, and for what the host's own stack answers, on the host's end of the
// pod's link.
func (p *Packets) AttachPod(name string, ifindex int) error {
	_, _, pod, toPod, _ := sides()
	if err := p.attach(name, ifindex, toPod, p.objects.PvToOutside); err != nil {
		return err
	}
	return p.attach(name, ifindex, pod, p.objects.PvFromPod)
}

// AttachTunnel puts the program for what comes from other nodes on a tunnel's link. A link without hardware addresses
// (WireGuard, TUN) has another program.
func (p *Packets) AttachTunnel(name string, ifindex int, bare bool) error {
	_, _, _, _, tunnel := sides()
	program := p.objects.PvFromTunnel
	if bare {
		program = p.objects.PvFromTunnelL3
	}
	return p.attach(name, ifindex, tunnel, program)
}

// Detach takes all programs off a link; a link that is gone, or has none, is no error.
func (p *Packets) Detach(name string) error {
	in, out, pod, toPod, tunnel := sides()
	for _, s := range []side{in, out, pod, toPod, tunnel} {
		err := os.Remove(p.pinPath(name, s))
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			return fmt.Errorf("unpin programs of link %s: %w", name, err)
		}
	}
	if !p.classic {
		return nil
	}
	l, err := netlink.LinkByName(name)
	if errors.As(err, &netlink.LinkNotFoundError{}) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("find link %s: %w", name, err)
	}
	return removeFilters(l)
}

// Attached lists the names of the links that have programs of one kind: "pod" or "in" (outside).
func (p *Packets) Attached(kind string) ([]string, error) {
	if p.classic {
		return filtered(kind)
	}
	entries, err := os.ReadDir(filepath.Join(p.dir, linksFolder))
	if err != nil {
		return nil, fmt.Errorf("list pinned links: %w", err)
	}
	var names []string
	for _, e := range entries {
		if name, ok := strings.CutPrefix(e.Name(), "tcx-"); ok {
			if name, ok = strings.CutSuffix(name, "-"+kind); ok {
				names = append(names, name)
			}
		}
	}
	return names, nil
}

func (p *Packets) pinPath(name string, s side) string {
	return filepath.Join(p.dir, linksFolder, "tcx-"+name+"-"+s.suffix)
}

func (p *Packets) attach(name string, ifindex int, s side, program *ebpf.Program) error {
	if p.classic {
		return addFilter(name, ifindex, s, program)
	}
	pin := pinnedLink{
		path:    p.pinPath(name, s),
		program: program,
		current: func(info *link.Info) bool {
			tcx := info.TCX()
			return tcx != nil && int(tcx.Ifindex) == ifindex
		},
		attach: func() (link.Link, error) {
			return link.AttachTCX(link.TCXOptions{Interface: ifindex, Program: program, Attach: s.tcx})
		},
	}
	if err := pin.ensure(); err != nil {
		return fmt.Errorf("attach program to link %s: %w", name, err)
	}
	return nil
}

// pinnedLink is an attachment that outlives the process.
type pinnedLink struct {
	path    string
	program *ebpf.Program
	// current reports whether an existing attachment is at the place that is asked for.
	current func(*link.Info) bool
	attach  func() (link.Link, error)
}

// ensure switches the pinned attachment to the program, or makes it.
func (p *pinnedLink) ensure() error {
	old, err := link.LoadPinnedLink(p.path, nil)
	if err == nil {
		defer old.Close()
		info, err := old.Info()
		if err != nil {
			return fmt.Errorf("describe pinned link: %w", err)
		}
		if p.current(info) {
			if err := old.Update(p.program); err != nil {
				return fmt.Errorf("update pinned link: %w", err)
			}
			return nil
		}
		if err := os.Remove(p.path); err != nil {
			return fmt.Errorf("unpin stale link: %w", err)
		}
	} else if !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("load pinned link: %w", err)
	}
	fresh, err := p.attach()
	if err != nil {
		return err
	}
	defer fresh.Close()
	if err := fresh.Pin(p.path); err != nil {
		return fmt.Errorf("pin link: %w", err)
	}
	return nil
}
