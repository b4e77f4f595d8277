// Package cronjob starts the Jobs of CronJobs when their time comes.
//
// Role: [Decide] looks at a CronJob, its jobs and the time, and plans one step: note what ended, delete what is too old, and
// start the job that is due. Of starts that were missed, by whatever reason and for however long, the latest is made up for.
// The loop carries the plan out.
//
// Ownership: the loop writes the status of CronJobs, and makes and deletes their jobs; what a job does is agent/control/workloads/job's.
//
// Started once: a job's name is that of the minute that it is for. Before one is started, the CronJob is read from the API: when it
// differs from what the decision was made on, there is none. The status that notes the start is written under the same version.
//
// Concurrency: as [loop.Driver]; a CronJob is worked on by one goroutine at a time.
package cronjob

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	batchv1 "k8s.io/api/batch/v1"
	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/tools/reference"

	"github.com/podvine/podvine/agent/control/loop"
	"github.com/podvine/podvine/agent/control/workloads/dependents"
	"github.com/podvine/podvine/agent/control/workloads/job"
)

// Loop is the CronJob loop. Make it with [New].
type Loop struct {
	loop.Controller
	jobs cache.Indexer

	mu sync.Mutex
	// told is what was told last of each CronJob that waits.
	told map[types.UID]string
}

// New checks the configuration and asks the factory for its informers.
func New(w loop.Wiring) (*Loop, error) {
	if err := w.Check("cronjob"); err != nil {
		return nil, err
	}
	batch := w.Informers.Batch().V1()
	jobs := batch.Jobs().Informer()
	l := &Loop{Controller: loop.NewController(w, "cronjob-controller"), jobs: jobs.GetIndexer(), told: map[types.UID]string{}}
	return l, loop.DriveOwners(&l.Controller, loop.Owners[*batchv1.CronJob]{
		Name: "cronjob", Kind: kind().Kind, Informer: batch.CronJobs().Informer(), Dependents: []cache.SharedIndexInformer{jobs},
		Forget: func(c *batchv1.CronJob) { l.setTold(c.UID, "") }, Reconcile: l.reconcile,
	})
}

func (l *Loop) setTold(uid types.UID, told string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if told == "" {
		delete(l.told, uid)
		return
	}
	l.told[uid] = told
}

func (l *Loop) reconcile(ctx context.Context, c *batchv1.CronJob, now time.Time) (time.Duration, error) {
	view, err := l.view(ctx, c)
	if err != nil {
		return 0, err
	}
	plan := Decide(view, now)
	return plan.Again, l.apply(ctx, c, plan)
}

// view reads what a decision needs; jobs that the informer does not show, and the status names, are asked for.
func (l *Loop) view(ctx context.Context, c *batchv1.CronJob) (View, error) {
	all, owned, err := loop.Dependents[*batchv1.Job](l.jobs, c)
	if err != nil {
		return View{}, err
	}
	l.mu.Lock()
	view := View{CronJob: c, Jobs: all[:owned], Told: l.told[c.UID]}
	l.mu.Unlock()
	for _, ref := range c.Status.Active {
		if slices.ContainsFunc(view.Jobs, func(j *batchv1.Job) bool { return j.UID == ref.UID }) {
			continue
		}
		j, err := l.Client.BatchV1().Jobs(c.Namespace).Get(ctx, ref.Name, metav1.GetOptions{})
		if err != nil && !apierrors.IsNotFound(err) {
			return View{}, err
		}
		if err == nil && j.UID == ref.UID {
			view.Jobs = append(view.Jobs, j)
		}
	}
	return view, nil
}

