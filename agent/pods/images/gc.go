package images

import (
	"context"
	"fmt"
	"math"
	"slices"
	"sort"
	"time"

	"github.com/containerd/containerd/v2/core/images"
	"golang.org/x/sys/unix"

	"github.com/podvine/podvine/agent/pods/runtime"
)

// Thresholds of image garbage collection, in percent of the disk.
type Thresholds struct {
	// HighPercent of use starts it, LowPercent is what it aims for.
	HighPercent, LowPercent int
	// MinAge spares images used more recently.
	MinAge time.Duration
}

// DefaultThresholds are Kubernetes'.
func DefaultThresholds() Thresholds {
	return Thresholds{HighPercent: 85, LowPercent: 80, MinAge: 2 * time.Minute}
}

// Usage is how full a disk is.
type Usage struct {
	CapacityBytes, AvailableBytes uint64
	// Inodes is how many files there may be; 0 where that is not fixed.
	Inodes, InodesFree uint64
}

// DiskUsage looks at the file system that holds dir.
func DiskUsage(dir string) (Usage, error) {
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		return Usage{}, fmt.Errorf("look at disk: %w", err)
	}
	return Usage{st.Blocks * uint64(st.Bsize), st.Bavail * uint64(st.Bsize), st.Files, st.Ffree}, nil
}

// Candidate is an image that may go.
type Candidate struct {
	Name, Digest string
	SizeBytes    int64
	LastUsed     time.Time
}

// Excess is how many bytes must go to reach the low mark; 0 below the high one.
func Excess(u Usage, t Thresholds) int64 {
	if u.CapacityBytes == 0 {
		return 0
	}
	used := 100 - int(u.AvailableBytes*100/u.CapacityBytes)
	if used < t.HighPercent {
		return 0
	}
	return int64(u.CapacityBytes)*int64(100-t.LowPercent)/100 - int64(u.AvailableBytes)
}

// Choose picks the images to remove, least recently used first, until free
// bytes are gained. It is pure.
func Choose(all []Candidate, inUse map[string]bool, free int64, now time.Time, minAge time.Duration) []Candidate {
	sort.Slice(all, func(i, j int) bool { return all[i].LastUsed.Before(all[j].LastUsed) })
	var out []Candidate
	for _, c := range all {
		if free <= 0 {
			break
		}
		if inUse[c.Digest] || now.Sub(c.LastUsed) < minAge {
			continue
		}
		out = append(out, c)
		free -= c.SizeBytes
	}
	return out
}

// Collect removes unused images when the disk at dir is fuller than the high
// mark, or with all set every image that is not in use. inUse names config digests of running containers' images.
func (s *Store) Collect(ctx context.Context, dir string, t Thresholds, inUse map[string]bool, all bool) (removed int, err error) {
	u, err := DiskUsage(dir)
	if err != nil {
		return 0, err
	}
	free := Excess(u, t)
	if all {
		free = math.MaxInt64
	}
	if free <= 0 {
		return 0, nil
	}
	have, err := s.rt.Images(ctx)
	if err != nil {
		return 0, err
	}
	for _, c := range Choose(s.candidates(have), inUse, free, time.Now(), t.MinAge) {
		if err := s.Remove(ctx, c.Name); err != nil {
			return removed, err
		}
		removed++
	}
	return removed, s.rt.CollectGarbage(ctx)
}

func (s *Store) candidates(all []runtime.ImageInfo) []Candidate {
	s.mu.Lock()
	defer s.mu.Unlock()
	var out []Candidate
	for _, i := range all {
		if record, ok := s.imported(i.Name); ok && string(record.Digest) == i.Digest && slices.Contains(record.Keepers, s.config.NodeName) {
			continue // no registry could give it back
		}
		last := s.used[i.ConfigDigest]
		if i.CreatedAt.After(last) {
			last = i.CreatedAt
		}
		out = append(out, Candidate{i.Name, i.ConfigDigest, i.SizeBytes, last})
	}
	return out
}

// Remove takes one name out of the store.
func (s *Store) Remove(ctx context.Context, name string) error {
	if err := s.rt.Client().ImageService().Delete(s.rt.Context(ctx), name, images.SynchronousDelete()); err != nil {
		return fmt.Errorf("remove image %s: %w", name, err)
	}
	s.notify()
	return nil
}
