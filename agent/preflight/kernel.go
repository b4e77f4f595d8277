package preflight

import (
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/features"
	"golang.org/x/sys/unix"
)

// The oldest kernel on which the service proxy's hooks are all there (TCX links came last).
const oldestMajor, oldestMinor = 6, 6

func kernelVersion() Finding {
	var name unix.Utsname
	if err := unix.Uname(&name); err != nil {
		return Finding{"kernel", Fatal, err.Error(), "report this"}
	}
	release := unix.ByteSliceToString(name.Release[:])
	var major, minor int
	if _, err := fmt.Sscanf(release, "%d.%d", &major, &minor); err != nil {
		return Finding{"kernel", Warning, fmt.Sprintf("release %q could not be read", release), fmt.Sprintf("make sure that it is %d.%d or later", oldestMajor, oldestMinor)}
	}
	if major < oldestMajor || major == oldestMajor && minor < oldestMinor {
		return Finding{"kernel", Fatal, "release " + release, fmt.Sprintf("upgrade it to %d.%d or later", oldestMajor, oldestMinor)}
	}
	return Finding{"kernel", OK, "release " + release, ""}
}

// cgroups wants a version 2 tree for the service proxy's hooks, and the controllers in either version.
func cgroups() Finding {
	const advice = "mount it: systemd does so by default"
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return Finding{"cgroups", Fatal, err.Error(), advice}
	}
	if !strings.Contains(string(mounts), " - cgroup2 ") {
		return Finding{"cgroups", Fatal, "no cgroup version 2 tree is mounted", advice}
	}
	if strings.Contains(string(mounts), " - cgroup ") {
		return Finding{"cgroups", OK, "version 1 controllers with a version 2 tree", ""}
	}
	return Finding{"cgroups", OK, "version 2", ""}
}

func overlay() Finding {
	content, err := os.ReadFile("/proc/filesystems")
	if err != nil {
		return Finding{"overlayfs", Fatal, err.Error(), "mount /proc"}
	}
	if !strings.Contains(string(content), "\toverlay\n") {
		return Finding{"overlayfs", Fatal, "the kernel does not offer it", "load it: modprobe overlay"}
	}
	return Finding{"overlayfs", OK, "offered by the kernel", ""}
}

// bpfPrograms asks the kernel for the program types that the service proxy is made of.
func bpfPrograms() Finding {
	for program, option := range map[ebpf.ProgramType]string{
		ebpf.CGroupSockAddr: "CONFIG_CGROUP_BPF",
		ebpf.SchedCLS:       "CONFIG_NET_CLS_BPF",
	} {
		err := features.HaveProgramType(program)
		if errors.Is(err, ebpf.ErrNotSupported) {
			return Finding{"eBPF", Fatal, fmt.Sprintf("the kernel has no %s programs", program), "run a kernel with " + option}
		}
		if err != nil {
			return Finding{"eBPF", Fatal, fmt.Sprintf("%s programs could not be tried: %v", program, err), "run it as root, with CAP_BPF and CAP_NET_ADMIN"}
		}
	}
	return Finding{"eBPF", OK, "socket and packet programs", ""}
}