// apply carries the plan out. A job is made only on what is still so, and noted in the status behind it.
func (l *Loop) apply(ctx context.Context, c *batchv1.CronJob, plan Plan) error {
	if plan.Create != nil {
		live, err := l.Client.BatchV1().CronJobs(c.Namespace).Get(ctx, c.Name, metav1.GetOptions{})
		if err != nil {
			return dependents.Gone(err)
		}
		if live.UID != c.UID || live.ResourceVersion != c.ResourceVersion {
			return apierrors.NewConflict(batchv1.Resource("cronjobs"), c.Name, errors.New("it changed since its informer showed it"))
		}
	}
	var errs []error
	for _, j := range plan.Delete {
		errs = append(errs, l.delete(ctx, c, j))
	}
	if err := errors.Join(errs...); err != nil {
		return err
	}
	var failure error
	if plan.Create != nil {
		ref, started, err := l.create(ctx, c, plan.Create)
		failure = err
		if ref != nil {
			plan.Status.Active = append(plan.Status.Active, *ref)
		}
		if started {
			plan.Status.LastScheduleTime = &metav1.Time{Time: plan.At}
		}
	}
	if !equality.Semantic.DeepEqual(c.Status, plan.Status) {
		next := c.DeepCopy()
		next.Status = plan.Status
		if _, err := l.Client.BatchV1().CronJobs(c.Namespace).UpdateStatus(ctx, next, metav1.UpdateOptions{}); err != nil {
			return errors.Join(failure, dependents.Gone(err))
		}
	}
	l.tell(c, plan)
	return failure
}

// tell has the events come behind the status, so that what was decided on an old one, and is refused, is not told twice.
func (l *Loop) tell(c *batchv1.CronJob, plan Plan) {
	l.setTold(c.UID, plan.Told)
	for _, e := range plan.Events {
		l.Recorder.Event(c, e.Type, e.Reason, e.Message)
	}
}

// create makes the job and returns what the status says of it while it runs. One that is there already is taken on if it is this
// CronJob's: it was made and not noted, or for another start in the same minute.
func (l *Loop) create(ctx context.Context, c *batchv1.CronJob, j *batchv1.Job) (ref *v1.ObjectReference, started bool, err error) {
	made, err := l.Client.BatchV1().Jobs(j.Namespace).Create(ctx, j, metav1.CreateOptions{})
	switch {
	case apierrors.HasStatusCause(err, v1.NamespaceTerminatingCause):
		return nil, false, nil // nothing can be made there any more, and this goes too
	case apierrors.IsAlreadyExists(err):
		there, getErr := l.Client.BatchV1().Jobs(j.Namespace).Get(ctx, j.Name, metav1.GetOptions{})
		if getErr != nil {
			return nil, false, getErr
		}
		if !metav1.IsControlledBy(there, c) {
			l.Recorder.Eventf(c, v1.EventTypeWarning, "FailedCreate", "Error creating job: %v", err)
			return nil, false, nil // it may be there for long; the next start has another name
		}
		made = there
	case err != nil:
		l.Recorder.Eventf(c, v1.EventTypeWarning, "FailedCreate", "Error creating job: %v", err)
		return nil, false, err
	default:
		l.Recorder.Eventf(c, v1.EventTypeNormal, "SuccessfulCreate", "Created job %v", made.Name)
	}
	if job.End(&made.Status) != nil {
		return nil, true, nil
	}
	ref, err = reference.GetReference(scheme.Scheme, made)
	if err != nil {
		return nil, false, fmt.Errorf("refer to job %s/%s: %w", made.Namespace, made.Name, err)
	}
	return ref, true, nil
}

func (l *Loop) delete(ctx context.Context, c *batchv1.CronJob, j *batchv1.Job) error {
	background := metav1.DeletePropagationBackground
	err := l.Client.BatchV1().Jobs(j.Namespace).Delete(ctx, j.Name, metav1.DeleteOptions{PropagationPolicy: &background, Preconditions: metav1.NewUIDPreconditions(string(j.UID))})
	switch {
	case apierrors.IsNotFound(err):
		return nil
	case err != nil:
		l.Recorder.Eventf(c, v1.EventTypeWarning, "FailedDelete", "Deleted job: %v", err)
		return err
	}
	l.Recorder.Eventf(c, v1.EventTypeNormal, "SuccessfulDelete", "Deleted job %v", j.Name)
	return nil
}
