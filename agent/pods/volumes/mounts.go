package volumes

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"

	"github.com/podvine/podvine/agent/pods/environ"
)

// Mounts translates a container's volumeMounts, in their order. get resolves
// variables in subPathExpr.
func Mounts(p Pod, c *corev1.Container, get func(string) (string, bool)) ([]specs.Mount, []corev1.VolumeMountStatus, error) {
	var out []specs.Mount
	var status []corev1.VolumeMountStatus
	for i := range c.VolumeMounts {
		m := &c.VolumeMounts[i]
		v := find(p.Facts.Pod, m.Name)
		if v == nil {
			return nil, nil, fmt.Errorf("volume %q of mount %s is not in the pod", m.Name, m.MountPath)
		}
		src, err := p.path(v)
		if err != nil {
			return nil, nil, fmt.Errorf("volume %q: %w", m.Name, err)
		}
		if v.HostPath != nil {
			if err := ensureHostPath(src); err != nil {
				return nil, nil, err
			}
		}
		sub := m.SubPath
		if m.SubPathExpr != "" {
			if sub = environ.Expand(m.SubPathExpr, get); strings.Contains(sub, "$(") {
				return nil, nil, fmt.Errorf("failed to prepare subPath for volumeMount %q of container %q: missing value for variable in %q", m.Name, c.Name, m.SubPathExpr)
			}
		}
		if sub != "" {
			if src, err = p.bindSubPath(src, sub, m.Name, c.Name, i); err != nil {
				return nil, nil, fmt.Errorf("failed to prepare subPath for volumeMount %q of container %q: %w", m.Name, c.Name, err)
			}
		}
		out = append(out, specs.Mount{Destination: absolute(m.MountPath), Type: "bind", Source: src, Options: options(v, m)})
		st := corev1.VolumeMountStatus{Name: m.Name, MountPath: m.MountPath, ReadOnly: m.ReadOnly}
		if m.ReadOnly && m.RecursiveReadOnly != nil {
			mode := corev1.RecursiveReadOnlyDisabled
			if *m.RecursiveReadOnly != corev1.RecursiveReadOnlyDisabled {
				mode = corev1.RecursiveReadOnlyEnabled
			}
			st.RecursiveReadOnly = &mode
		}
		status = append(status, st)
	}
	return out, status, nil
}

// ensureHostPath makes the folder of a host path without a type, as container
// runtimes do.
func ensureHostPath(path string) error {
	if _, err := os.Stat(path); !errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err := os.MkdirAll(path, 0o755); err != nil {
		return fmt.Errorf("make host folder: %w", err)
	}
	return nil
}

func absolute(p string) string {
	if !filepath.IsAbs(p) {
		return "/" + p
	}
	return filepath.Clean(p)
}

func find(pod *corev1.Pod, name string) *corev1.Volume {
	for i := range pod.Spec.Volumes {
		if pod.Spec.Volumes[i].Name == name {
			return &pod.Spec.Volumes[i]
		}
	}
	return nil
}

func options(v *corev1.Volume, m *corev1.VolumeMount) []string {
	prop := "rprivate"
	if m.MountPropagation != nil {
		switch *m.MountPropagation {
		case corev1.MountPropagationHostToContainer:
			prop = "rslave"
		case corev1.MountPropagationBidirectional:
			prop = "rshared"
		}
	}
	mode := "rw"
	objects := v.ConfigMap != nil || v.Secret != nil || v.Projected != nil || v.DownwardAPI != nil
	if m.ReadOnly || objects {
		mode = "ro"
		if r := m.RecursiveReadOnly; r != nil && *r != corev1.RecursiveReadOnlyDisabled {
			mode = "rro"
		}
	}
	return []string{"rbind", prop, mode}
}

// bindSubPath opens sub below the volume without ever leaving it, and binds
// what it opened to a place of the pod, so that later changes of links inside
// the volume cannot lead elsewhere.
func (p Pod) bindSubPath(volume, sub, name, container string, index int) (string, error) {
	dir, err := os.OpenFile(volume, unix.O_PATH|unix.O_DIRECTORY, 0)
	if err != nil {
		return "", fmt.Errorf("open volume: %w", err)
	}
	defer dir.Close()
	root, err := os.OpenRoot(descriptorPath(dir))
	if err != nil {
		return "", fmt.Errorf("open volume: %w", err)
	}
	defer root.Close()
	if !filepath.IsLocal(sub) {
		return "", fmt.Errorf("subPath %q leaves the volume", sub)
	}
	if _, err := root.Stat(sub); errors.Is(err, fs.ErrNotExist) {
		if err := root.MkdirAll(sub, 0o750); err != nil {
			return "", fmt.Errorf("make %s: %w", sub, err)
		}
		if err := inherit(root, sub); err != nil {
			return "", err
		}
	}
	f, err := openBeneath(dir, sub)
	if err != nil {
		return "", fmt.Errorf("open %s: %w", sub, err)
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return "", fmt.Errorf("look at %s: %w", sub, err)
	}
	to := filepath.Join(p.Dir, "volume-subpaths", name, container, strconv.Itoa(index))
	if err := unix.Unmount(to, unix.MNT_DETACH); err != nil && err != unix.EINVAL && err != unix.ENOENT {
		return "", fmt.Errorf("release old subPath: %w", err)
	}
	// Not RemoveAll: were anything still mounted here, it would be the volume's content.
	if err := os.Remove(to); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return "", fmt.Errorf("clear old subPath: %w", err)
	}
	if err := placeholder(to, st.IsDir()); err != nil {
		return "", err
	}
	if err := unix.Mount(descriptorPath(f), to, "", unix.MS_BIND|unix.MS_REC, ""); err != nil {
		return "", fmt.Errorf("bind %s: %w", sub, err)
	}
	return to, nil
}

// openTries bounds the repetitions of an open that a rename elsewhere disturbs.
const openTries = 16

// openBeneath opens what sub leads to, links followed, as long as the way stays below dir. An os.Root would not do: with
// O_PATH it hands out a link itself, and the mount of a link is followed later, from the root of the host.
func openBeneath(dir *os.File, sub string) (*os.File, error) {
	how := &unix.OpenHow{Flags: unix.O_PATH | unix.O_CLOEXEC, Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_MAGICLINKS}
	for try := 1; ; try++ {
		fd, err := unix.Openat2(int(dir.Fd()), sub, how)
		switch {
		case err == nil:
			return os.NewFile(uintptr(fd), sub), nil
		case err == unix.EXDEV:
			return nil, fmt.Errorf("subPath %q leaves the volume", sub)
		case (err != unix.EAGAIN && err != unix.EINTR) || try == openTries:
			return nil, err
		}
	}
}

// descriptorPath leads to what an open file is, whatever its name leads to by now.
func descriptorPath(f *os.File) string { return fmt.Sprintf("/proc/self/fd/%d", f.Fd()) }

// inherit gives a new folder the mode of its volume.
func inherit(root *os.Root, sub string) error {
	st, err := root.Stat(".")
	if err != nil {
		return fmt.Errorf("look at volume: %w", err)
	}
	if err := root.Chmod(sub, st.Mode()&(os.ModePerm|os.ModeSetgid)); err != nil {
		return fmt.Errorf("set mode of %s: %w", sub, err)
	}
	return nil
}

func placeholder(path string, dir bool) error {
	if dir {
		return os.MkdirAll(path, 0o755)
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	return os.WriteFile(path, nil, 0o644)
}
