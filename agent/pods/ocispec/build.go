package ocispec

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/containerd/containerd/v2/contrib/seccomp"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	corev1 "k8s.io/api/core/v1"

	"github.com/podvine/podvine/agent/pods/runtime"
	"github.com/podvine/podvine/agent/pods/sandbox"
)

const defaultPath = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// Input is one container and where it is to run.
type Input struct {
	Pod       *corev1.Pod
	Container *corev1.Container
	QOS       corev1.PodQOSClass
	Image     runtime.ImageInfo
	User      runtime.User
	// Env is the container's own environment, expanded; Args too.
	Env           []string
	Command, Args []string
	// Mounts are volumes and files from the agent, in the order to mount.
	Mounts []specs.Mount
	// Sandbox, PIDPath ("" for a PID namespace of its own) and HostPID place it.
	Sandbox sandbox.Paths
	PIDPath string
	// CgroupPath is absolute, as /podvine/burstable/podX/ID.
	CgroupPath string
	// FSGroup and pod-wide groups are added to the user's.
	Groups []uint32
	Host   Host
}

// Build makes the OCI spec. Notices say what was clamped, in words for an
// event. An error means that the container's configuration cannot run.
func Build(in Input) (*specs.Spec, []string, error) {
	var notices []string
	privileged := in.Container.SecurityContext != nil && ptrTrue(in.Container.SecurityContext.Privileged)
	proc, more, err := process(in, privileged)
	if err != nil {
		return nil, nil, err
	}
	notices = append(notices, more...)
	s := &specs.Spec{
		Version: specs.Version,
		Process: proc,
		Root:    &specs.Root{Path: "rootfs", Readonly: in.Container.SecurityContext != nil && ptrTrue(in.Container.SecurityContext.ReadOnlyRootFilesystem)},
		Mounts:  append(baseMounts(in, privileged), in.Mounts...),
		Linux: &specs.Linux{
			CgroupsPath: in.CgroupPath,
			Namespaces:  namespaces(in, privileged),
			Resources:   Resources(in.Container, in.Host),
			Sysctl:      sysctls(in.Pod),
		},
		Annotations: map[string]string{},
	}
	limits, notice := hugePageLimits(in.Container, in.Host)
	if s.Linux.Resources.HugepageLimits = limits; notice != "" {
		notices = append(notices, notice)
	}
	if err := devices(s, privileged); err != nil {
		return nil, nil, err
	}
	if !privileged {
		maskPaths(s, in.Container)
	}
	mapUsers(s, in)
	if err := applySeccomp(s, in, privileged); err != nil {
		return nil, nil, err
	}
	return s, notices, nil
}

func ptrTrue(b *bool) bool { return b != nil && *b }

func process(in Input, privileged bool) (*specs.Process, []string, error) {
	args := in.Command
	if len(args) == 0 {
		args = in.Image.Config.Entrypoint
	}
	switch {
	case len(in.Args) > 0:
		args = append(slices.Clone(args), in.Args...)
	case len(in.Command) == 0:
		args = append(slices.Clone(args), in.Image.Config.Cmd...)
	}
	if len(args) == 0 {
		return nil, nil, fmt.Errorf("no command specified")
	}
	cwd := in.Container.WorkingDir
	if cwd == "" {
		cwd = in.Image.Config.WorkingDir
	}
	if cwd == "" {
		cwd = "/"
	}
	p := &specs.Process{Args: args, Cwd: cwd, Terminal: in.Container.TTY, Env: environment(in)}
	p.User = specs.User{UID: in.User.UID, GID: in.User.GID, AdditionalGids: groups(in)}
	sc := in.Container.SecurityContext
	p.NoNewPrivileges = sc != nil && sc.AllowPrivilegeEscalation != nil && !*sc.AllowPrivilegeEscalation
	var notices []string
	keep, denied := capabilities(sc, privileged, in.Host.Bounding)
	if len(denied) > 0 {
		notices = append(notices, "capabilities this host cannot give: "+strings.Join(denied, ", "))
	}
	p.Capabilities = &specs.LinuxCapabilities{Bounding: keep, Effective: keep, Permitted: keep}
	score := oomScore(in.QOS, in.Pod, in.Container, in.Host.MemoryBytes)
	if score < in.Host.OOMScoreAdjMin {
		notices = append(notices, fmt.Sprintf("OOM score adjustment %d raised to %d, the lowest this host allows", score, in.Host.OOMScoreAdjMin))
		score = in.Host.OOMScoreAdjMin
	}
	p.OOMScoreAdj = &score
	return p, notices, nil
}

