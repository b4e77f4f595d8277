package consensus

import (
	"errors"
	"log/slog"
	"os"
	"sync"

	"golang.org/x/sys/unix"
)

const (
	reserveFile = "reserve"
	// reserveVolumeShare caps the reserve at this part of a small volume.
	reserveVolumeShare = 8
)

// reserve is disk space held back for the moment in which there is no other.
type reserve struct {
	path  string
	bytes int64
	log   *slog.Logger

	mu sync.Mutex
}

// release gives the space back.
func (r *reserve) release() {
	r.mu.Lock()
	defer r.mu.Unlock()
	if err := os.Remove(r.path); err == nil {
		r.log.Warn("disk is full: gave back the reserve", "path", r.path)
	}
}

// fill takes the space unless the volume is nearly full.
func (r *reserve) fill() {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.bytes <= 0 {
		return
	}
	var fs unix.Statfs_t
	if err := unix.Statfs(r.path[:len(r.path)-len(reserveFile)], &fs); err != nil {
		r.log.Debug("measure volume", "error", err)
		return
	}
	size := min(r.bytes, int64(fs.Blocks)*fs.Bsize/reserveVolumeShare)
	if st, err := os.Stat(r.path); err == nil && st.Size() == size || int64(fs.Bavail)*fs.Bsize < 2*size {
		return
	}
	if err := allocate(r.path, size); err != nil {
		r.log.Debug("hold back disk space", "error", err)
	}
}

func allocate(path string, size int64) error {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	err = errors.Join(unix.Fallocate(int(f.Fd()), 0, 0, size), f.Close())
	if err != nil {
		err = errors.Join(err, os.Remove(path))
	}
	return err
}
