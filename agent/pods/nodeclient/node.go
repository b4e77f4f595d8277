package nodeclient

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	kruntime "k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/strategicpatch"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/cache"
)

const (
	// checkPeriod is how often the machine is looked at; the API hears of it only when something changed.
	checkPeriod = 10 * time.Second
	retryDelay  = 2 * time.Second
)

// Config is what a node registers with.
type Config struct {
	Client kubernetes.Interface
	Name   string
	// Labels, Annotations and Taints are those with which the Node object is made.
	Labels, Annotations map[string]string
	Taints              []corev1.Taint
	// Status is what is to stand in the Node object's status. It is called by one goroutine.
	Status func(*corev1.Node) (corev1.NodeStatus, error)
	Log    *slog.Logger
}

// Node registers a Node and keeps its status true, writing only what changed. Make it with [New].
type Node struct {
	Config
	trigger chan struct{} // capacity 1
}

// New makes a Node; nothing happens until Run.
func New(config Config) *Node { return &Node{Config: config, trigger: make(chan struct{}, 1)} }

// Nudge has the status be looked at soon.
func (n *Node) Nudge() {
	select {
	case n.trigger <- struct{}{}:
	default:
	}
}

// Run keeps the Node object until ctx ends.
func (n *Node) Run(ctx context.Context) {
	store, controller := n.informer()
	heard := make(chan struct{})
	go func() {
		defer close(heard)
		controller.Run(ctx.Done())
	}()
	defer func() { <-heard }()
	// Of a Node that is not there yet nothing is heard: without this it would be made after the delay of a retry.
	synced := make(chan struct{})
	go func() {
		defer close(synced)
		if cache.WaitForCacheSync(ctx.Done(), controller.HasSynced) {
			n.Nudge()
		}
	}()
	defer func() { <-synced }()
	tick := time.NewTicker(checkPeriod)
	defer tick.Stop()
	retry := time.NewTimer(0)
	defer retry.Stop()
	warned := false
	for {
		if err := n.sync(ctx, store, controller.HasSynced()); err != nil && ctx.Err() == nil {
			if !warned && !errors.Is(err, errUnheard) {
				n.Log.Warn("update node", "err", err)
			}
			warned = warned || !errors.Is(err, errUnheard)
			retry.Reset(retryDelay)
		} else {
			warned = false
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		case <-retry.C:
		case <-n.trigger:
		}
	}
}

func (n *Node) informer() (cache.Store, cache.Controller) {
	nodes := n.Client.CoreV1().Nodes()
	lw := selected(n.Client, fields.OneTermEqualSelector("metadata.name", n.Name).String(),
		func(ctx context.Context, o metav1.ListOptions) (kruntime.Object, error) { return nodes.List(ctx, o) }, nodes.Watch)
	seen := func(any) { n.Nudge() }
	return cache.NewInformerWithOptions(cache.InformerOptions{ListerWatcher: lw, ObjectType: &corev1.Node{}, Handler: cache.ResourceEventHandlerFuncs{
		AddFunc: seen, UpdateFunc: func(_, o any) { seen(o) }, DeleteFunc: seen,
	}})
}

// errUnheard: the API has not answered since this node began.
var errUnheard = errors.New("the API has not answered yet")

func (n *Node) sync(ctx context.Context, store cache.Store, synced bool) error {
	if !synced {
		return errUnheard
	}
	o, ok, err := store.GetByKey(n.Name)
	if err != nil {
		return err
	}
	if !ok {
		return n.register(ctx)
	}
	node, ok := o.(*corev1.Node)
	if !ok {
		return fmt.Errorf("node is a %T", o)
	}
	if node, err = n.complete(ctx, node); err != nil {
		return err
	}
	return n.update(ctx, node)
}

func (n *Node) register(ctx context.Context) error {
	rctx, cancel := context.WithTimeout(ctx, CallTimeout)
	defer cancel()
	made, err := n.Client.CoreV1().Nodes().Create(rctx, &corev1.Node{
		ObjectMeta: metav1.ObjectMeta{Name: n.Name, Labels: n.Labels, Annotations: n.Annotations}, Spec: corev1.NodeSpec{Taints: n.Taints},
	}, metav1.CreateOptions{})
	if apierrors.IsAlreadyExists(err) {
		made, err = n.Client.CoreV1().Nodes().Get(rctx, n.Name, metav1.GetOptions{})
	}
	if err != nil {
		return fmt.Errorf("register node: %w", err)
	}
	return n.update(ctx, made)
}

// complete gives a Node object that somebody made for this node, as a join does, what it would have had from this node.
func (n *Node) complete(ctx context.Context, node *corev1.Node) (*corev1.Node, error) {
	missing := func(have, want map[string]string) map[string]string {
		add := map[string]string{}
		for key, value := range want {
			if _, found := have[key]; !found {
				add[key] = value
			}
		}
		return add
	}
	labels, annotations := missing(node.Labels, n.Labels), missing(node.Annotations, n.Annotations)
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
	ctx, cancel := context.WithTimeout(ctx, CallTimeout)
	defer cancel()
	made, err := n.Client.CoreV1().Nodes().Patch(ctx, node.Name, types.MergePatchType, patch, metav1.PatchOptions{})
	if err != nil {
		return nil, fmt.Errorf("complete node: %w", err)
	}
	return made, nil
}

func (n *Node) update(ctx context.Context, node *corev1.Node) error {
	want, err := n.Status(node)
	if err != nil || equality.Semantic.DeepEqual(node.Status, want) {
		return err
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
	ctx, cancel := context.WithTimeout(ctx, CallTimeout)
	defer cancel()
	if _, err := n.Client.CoreV1().Nodes().Patch(ctx, n.Name, types.StrategicMergePatchType, patch, metav1.PatchOptions{}, "status"); err != nil {
		return fmt.Errorf("report node status: %w", err)
	}
	return nil
}
