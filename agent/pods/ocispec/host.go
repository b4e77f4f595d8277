// Package ocispec turns a Kubernetes container into the OCI spec that runc
// runs.
//
// Role: pure translation. What the host cannot give (a capability outside our
// own bounding set, a lower OOM score than our own) is left out and reported
// as a notice, because runc would refuse the whole container.
//
// Concurrency: everything is safe for use by many goroutines.
package ocispec

import (
	"fmt"
	"os"
	"strconv"
	"strings"
)

// Host is what this machine lets us give to containers.
type Host struct {
	// Bounding is our own capability bounding set.
	Bounding map[string]bool
	// OOMScoreAdjMin is the lowest score adjustment we may set.
	OOMScoreAdjMin int
	// MemoryBytes is the machine's memory.
	MemoryBytes int64
	// LimitSwap is set where the kernel can limit memory and swap together.
	LimitSwap bool
	// HugePages are the sizes that there are; HugeTLB is set where a cgroup can
	// limit them.
	HugePages []HugePages
	HugeTLB   bool
	// SeccompRoot holds Localhost profiles.
	SeccompRoot string
	// Rlimits of our own process are what containers inherit; none are raised.
}

const oomScoreAdjFloor = -1000

// DetectHost reads the machine's abilities from /proc.
func DetectHost(seccompRoot string, limitSwap bool) (Host, error) {
	h := Host{SeccompRoot: seccompRoot, LimitSwap: limitSwap, OOMScoreAdjMin: oomScoreAdjFloor}
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return h, fmt.Errorf("read own capabilities: %w", err)
	}
	for line := range strings.Lines(string(status)) {
		hex, ok := strings.CutPrefix(line, "CapBnd:")
		if !ok {
			continue
		}
		bits, err := strconv.ParseUint(strings.TrimSpace(hex), 16, 64)
		if err != nil {
			return h, fmt.Errorf("read own capabilities: %w", err)
		}
		h.Bounding = map[string]bool{}
		for i, name := range capabilityNames() {
			if bits&(1<<i) != 0 {
				h.Bounding[name] = true
			}
		}
	}
	if !h.Bounding["CAP_SYS_RESOURCE"] {
		own, err := os.ReadFile("/proc/self/oom_score_adj")
		if err != nil {
			return h, fmt.Errorf("read own OOM score: %w", err)
		}
		if h.OOMScoreAdjMin, err = strconv.Atoi(strings.TrimSpace(string(own))); err != nil {
			return h, fmt.Errorf("read own OOM score: %w", err)
		}
	}
	if h.HugePages, err = DetectHugePages(); err != nil {
		return h, err
	}
	mem, err := os.ReadFile("/proc/meminfo")
	if err != nil {
		return h, fmt.Errorf("read memory size: %w", err)
	}
	var kib int64
	if _, err := fmt.Sscanf(string(mem), "MemTotal: %d kB", &kib); err != nil {
		return h, fmt.Errorf("read memory size: %w", err)
	}
	h.MemoryBytes = kib << 10
	return h, nil
}

// capabilityNames lists the kernel's capabilities by number.
func capabilityNames() []string {
	return []string{
		"CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_DAC_READ_SEARCH", "CAP_FOWNER", "CAP_FSETID", "CAP_KILL", "CAP_SETGID", "CAP_SETUID",
		"CAP_SETPCAP", "CAP_LINUX_IMMUTABLE", "CAP_NET_BIND_SERVICE", "CAP_NET_BROADCAST", "CAP_NET_ADMIN", "CAP_NET_RAW", "CAP_IPC_LOCK",
		"CAP_IPC_OWNER", "CAP_SYS_MODULE", "CAP_SYS_RAWIO", "CAP_SYS_CHROOT", "CAP_SYS_PTRACE", "CAP_SYS_PACCT", "CAP_SYS_ADMIN",
		"CAP_SYS_BOOT", "CAP_SYS_NICE", "CAP_SYS_RESOURCE", "CAP_SYS_TIME", "CAP_SYS_TTY_CONFIG", "CAP_MKNOD", "CAP_LEASE",
		"CAP_AUDIT_WRITE", "CAP_AUDIT_CONTROL", "CAP_SETFCAP", "CAP_MAC_OVERRIDE", "CAP_MAC_ADMIN", "CAP_SYSLOG", "CAP_WAKE_ALARM",
		"CAP_BLOCK_SUSPEND", "CAP_AUDIT_READ", "CAP_PERFMON", "CAP_BPF", "CAP_CHECKPOINT_RESTORE",
	}
}

func defaultCapabilities() []string {
	return []string{
		"CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_FSETID", "CAP_FOWNER", "CAP_MKNOD", "CAP_NET_RAW", "CAP_SETGID", "CAP_SETUID",
		"CAP_SETFCAP", "CAP_SETPCAP", "CAP_NET_BIND_SERVICE", "CAP_SYS_CHROOT", "CAP_KILL", "CAP_AUDIT_WRITE",
	}
}
