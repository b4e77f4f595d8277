// Package volumes makes a pod's volumes on the node and says how a container
// mounts them.
//
// Role: Setup makes what is missing and brings volumes of objects up to date
// (atomically), Mounts translates volumeMounts, Teardown removes everything.
// All three may be repeated.
//
// Ownership: a pod's volumes lie below one folder of its own; host paths are
// never removed. Concurrency: calls for one pod must not overlap.
package volumes

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"

	"github.com/podvine/podvine/agent/pods/environ"
)

// Tokens issues service-account tokens.
type Tokens interface {
	// Token returns a token that is valid for a good while yet, and when to ask
	// for the next one.
	Token(ctx context.Context, pod *corev1.Pod, src *corev1.ServiceAccountTokenProjection) (token string, refresh time.Time, err error)
}

// Pod is the context of all calls for one pod.
type Pod struct {
	// Dir holds volumes and subpath mounts.
	Dir    string
	Facts  environ.Facts
	Source environ.Source
	Tokens Tokens
}

// Setup makes or updates the pod's volumes; refresh is when a token asks for
// the next call, zero for never.
func Setup(ctx context.Context, p Pod) (refresh time.Time, err error) {
	for i := range p.Facts.Pod.Spec.Volumes {
		v := &p.Facts.Pod.Spec.Volumes[i]
		at, err := p.setup(ctx, v)
		if err != nil {
			return time.Time{}, fmt.Errorf("MountVolume.SetUp failed for volume %q : %w", v.Name, err)
		}
		if !at.IsZero() && (refresh.IsZero() || at.Before(refresh)) {
			refresh = at
		}
	}
	return refresh, nil
}

func (p Pod) fsGroup() *int64 {
	if sc := p.Facts.Pod.Spec.SecurityContext; sc != nil {
		return sc.FSGroup
	}
	return nil
}

func plugin(v *corev1.Volume) string {
	switch {
	case v.EmptyDir != nil:
		return "empty-dir"
	case v.ConfigMap != nil:
		return "configmap"
	case v.Secret != nil:
		return "secret"
	case v.Projected != nil:
		return "projected"
	case v.DownwardAPI != nil:
		return "downward-api"
	}
	return ""
}

// path is the volume's place on the host.
func (p Pod) path(v *corev1.Volume) (string, error) {
	if v.HostPath != nil {
		return filepath.Clean(v.HostPath.Path), nil
	}
	kind := plugin(v)
	if kind == "" {
		return "", errors.New("this kind of volume is not supported by this version")
	}
	return filepath.Join(p.Dir, "volumes", "kubernetes.io~"+kind, v.Name), nil
}

func (p Pod) setup(ctx context.Context, v *corev1.Volume) (time.Time, error) {
	dir, err := p.path(v)
	if err != nil {
		return time.Time{}, err
	}
	if v.HostPath != nil {
		return time.Time{}, hostPath(v.HostPath)
	}
	if v.EmptyDir != nil {
		return time.Time{}, p.emptyDir(dir, v.EmptyDir)
	}
	c := content{pod: p, files: map[string]File{}}
	if err := c.volume(ctx, v); err != nil {
		return time.Time{}, err
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return time.Time{}, fmt.Errorf("make volume folder: %w", err)
	}
	if c.secret {
		if err := ensureTmpfs(dir, "mode=755"); err != nil {
			return time.Time{}, err
		}
	}
	if g := p.fsGroup(); g != nil {
		if err := os.Lchown(dir, -1, int(*g)); err != nil {
			return time.Time{}, fmt.Errorf("own volume: %w", err)
		}
	}
	_, err = WriteAtomic(dir, c.files, p.fsGroup())
	return c.refresh, err
}