func environment(in Input) []string {
	env := []string{defaultPath}
	if in.Container.TTY {
		env = append(env, "TERM=xterm")
	}
	index := map[string]int{"PATH": 0, "TERM": 1}
	if !in.Container.TTY {
		delete(index, "TERM")
	}
	set := func(kv string) {
		k, _, _ := strings.Cut(kv, "=")
		if i, ok := index[k]; ok {
			env[i] = kv
			return
		}
		index[k] = len(env)
		env = append(env, kv)
	}
	if in.Sandbox.UTS != "" {
		set("HOSTNAME=" + Hostname(in.Pod))
	}
	for _, kv := range in.Image.Config.Env {
		set(kv)
	}
	for _, kv := range in.Env {
		set(kv)
	}
	return env
}

// maxHostnameChars is the kernel's limit.
const maxHostnameChars = 63

// Hostname is the pod's host name as the kernel holds it.
func Hostname(pod *corev1.Pod) string {
	h := pod.Spec.Hostname
	if o := pod.Spec.HostnameOverride; o != nil && *o != "" {
		return *o
	}
	if h == "" {
		h = pod.Name
	}
	if len(h) > maxHostnameChars {
		h = strings.TrimRight(h[:maxHostnameChars], "-.")
	}
	return h
}

func groups(in Input) []uint32 {
	out := []uint32{}
	add := func(g uint32) {
		if !slices.Contains(out, g) {
			out = append(out, g)
		}
	}
	// The primary group belongs to the list, or a process could shed it to get
	// around a file that denies the group.
	add(in.User.GID)
	psc := in.Pod.Spec.SecurityContext
	if psc == nil || psc.SupplementalGroupsPolicy == nil || *psc.SupplementalGroupsPolicy == corev1.SupplementalGroupsPolicyMerge {
		for _, g := range in.User.Groups {
			add(g)
		}
	}
	for _, g := range in.Groups {
		add(g)
	}
	return out
}

func capabilities(sc *corev1.SecurityContext, privileged bool, bounding map[string]bool) (keep, denied []string) {
	want := map[string]bool{}
	all := func(on bool) {
		for _, c := range capabilityNames() {
			want[c] = on
		}
	}
	asked := map[string]bool{}
	for _, c := range defaultCapabilities() {
		want[c] = true
	}
	if privileged {
		all(true)
	} else if sc != nil && sc.Capabilities != nil {
		for _, c := range sc.Capabilities.Drop {
			if strings.EqualFold(string(c), "ALL") {
				all(false)
			}
		}
		for _, c := range sc.Capabilities.Add {
			if strings.EqualFold(string(c), "ALL") {
				all(true)
				continue
			}
			want[capName(c)] = true
			asked[capName(c)] = true
		}
		for _, c := range sc.Capabilities.Drop {
			if !strings.EqualFold(string(c), "ALL") {
				want[capName(c)] = false
			}
		}
	}
	for _, c := range capabilityNames() {
		if !want[c] {
			continue
		}
		if bounding[c] {
			keep = append(keep, c)
		} else if asked[c] || privileged {
			denied = append(denied, c)
		}
	}
	return keep, denied
}

func capName(c corev1.Capability) string {
	n := strings.ToUpper(string(c))
	if !strings.HasPrefix(n, "CAP_") {
		n = "CAP_" + n
	}
	return n
}

func namespaces(in Input, privileged bool) []specs.LinuxNamespace {
	ns := []specs.LinuxNamespace{{Type: specs.MountNamespace}}
	if in.Sandbox.Net != "" {
		ns = append(ns, specs.LinuxNamespace{Type: specs.NetworkNamespace, Path: in.Sandbox.Net})
	}
	if in.Sandbox.UTS != "" {
		ns = append(ns, specs.LinuxNamespace{Type: specs.UTSNamespace, Path: in.Sandbox.UTS})
	}
	if in.Sandbox.IPC != "" {
		ns = append(ns, specs.LinuxNamespace{Type: specs.IPCNamespace, Path: in.Sandbox.IPC})
	}
	if !in.Pod.Spec.HostPID {
		ns = append(ns, specs.LinuxNamespace{Type: specs.PIDNamespace, Path: in.PIDPath})
	}
	if !privileged {
		ns = append(ns, specs.LinuxNamespace{Type: specs.CgroupNamespace})
	}
	return ns
}

