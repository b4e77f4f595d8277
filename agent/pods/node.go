package pods

import (
	"context"
	"maps"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/types"

	"github.com/podvine/podvine/agent/pods/lifecycle"
	"github.com/podvine/podvine/agent/pods/nodestatus"
)

// nodeState is what is known of our Node object.
type nodeState struct {
	mu     sync.Mutex
	labels map[string]string       // guarded by mu
	alloc  corev1.ResourceList     // guarded by mu
	images []corev1.ContainerImage // guarded by mu
	uid    types.UID               // guarded by mu; "" until the Node is known
	// pressure is what the node is short of, guarded by mu.
	pressure lifecycle.Pressure
}

func (n *nodeState) label(k string) (string, bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	v, ok := n.labels[k]
	return v, ok
}

// nodeUID is our Node's; ok is false until it is known.
func (a *Agent) nodeUID() (uid types.UID, ok bool) {
	a.node.mu.Lock()
	defer a.node.mu.Unlock()
	return a.node.uid, a.node.uid != ""
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
		if n, err := a.reclaimImages(ctx, false); err != nil {
			a.log.Error("collect images", "err", err)
		} else if n > 0 {
			a.log.Info("removed unused images", "images", n)
		}
	}
}

// reclaimImages removes images that no pod uses: as the thresholds say, or all.
func (a *Agent) reclaimImages(ctx context.Context, all bool) (int, error) {
	inUse := map[string]bool{}
	for _, w := range a.all() {
		w.mu.Lock()
		for _, c := range w.rec.Containers {
			inUse[c.ImageID] = true
		}
		w.mu.Unlock()
	}
	return a.images.Collect(ctx, a.cfg.ImageDir, *a.cfg.ImageGC, inUse, all)
}

// keepNode registers the Node and keeps its status true.
func (a *Agent) keepNode(ctx context.Context) {
	var group sync.WaitGroup
	group.Go(func() { a.nodeObject.Run(ctx) })
	defer group.Wait()
	for {
		a.listImages(ctx)
		a.nodeObject.Nudge()
		select {
		case <-ctx.Done():
			return
		case <-a.images.Changed():
		}
	}
}

// maxNodeImages is how many images a Node's status lists, the largest first.
const maxNodeImages = 50

func (a *Agent) listImages(ctx context.Context) {
	all, err := a.images.List(ctx)
	if err != nil {
		a.log.Warn("list images for node status", "err", err)
		return
	}
	list := nodestatus.Images(all, maxNodeImages)
	a.node.mu.Lock()
	a.node.images = list
	a.node.mu.Unlock()
}

func (a *Agent) ownLabels() map[string]string {
	labels := map[string]string{
		corev1.LabelHostname: a.cfg.NodeName, corev1.LabelOSStable: "linux", corev1.LabelArchStable: nodestatus.Arch(),
	}
	maps.Copy(labels, a.cfg.NodeLabels)
	return labels
}

// nodeStatus is what this node says of itself, given what stands in its Node object.
func (a *Agent) nodeStatus(node *corev1.Node) (corev1.NodeStatus, error) {
	facts, err := nodestatus.Probe(a.cfg.DataDir, a.cfg.ImageDir)
	if err != nil {
		return corev1.NodeStatus{}, err
	}
	a.node.mu.Lock()
	a.node.labels = node.Labels
	imgs := a.node.images
	known, pressure := a.node.uid == node.UID, a.node.pressure
	a.node.uid = node.UID
	a.node.mu.Unlock()
	if !known {
		a.static.nudge()
	}
	want := nodestatus.Decide(node.Status, nodestatus.Input{
		Facts: facts, Now: time.Now(), Addresses: a.cfg.NodeIPs, NodeName: a.cfg.NodeName, MaxPods: a.cfg.MaxPods, Reserved: a.cfg.Reserved,
		Port: a.cfg.APIPort, KubeletVersion: a.cfg.KubeletVersion, Images: imgs, Handlers: runtimeHandlers(), Pressure: pressure,
	})
	a.node.mu.Lock()
	more := !equality.Semantic.DeepEqual(a.node.alloc, want.Allocatable)
	a.node.alloc = want.Allocatable
	a.node.mu.Unlock()
	if more {
		a.retryResizes()
	}
	return want, nil
}
