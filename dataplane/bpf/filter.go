package bpf

import (
	"errors"
	"fmt"
	"strings"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/features"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// What follows attaches programs on kernels without TCX, as filters. A filter is found by its name and replaced in place.
const (
	filterPrefix = "podvine-"
	// filterPriority and filterHandle are ours alone among the filters of a link.
	filterPriority = 0x7076
	filterHandle   = 1
	// tcxSince is Linux 6.6 as a version code.
	tcxSince = 6<<16 | 6<<8
)

// lacksTCX goes by the version: trying would put a program on a link of the host. A kernel that had TCX brought to an
// older version is served by filters just as well.
func lacksTCX() (bool, error) {
	version, err := features.LinuxVersionCode()
	if err != nil {
		return false, fmt.Errorf("read version of the kernel: %w", err)
	}
	return version < tcxSince, nil
}

func addFilter(name string, ifindex int, s side, program *ebpf.Program) error {
	discipline := &netlink.Clsact{QdiscAttrs: netlink.QdiscAttrs{
		LinkIndex: ifindex, Handle: netlink.MakeHandle(0xffff, 0), Parent: netlink.HANDLE_CLSACT,
	}}
	if err := netlink.QdiscAdd(discipline); err != nil && !errors.Is(err, unix.EEXIST) {
		return fmt.Errorf("prepare link %s for programs: %w", name, unsupported("clsact queueing discipline", "4.5", err))
	}
	filter := &netlink.BpfFilter{
		FilterAttrs: netlink.FilterAttrs{
			LinkIndex: ifindex, Parent: s.parent, Handle: filterHandle, Priority: filterPriority, Protocol: unix.ETH_P_ALL,
		},
		Fd: program.FD(), Name: filterPrefix + s.suffix, DirectAction: true,
	}
	if err := netlink.FilterReplace(filter); err != nil {
		return fmt.Errorf("attach program to link %s: %w", name, err)
	}
	return nil
}

// ownFilters lists our filters on a link, and how many others there are.
func ownFilters(l netlink.Link) (own []*netlink.BpfFilter, others int, err error) {
	for _, parent := range []uint32{netlink.HANDLE_MIN_INGRESS, netlink.HANDLE_MIN_EGRESS} {
		filters, err := netlink.FilterList(l, parent)
		if err != nil && !errors.Is(err, netlink.ErrDumpInterrupted) {
			return nil, 0, fmt.Errorf("list filters of link %s: %w", l.Attrs().Name, err)
		}
		for _, f := range filters {
			if b, ok := f.(*netlink.BpfFilter); ok && strings.HasPrefix(b.Name, filterPrefix) {
				own = append(own, b)
			} else {
				others++
			}
		}
	}
	return own, others, nil
}

// removeFilters takes our filters off a link, and the queueing discipline if nobody else has filters there.
func removeFilters(l netlink.Link) error {
	own, others, err := ownFilters(l)
	if err != nil || len(own) == 0 {
		return err
	}
	for _, f := range own {
		if err := netlink.FilterDel(f); err != nil && !errors.Is(err, unix.ENOENT) {
			return fmt.Errorf("detach program from link %s: %w", l.Attrs().Name, err)
		}
	}
	if others > 0 {
		return nil
	}
	discipline := &netlink.Clsact{QdiscAttrs: netlink.QdiscAttrs{
		LinkIndex: l.Attrs().Index, Handle: netlink.MakeHandle(0xffff, 0), Parent: netlink.HANDLE_CLSACT,
	}}
	if err := netlink.QdiscDel(discipline); err != nil && !errors.Is(err, unix.ENOENT) {
		return fmt.Errorf("remove queueing discipline of link %s: %w", l.Attrs().Name, err)
	}
	return nil
}

func filtered(kind string) ([]string, error) {
	links, err := netlink.LinkList()
	if err != nil && !errors.Is(err, netlink.ErrDumpInterrupted) {
		return nil, fmt.Errorf("list links: %w", err)
	}
	var names []string
	for _, l := range links {
		own, _, err := ownFilters(l)
		if err != nil {
			return nil, err
		}
		for _, f := range own {
			if f.Name == filterPrefix+kind {
				names = append(names, l.Attrs().Name)
			}
		}
	}
	return names, nil
}

func removeAllFilters() error {
	links, err := netlink.LinkList()
	if err != nil && !errors.Is(err, netlink.ErrDumpInterrupted) {
		return fmt.Errorf("list links: %w", err)
	}
	var problems []error
	for _, l := range links {
		problems = append(problems, removeFilters(l))
	}
	return errors.Join(problems...)
}
