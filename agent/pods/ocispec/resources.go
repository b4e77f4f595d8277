package ocispec

import (
	specs "github.com/opencontainers/runtime-spec/specs-go"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"

	"github.com/podvine/podvine/agent/pods/sandbox"
)

const (
	minShares      = 2
	maxShares      = 262144
	sharesPerCPU   = 1024
	milliPerCPU    = 1000
	minQuotaMicros = 1000
	oomGuaranteed  = -997
	oomBestEffort  = 1000
	nodeCritical   = "system-node-critical"
)

// Shares converts a CPU request to a weight.
func Shares(milliCPU int64) uint64 {
	return uint64(min(max(milliCPU*sharesPerCPU/milliPerCPU, minShares), maxShares))
}

// Quota converts a CPU limit to microseconds a period; 0 for no limit.
func Quota(milliCPU int64) int64 {
	if milliCPU <= 0 {
		return 0
	}
	return max(milliCPU*sandbox.CPUPeriodMicros/milliPerCPU, minQuotaMicros)
}

// Resources are a container's limits as the kernel takes them.
func Resources(c *corev1.Container, h Host) *specs.LinuxResources {
	shares := Shares(requestOf(c, corev1.ResourceCPU).MilliValue())
	res := &specs.LinuxResources{
		CPU:    &specs.LinuxCPU{Shares: &shares},
		Memory: &specs.LinuxMemory{},
	}
	if lim, ok := c.Resources.Limits[corev1.ResourceCPU]; ok {
		if q := Quota(lim.MilliValue()); q > 0 {
			period := uint64(sandbox.CPUPeriodMicros)
			res.CPU.Quota, res.CPU.Period = &q, &period
		}
	}
	if lim, ok := c.Resources.Limits[corev1.ResourceMemory]; ok && lim.Value() > 0 {
		v := lim.Value()
		res.Memory.Limit = &v
		if h.LimitSwap {
			res.Memory.Swap = &v
		}
	}
	return res
}

func requestOf(c *corev1.Container, name corev1.ResourceName) *resource.Quantity {
	if q, ok := c.Resources.Requests[name]; ok {
		return &q
	}
	if q, ok := c.Resources.Limits[name]; ok {
		return &q
	}
	return &resource.Quantity{}
}

// oomScore is Kubernetes' rule: the less a container asked for, the earlier
// it goes.
func oomScore(qos corev1.PodQOSClass, pod *corev1.Pod, c *corev1.Container, memoryBytes int64) int {
	if pod.Spec.PriorityClassName == nodeCritical {
		return oomGuaranteed
	}
	switch qos {
	case corev1.PodQOSGuaranteed:
		return oomGuaranteed
	case corev1.PodQOSBestEffort:
		return oomBestEffort
	}
	if memoryBytes <= 0 {
		return oomBestEffort - 1
	}
	score := oomBestEffort - int(oomBestEffort*requestOf(c, corev1.ResourceMemory).Value()/memoryBytes)
	return min(max(score, oomBestEffort+oomGuaranteed), oomBestEffort-1)
}

// PodLimits are the limits of the pod's own cgroup: the sum of its containers',
// where every container has one, or what the pod says itself.
func PodLimits(pod *corev1.Pod, pids int64) sandbox.Limits {
	var cpu, mem, req int64
	cpuAll, memAll := true, true
	count := func(c *corev1.Container) {
		req += requestOf(c, corev1.ResourceCPU).MilliValue()
		if q, ok := c.Resources.Limits[corev1.ResourceCPU]; ok {
			cpu += q.MilliValue()
		} else {
			cpuAll = false
		}
		if q, ok := c.Resources.Limits[corev1.ResourceMemory]; ok {
			mem += q.Value()
		} else {
			memAll = false
		}
	}
	for i := range pod.Spec.Containers {
		count(&pod.Spec.Containers[i])
	}
	var initCPU, initMem, initReq int64
	for i := range pod.Spec.InitContainers {
		c := &pod.Spec.InitContainers[i]
		if c.RestartPolicy != nil && *c.RestartPolicy == corev1.ContainerRestartPolicyAlways {
			count(c)
			continue
		}
		initReq = max(initReq, requestOf(c, corev1.ResourceCPU).MilliValue())
		initCPU = max(initCPU, c.Resources.Limits.Cpu().MilliValue())
		initMem = max(initMem, c.Resources.Limits.Memory().Value())
		cpuAll = cpuAll && !c.Resources.Limits.Cpu().IsZero()
		memAll = memAll && !c.Resources.Limits.Memory().IsZero()
	}
	l := sandbox.Limits{CPUShares: Shares(max(req, initReq)), Pids: pids}
	if cpuAll {
		l.CPUQuotaMicros = Quota(max(cpu, initCPU))
	}
	if memAll {
		l.MemoryBytes = max(mem, initMem)
	}
	if r := pod.Spec.Resources; r != nil {
		if q, ok := r.Limits[corev1.ResourceCPU]; ok {
			l.CPUQuotaMicros = Quota(q.MilliValue())
		}
		if q, ok := r.Limits[corev1.ResourceMemory]; ok {
			l.MemoryBytes = q.Value()
		}
		if q, ok := r.Requests[corev1.ResourceCPU]; ok {
			l.CPUShares = Shares(q.MilliValue())
		}
	}
	if q, ok := pod.Spec.Overhead[corev1.ResourceCPU]; ok && l.CPUQuotaMicros > 0 {
		l.CPUQuotaMicros += Quota(q.MilliValue())
	}
	if q, ok := pod.Spec.Overhead[corev1.ResourceMemory]; ok && l.MemoryBytes > 0 {
		l.MemoryBytes += q.Value()
	}
	return l
}