func ensureTmpfs(dir, opts string) error {
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		return fmt.Errorf("look at volume: %w", err)
	}
	var parent unix.Statfs_t
	if err := unix.Statfs(filepath.Dir(dir), &parent); err != nil {
		return fmt.Errorf("look at volume's parent: %w", err)
	}
	if st.Type == unix.TMPFS_MAGIC && st.Fsid != parent.Fsid {
		return nil
	}
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, opts); err != nil {
		return fmt.Errorf("mount tmpfs: %w", err)
	}
	return nil
}

// emptyDir makes the volume. One that is there is its user's: its mode is not touched again.
func (p Pod) emptyDir(dir string, v *corev1.EmptyDirVolumeSource) error {
	mode, group := uint32(0o777), -1
	if g := p.fsGroup(); g != nil {
		mode, group = mode|unix.S_ISGID, int(*g)
	}
	switch v.Medium {
	case corev1.StorageMediumDefault:
		return makeFolder(dir, mode, group)
	case corev1.StorageMediumMemory:
		if err := os.MkdirAll(dir, 0o777); err != nil {
			return fmt.Errorf("make volume folder: %w", err)
		}
		opts := fmt.Sprintf("mode=%o", mode)
		if group >= 0 {
			opts += fmt.Sprintf(",gid=%d", group)
		}
		if v.SizeLimit != nil && !v.SizeLimit.IsZero() {
			opts += fmt.Sprintf(",size=%d", v.SizeLimit.Value())
		}
		return ensureTmpfs(dir, opts)
	}
	if page, err := p.hugePage(v); err != nil || page != "" {
		if err != nil {
			return err
		}
		return ensureHuge(dir, page, mode, group)
	}
	return fmt.Errorf("emptyDir medium %q is not supported by this version", v.Medium)
}

// makeFolder makes dir with its mode and group at once, unless it is there.
func makeFolder(dir string, mode uint32, group int) error {
	if _, err := os.Lstat(dir); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	// No volume's name begins with a dot.
	fresh := filepath.Join(filepath.Dir(dir), ".new-"+filepath.Base(dir))
	if err := os.MkdirAll(fresh, 0o700); err != nil {
		return fmt.Errorf("make volume folder: %w", err)
	}
	if err := os.Lchown(fresh, -1, group); err != nil {
		return fmt.Errorf("own volume: %w", err)
	}
	if err := unix.Chmod(fresh, mode); err != nil {
		return fmt.Errorf("set mode of volume: %w", err)
	}
	if err := os.Rename(fresh, dir); err != nil {
		return fmt.Errorf("name volume folder: %w", err)
	}
	return nil
}

func hostPath(v *corev1.HostPathVolumeSource) error {
	kind := corev1.HostPathUnset
	if v.Type != nil {
		kind = *v.Type
	}
	switch kind {
	case corev1.HostPathUnset:
		return nil
	case corev1.HostPathDirectoryOrCreate:
		if err := os.MkdirAll(v.Path, 0o755); err != nil {
			return fmt.Errorf("make host folder: %w", err)
		}
	case corev1.HostPathFileOrCreate:
		f, err := os.OpenFile(v.Path, os.O_CREATE|os.O_WRONLY, 0o644)
		if err != nil {
			return fmt.Errorf("make host file: %w", err)
		}
		f.Close()
	}
	st, err := os.Stat(v.Path)
	if err != nil {
		return fmt.Errorf("hostPath type check failed: %s is not a %s", v.Path, kindWords(kind))
	}
	m := st.Mode()
	ok := map[corev1.HostPathType]bool{
		corev1.HostPathDirectoryOrCreate: m.IsDir(), corev1.HostPathDirectory: m.IsDir(),
		corev1.HostPathFileOrCreate: m.IsRegular(), corev1.HostPathFile: m.IsRegular(),
		corev1.HostPathSocket:   m&os.ModeSocket != 0,
		corev1.HostPathCharDev:  m&os.ModeCharDevice != 0,
		corev1.HostPathBlockDev: m&os.ModeDevice != 0 && m&os.ModeCharDevice == 0,
	}[kind]
	if !ok {
		return fmt.Errorf("hostPath type check failed: %s is not a %s", v.Path, kindWords(kind))
	}
	return nil
}

