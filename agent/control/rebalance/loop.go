// Package rebalance moves pods to nodes that have just joined, one at a time, where the cluster's setting asks for it. The scheduler
// places what is made; without this loop a node that joins stays empty until something is.
//
// Role: [Decide] asks the scheduler's own code which pods of the fullest nodes would be on a node that joined if they were made now; the
// loop has one of them evicted, and waits until its set is whole again. The API's evictions honour disruption budgets: a pod that may not
// go is passed over. The set's loop makes the pod anew, and the scheduler places it.
//
// Ownership: the loop evicts pods and writes nothing else.
//
// Concurrency: as [loop.Driver], with one worker.
package rebalance

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"time"

	v1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"
	appslisters "k8s.io/client-go/listers/apps/v1"
	corelisters "k8s.io/client-go/listers/core/v1"

	"github.com/podvine/podvine/agent/control/loop"
	"github.com/podvine/podvine/agent/control/workloads/dependents"
)

const (
	// key is the only one.
	key = "cluster"
	// offSeconds is how often the setting is looked at while it is off and a node has just joined.
	offSeconds = 15
)

// Loop is the rebalancing loop. Make it with [New].
type Loop struct {
	loop.Controller
	on         func() bool
	nodes      corelisters.NodeLister
	pods       corelisters.PodLister
	sets       appslisters.ReplicaSetLister
	services   corelisters.ServiceLister
	namespaces corelisters.NamespaceLister
	last       types.UID // the set that lost the last pod, at since
	since      time.Time
}

// New makes the loop; on is the cluster's setting. Its client may evict pods.
func New(w loop.Wiring, on func() bool) (*Loop, error) {
	if err := w.Check("rebalance"); err != nil {
		return nil, err
	}
	if on == nil {
		return nil, errors.New("make rebalance loop: the setting is required")
	}
	w.Workers = 1
	core := w.Informers.Core().V1()
	l := &Loop{Controller: loop.NewController(w, "rebalance"), on: on, nodes: core.Nodes().Lister(), pods: core.Pods().Lister(),
		sets: w.Informers.Apps().V1().ReplicaSets().Lister(), services: core.Services().Lister(), namespaces: core.Namespaces().Lister()}
	return l, l.Drive(loop.Config{Name: "rebalance", All: func() []string { return []string{key} }, Reconcile: l.reconcile,
		Sources: []loop.Source{loop.On(core.Nodes().Informer(), func(old, new *v1.Node) []string {
			if now := time.Now(); new != nil && isJoined(new, now) && (old == nil || !isJoined(old, now)) {
				return []string{key}
			}
			return nil
		})}})
}

func (l *Loop) reconcile(ctx context.Context, _ string) (time.Duration, error) {
	if !l.on() {
		nodes, err := l.nodes.List(labels.Everything())
		if err != nil || !slices.ContainsFunc(nodes, func(n *v1.Node) bool { return isJoined(n, time.Now()) }) {
			return 0, err
		}
		return offSeconds * time.Second, nil
	}
	view, err := l.view()
	if err != nil {
		return 0, err
	}
	plan := Decide(view, time.Now(), rand.New(rand.NewPCG(rand.Uint64(), 0)))
	for _, pod := range plan.Candidates {
		gone, err := l.evict(ctx, pod)
		if err != nil {
			return 0, err
		}
		if gone {
			l.last, l.since = controller(pod), time.Now()
			l.Recorder.Eventf(pod, v1.EventTypeNormal, "Rebalanced", "Evicted for a node that joined")
			l.Logger.Info("evicted for a node that joined", "pod", loop.Key(pod), "node", pod.Spec.NodeName)
			break
		}
	}
	return plan.Again, nil
}

// evict tells whether the pod may go.
func (l *Loop) evict(ctx context.Context, pod *v1.Pod) (bool, error) {
	err := l.Client.PolicyV1().Evictions(pod.Namespace).Evict(ctx, &policyv1.Eviction{ObjectMeta: metav1.ObjectMeta{Namespace: pod.Namespace, Name: pod.Name},
		DeleteOptions: &metav1.DeleteOptions{Preconditions: metav1.NewUIDPreconditions(string(pod.UID))}})
	if apierrors.IsTooManyRequests(err) {
		return false, nil // its budget keeps it
	}
	if dependents.Gone(err) != nil {
		return false, fmt.Errorf("evict pod %s: %w", loop.Key(pod), err)
	}
	return err == nil, nil
}

func (l *Loop) view() (view View, err error) {
	all := labels.Everything()
	view = View{Namespaces: map[string]map[string]string{}, Last: l.last, Since: l.since}
	var errs [5]error
	view.Nodes, errs[0] = l.nodes.List(all)
	view.Pods, errs[1] = l.pods.List(all)
	view.Sets, errs[2] = l.sets.List(all)
	view.Services, errs[3] = l.services.List(all)
	namespaces, err := l.namespaces.List(all)
	errs[4] = err
	for _, n := range namespaces {
		view.Namespaces[n.Name] = n.Labels
	}
	return view, errors.Join(errs[:]...)
}
