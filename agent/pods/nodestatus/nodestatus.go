// Package nodestatus works out what a Node's status says of this machine.
//
// Role: Probe looks at the machine, Decide (pure) turns that into a status that
// differs from the standing one only where something changed, so that an idle
// node never writes. Concurrency: everything is safe for use by many goroutines.
package nodestatus

import (
	"bytes"
	"fmt"
	"os"
	"runtime"
	"sort"
	"strings"
	"time"

	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	"github.com/podvine/podvine/agent/pods/images"
	"github.com/podvine/podvine/agent/pods/lifecycle"
	"github.com/podvine/podvine/agent/pods/ocispec"
	podruntime "github.com/podvine/podvine/agent/pods/runtime"
)

// Facts are what the machine says of itself.
type Facts struct {
	CPUs                        int
	MemoryBytes, AvailableBytes int64
	Disk, ImageDisk             images.Usage
	Pids, MaxPids               int64
	MachineID, SystemUUID       string
	BootID, Kernel, OSImage     string
	ContainerRuntime            string
	HugePages                   []ocispec.HugePages
}

// Arch is the machine's architecture in Kubernetes' words.
func Arch() string { return runtime.GOARCH }

// Probe looks at the machine and at the disks of the two folders.
func Probe(dataDir, imageDir string) (Facts, error) {
	f := Facts{CPUs: runtime.NumCPU(), ContainerRuntime: "containerd://2.4.2"}
	var err error
	if f.Disk, err = images.DiskUsage(dataDir); err != nil {
		return f, err
	}
	if f.ImageDisk, err = images.DiskUsage(imageDir); err != nil {
		return f, err
	}
	if f.HugePages, err = ocispec.DetectHugePages(); err != nil {
		return f, err
	}
	mem, err := os.ReadFile("/proc/meminfo")
	if err != nil {
		return f, fmt.Errorf("read memory size: %w", err)
	}
	for line := range strings.Lines(string(mem)) {
		var kib int64
		if n, err := fmt.Sscanf(line, "MemTotal: %d kB", &kib); n == 1 && err == nil {
			f.MemoryBytes = kib << 10
		}
		if n, err := fmt.Sscanf(line, "MemAvailable: %d kB", &kib); n == 1 && err == nil {
			f.AvailableBytes = kib << 10
		}
	}
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		return f, fmt.Errorf("read kernel version: %w", err)
	}
	f.Kernel = unix.ByteSliceToString(u.Release[:])
	f.BootID = word("/proc/sys/kernel/random/boot_id")
	f.MachineID = word("/etc/machine-id")
	f.SystemUUID = word("/sys/class/dmi/id/product_uuid")
	if f.SystemUUID == "" {
		f.SystemUUID = f.MachineID
	}
	f.OSImage = osName()
	var one, five, fifteen float64
	var running int64
	if _, err := fmt.Sscanf(word("/proc/loadavg"), "%g %g %g %d/%d", &one, &five, &fifteen, &running, &f.Pids); err != nil {
		return f, fmt.Errorf("count processes: %w", err)
	}
	if _, err := fmt.Sscan(word("/proc/sys/kernel/pid_max"), &f.MaxPids); err != nil {
		return f, fmt.Errorf("read process limit: %w", err)
	}
	return f, nil
}

// word is a file's text; what is absent reads as empty.
func word(path string) string {
	b, err := os.ReadFile(path)
	if err != nil {
		return ""
	}
	return string(bytes.TrimSpace(b))
}

func osName() string {
	for line := range strings.Lines(word("/etc/os-release")) {
		if v, ok := strings.CutPrefix(strings.TrimSpace(line), "PRETTY_NAME="); ok {
			return strings.Trim(v, `"`)
		}
	}
	return "Linux"
}

// Input is everything Decide looks at beside the standing status.
type Input struct {
	Facts          Facts
	Now            time.Time
	Addresses      []string
	NodeName       string
	MaxPods        int
	Reserved       corev1.ResourceList
	Port           int32
	KubeletVersion string
	Images         []corev1.ContainerImage
	// Handlers are what a RuntimeClass may name.
	Handlers []corev1.NodeRuntimeHandler
	// Pressure is what the node is short of.
	Pressure lifecycle.Pressure
}

