package pods

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	stats "k8s.io/kubelet/pkg/apis/stats/v1alpha1"

	"github.com/podvine/podvine/agent/pods/images"
	"github.com/podvine/podvine/agent/pods/lifecycle"
	"github.com/podvine/podvine/agent/pods/sandbox"
)

// Summary implements kubeletapi.Node. It reads the kernel's counters and asks
// containerd nothing.
func (n apiNode) Summary(context.Context) (*stats.Summary, error) {
	a := n.a
	now := metav1.Now()
	out := &stats.Summary{Node: stats.NodeStats{NodeName: a.cfg.NodeName}}
	out.Node.CPU, out.Node.Memory = a.usage("", now)
	if out.Node.Memory.WorkingSetBytes != nil && uint64(a.host.MemoryBytes) > *out.Node.Memory.WorkingSetBytes {
		free := uint64(a.host.MemoryBytes) - *out.Node.Memory.WorkingSetBytes
		out.Node.Memory.AvailableBytes = &free
	}
	if u, err := images.DiskUsage(a.cfg.DataDir); err == nil {
		out.Node.Fs = fsStats(u, now)
	}
	if u, err := images.DiskUsage(a.cfg.ImageDir); err == nil {
		out.Node.Runtime = &stats.RuntimeStats{ImageFs: fsStats(u, now), ContainerFs: fsStats(u, now)}
	}
	for _, w := range a.all() {
		w.mu.Lock()
		pod, started := w.rec.Pod, w.rec.StartTime
		var cs []lifecycle.Container
		for _, c := range w.rec.Containers {
			if c.Phase == lifecycle.Running {
				cs = append(cs, c)
			}
		}
		w.mu.Unlock()
		p := stats.PodStats{
			PodRef:    stats.PodReference{Name: pod.Name, Namespace: pod.Namespace, UID: string(pod.UID)},
			StartTime: metav1.NewTime(started), Containers: []stats.ContainerStats{},
		}
		p.CPU, p.Memory = a.usage(w.cgroupPath(""), now)
		for _, c := range cs {
			s := stats.ContainerStats{Name: c.Name, StartTime: metav1.NewTime(c.StartedAt)}
			s.CPU, s.Memory = a.usage(w.cgroupPath(c.ID), now)
			p.Containers = append(p.Containers, s)
		}
		out.Pods = append(out.Pods, p)
	}
	return out, nil
}

func fsStats(u images.Usage, now metav1.Time) *stats.FsStats {
	used := u.CapacityBytes - u.AvailableBytes
	return &stats.FsStats{Time: now, AvailableBytes: &u.AvailableBytes, CapacityBytes: &u.CapacityBytes, UsedBytes: &used}
}

// usage reads a cgroup's counters; what cannot be read is left out.
func (a *Agent) usage(path string, now metav1.Time) (*stats.CPUStats, *stats.MemoryStats) {
	cpu, mem := &stats.CPUStats{Time: now}, &stats.MemoryStats{Time: now}
	root := sandbox.CgroupRoot
	if a.cgroups.Unified() {
		if micros, ok := field(filepath.Join(root, path, "cpu.stat"), "usage_usec"); ok {
			nanos := micros * uint64(time.Microsecond)
			cpu.UsageCoreNanoSeconds = &nanos
		}
		memory(mem, filepath.Join(root, path), "memory.current", "inactive_file", "anon")
		return cpu, mem
	}
	if nanos, ok := number(filepath.Join(root, "cpuacct", path, "cpuacct.usage")); ok {
		cpu.UsageCoreNanoSeconds = &nanos
	}
	memory(mem, filepath.Join(root, "memory", path), "memory.usage_in_bytes", "total_inactive_file", "total_rss")
	return cpu, mem
}

func memory(mem *stats.MemoryStats, dir, current, inactive, rss string) {
	used, ok := number(filepath.Join(dir, current))
	if !ok {
		return
	}
	mem.UsageBytes = &used
	working := used
	if idle, ok := field(filepath.Join(dir, "memory.stat"), inactive); ok {
		working = used - min(idle, used)
	}
	mem.WorkingSetBytes = &working
	if anon, ok := field(filepath.Join(dir, "memory.stat"), rss); ok {
		mem.RSSBytes = &anon
	}
}

func number(file string) (uint64, bool) {
	raw, err := os.ReadFile(file)
	if err != nil {
		return 0, false
	}
	v, err := strconv.ParseUint(strings.TrimSpace(string(raw)), 10, 64)
	return v, err == nil
}

// field finds "name value" in a file of such lines.
func field(file, name string) (uint64, bool) {
	raw, err := os.ReadFile(file)
	if err != nil {
		return 0, false
	}
	for line := range strings.Lines(string(raw)) {
		var key string
		var v uint64
		if n, err := fmt.Sscan(line, &key, &v); n == 2 && err == nil && key == name {
			return v, true
		}
	}
	return 0, false
}