func kindWords(k corev1.HostPathType) string {
	switch k {
	case corev1.HostPathDirectory, corev1.HostPathDirectoryOrCreate:
		return "directory"
	case corev1.HostPathFile, corev1.HostPathFileOrCreate:
		return "file"
	case corev1.HostPathSocket:
		return "socket file"
	case corev1.HostPathCharDev:
		return "character device"
	case corev1.HostPathBlockDev:
		return "block device"
	}
	return string(k)
}

// OverLimit names the first emptyDir on disk that holds more than its
// sizeLimit; "" when none does. It reads every file's size, so call it rarely.
func OverLimit(p Pod) (name, limit string) {
	for i := range p.Facts.Pod.Spec.Volumes {
		v := &p.Facts.Pod.Spec.Volumes[i]
		if !Limited(v) {
			continue
		}
		dir, err := p.path(v)
		if err != nil {
			continue
		}
		var used int64
		walkErr := filepath.WalkDir(dir, func(_ string, d fs.DirEntry, err error) error {
			if err != nil {
				return nil //nolint:nilerr // it went while we looked
			}
			if info, err := d.Info(); err == nil {
				if st, ok := info.Sys().(*syscall.Stat_t); ok {
					used += st.Blocks * statBlockBytes
				}
			}
			return nil
		})
		if walkErr == nil && used > v.EmptyDir.SizeLimit.Value() {
			return v.Name, v.EmptyDir.SizeLimit.String()
		}
	}
	return "", ""
}

// statBlockBytes is the unit in which stat counts blocks.
const statBlockBytes = 512

// Limited tells whether a volume's size has to be watched from outside.
func Limited(v *corev1.Volume) bool {
	e := v.EmptyDir
	return e != nil && e.Medium == corev1.StorageMediumDefault && e.SizeLimit != nil && !e.SizeLimit.IsZero()
}

// Teardown unmounts and removes everything below the pod's folder.
func Teardown(dir string) error {
	if err := unmountBelow(dir); err != nil {
		return err
	}
	if err := os.RemoveAll(dir); err != nil {
		return fmt.Errorf("remove volumes: %w", err)
	}
	return nil
}

// unmountBelow leaves no mount below dir, or fails: what follows removes files.
func unmountBelow(dir string) error {
	mounts, err := mountsBelow(dir)
	if err != nil {
		return err
	}
	for i := len(mounts) - 1; i >= 0; i-- {
		if err := unix.Unmount(mounts[i], unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW); err != nil && !errors.Is(err, fs.ErrNotExist) && err != unix.EINVAL {
			return fmt.Errorf("unmount %s: %w", mounts[i], err)
		}
	}
	if mounts, err = mountsBelow(dir); err != nil {
		return err
	}
	if len(mounts) > 0 {
		return fmt.Errorf("still mounted: %s", strings.Join(mounts, ", "))
	}
	return nil
}

func mountsBelow(dir string) ([]string, error) {
	// The kernel lists mounts by where they are, and a kubelet folder is often a link to a larger disk.
	dir, err := filepath.EvalSymlinks(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err == nil {
		dir, err = filepath.Abs(dir)
	}
	if err != nil {
		return nil, fmt.Errorf("find mounts below a folder: %w", err)
	}
	raw, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return nil, fmt.Errorf("list mounts: %w", err)
	}
	var out []string
	unescape := strings.NewReplacer(`\040`, " ", `\011`, "\t", `\012`, "\n", `\134`, `\`)
	for line := range strings.Lines(string(raw)) {
		f := strings.Fields(line)
		if len(f) < 5 {
			continue
		}
		if at := unescape.Replace(f[4]); strings.HasPrefix(at, dir+"/") {
			out = append(out, at)
		}
	}
	return out, nil
}
