package job

import (
	"context"
	"fmt"
	"time"

	batchv1 "k8s.io/api/batch/v1"
	v1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/tools/cache"

	"github.com/podvine/podvine/agent/control/loop"
)

// Orphans lets pods go that keep the finalizer of jobs and belong to none: nobody counts them any more. Make it with [NewOrphans].
type Orphans struct {
	loop.Controller
	jobs, pods cache.Indexer
}

// NewOrphans makes the loop beside that of the jobs.
func NewOrphans(w loop.Wiring) (*Orphans, error) {
	if err := w.Check("job_orphan_pod"); err != nil {
		return nil, err
	}
	jobs, podInformer := w.Informers.Batch().V1().Jobs().Informer(), w.Informers.Core().V1().Pods().Informer()
	if err := loop.IndexByController(podInformer); err != nil {
		return nil, err
	}
	l := &Orphans{Controller: loop.NewController(w, "job-controller"), jobs: jobs.GetIndexer(), pods: podInformer.GetIndexer()}
	return l, l.Drive(loop.Config{Name: "job_orphan_pod", All: l.all, Reconcile: l.reconcile, Sources: []loop.Source{
		loop.On(podInformer, func(_, new *v1.Pod) []string {
			if new == nil || !tracked(new) {
				return nil
			}
			return []string{loop.Key(new)}
		}),
		loop.On(jobs, l.left),
	}})
}

// all are the pods with the finalizer.
func (l *Orphans) all() []string {
	return loop.KeysWhere(l.pods, metav1.NamespaceAll, tracked)
}

// left are the pods of a job that is gone.
func (l *Orphans) left(old, new *batchv1.Job) (keys []string) {
	if new != nil {
		return nil
	}
	pods, err := loop.Indexed[*v1.Pod](l.pods, loop.ControllerIndex, string(old.UID))
	if err != nil {
		l.Logger.Error("list pods of job", "job", loop.Key(old), "err", err)
	}
	for _, pod := range pods {
		keys = append(keys, loop.Key(pod))
	}
	return keys
}

func (l *Orphans) reconcile(ctx context.Context, key string) (time.Duration, error) {
	object, found, err := l.pods.GetByKey(key)
	if err != nil || !found {
		return 0, err
	}
	pod, ok := object.(*v1.Pod)
	if !ok {
		return 0, fmt.Errorf("read pod %s: unexpected type %T", key, object)
	}
	if !tracked(pod) {
		return 0, nil
	}
	if owner := metav1.GetControllerOfNoCopy(pod); owner != nil && owner.Kind == kind().Kind {
		key := pod.Namespace + "/" + owner.Name
		if there, found, err := l.jobs.GetByKey(key); err != nil || found && there.(*batchv1.Job).UID == owner.UID {
			return 0, err
		}
		// The informer may not show it yet.
		live, err := l.Client.BatchV1().Jobs(pod.Namespace).Get(ctx, owner.Name, metav1.GetOptions{})
		if err != nil && !apierrors.IsNotFound(err) || err == nil && live.UID == owner.UID {
			return 0, err
		}
	}
	return 0, free(ctx, l.Client, pod)
}
