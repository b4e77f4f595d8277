// Package dependents carries out what the workload loops decided about the objects that they own: adopt, release,
// create in batches, delete.
//
// Role: each write is safe to repeat and made under what was decided on: an adoption is confirmed by a live read of
// the owner and made under the dependent's UID, a deletion under the UID too. What is gone already counts as done.
//
// Ownership: the package owns nothing; the loop's [loop.Pending] remembers what was done through [Pods].
//
// Concurrency: all functions are safe for concurrent use.
package dependents

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"sync"
	"time"

	v1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/record"

	"github.com/podvine/podvine/agent/control/loop"
)

const (
	// firstBatch is how many objects are created before the first success is seen; batches double from there.
	firstBatch = 1
	// parallelWrites bounds one owner's requests under way.
	parallelWrites = 32
)

// Confirm says whether the owner still is what the informer showed, by what a live read of it gave: a wrong adoption
// would be deleted with its owner.
func Confirm(owner metav1.Object, live metav1.Object, err error) error {
	if err != nil {
		return fmt.Errorf("confirm adopter %s/%s: %w", owner.GetNamespace(), owner.GetName(), err)
	}
	if live.GetUID() != owner.GetUID() || live.GetDeletionTimestamp() != nil {
		return fmt.Errorf("adopt objects: %s/%s is not what it was (uid %s)", owner.GetNamespace(), owner.GetName(), owner.GetUID())
	}
	return nil
}

// Adoption is the strategic merge patch that makes the owner the dependent's controller.
func Adoption(dependent, owner metav1.Object, kind schema.GroupVersionKind) ([]byte, error) {
	return ownership(dependent, metav1.NewControllerRef(owner, kind))
}

// Release is the strategic merge patch that ends the owner's ownership.
func Release(dependent, owner metav1.Object) ([]byte, error) {
	return ownership(dependent, map[string]any{"$patch": "delete", "uid": owner.GetUID()})
}

func ownership(dependent metav1.Object, reference any) ([]byte, error) {
	patch, err := json.Marshal(map[string]any{"metadata": map[string]any{
		"uid": dependent.GetUID(), "ownerReferences": []any{reference}}})
	if err != nil {
		return nil, fmt.Errorf("encode owner of %s: %w", dependent.GetName(), err)
	}
	return patch, nil
}

// Released is the error of a release, nil where the dependent is gone or someone else's by now.
func Released(err error) error {
	if apierrors.IsNotFound(err) || apierrors.IsInvalid(err) {
		return nil
	}
	return err
}

// Gone is the error of a write, nil where the object is gone.
func Gone(err error) error {
	if apierrors.IsNotFound(err) {
		return nil
	}
	return err
}

// Pods writes the pods of one kind of owner, and tells of it in the words of Kubernetes' controllers.
type Pods struct {
	Client   kubernetes.Interface
	Recorder record.EventRecorder
	// Pending remembers what was created and deleted.
	Pending *loop.Pending
	// Kind of the owners.
	Kind schema.GroupVersionKind
}

// Claim adopts and releases pods. live reads the owner from the API.
func (p Pods) Claim(ctx context.Context, owner loop.Owner, adopt, release []*v1.Pod, live func() (metav1.Object, error)) error {
	if len(adopt) > 0 {
		object, err := live()
		if err := Confirm(owner, object, err); err != nil {
			return err
		}
	}
	var errs []error
	for _, pod := range adopt {
		patch, err := Adoption(pod, owner, p.Kind)
		if err == nil {
			err = p.patch(ctx, pod, patch)
		}
		errs = append(errs, err)
	}
	for _, pod := range release {
		patch, err := Release(pod, owner)
		if err == nil {
			err = Released(p.patch(ctx, pod, patch))
		}
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

func (p Pods) patch(ctx context.Context, pod *v1.Pod, patch []byte) error {
	_, err := p.Client.CoreV1().Pods(pod.Namespace).Patch(ctx, pod.Name, types.StrategicMergePatchType, patch, metav1.PatchOptions{})
	return err
}

// Create makes count pods in doubling batches, so that a template which the API refuses costs few requests. of makes
// the pod of an index.
func (p Pods) Create(ctx context.Context, owner loop.Owner, count int, of func(i int) *v1.Pod) error {
	return InBatches(count, func(i int) error {
		made, err := p.Client.CoreV1().Pods(owner.GetNamespace()).Create(ctx, of(i), metav1.CreateOptions{})
		switch {
		case apierrors.HasStatusCause(err, v1.NamespaceTerminatingCause):
			return nil // nothing can be made there any more, and the owner goes too
		case err != nil:
			p.Recorder.Eventf(owner, v1.EventTypeWarning, "FailedCreate", "Error creating: %v", err)
			return err
		}
		p.Pending.Created(owner.GetUID(), made.UID, time.Now())
		p.Recorder.Eventf(owner, v1.EventTypeNormal, "SuccessfulCreate", "Created pod: %s", made.Name)
		return nil
	})
}

// Delete deletes the pods, each under its UID.
func (p Pods) Delete(ctx context.Context, owner loop.Owner, pods []*v1.Pod) error {
	errs := make([]error, len(pods))
	Parallel(len(pods), func(i int) { errs[i] = p.delete(ctx, owner, pods[i]) })
	return errors.Join(errs...)
}

func (p Pods) delete(ctx context.Context, owner loop.Owner, pod *v1.Pod) error {
	options := metav1.DeleteOptions{Preconditions: metav1.NewUIDPreconditions(string(pod.UID))}
	err := p.Client.CoreV1().Pods(pod.Namespace).Delete(ctx, pod.Name, options)
	switch {
	case apierrors.IsNotFound(err):
		return nil
	case err != nil:
		p.Recorder.Eventf(owner, v1.EventTypeWarning, "FailedDelete", "Error deleting: %v", err)
		return err
	}
	p.Pending.Deleted(owner.GetUID(), pod.UID, time.Now())
	p.Recorder.Eventf(owner, v1.EventTypeNormal, "SuccessfulDelete", "Deleted pod: %s", pod.Name)
	return nil
}

// InBatches calls f for 0 to count-1 in batches that double, and stops after the first batch with a failure, of which
// it returns one: they are alike.
func InBatches(count int, f func(i int) error) error {
	done := 0
	for batch := min(count, firstBatch); batch > 0; batch = min(2*batch, count-done) {
		errs := make([]error, batch)
		Parallel(batch, func(i int) { errs[i] = f(done + i) })
		for _, err := range errs {
			if err != nil {
				return err
			}
		}
		done += batch
	}
	return nil
}

// Parallel calls f for 0 to count-1, a bounded number at a time.
func Parallel(count int, f func(int)) {
	var group sync.WaitGroup
	slots := make(chan struct{}, parallelWrites)
	for i := range count {
		slots <- struct{}{}
		group.Go(func() {
			defer func() { <-slots }()
			f(i)
		})
	}
	group.Wait()
}
