// Package protection keeps claims for storage from going while pods use them: a claim that is deleted stays, marked as
// terminating, until the last pod with it is gone. In the same way it keeps volumes while a claim has them, and classes of
// volume attributes while a volume or a claim names them.
//
// Role: the API puts a finalizer on each new claim; [InUse] says whether a pod holds the claim, and the loop takes the
// finalizer away when none does. A pod that no node has yet does not count: a node would not start it with a claim that
// is on its way out. Before the finalizer goes, pods are listed anew, because the informer may not show the latest.
//
// Ownership: each loop writes its one finalizer, and nothing else.
//
// Concurrency: as [loop.Driver]; a claim is worked on by one goroutine at a time.
package protection

import (
	"context"
	"fmt"
	"slices"
	"time"

	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	corelisters "k8s.io/client-go/listers/core/v1"
	"k8s.io/client-go/tools/cache"

	"github.com/podvine/podvine/agent/control/loop"
	"github.com/podvine/podvine/agent/control/workloads/dependents"
)

const (
	// Finalizer of claims, which the API sets.
	Finalizer = "kubernetes.io/pvc-protection"
	// claimIndex holds pods by the claims that they name.
	claimIndex = "podvine.io/claims"
)

// Loop is the claim protection loop. Make it with [New].
type Loop struct {
	loop.Controller
	claims corelisters.PersistentVolumeClaimLister
	pods   cache.Indexer
}

// New makes the loop. Its client acts as the pvc-protection-controller.
func New(w loop.Wiring) (*Loop, error) {
	if err := w.Check("claim protection"); err != nil {
		return nil, err
	}
	core := w.Informers.Core().V1()
	pods, claims := core.Pods().Informer(), core.PersistentVolumeClaims()
	err := loop.Index(pods, claimIndex, func(object any) ([]string, error) {
		pod, ok := object.(*v1.Pod)
		if !ok {
			return nil, nil
		}
		return claimsOf(pod), nil
	})
	if err != nil {
		return nil, err
	}
	l := &Loop{Controller: loop.NewController(w, ""), claims: claims.Lister(), pods: pods.GetIndexer()}
	return l, l.Drive(loop.Config{
		Name: "pvcprotection",
		Sources: []loop.Source{
			loop.On(claims.Informer(), func(_, new *v1.PersistentVolumeClaim) []string {
				if new == nil {
					return nil
				}
				return deleted(new)
			}),
			loop.On(pods, podKeys),
		},
		All:       claims.Informer().GetIndexer().ListKeys,
		Reconcile: l.reconcile,
	})
}

// podKeys: only a pod's end may let a claim go.
func podKeys(old, new *v1.Pod) []string {
	if new != nil {
		return nil
	}
	return claimsOf(old)
}

// claimsOf are the keys of the claims that a pod names, those of its ephemeral volumes included.
func claimsOf(pod *v1.Pod) (keys []string) {
	for i := range pod.Spec.Volumes {
		switch v := &pod.Spec.Volumes[i]; {
		case v.PersistentVolumeClaim != nil:
			keys = append(keys, pod.Namespace+"/"+v.PersistentVolumeClaim.ClaimName)
		case v.Ephemeral != nil:
			keys = append(keys, pod.Namespace+"/"+pod.Name+"-"+v.Name)
		}
	}
	return keys
}

// InUse tells whether one of the pods, which are of the claim's namespace, holds the claim. It is pure.
func InUse(claim *v1.PersistentVolumeClaim, pods []*v1.Pod) bool {
	return slices.ContainsFunc(pods, func(pod *v1.Pod) bool {
		return pod.Spec.NodeName != "" && slices.Contains(claimsOf(pod), loop.Key(claim))
	})
}

func (l *Loop) reconcile(ctx context.Context, key string) (time.Duration, error) {
	namespace, name, err := loop.SplitKey(key)
	if err != nil {
		return 0, err
	}
	claim, err := l.claims.PersistentVolumeClaims(namespace).Get(name)
	if err != nil {
		return 0, dependents.Gone(err)
	}
	rest, ok := without(claim, Finalizer)
	if !ok {
		return 0, nil
	}
	shown, err := loop.Indexed[*v1.Pod](l.pods, claimIndex, key)
	if err != nil || InUse(claim, shown) {
		return 0, err
	}
	live, err := l.Client.CoreV1().Pods(namespace).List(ctx, metav1.ListOptions{})
	if err != nil {
		return 0, fmt.Errorf("list pods of %s: %w", namespace, err)
	}
	pods := make([]*v1.Pod, len(live.Items))
	for i := range live.Items {
		pods[i] = &live.Items[i]
	}
	if InUse(claim, pods) {
		return 0, nil
	}
	next := claim.DeepCopy()
	next.Finalizers = rest
	_, err = l.Client.CoreV1().PersistentVolumeClaims(namespace).Update(ctx, next, metav1.UpdateOptions{})
	return 0, dependents.Gone(err)
}
