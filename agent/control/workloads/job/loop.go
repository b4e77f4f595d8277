// Package job runs the pods of Jobs until enough of them have succeeded, or too many have failed.
//
// Role: [Decide] looks at a job and its pods and plans one step: count the pods that ended, see whether that ends the job,
// end pods that are too many and make those that are missing. The loop carries the plan out.
//
// Ownership: the loop writes the job's status, its pods, and their finalizer. Jobs that are managed by another are left alone.
//
// Counting: a pod keeps its finalizer until its end stands in the status, and becomes a number there only once it has lost
// it. So each pod counts, and counts once, whenever the loop stops between two writes, and whoever deletes the pod.
//
// Reading behind its own writes: no pods are made while one that was made is not shown yet, and deletions count as done
// ([loop.Pending]).
//
// Concurrency: as [loop.Driver]; a job is worked on by one goroutine at a time.
package job

import (
	"context"
	"time"

	batchv1 "k8s.io/api/batch/v1"
	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/tools/cache"

	"github.com/podvine/podvine/agent/control/loop"
)

// Loop is the Job loop. Make it with [New].
type Loop struct {
	loop.Controller
	podIndex cache.Indexer
}

// kind is that of the owners.
func kind() schema.GroupVersionKind { return batchv1.SchemeGroupVersion.WithKind("Job") }

// New checks the configuration and asks the factory for its informers.
func New(w loop.Wiring) (*Loop, error) {
	if err := w.Check("job"); err != nil {
		return nil, err
	}
	jobs, podInformer := w.Informers.Batch().V1().Jobs().Informer(), w.Informers.Core().V1().Pods().Informer()
	l := &Loop{Controller: loop.NewController(w, "job-controller"), podIndex: podInformer.GetIndexer()}
	return l, loop.DriveOwners(&l.Controller, loop.Owners[*batchv1.Job]{
		Name: "job", Kind: kind().Kind, Informer: jobs, Dependents: []cache.SharedIndexInformer{podInformer},
		Selector:  func(j *batchv1.Job) *metav1.LabelSelector { return j.Spec.Selector },
		Reconcile: l.reconcile,
	})
}

func (l *Loop) reconcile(ctx context.Context, j *batchv1.Job, now time.Time) (time.Duration, error) {
	all, owned, err := loop.Dependents[*v1.Pod](l.podIndex, j)
	if err != nil {
		return 0, err
	}
	view := View{Job: j, Pods: all}
	unseen, deleted := loop.UnseenOf(l.Pending, j.UID, all[:owned], now)
	view.Unseen, view.Deleted = unseen > 0, deleted
	plan := Decide(view, now)
	return plan.Again, l.apply(ctx, j, plan)
}
