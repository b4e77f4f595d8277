package volumes

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// File is one file of a volume made from objects.
type File struct {
	Data []byte
	Mode os.FileMode
	// UID owns the file when it is set.
	UID *int64
}

const (
	// dataLink points at the folder of the current version.
	dataLink    = "..data"
	dataLinkTmp = "..data_tmp"
)

// WriteAtomic makes dir show exactly files (by relative path): a new version is
// written beside the old one and a link swapped, so that a reader sees either
// the whole old version or the whole new one. It reports whether anything
// changed.
func WriteAtomic(dir string, files map[string]File, gid *int64) (bool, error) {
	current, err := os.Readlink(filepath.Join(dir, dataLink))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return false, fmt.Errorf("read version link: %w", err)
	}
	if err == nil && same(filepath.Join(dir, current), files) {
		return false, nil
	}
	version, err := os.MkdirTemp(dir, "..*"+time.Now().UTC().Format("_2006_01_02_15_04_05"))
	if err != nil {
		return false, fmt.Errorf("make version folder: %w", err)
	}
	if err := os.Chmod(version, 0o755); err != nil {
		return false, fmt.Errorf("open version folder: %w", err)
	}
	for name, f := range files {
		if err := writeOne(version, name, f, gid); err != nil {
			return false, errors.Join(err, os.RemoveAll(version))
		}
	}
	if err := os.RemoveAll(filepath.Join(dir, dataLinkTmp)); err != nil {
		return false, fmt.Errorf("clear version link: %w", err)
	}
	if err := os.Symlink(filepath.Base(version), filepath.Join(dir, dataLinkTmp)); err != nil {
		return false, fmt.Errorf("link version: %w", err)
	}
	if err := os.Rename(filepath.Join(dir, dataLinkTmp), filepath.Join(dir, dataLink)); err != nil {
		return false, fmt.Errorf("swap version: %w", err)
	}
	if err := linkNames(dir, files); err != nil {
		return false, err
	}
	if current != "" {
		if err := os.RemoveAll(filepath.Join(dir, current)); err != nil {
			return false, fmt.Errorf("remove old version: %w", err)
		}
	}
	return true, nil
}

func writeOne(version, name string, f File, gid *int64) error {
	if !filepath.IsLocal(name) {
		return fmt.Errorf("file name %q leaves the volume", name)
	}
	to := filepath.Join(version, name)
	if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
		return fmt.Errorf("make folder for %s: %w", name, err)
	}
	if err := os.WriteFile(to, f.Data, 0o600); err != nil {
		return fmt.Errorf("write %s: %w", name, err)
	}
	mode, uid, group := f.Mode, -1, -1
	if f.UID != nil {
		uid = int(*f.UID)
	}
	if gid != nil {
		group = int(*gid)
		mode |= 0o040 | mode>>3&0o010
	}
	if uid >= 0 || group >= 0 {
		if err := os.Lchown(to, uid, group); err != nil {
			return fmt.Errorf("own %s: %w", name, err)
		}
	}
	if err := unix.Chmod(to, uint32(mode.Perm())); err != nil {
		return fmt.Errorf("set mode of %s: %w", name, err)
	}
	return nil
}

// same compares a version on disk with the files wanted.
func same(version string, files map[string]File) bool {
	n := 0
	err := filepath.WalkDir(version, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() {
			return nil
		}
		rel, err := filepath.Rel(version, path)
		if err != nil {
			return err
		}
		want, ok := files[rel]
		got, err := os.ReadFile(path)
		if err != nil || !ok || !bytes.Equal(got, want.Data) {
			return errors.Join(fs.SkipAll, errDiffers)
		}
		n++
		return nil
	})
	return err == nil && n == len(files)
}

var errDiffers = errors.New("differs")

// linkNames keeps one link for each first path element, and no others.
func linkNames(dir string, files map[string]File) error {
	want := map[string]bool{}
	for name := range files {
		first, _, _ := strings.Cut(name, "/")
		want[first] = true
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return fmt.Errorf("list volume: %w", err)
	}
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), "..") {
			continue
		}
		if want[e.Name()] {
			delete(want, e.Name())
			continue
		}
		if err := os.Remove(filepath.Join(dir, e.Name())); err != nil {
			return fmt.Errorf("unlink %s: %w", e.Name(), err)
		}
	}
	for name := range want {
		if err := os.Symlink(filepath.Join(dataLink, name), filepath.Join(dir, name)); err != nil {
			return fmt.Errorf("link %s: %w", name, err)
		}
	}
	return nil
}
