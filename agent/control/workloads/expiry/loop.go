// Package expiry deletes Jobs a while after they ended, where they ask for it (ttlSecondsAfterFinished).
//
// Role: [Decide] says whether a job's time is over; the loop deletes it, and waits for its pods to be gone first.
//
// Ownership: the loop writes nothing and deletes jobs, each under the version that was decided on: one whose time was prolonged
// meanwhile stays.
//
// Concurrency: as [loop.Driver].
package expiry

import (
	"context"
	"time"

	batchv1 "k8s.io/api/batch/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/podvine/podvine/agent/control/loop"
	"github.com/podvine/podvine/agent/control/workloads/dependents"
	"github.com/podvine/podvine/agent/control/workloads/job"
)

// Decide tells whether the job is to be deleted now, and otherwise how long it has left; 0 is until something changes. It is pure.
func Decide(j *batchv1.Job, now time.Time) (over bool, left time.Duration) {
	end := job.End(&j.Status)
	if end == nil || j.Spec.TTLSecondsAfterFinished == nil || j.DeletionTimestamp != nil {
		return false, 0
	}
	left = end.LastTransitionTime.Add(time.Duration(*j.Spec.TTLSecondsAfterFinished) * time.Second).Sub(now)
	return left <= 0, max(left, 0)
}

// New makes the loop.
func New(w loop.Wiring) (*loop.Controller, error) {
	if err := w.Check("ttl-after-finished"); err != nil {
		return nil, err
	}
	c := loop.NewController(w, "ttl-after-finished-controller")
	return &c, loop.DriveOwners(&c, loop.Owners[*batchv1.Job]{Name: "ttl-after-finished", Kind: "Job", Informer: w.Informers.Batch().V1().Jobs().Informer(),
		Reconcile: func(ctx context.Context, j *batchv1.Job, now time.Time) (time.Duration, error) {
			over, left := Decide(j, now)
			if !over {
				return left, nil
			}
			foreground := metav1.DeletePropagationForeground
			return 0, dependents.Gone(c.Client.BatchV1().Jobs(j.Namespace).Delete(ctx, j.Name, metav1.DeleteOptions{PropagationPolicy: &foreground,
				Preconditions: &metav1.Preconditions{UID: &j.UID, ResourceVersion: &j.ResourceVersion}}))
		}})
}
