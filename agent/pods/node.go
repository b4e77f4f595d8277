package pods

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	kruntime "k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/strategicpatch"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/tools/cache"

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
	trigger  chan struct{} // capacity 1
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

const (
	// imageCheckPeriod is how often the disk of the images is looked at.
	imageCheckPeriod = 5 * time.Minute
	// pressureCheckPeriod is how often the machine is looked at; the API hears of
	// it only when a condition changes.
	pressureCheckPeriod = 10 * time.Second
	nodeRetryDelay      = 2 * time.Second
)

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

// keepNode registers the Node and keeps its status true, writing only what
// changed.
func (a *Agent) keepNode(ctx context.Context) {
	store, ctl := a.nodeInformer()
	go ctl.Run(ctx.Done())
	a.listImages(ctx)
	tick := time.NewTicker(pressureCheckPeriod)
	defer tick.Stop()
	retry := time.NewTimer(0)
	defer retry.Stop()
	warned := false
	for {
		if err := a.syncNode(ctx, store, ctl.HasSynced()); err != nil && ctx.Err() == nil {
			if !warned && !errors.Is(err, errUnheard) {
				a.log.Warn("update node", "err", err)
			}
			warned = warned || !errors.Is(err, errUnheard)
			retry.Reset(nodeRetryDelay)
		} else {
			warned = false
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		case <-retry.C:
		case <-a.node.trigger:
		case <-a.images.Changed():
			a.listImages(ctx)
		}
	}
}

func (a *Agent) nodeInformer() (cache.Store, cache.Controller) {
	sel := fields.OneTermEqualSelector("metadata.name", a.cfg.NodeName).String()
	nodes := a.cfg.Client.CoreV1().Nodes()
	lw := cache.ToListWatcherWithWatchListSemantics(&cache.ListWatch{
		ListWithContextFunc: func(ctx context.Context, o metav1.ListOptions) (kruntime.Object, error) {
			o.FieldSelector = sel
			return nodes.List(ctx, o)
		},
		WatchFuncWithContext: func(ctx context.Context, o metav1.ListOptions) (watch.Interface, error) {
			o.FieldSelector = sel
			return nodes.Watch(ctx, o)
		},
	}, a.cfg.Client)
	seen := func(any) {
		select {
		case a.node.trigger <- struct{}{}:
		default:
		}
	}
	return cache.NewInformerWithOptions(cache.InformerOptions{ListerWatcher: lw, ObjectType: &corev1.Node{}, Handler: cache.ResourceEventHandlerFuncs{
		AddFunc: seen, UpdateFunc: func(_, o any) { seen(o) }, DeleteFunc: seen,
	}})
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

// errUnheard: the API has not answered since this agent began.
var errUnheard = errors.New("the API has not answered yet")

func (a *Agent) syncNode(ctx context.Context, store cache.Store, synced bool) error {
	if !synced {
		return errUnheard
	}
	o, ok, err := store.GetByKey(a.cfg.NodeName)
	if err != nil {
		return err
	}
	if !ok {
		return a.registerNode(ctx)
	}
	node, ok := o.(*corev1.Node)
	if !ok {
		return fmt.Errorf("node is a %T", o)
	}
	if node, err = a.completeNode(ctx, node); err != nil {
		return err
	}
	return a.updateNode(ctx, node)
}

func (a *Agent) registerNode(ctx context.Context) error {
	rctx, cancel := context.WithTimeout(ctx, apiTimeout)
	defer cancel()
	made, err := a.cfg.Client.CoreV1().Nodes().Create(rctx, &corev1.Node{
		ObjectMeta: metav1.ObjectMeta{Name: a.cfg.NodeName, Labels: a.ownLabels(), Annotations: a.cfg.NodeAnnotations},
		Spec:       corev1.NodeSpec{Taints: a.cfg.NodeTaints},
	}, metav1.CreateOptions{})
	if apierrors.IsAlreadyExists(err) {
		made, err = a.cfg.Client.CoreV1().Nodes().Get(rctx, a.cfg.NodeName, metav1.GetOptions{})
	}
	if err != nil {
		return fmt.Errorf("register node: %w", err)
	}
	return a.updateNode(ctx, made)
}

func (a *Agent) ownLabels() map[string]string {
	labels := map[string]string{
		corev1.LabelHostname: a.cfg.NodeName, corev1.LabelOSStable: "linux", corev1.LabelArchStable: nodestatus.Arch(),
	}
	maps.Copy(labels, a.cfg.NodeLabels)
	return labels
}

// completeNode gives a Node object that somebody made for this node, as a join does, what it would have had from this node.
func (a *Agent) completeNode(ctx context.Context, node *corev1.Node) (*corev1.Node, error) {
	missing := func(have, want map[string]string) map[string]string {
		add := map[string]string{}
		for key, value := range want {
			if _, found := have[key]; !found {
				add[key] = value
			}
		}
		return add
	}
	labels, annotations := missing(node.Labels, a.ownLabels()), missing(node.Annotations, a.cfg.NodeAnnotations)
	if node.Labels[corev1.LabelHostname] != "" {
		labels = nil // it is complete; what is missing now, somebody has taken off
	}
	if len(labels) == 0 && len(annotations) == 0 {
		return node, nil
	}
	patch, err := json.Marshal(map[string]any{"metadata": map[string]any{"labels": labels, "annotations": annotations}})
	if err != nil {
		return nil, fmt.Errorf("complete node: %w", err)
	}
	ctx, cancel := context.WithTimeout(ctx, apiTimeout)
	defer cancel()
	made, err := a.cfg.Client.CoreV1().Nodes().Patch(ctx, node.Name, types.MergePatchType, patch, metav1.PatchOptions{})
	if err != nil {
		return nil, fmt.Errorf("complete node: %w", err)
	}
	return made, nil
}

func (a *Agent) updateNode(ctx context.Context, node *corev1.Node) error {
	facts, err := nodestatus.Probe(a.cfg.DataDir, a.cfg.ImageDir)
	if err != nil {
		return err
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
	if equality.Semantic.DeepEqual(node.Status, want) {
		return nil
	}
	was, err := json.Marshal(&corev1.Node{Status: node.Status})
	if err != nil {
		return fmt.Errorf("encode node status: %w", err)
	}
	now, err := json.Marshal(&corev1.Node{Status: want})
	if err != nil {
		return fmt.Errorf("encode node status: %w", err)
	}
	patch, err := strategicpatch.CreateTwoWayMergePatch(was, now, &corev1.Node{})
	if err != nil {
		return fmt.Errorf("compare node statuses: %w", err)
	}
	pctx, cancel := context.WithTimeout(ctx, apiTimeout)
	defer cancel()
	if _, err := a.cfg.Client.CoreV1().Nodes().Patch(pctx, a.cfg.NodeName, types.StrategicMergePatchType, patch, metav1.PatchOptions{}, "status"); err != nil {
		return fmt.Errorf("report node status: %w", err)
	}
	return nil
}