// Decide returns the status that should stand.
func Decide(standing corev1.NodeStatus, in Input) corev1.NodeStatus {
	s := *standing.DeepCopy()
	f := in.Facts
	s.Capacity = corev1.ResourceList{
		corev1.ResourceCPU:              *resource.NewQuantity(int64(f.CPUs), resource.DecimalSI),
		corev1.ResourceMemory:           *resource.NewQuantity(f.MemoryBytes, resource.BinarySI),
		corev1.ResourceEphemeralStorage: *resource.NewQuantity(int64(f.Disk.CapacityBytes), resource.BinarySI),
		corev1.ResourcePods:             *resource.NewQuantity(int64(in.MaxPods), resource.DecimalSI),
	}
	usable := f.MemoryBytes
	for _, h := range f.HugePages {
		s.Capacity[h.Resource()] = *resource.NewQuantity(h.TotalBytes, resource.BinarySI)
		usable -= h.TotalBytes
	}
	// Devices and other extended resources are others' to announce.
	for name, q := range standing.Capacity {
		if strings.Contains(string(name), "/") {
			s.Capacity[name] = q
		}
	}
	s.Allocatable = corev1.ResourceList{}
	for name, q := range s.Capacity {
		if name == corev1.ResourceMemory {
			q = *resource.NewQuantity(usable, resource.BinarySI)
		}
		if r, ok := in.Reserved[name]; ok {
			q = q.DeepCopy()
			q.Sub(r)
			if q.Sign() < 0 {
				q.Set(0)
			}
		}
		s.Allocatable[name] = q
	}
	s.Addresses = nil
	for _, ip := range in.Addresses {
		s.Addresses = append(s.Addresses, corev1.NodeAddress{Type: corev1.NodeInternalIP, Address: ip})
	}
	s.Addresses = append(s.Addresses, corev1.NodeAddress{Type: corev1.NodeHostName, Address: in.NodeName})
	s.DaemonEndpoints.KubeletEndpoint.Port = in.Port
	s.NodeInfo = corev1.NodeSystemInfo{
		MachineID: f.MachineID, SystemUUID: f.SystemUUID, BootID: f.BootID, KernelVersion: f.Kernel, OSImage: f.OSImage,
		ContainerRuntimeVersion: f.ContainerRuntime, KubeletVersion: in.KubeletVersion, OperatingSystem: "linux", Architecture: Arch(),
	}
	s.Images = in.Images
	s.RuntimeHandlers = in.Handlers
	s.Features = &corev1.NodeFeatures{SupplementalGroupsPolicy: ptr.To(true)}
	conditions(&s, in)
	return s
}

func conditions(s *corev1.NodeStatus, in Input) {
	pressure := func(t corev1.NodeConditionType, on bool, yes, yesText, no, noText string) {
		c := corev1.NodeCondition{Type: t, Status: corev1.ConditionFalse, Reason: no, Message: noText}
		if on {
			c.Status, c.Reason, c.Message = corev1.ConditionTrue, yes, yesText
		}
		set(s, c, in.Now)
	}
	pressure(corev1.NodeMemoryPressure, in.Pressure.Memory,
		"KubeletHasInsufficientMemory", "kubelet has insufficient memory available", "KubeletHasSufficientMemory", "kubelet has sufficient memory available")
	pressure(corev1.NodeDiskPressure, in.Pressure.Disk,
		"KubeletHasDiskPressure", "kubelet has disk pressure", "KubeletHasNoDiskPressure", "kubelet has no disk pressure")
	pressure(corev1.NodePIDPressure, in.Pressure.PID,
		"KubeletHasInsufficientPID", "kubelet has insufficient PID available", "KubeletHasSufficientPID", "kubelet has sufficient PID available")
	set(s, corev1.NodeCondition{Type: corev1.NodeReady, Status: corev1.ConditionTrue, Reason: "KubeletReady", Message: "kubelet is posting ready status"}, in.Now)
}

// set changes a condition only when it says something new, and its times only
// then.
func set(s *corev1.NodeStatus, c corev1.NodeCondition, now time.Time) {
	stamp := metav1.NewTime(now.Truncate(time.Second))
	for i := range s.Conditions {
		old := &s.Conditions[i]
		if old.Type != c.Type {
			continue
		}
		if old.Status == c.Status && old.Reason == c.Reason && old.Message == c.Message {
			return
		}
		c.LastHeartbeatTime, c.LastTransitionTime = stamp, old.LastTransitionTime
		if old.Status != c.Status {
			c.LastTransitionTime = stamp
		}
		*old = c
		return
	}
	c.LastHeartbeatTime, c.LastTransitionTime = stamp, stamp
	s.Conditions = append(s.Conditions, c)
}

// Images turns the store into the status's list: the largest limit images, with
// all names of each.
func Images(all []podruntime.ImageInfo, limit int) []corev1.ContainerImage {
	byDigest := map[string]*corev1.ContainerImage{}
	var order []string
	for _, i := range all {
		c := byDigest[i.Digest]
		if c == nil {
			c = &corev1.ContainerImage{SizeBytes: i.SizeBytes}
			byDigest[i.Digest] = c
			order = append(order, i.Digest)
		}
		c.Names = append(c.Names, i.Name)
	}
	var out []corev1.ContainerImage
	for _, d := range order {
		sort.Strings(byDigest[d].Names)
		out = append(out, *byDigest[d])
	}
	sort.Slice(out, func(i, j int) bool {
		if out[i].SizeBytes != out[j].SizeBytes {
			return out[i].SizeBytes > out[j].SizeBytes
		}
		return out[i].Names[0] < out[j].Names[0]
	})
	return out[:min(len(out), limit)]
}
