package pods

import (
	"context"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
)

// nodeState is what is known of our Node object.
type nodeState struct {
	mu     sync.Mutex
	labels map[string]string   // guarded by mu
	alloc  corev1.ResourceList // guarded by mu
}

func (n *nodeState) label(k string) (string, bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	v, ok := n.labels[k]
	return v, ok
}

func (a *Agent) allocatable() corev1.ResourceList {
	a.node.mu.Lock()
	defer a.node.mu.Unlock()
	return a.node.alloc
}

// imageCheckPeriod is how often the disk of the images is looked at.
const imageCheckPeriod = 5 * time.Minute

// collectImages removes unused images when the disk fills.
func (a *Agent) collectImages(ctx context.Context) {
	t := time.NewTicker(imageCheckPeriod)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-t.C:
		}
		inUse := map[string]bool{}
		for _, w := range a.all() {
			w.mu.Lock()
			for _, c := range w.rec.Containers {
				inUse[c.ImageID] = true
			}
			w.mu.Unlock()
		}
		if n, err := a.images.Collect(ctx, a.cfg.ImageDir, *a.cfg.ImageGC, inUse); err != nil {
			a.log.Error("collect images", "err", err)
		} else if n > 0 {
			a.log.Info("removed unused images", "images", n)
		}
	}
}
