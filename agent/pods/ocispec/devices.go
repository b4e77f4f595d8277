package ocispec

import (
	"fmt"
	"os"
	"path/filepath"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// maxDeviceDepth bounds the walk below /dev.
const maxDeviceDepth = 4

// hostDevices lists the device nodes below dir for a privileged container.
// Terminals and shared memory are the container's own.
func hostDevices(dir string) ([]specs.LinuxDevice, error) {
	return walkDevices(dir, maxDeviceDepth)
}

func walkDevices(dir string, depth int) ([]specs.LinuxDevice, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, fmt.Errorf("list devices: %w", err)
	}
	var out []specs.LinuxDevice
	for _, e := range entries {
		path := filepath.Join(dir, e.Name())
		switch e.Name() {
		case "pts", "shm", "mqueue", "fd", "console", "ptmx", "core":
			continue
		}
		if e.IsDir() {
			if depth > 0 {
				more, err := walkDevices(path, depth-1)
				if err != nil {
					return nil, err
				}
				out = append(out, more...)
			}
			continue
		}
		var st unix.Stat_t
		if unix.Lstat(path, &st) != nil {
			continue // gone since it was listed
		}
		kind := ""
		switch st.Mode & unix.S_IFMT {
		case unix.S_IFCHR:
			kind = "c"
		case unix.S_IFBLK:
			kind = "b"
		default:
			continue
		}
		mode := os.FileMode(st.Mode & 0o7777)
		uid, gid := st.Uid, st.Gid
		out = append(out, specs.LinuxDevice{
			Path: path, Type: kind, Major: int64(unix.Major(st.Rdev)), Minor: int64(unix.Minor(st.Rdev)),
			FileMode: &mode, UID: &uid, GID: &gid,
		})
	}
	return out, nil
}