func baseMounts(in Input, privileged bool) []specs.Mount {
	sysMode := "ro"
	if privileged {
		sysMode = "rw"
	}
	quiet := []string{"nosuid", "noexec", "nodev"}
	return []specs.Mount{
		{Destination: "/proc", Type: "proc", Source: "proc", Options: quiet},
		{Destination: "/dev", Type: "tmpfs", Source: "tmpfs", Options: []string{"nosuid", "strictatime", "mode=755", "size=65536k"}},
		{Destination: "/dev/pts", Type: "devpts", Source: "devpts", Options: []string{"nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"}},
		{Destination: "/dev/mqueue", Type: "mqueue", Source: "mqueue", Options: quiet},
		{Destination: "/sys", Type: "sysfs", Source: "sysfs", Options: append(slices.Clone(quiet), sysMode)},
		{Destination: "/sys/fs/cgroup", Type: "cgroup", Source: "cgroup", Options: append(slices.Clone(quiet), "relatime", sysMode)},
		{Destination: "/dev/shm", Type: "bind", Source: in.Sandbox.Shm, Options: []string{"rbind", "rw"}},
	}
}

// mapUsers puts the container into the pod's user namespace. What is mounted
// from the host shows the owners it has there.
func mapUsers(s *specs.Spec, in Input) {
	u := in.Sandbox.Users
	if u == nil {
		return
	}
	ids := []specs.LinuxIDMapping{{ContainerID: 0, HostID: u.FirstID, Size: u.Count}}
	s.Linux.UIDMappings, s.Linux.GIDMappings = ids, ids
	s.Linux.Namespaces = append(s.Linux.Namespaces, specs.LinuxNamespace{Type: specs.UserNamespace, Path: in.Sandbox.User})
	own := len(s.Mounts) - len(in.Mounts)
	for i := range s.Mounts[own:] {
		s.Mounts[own+i].UIDMappings, s.Mounts[own+i].GIDMappings = ids, ids
	}
}

func sysctls(pod *corev1.Pod) map[string]string {
	if pod.Spec.SecurityContext == nil || len(pod.Spec.SecurityContext.Sysctls) == 0 {
		return nil
	}
	out := map[string]string{}
	for _, s := range pod.Spec.SecurityContext.Sysctls {
		out[strings.ReplaceAll(s.Name, "/", ".")] = s.Value
	}
	return out
}

func maskPaths(s *specs.Spec, c *corev1.Container) {
	if sc := c.SecurityContext; sc != nil && sc.ProcMount != nil && *sc.ProcMount == corev1.UnmaskedProcMount {
		return
	}
	s.Linux.MaskedPaths = []string{
		"/proc/asound", "/proc/acpi", "/proc/interrupts", "/proc/kcore", "/proc/keys", "/proc/latency_stats", "/proc/timer_list",
		"/proc/timer_stats", "/proc/sched_debug", "/proc/scsi", "/sys/firmware", "/sys/devices/virtual/powercap",
	}
	s.Linux.ReadonlyPaths = []string{"/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"}
}

func devices(s *specs.Spec, privileged bool) error {
	if !privileged {
		s.Linux.Resources.Devices = []specs.LinuxDeviceCgroup{{Allow: false, Access: "rwm"}}
		return nil
	}
	s.Linux.Resources.Devices = []specs.LinuxDeviceCgroup{{Allow: true, Access: "rwm"}}
	found, err := hostDevices("/dev")
	if err != nil {
		return err
	}
	s.Linux.Devices = found
	return nil
}

func applySeccomp(s *specs.Spec, in Input, privileged bool) error {
	var p *corev1.SeccompProfile
	if psc := in.Pod.Spec.SecurityContext; psc != nil {
		p = psc.SeccompProfile
	}
	if sc := in.Container.SecurityContext; sc != nil && sc.SeccompProfile != nil {
		p = sc.SeccompProfile
	}
	if p == nil || privileged {
		return nil
	}
	switch p.Type {
	case corev1.SeccompProfileTypeRuntimeDefault:
		s.Linux.Seccomp = seccomp.DefaultProfile(s)
	case corev1.SeccompProfileTypeLocalhost:
		if p.LocalhostProfile == nil {
			return fmt.Errorf("seccomp profile of type Localhost has no localhostProfile")
		}
		root, err := os.OpenRoot(in.Host.SeccompRoot)
		if err != nil {
			return fmt.Errorf("open seccomp profiles: %w", err)
		}
		defer root.Close()
		raw, err := root.ReadFile(filepath.Clean(*p.LocalhostProfile))
		if err != nil {
			return fmt.Errorf("load seccomp profile: %w", err)
		}
		s.Linux.Seccomp = &specs.LinuxSeccomp{}
		if err := json.Unmarshal(raw, s.Linux.Seccomp); err != nil {
			return fmt.Errorf("decode seccomp profile %s: %w", *p.LocalhostProfile, err)
		}
	}
	return nil
}
